"""Keys of producers and operators: who calls, what they may do, and how many events a second.

Only SHA-256 sums are kept. The keys have 256 bits of randomness, so a slow hash would protect nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Sequence

import msgspec

from engine.config import IngressKeyConfig, Name

PREFIX = "rfe_"


class Key(msgspec.Struct, frozen=True):
    """`source`: the only source it may write to; "" for all. `max_events_per_second`: 0 for no quota."""

    name: str
    scopes: frozenset[str]
    source: str = ""
    max_events_per_second: int = 0


class Keys:
    """All keys that count now. `clock`: seconds, monotonic. Raises ConfigError when a secret cannot be had."""

    def __init__(
        self, configs: Sequence[IngressKeyConfig] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._quotas: dict[str, _Quota] = {}
        self._keys: list[tuple[bytes, Key]] = []
        self.replace(configs)

    @property
    def required(self) -> bool:
        """False: no keys are configured, and everything is open to this machine."""
        return bool(self._keys)

    def replace(self, configs: Sequence[IngressKeyConfig]) -> None:
        """Use these keys from now on. All or none: raises ConfigError with the old ones still in place. What a key of
        the same name has used of its quota stays used."""
        keys = [(config.secret_sha256(), _key(config)) for config in configs]
        quotas = {key.name: self._quota(key) for _, key in keys if key.max_events_per_second}
        self._keys, self._quotas = keys, quotas

    def authenticate(self, authorization: str | None, x_api_key: str | None) -> Key | None:
        """The key that was presented, as `Authorization: Bearer KEY` or `X-API-Key: KEY`; None when it is none of
        these. Takes the same time whatever key matches."""
        presented = _bearer(authorization) or (x_api_key or "").strip()
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(known, digest):
                found = key
        return found if presented else None

    def take(self, name: str, events: int) -> float:
        """Take `events` from the key's quota: 0.0, or the seconds after which they would pass, with nothing taken.
        A negative number gives back. Without a quota everything passes."""
        quota = self._quotas.get(name)
        return quota.take(events, self._clock()) if quota is not None else 0.0

    def _quota(self, key: Key) -> _Quota:
        known, now = self._quotas.get(key.name), self._clock()
        quota = _Quota(key.max_events_per_second, now)
        if known is not None:
            quota.level = min(quota.level, known.level_at(now))
        return quota


class _Quota:
    """A token bucket in events that holds one second's worth. A request larger than that passes when the bucket is
    full and leaves it in debt, so that the rate holds on average and no request is too large for ever."""

    def __init__(self, events_per_second: int, now: float) -> None:
        self._rate = float(events_per_second)
        self.level = self._rate
        self._at = now

    def level_at(self, now: float) -> float:
        self.level = min(self._rate, self.level + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self.level

    def take(self, events: int, now: float) -> float:
        level = self.level_at(now)
        missing = min(float(events), self._rate) - level
        if events >= 0 and missing > 0:
            return missing / self._rate
        self.level = min(self._rate, level - events)
        return 0.0


def new_key(name: str) -> tuple[str, str]:
    """A fresh secret, to be shown once, and the block for config.toml that knows only its hash.

    Raises ValueError for what cannot be a name."""
    msgspec.convert(name, Name)
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    lines = [f"name = {json.dumps(name)}", f'sha256 = "{digest}"', 'scopes = ["profiles:write"]']
    return secret, "\n".join(["[[ingress.keys]]", *lines, ""])


def _key(config: IngressKeyConfig) -> Key:
    return Key(config.name, frozenset(config.scopes), config.source, config.max_events_per_second)


def _bearer(authorization: str | None) -> str:
    scheme, _, value = (authorization or "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""
