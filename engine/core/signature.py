"""Signed webhooks after the Standard Webhooks specification: symmetric scheme, ``v1``, HMAC-SHA256. Pure.

What is signed is ``id.timestamp.body``, so that neither can be exchanged. The id stays the same over every attempt at
one message: receivers use it to drop duplicates. Source: standard-webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64
TOLERANCE_SECONDS = 300
"""How far a timestamp may be from the receiver's clock: what the specification's own libraries take."""


def secret_bytes(secret: str) -> bytes:
    """The key that ``whsec_`` and base64 stand for; the prefix may be missing. Raises ValueError without quoting it."""
    try:
        key = base64.b64decode(secret.strip().removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"is not base64 (after {PREFIX})") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(f"has {len(key)} bytes; a webhook secret has {LEAST_BYTES} to {MOST_BYTES}")
    return key


def sign(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """One signature, as it stands in the header. `timestamp`: epoch seconds of this attempt."""
    digest = hmac.digest(key, b"%s.%d.%s" % (id.encode(), timestamp, body), "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


def signed_headers(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of one attempt. Several keys while a secret is being replaced: either one verifies."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(key, id, timestamp, body) for key in keys),
    }


def is_signed(
    key: bytes, headers: Mapping[str, str], body: bytes, now: float, *, tolerance_seconds: float = TOLERANCE_SECONDS
) -> bool:
    """The receiver's side: do these headers (found by lower-case name) belong to this body, and to about this time?"""
    id, given = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id or not (given.isascii() and given.isdigit() and len(given) < 16):
        return False
    wanted = sign(key, id, int(given), body).encode()
    signatures = headers.get("webhook-signature", "").encode().split(b" ")
    genuine = any(hmac.compare_digest(wanted, one) for one in signatures)
    return genuine and abs(now - int(given)) <= tolerance_seconds


__all__ = ["PREFIX", "TOLERANCE_SECONDS", "is_signed", "secret_bytes", "sign", "signed_headers"]
