"""Who may call: `[[ingress.keys]]`, `[[ingress.clients]]`, what their scopes mean, and what must hold between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from typing import Annotated, Any

from msgspec import Meta

from engine.config.forward import RAINFOCUS
from engine.config.kinds import (
    ClientId,
    Count,
    CountOrZero,
    File,
    Name,
    Reference,
    Scope,
    Sha256,
    Table,
    Texts,
    Variable,
)
from engine.config.problems import Reader, read_secret
from engine.config.relations import check_reference, check_secret
from engine.errors import ConfigError

KEY_SECRET = ("sha256", "secret_env", "secret_file")
CLIENT_SECRET_LENGTH = 20
"""Least characters of a client's secret that this process sees: below that guessing at the token endpoint pays."""

IMPLIED: Mapping[str, frozenset[str]] = {"destinations:manage": frozenset({"destinations:view"})}
"""Scope -> what it allows too. AEP's Manage Destinations reads as well."""

NEEDED: Mapping[str, frozenset[str]] = {
    "destinations:activate": frozenset({"destinations:view", "destinations:manage"})
}
"""Scope -> of which one is needed beside it. AEP: "Activate Destinations needs View or Manage too"."""


def effective(scopes: Iterable[str]) -> frozenset[str]:
    """What these scopes allow together: with what they imply, without what lacks the other scope that it needs."""
    given = frozenset(scopes)
    granted = given.union(*(IMPLIED.get(it, frozenset()) for it in given))
    return frozenset(it for it in granted if it not in NEEDED or granted & NEEDED[it])


class CallerConfig(Table, frozen=True, kw_only=True):
    """What keys and clients share: exactly one of `sha256`, `secret_env` and `secret_file` is set."""

    name: Name = "default"
    sha256: Sha256 = ""
    previous_sha256: Sha256 = ""
    secret_env: Variable = ""
    secret_file: File = ""
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = ("profiles:write",)
    source: Reference = ""
    destinations: Texts = ("*",)
    max_events_per_second: CountOrZero = 0

    def secret_sha256(self) -> bytes:
        """SHA-256 of the secret, 32 bytes. Raises ConfigError when it cannot be had now."""
        if self.sha256:
            return bytes.fromhex(self.sha256)
        return hashlib.sha256(self._secret().encode()).digest()

    def _secret(self) -> str:
        return read_secret("", self.secret_env, self.secret_file)

    def secrets_sha256(self) -> tuple[bytes, ...]:
        """Of every secret that counts: the present one, and while it is replaced the one before. Raises ConfigError."""
        previous = (bytes.fromhex(self.previous_sha256),) if self.previous_sha256 else ()
        return (self.secret_sha256(), *previous)

    @property
    def only_destinations(self) -> frozenset[str] | None:
        """None: all of them."""
        return None if "*" in self.destinations else frozenset(self.destinations)


class IngressKeyConfig(CallerConfig, frozen=True, kw_only=True):
    """One `[[ingress.keys]]`: the secret itself is sent with every request."""


class IngressClientConfig(CallerConfig, frozen=True, kw_only=True):
    """One `[[ingress.clients]]`: OAuth 2 client credentials, exchanged for a token that is sent with every request."""

    client_id: ClientId = ""
    token_seconds: Count = 86_400

    @property
    def id(self) -> str:
        return self.client_id or self.name

    def _secret(self) -> str:
        secret = super()._secret()
        if len(secret) < CLIENT_SECRET_LENGTH:
            raise ConfigError([f"the secret has fewer than {CLIENT_SECRET_LENGTH} characters and could be guessed"])
        return secret


def reached_beyond(caller: CallerConfig, sources: tuple[Any, ...], destinations: tuple[Any, ...]) -> list[str]:
    """The destinations that a limited caller's events would reach besides those it is limited to."""
    only = caller.only_destinations
    if only is None or "profiles:write" not in caller.scopes:
        return []
    source = caller.source or next((it.name for it in sources), "")
    return [it.name for it in destinations if {"*", source} & {*getattr(it, "sources", ())} and it.name not in only]


Placed = list[tuple[str, CallerConfig]]
"""Callers, each with its key path."""


def check_access(
    keys: Sequence[IngressKeyConfig],
    clients: Sequence[IngressClientConfig],
    sources: tuple[Any, ...],
    destinations: tuple[Any, ...],
    reader: Reader,
) -> None:
    callers: Placed = [(f"ingress.keys[{index}]", it) for index, it in enumerate(keys)]
    callers += [(f"ingress.clients[{index}]", it) for index, it in enumerate(clients)]
    for path, caller in callers:
        if caller.source != RAINFOCUS:
            check_reference(caller.source, f"{path}.source", "source", sources, reader)
        _check_scopes(caller, path, reader)
        _check_destinations(caller, path, sources, destinations, reader)
        _check_secret(caller, path, reader)
    _check_names_differ(callers, reader)
    _check_secrets_differ(callers, reader)
    _check_ids_differ(clients, reader)


def _check_scopes(caller: CallerConfig, path: str, reader: Reader) -> None:
    for scope in caller.scopes:
        needed = NEEDED.get(scope)
        if needed and not needed & frozenset(caller.scopes):
            what = f"{scope} allows nothing without {' or '.join(sorted(needed))}; add one of them, as in AEP"
            reader.report(f"{path}.scopes", what)


def _check_destinations(
    caller: CallerConfig, path: str, sources: tuple[Any, ...], destinations: tuple[Any, ...], reader: Reader
) -> None:
    key, only = f"{path}.destinations", caller.only_destinations
    for index, name in enumerate(caller.destinations):
        check_reference(name.removeprefix("*"), f"{key}[{index}]", "destination", destinations, reader)
    if only is None:
        if len(caller.destinations) > 1:
            reader.report(key, "'*' means all; leave the others out, or the '*'")
        return
    about = [f"{path}.scopes", f"{path}.source", *(f"destination[{index}]" for index in range(len(destinations)))]
    if "profiles:erase" in caller.scopes:
        what = "profiles:erase concerns every destination; give it to a key that is not limited to some"
        reader.report(f"{path}.scopes", what, [key])
    if "profiles:write" in caller.scopes and not caller.source and len(sources) > 1:
        what = "is required for profiles:write beside destinations: events go where their source goes"
        reader.report(f"{path}.source", what, about)
    elif "profiles:write" in caller.scopes and caller.source == RAINFOCUS:
        what = "must be all beside the source rainfocus: a change that RainFocus reports concerns every destination"
        reader.report(key, what, [f"{path}.source", f"{path}.scopes"])
    elif beyond := reached_beyond(caller, sources, destinations):
        what = f"events of its source also go to {', '.join(beyond)}; limit destination.sources there"
        reader.report(key, what, about)


def _check_secret(caller: CallerConfig, path: str, reader: Reader) -> None:
    if not any(getattr(caller, it) for it in KEY_SECRET):
        about = [f"{path}.{it}" for it in KEY_SECRET]
        reader.report(path, f"has no secret; set one of {', '.join(KEY_SECRET)}", about)
        return
    check_secret(caller, path, KEY_SECRET, caller.secret_sha256, reader)


def _check_names_differ(callers: Placed, reader: Reader) -> None:
    """Receipts and quotas belong to a name, whether it is a key's or a client's."""
    for (first, one), (second, other) in combinations(callers, 2):
        if one.name == other.name:
            what = f"{one.name!r} is the name of {first} already; give each a name of its own"
            reader.report(f"{second}.name", what, [f"{first}.name"])


def _check_secrets_differ(callers: Placed, reader: Reader) -> None:
    seen: dict[bytes, str] = {}
    for path, caller in callers:
        with suppress(ConfigError):  # one that cannot be had has been reported
            hashes = caller.secrets_sha256()
            if len({*hashes}) < len(hashes):
                reader.report(f"{path}.previous_sha256", "is the present secret; leave it out, or change the secret")
            for other in [seen[it] for it in dict.fromkeys(hashes) if it in seen]:
                hint = "make another with `rainfocus-engine keys new NAME`"
                reader.report(path, f"has the same secret as {other}; {hint}")
            seen |= dict.fromkeys(hashes, f"the {'client' if 'clients' in path else 'key'} {caller.name!r}")


def _check_ids_differ(clients: Sequence[IngressClientConfig], reader: Reader) -> None:
    for (i, one), (j, other) in combinations(enumerate(clients), 2):
        if one.id == other.id and one.name != other.name:
            about = [f"ingress.clients[{it}].{key}" for it in (i, j) for key in ("client_id", "name")]
            what = f"{one.id!r} is the id of ingress.clients[{i}] already; give each a client_id of its own"
            reader.report(f"ingress.clients[{j}].client_id", what, about)
