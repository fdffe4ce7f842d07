"""Who an attendee is: the normalised e-mail address and the key made of it.

Two spellings are one person when they agree after trimming and lower-casing (AEP's namespace Email_LC_SHA256). No
provider's habits are folded in: dots and ``+tag`` stay.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from hashlib import sha256

MAX_LOCAL_OCTETS = 64
MAX_ADDRESS_OCTETS = 254

_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_local_part = re.compile(rf"{_ATOM}(?:\.{_ATOM})*").fullmatch
_domain = re.compile(rf"(?:{_LABEL}\.)+[a-z][a-z0-9-]{{0,61}}[a-z0-9]").fullmatch
_any_letter = re.compile(r"[^\x00-\x7f]")
_hex_key = re.compile(r"[0-9A-Fa-f]{64}").fullmatch
_MASKED_CHARACTER = r'[^\s@\uff20<>"(),:;\[\]\\]'
_AT = r"(?:@|\uff20|%40|\\u0040)"
_address_in_text = re.compile(
    rf'(?:"[^"\n]{{1,64}}"|{_MASKED_CHARACTER}{{1,{MAX_ADDRESS_OCTETS}}}?){_AT}{_MASKED_CHARACTER}{{1,255}}',
    re.IGNORECASE,
)


def normalise_email(text: str) -> str | None:
    """The address trimmed, in NFC and lower case, or None when it is not one.

    Taken are dot-separated atoms (RFC 5322) of at most 64 octets, and a domain of two labels or more whose last one
    begins with a letter; at most 254 octets altogether (RFC 5321). Quoted local parts, comments, IP literals, spaces
    and control characters are refused. Outside ASCII, letters, marks and numbers count as letters, in local part and
    domain (RFC 6531); the domain stays as it is written, so its punycode spelling is another person.
    """
    trimmed = text.strip()
    if len(trimmed) > MAX_ADDRESS_OCTETS:
        return None
    if trimmed.isascii():
        lowered = trimmed.lower()
        return lowered if _is_address(lowered) else None
    return _normalise_international(trimmed)


def _is_address(lowered: str) -> bool:
    """Whether this ASCII text is one, in lower case."""
    local, _, domain = lowered.partition("@")
    return (
        len(local) <= MAX_LOCAL_OCTETS
        and (local.isalnum() or _local_part(local) is not None)  # the first is much cheaper, and what many are
        and _is_domain(domain)
    )


@lru_cache(4096)
def _is_domain(text: str) -> bool:
    """Most people share theirs with others."""
    return _domain(text) is not None


def _normalise_international(text: str) -> str | None:
    address = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())
    others = _any_letter.findall(address)
    if not all(unicodedata.category(character)[0] in "LMN" for character in others):
        return None
    octets = address.encode()
    if len(octets) > MAX_ADDRESS_OCTETS or octets.find(b"@") > MAX_LOCAL_OCTETS:
        return None
    return address if _is_address(_any_letter.sub("x", address)) else None


def key_of(normalised: str) -> bytes:
    """SHA-256 of a normalised address, 32 bytes."""
    return sha256(normalised.encode()).digest()


def key_of_address(text: str) -> bytes:
    """The key of an address as somebody typed it. Raises ValueError for what is none, without quoting it."""
    normalised = normalise_email(text)
    if normalised is None:
        raise ValueError("not an e-mail address")
    return key_of(normalised)


def key_from_hex(text: str) -> bytes | None:
    """The key that 64 hexadecimal digits stand for, in either case, or None."""
    trimmed = text.strip()
    return bytes.fromhex(trimmed) if _hex_key(trimmed) else None


def mask(text: str) -> str:
    """`text` with all that looks like an e-mail address replaced by ``<email>``; rather too much than too little."""
    return _address_in_text.sub("<email>", text)
