"""`[[alert]]` and `[[notify]]`: what is worth telling, and whom. What each key means: docs/configuration.md."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal, get_args

from msgspec import Meta

from engine.config.kinds import File, Name, Seconds, SecondsOrZero, Secret, Table, Texts, Variable
from engine.config.problems import read_secret
from engine.errors import ConfigError

When = Literal[
    "activation-skipped-rate",
    "run-failed",
    "delivery-delay",
    "breaker-open",
    "token-failing",
    "dead-letters-growing",
    "dead-letters-full",
    "journal-filling",
    "disk-filling",
    "watchdog",
]
SECRET_PREFIX = "whsec_"
SECRET_BYTES = (24, 64)
"""How long a Standard Webhooks secret is at least and at most, decoded."""


class NotifyConfig(Table, frozen=True, kw_only=True):
    """One `[[notify]]`. Of the places of the URL, and of the secret, at most one is set."""

    name: Name = "oncall"
    kind: Literal["webhook", "apprise"] = "webhook"
    url: Secret = ""  # the path of a webhook is often its password
    url_env: Variable = ""
    url_file: File = ""
    secret: Secret = ""
    secret_env: Variable = ""
    secret_file: File = ""
    timeout_seconds: Seconds = 10.0
    built_in: bool = False

    def url_value(self) -> str:
        """Read anew with every call. Raises ConfigError when it cannot be had now, without quoting it."""
        return read_secret(self.url, self.url_env, self.url_file).strip()

    def secret_value(self) -> str:
        """The webhook's signing secret, "whsec_" and base64. Raises ConfigError as above, and when it is none."""
        value = read_secret(self.secret, self.secret_env, self.secret_file).strip()
        try:
            key = base64.b64decode(value.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        shortest, longest = SECRET_BYTES
        if not value.startswith(SECRET_PREFIX) or not shortest <= len(key) <= longest:
            raise ConfigError([f"the secret is not '{SECRET_PREFIX}' and base64 of {shortest} to {longest} bytes"])
        return value


class AlertConfig(Table, frozen=True, kw_only=True):
    """One `[[alert]]`. `threshold` 0: that of its `when`."""

    name: Name = "skipped"
    when: When = "activation-skipped-rate"
    destinations: Texts = ("*",)
    threshold: SecondsOrZero = 0.0
    window_seconds: Annotated[float, Meta(ge=60)] = 3_600.0
    for_seconds: SecondsOrZero = 60.0
    clear_seconds: SecondsOrZero = 60.0
    cooldown_seconds: SecondsOrZero = 3_600.0
    to: tuple[Name, ...] = ()

    @staticmethod
    def whens() -> tuple[str, ...]:
        """What an alert can be about."""
        return get_args(When)
