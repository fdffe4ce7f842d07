"""What is known of a caller, and what a client that asks for a token gets."""

from __future__ import annotations

import msgspec

from engine.config import IngressClientConfig, IngressKeyConfig, effective


class Key(msgspec.Struct, frozen=True):
    """A caller. `scopes`: with what they imply. `source`: the only source it may write to; "" for all.
    `max_events_per_second`: 0 for no quota. `destinations`: the only ones it may see and act on; None for all."""

    name: str
    scopes: frozenset[str]
    source: str = ""
    max_events_per_second: int = 0
    destinations: frozenset[str] | None = None

    @classmethod
    def of(cls, config: IngressKeyConfig | IngressClientConfig) -> Key:
        scopes, only = effective(config.scopes), config.only_destinations
        return cls(config.name, scopes, config.source, config.max_events_per_second, only)


class Grant(msgspec.Struct, frozen=True):
    """The answer to a client that asks for a token: either `error` (of RFC 6749, 5.2) is set, or the rest is.

    `client`: its name in the configuration; "" when its id is unknown. `seconds`: how long the token is good for.
    `retry_after_seconds`: above 0 when wrong secrets come too often."""

    client: str = ""
    error: str = ""
    token: str = ""
    seconds: int = 0
    scopes: tuple[str, ...] = ()
    retry_after_seconds: float = 0.0
