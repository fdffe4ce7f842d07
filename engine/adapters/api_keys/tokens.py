"""Access tokens that nobody has to remember: what they say is signed, so they survive a restart and cost no memory.

A token is `rft_`, its claims and a signature, all three text. The signature is over the text, so that every token has
exactly one spelling. The key that signs belongs to one secret of one client: with that secret its tokens end.
"""

from __future__ import annotations

import base64
import binascii
import hmac

import msgspec

PREFIX = "rft_"
LONGEST = 1_024
"""Characters; what is longer is none of ours, and not looked into."""


class Claims(msgspec.Struct, array_like=True, frozen=True):
    client: str  # its name in the configuration
    scopes: tuple[str, ...]
    expires_at: int  # epoch seconds


class Signed(msgspec.Struct, frozen=True):
    """A token taken apart: nothing of it is true before the signature was compared."""

    claims: Claims
    text: str
    signature: str

    def is_signed_by(self, key: bytes) -> bool:
        return hmac.compare_digest(_signature(self.text, key), self.signature)


_decode = msgspec.msgpack.Decoder(Claims).decode


def key_for(signing_key: bytes, client_id: str, secret_sha256: bytes) -> bytes:
    """The key that signs the tokens which this client gets for this secret."""
    return hmac.digest(signing_key, b"access token\0" + client_id.encode() + b"\0" + secret_sha256, "sha256")


def make(claims: Claims, key: bytes) -> str:
    text = PREFIX + _text(msgspec.msgpack.encode(claims))
    return f"{text}.{_signature(text, key)}"


def take_apart(token: str) -> Signed | None:
    """None for what cannot be a token."""
    if not token.startswith(PREFIX) or len(token) > LONGEST or not token.isascii():
        return None
    text, _, signature = token.rpartition(".")
    try:
        packed = base64.urlsafe_b64decode(text[len(PREFIX) :] + "==")  # more padding than needed is ignored
        return Signed(_decode(packed), text, signature)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None


def _signature(text: str, key: bytes) -> str:
    return _text(hmac.digest(key, text.encode(), "sha256"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
