"""`[[forward]]`: webhooks that are told of what RainFocus reports as changed there."""

from __future__ import annotations

import json
import re
from typing import Literal

from engine.config.kinds import File, Name, Secret, Table, Variable
from engine.config.problems import Reader, is_loopback, read_secret, split_url
from engine.config.relations import check_rate, check_retry, check_secret
from engine.config.sending import RateConfig, RetryConfig
from engine.errors import ConfigError

RAINFOCUS = "rainfocus"
"""The source that stands for RainFocus itself, at `POST /v1/sources/rainfocus`; keys of it may do nothing else."""

FORWARD_SECRET = ("secret", "secret_env", "secret_file")
_WEBHOOK_SECRET = re.compile(r"(whsec_)?[A-Za-z0-9+/]{32,86}={0,2}").fullmatch


class ForwardConfig(Table, frozen=True, kw_only=True):
    """One `[[forward]]`: exactly one of `secret`, `secret_env` and `secret_file` is set."""

    name: Name = "forward"
    description: str = ""
    url: str = ""
    secret: Secret = ""
    secret_env: Variable = ""
    secret_file: File = ""
    start_at: Literal["now", "oldest"] = "now"
    rate: RateConfig = RateConfig()
    retry: RetryConfig = RetryConfig()

    def secrets(self) -> list[str]:
        """The secrets to sign with: two of them, separated by a blank, while one is being replaced. Raises ConfigError
        when they cannot be had now, or are none, without quoting them."""
        found = read_secret(self.secret, self.secret_env, self.secret_file).split()
        if not all(_WEBHOOK_SECRET(it) for it in found):
            raise ConfigError(["is no webhook secret: 'whsec_' and base64 of 24 to 64 random bytes"])
        return found

    def identity(self) -> str:
        """What its consumer belongs to beside its name: another URL is another consumer."""
        return json.dumps(["webhook", self.url])


def check_forward(forward: ForwardConfig, key: str, drain_timeout_seconds: float, reader: Reader) -> None:
    if not forward.url:
        reader.report(f"{key}.url", "is required; it is where changes are posted to")
    elif what := _url_fault(forward.url):
        reader.report(f"{key}.url", what)
    check_secret(forward, key, FORWARD_SECRET, forward.secrets, reader)
    check_rate(forward.rate, key, reader)
    check_retry(forward.retry, key, drain_timeout_seconds, reader)


def _url_fault(url: str) -> str:
    """What is wrong with it, or "". People's data goes there."""
    try:
        parts = split_url(url)
    except ValueError as error:
        return str(error)
    if parts.query or parts.fragment:
        return "must end with the path; what follows '?' would stand in logs, and the signature says who we are"
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        return "must be https; plain http goes to this machine only"
    return ""
