"""Consents on the short way: there are few ways to write them, and they are read once each."""

from __future__ import annotations

import msgspec

from engine.model import Consent
from engine.profiles.consents import FOR_THE_ADDRESS, ConsentParser
from engine.profiles.json_exact import decode_once

KEPT = 1_024
"""How many ways to write them are remembered."""

LONGEST_BYTES = 1_024

_NAMES_AN_ADDRESS = FOR_THE_ADDRESS.encode()


class TypedConsents:
    """What `ConsentParser` makes of the bytes under ``consents``, as long as nothing of it has to be reported."""

    def __init__(self, parser: ConsentParser) -> None:
        self._parser = parser
        self._known: dict[bytes, dict[str, Consent] | None] = {}

    def read(self, raw: msgspec.Raw, at: float | None) -> dict[str, Consent] | None:
        """Raises ValueError where the exact path has to judge."""
        written = bytes(raw)
        try:
            consents = self._known[written]
        except KeyError:
            consents = self._parsed(written)
        if consents is None or at is None:
            return consents
        return {path: Consent(consent.value, at) for path, consent in consents.items()}

    def _parsed(self, written: bytes) -> dict[str, Consent] | None:
        """What names an address is neither read here, since it means the record's own alone, nor remembered."""
        if len(written) > LONGEST_BYTES or _NAMES_AN_ADDRESS in written or b"\\" in written:
            raise ValueError("consents")
        consents, bad = self._parser.parse(decode_once(written), {}, b"", None)
        if bad:
            raise ValueError("consents")
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[written] = consents
        return consents
