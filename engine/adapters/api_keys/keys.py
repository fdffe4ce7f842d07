"""All callers: whoever presents a key, or a token that a client got for its secret."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time as time_module
from collections.abc import Callable, Sequence

from engine.adapters.api_keys.callers import Grant, Key
from engine.adapters.api_keys.clients import Client, Clients
from engine.adapters.api_keys.quota import Quota
from engine.adapters.api_keys.tokens import PREFIX
from engine.config import IngressClientConfig, IngressKeyConfig


def _of_this_process() -> bytes:
    return secrets.token_bytes(32)


class Keys:
    """All callers that count now. `clock`: seconds, monotonic. `time`: epoch seconds. `signing_key`: asked for at the
    first token; by default one that ends with the process. Raises ConfigError when a secret cannot be had."""

    def __init__(
        self,
        configs: Sequence[IngressKeyConfig] = (),
        clients: Sequence[IngressClientConfig] = (),
        *,
        clock: Callable[[], float] = time_module.monotonic,
        time: Callable[[], float] = time_module.time,
        signing_key: Callable[[], bytes] | None = None,
    ) -> None:
        self._clock = clock
        self._quotas: dict[str, Quota] = {}
        self._keys: list[tuple[bytes, Key]] = []
        self._clients = Clients(signing_key=signing_key or _of_this_process, time=time, clock=clock)
        self.replace(configs, clients)

    @property
    def required(self) -> bool:
        """False: neither keys nor clients are configured, and everything is open to this machine."""
        return bool(self._keys) or bool(self._clients)

    def replace(self, configs: Sequence[IngressKeyConfig], clients: Sequence[IngressClientConfig] = ()) -> None:
        """Use these from now on. All or none: raises ConfigError with the old ones still in place. What a caller of
        the same name has used of its quota stays used."""
        keys = [(secret, Key.of(config)) for config in configs for secret in config.secrets_sha256()]
        known = [Client.of(config) for config in clients]
        callers = [*(key for _, key in keys), *(client.key for client in known)]
        self._quotas = {it.name: self._quota(it) for it in callers if it.max_events_per_second}
        self._keys = keys
        self._clients.replace(known)

    def prepare(self) -> None:
        """Have at hand what signs tokens, before the first one is asked for. Raises what `signing_key` does."""
        self._clients.prepare()

    def signing_key(self) -> bytes:
        """For another process that is to know the same tokens. Raises what `signing_key` does."""
        return self._clients.signing_key()

    def authenticate(self, authorization: str | None, x_api_key: str | None) -> Key | None:
        """Who that is: `Authorization: Bearer` with a key or a token, or `X-API-Key` with a key; None when it is
        neither. Takes the same time whatever key matches."""
        presented = _bearer(authorization) or (x_api_key or "").strip()
        if presented.startswith(PREFIX) and (found := self._clients.authenticate(presented)) is not None:
            return found
        return self._of_key(presented)

    def _of_key(self, presented: str) -> Key | None:
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(known, digest):
                found = key
        return found if presented else None

    def expired(self, authorization: str | None) -> bool:
        """Whether that was a good token once, and is too old now."""
        return self._clients.expired(_bearer(authorization))

    def grant(self, client_id: str, presented: Sequence[str], scopes: frozenset[str] | None) -> Grant:
        """A token for a client; see `Clients.grant`."""
        return self._clients.grant(client_id, presented, scopes)

    def take(self, name: str, events: int) -> float:
        """Take `events` from the caller's quota: 0.0, or the seconds after which they would pass, with nothing taken.
        A negative number gives back. Without a quota everything passes."""
        quota = self._quotas.get(name)
        return quota.take(events, self._clock()) if quota is not None else 0.0

    def _quota(self, key: Key) -> Quota:
        known, now = self._quotas.get(key.name), self._clock()
        quota = Quota(key.max_events_per_second, now)
        if known is not None:
            quota.level = min(quota.level, known.level_at(now))
        return quota


def _bearer(authorization: str | None) -> str:
    scheme, _, value = (authorization or "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""
