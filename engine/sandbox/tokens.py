"""Access tokens of the client-credentials grant: issued, expired, revoked. No I/O."""

from __future__ import annotations

import random
import string

_ALPHABET = string.ascii_letters + string.digits
_PRUNE_AT = 10_000


class Tokens:
    """The tokens that are good. Several may be at once, as each request for one issues a new one."""

    def __init__(self, rng: random.Random, lifetime_seconds: float) -> None:
        self._random = rng
        self._lifetime_seconds = lifetime_seconds
        self._expiry: dict[str, float] = {}
        self.issued = 0
        self.revoked = 0

    def issue(self, now: float) -> str:
        """A new token; `now` is monotonic seconds."""
        if len(self._expiry) >= _PRUNE_AT:
            self._prune(now)
        token = "tok-" + "".join(self._random.choices(_ALPHABET, k=40))
        self._expiry[token] = now + self._lifetime_seconds
        self.issued += 1
        return token

    def valid(self, token: str, now: float) -> bool:
        expires_at = self._expiry.get(token)
        return expires_at is not None and now < expires_at

    def revoke_all(self) -> int:
        """Make every token worthless; returns how many there were."""
        count = len(self._expiry)
        self._expiry.clear()
        self.revoked += count
        return count

    def _prune(self, now: float) -> None:
        """Forget the expired, and the oldest tenth if that is not enough."""
        self._expiry = {token: at for token, at in self._expiry.items() if at > now}
        for token in list(self._expiry)[: max(0, len(self._expiry) - _PRUNE_AT * 9 // 10)]:
            del self._expiry[token]
