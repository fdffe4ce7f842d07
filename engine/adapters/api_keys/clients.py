"""OAuth 2 client credentials (RFC 6749, 4.4): a client id and its secret are exchanged for a token."""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence

import msgspec

from engine.adapters.api_keys.callers import Grant, Key
from engine.adapters.api_keys.tokens import Claims, Signed, key_for, make, take_apart
from engine.config import IngressClientConfig, effective
from engine.core.allowance import Allowance

GRACE_SECONDS, GRACE_SHARE = 60.0, 0.1
"""How much longer a token is taken than was said, and at most which part of its life: a request that was on its way
when it ended would be refused with a 401, which AEP never sends again."""

WRONG_AT_ONCE, WRONG_EVERY_SECONDS = 10, 6.0
"""Wrong secrets for one client id that are answered plainly."""

SECRETS_AT_MOST = 2
_DECOYS = tuple(secrets.token_bytes(32) for _ in range(SECRETS_AT_MOST))


class Client(msgspec.Struct, frozen=True):
    id: str
    key: Key  # as whom it calls
    scopes: tuple[str, ...]  # as configured
    token_seconds: int
    secrets: tuple[bytes, ...]  # SHA-256 of those that count

    @classmethod
    def of(cls, config: IngressClientConfig) -> Client:
        """Raises ConfigError when a secret cannot be had."""
        return cls(config.id, Key.of(config), config.scopes, config.token_seconds, config.secrets_sha256())

    @property
    def grace_seconds(self) -> float:
        return min(GRACE_SECONDS, self.token_seconds * GRACE_SHARE)


class Clients:
    """All that count now. `signing_key`: asked for at the first token. `time`: epoch seconds. `clock`: monotonic."""

    def __init__(
        self, *, signing_key: Callable[[], bytes], time: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self.signing_key, self._time, self._clock = functools.cache(signing_key), time, clock
        self._by_id: dict[str, Client] = {}
        self._by_name: dict[str, Client] = {}
        self._signers: dict[str, tuple[bytes, ...]] = {}
        self._wrong: dict[int, Allowance] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def replace(self, clients: Sequence[Client]) -> None:
        """Tokens of a client that is gone, has another id, or for a secret that is gone, end with it."""
        self._by_id = {it.id: it for it in clients}
        self._by_name = {it.key.name: it for it in clients}
        self._signers = {}

    def prepare(self) -> None:
        """Have the signing key at hand. Raises what `signing_key` does."""
        self.signing_key()

    # -- tokens in ------------------------------------------------------------------------------------------------

    def authenticate(self, token: str) -> Key | None:
        """Whose token this is, with what it may do; None when it is none that counts now."""
        signed = take_apart(token)
        client = self._signer_of(signed) if signed is not None else None
        if signed is None or client is None or self._is_over(signed.claims, client):
            return None
        return client.key if signed.claims.scopes == client.scopes else _narrowed(client, signed.claims.scopes)

    def expired(self, token: str) -> bool:
        """Whether it counted once, and nothing but its age is wrong with it."""
        signed = take_apart(token)
        client = self._signer_of(signed) if signed is not None else None
        return signed is not None and client is not None and self._is_over(signed.claims, client)

    def _signer_of(self, signed: Signed) -> Client | None:
        client = self._by_name.get(signed.claims.client)
        if client is None or not any(signed.is_signed_by(key) for key in self._keys_of(client)):
            return None
        return client

    def _is_over(self, claims: Claims, client: Client) -> bool:
        return self._time() >= claims.expires_at + client.grace_seconds

    def _keys_of(self, client: Client) -> tuple[bytes, ...]:
        found = self._signers.get(client.key.name)
        if found is None:
            signing_key = self.signing_key()
            found = tuple(key_for(signing_key, client.id, it) for it in client.secrets)
            self._signers[client.key.name] = found
        return found

    # -- tokens out -----------------------------------------------------------------------------------------------

    def grant(self, client_id: str, presented: Sequence[str], scopes: frozenset[str] | None) -> Grant:
        """`presented`: the secret, in each way it may have been meant. `scopes`: None for all that the client has.

        Takes the same time for an unknown client as for a wrong secret. A right secret is never held up by wrong ones
        that others send: otherwise whoever knows an id could log its owner out.
        """
        client = self._by_id.get(client_id)
        index = _matching(client.secrets if client is not None else (), presented)
        if client is None or index is None:
            name = client.key.name if client is not None else ""
            return Grant(name, "invalid_client", retry_after_seconds=self._wrong_once_more(client_id))
        wanted = client.scopes if scopes is None else tuple(it for it in client.scopes if it in scopes)
        if scopes is not None and scopes - {*client.scopes}:
            return Grant(client.key.name, "invalid_scope")
        claims = Claims(client.key.name, wanted, int(self._time()) + client.token_seconds)
        token = make(claims, self._keys_of(client)[index])
        return Grant(client.key.name, token=token, seconds=client.token_seconds, scopes=wanted)

    def _wrong_once_more(self, client_id: str) -> float:
        """Seconds until another wrong secret is answered plainly; 0.0 while there are few. Ids share 256 allowances,
        known ones and made-up ones alike: so nobody fills the memory, or learns from it which ids there are."""
        now = self._clock()
        lane = hashlib.sha256(client_id.encode("utf-8", "surrogateescape")).digest()[0]
        if lane not in self._wrong:
            self._wrong[lane] = Allowance(WRONG_AT_ONCE, WRONG_EVERY_SECONDS, now)
        return self._wrong[lane].take(now)


def _matching(known: tuple[bytes, ...], presented: Sequence[str]) -> int | None:
    """Which of the known secrets was presented. Compares with as many whatever is known."""
    compared, found = (*known, *_DECOYS)[:SECRETS_AT_MOST], None
    for secret in presented:
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        for index, hashed in enumerate(compared):
            if hmac.compare_digest(hashed, digest) and index < len(known):
                found = index
    return found


def _narrowed(client: Client, scopes: Sequence[str]) -> Key:
    """A scope that the client has lost since is lost to its tokens too."""
    kept = effective(it for it in scopes if it in client.scopes)
    return msgspec.structs.replace(client.key, scopes=kept)
