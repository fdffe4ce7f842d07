"""Who may ask for what: keys with scopes, or, without keys, this machine only."""

from __future__ import annotations

import ipaddress
import random as random_module
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from engine.adapters.http_ingress.denials import Denials, Denied

CHALLENGE = 'Bearer realm="rainfocus-engine"'
FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


class Head(msgspec.Struct):
    """What is known of a request before its body. `headers`: found by lower-case name. `peer`: the IP address of the
    other end; "" when it came through a Unix socket."""

    headers: Mapping[str, str]
    peer: str


class Caller(Protocol):
    """Whom a key belongs to; see `api_keys.Key`."""

    @property
    def name(self) -> str: ...

    @property
    def scopes(self) -> frozenset[str]: ...

    @property
    def source(self) -> str: ...

    @property
    def destinations(self) -> frozenset[str] | None: ...


class Grant(Protocol):
    """What a client gets that asks for a token; see `api_keys.Grant`."""

    @property
    def client(self) -> str: ...

    @property
    def error(self) -> str: ...

    @property
    def token(self) -> str: ...

    @property
    def seconds(self) -> int: ...

    @property
    def scopes(self) -> tuple[str, ...]: ...

    @property
    def retry_after_seconds(self) -> float: ...


class KeyRing(Protocol):
    """See `api_keys.Keys`."""

    @property
    def required(self) -> bool: ...

    def authenticate(self, authorization: str | None, x_api_key: str | None) -> Caller | None: ...

    def expired(self, authorization: str | None) -> bool: ...

    def grant(self, client_id: str, presented: Sequence[str], scopes: frozenset[str] | None) -> Grant: ...

    def take(self, name: str, events: int) -> float: ...


class _Anybody(msgspec.Struct, frozen=True):
    """The caller when there are no keys: everything is open, under no name."""

    name: str = ""
    scopes: frozenset[str] = frozenset(
        {
            *("profiles:write", "profiles:view", "profiles:erase", "segments:view"),
            *("destinations:view", "destinations:manage", "destinations:activate"),
        }
    )
    source: str = ""
    destinations: frozenset[str] | None = None


ANYBODY = _Anybody()


class Access:
    """One for all listeners. Decides; whoever makes an answer of a Denied has it noted by `note`."""

    def __init__(
        self, keys: KeyRing, denials: Denials | None = None, *, random: random_module.Random | None = None
    ) -> None:
        self.keys, self.denials = keys, denials or Denials()
        self.random = random or random_module.Random()

    def note(self, denied: Denied, head: Head, operation: str) -> None:
        """`operation`: its id, see `service.operations`. The path is not used: it may hold what was typed there."""
        self.denials.note(denied.reason, operation, head.peer, caller=denied.caller, scope=denied.scope)

    def require(self, head: Head, scope: str) -> Caller:
        """The caller, if it may do this. Raises Denied: 401 without a valid key or token, 403 without the scope or,
        when no keys are configured, for everybody who is not on this machine."""
        caller = self.caller(head)
        if scope not in caller.scopes:
            challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            detail = f"this needs a key with the scope {scope}"
            headers = {"WWW-Authenticate": challenge}
            raise Denied("scope", detail, caller=caller.name, scope=scope, headers=headers)
        return caller

    def caller(self, head: Head) -> Caller:
        """The caller, whatever it may do. Raises Denied."""
        if not self.keys.required:
            self.require_local(head)
            return ANYBODY
        authorization, x_api_key = head.headers.get("authorization"), head.headers.get("x-api-key")
        found = self.keys.authenticate(authorization, x_api_key)
        if found is None:
            raise self._unknown(authorization, x_api_key)
        return found

    def _unknown(self, authorization: str | None, x_api_key: str | None) -> Denied:
        if not (authorization or x_api_key):
            hint = "send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            return Denied("no_key", hint, type="unauthorized", headers={"WWW-Authenticate": CHALLENGE})
        headers = {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'}
        if self.keys.expired(authorization):
            detail = "this token has expired; fetch another from /oauth/token"
            return Denied("expired_token", detail, type="unauthorized", headers=headers)
        return Denied("unknown_key", "this key or token is not known", type="unauthorized", headers=headers)

    def require_local(self, head: Head) -> None:
        """Without keys only this machine may ask: neither a page of a stranger in a browser here (by a name it made
        point here, or across origins) nor a proxy that lets strangers in. Raises Denied."""
        if self.keys.required:
            return
        if head.peer and not is_loopback(head.peer):
            raise _not_local("no keys are configured, so only this machine may ask; configure [[ingress.keys]]")
        for name in FORWARDING:
            if name in head.headers:
                detail = "the request came through a proxy and no keys are configured; configure [[ingress.keys]]"
                raise _not_local(detail)
        host = head.headers.get("host", "")
        if not is_loopback(_host_of(host)):
            raise _not_local("no keys are configured, so Host must be localhost or a loopback address")
        origin = head.headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise _not_local("the request was made by a page of another origin and no keys are configured")


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """An address of this machine, or the name localhost."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


@lru_cache(maxsize=256)
def _host_of(authority: str) -> str:
    """The host of `host`, `host:port`, `[address]` or `[address]:port`; "" for anything else."""
    try:
        parts = urlsplit(f"//{authority}")
        return (parts.hostname or "") if parts.netloc == authority and "@" not in authority else ""
    except ValueError:
        return ""


def _not_local(detail: str) -> Denied:
    return Denied("not_local", detail, type="not-local")
