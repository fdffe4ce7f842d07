"""The 12 target fields of the RainFocus destination page: what a value must look like to be kept.

A bad optional value is dropped and named, never the profile. Reasons are short stable codes:

==================== ==============================================================================================
``not_text``         neither text nor (for `NUMERIC`) a whole number
``not_unicode``      half a surrogate pair
``too_long``         more than `MAX_LENGTH` characters
``not_iso_3166_1``   not an ISO 3166-1 alpha-2 code
``not_a_state``      not a code of the record's country, or, without a country, not a US code
``not_a_phone``      no valid number, for sources with `phone_e164`
``no_valid_country`` a state beside a country that was dropped: there is nothing to judge it by
==================== ==============================================================================================
"""

from __future__ import annotations

import re
import unicodedata

from engine.config import TARGET_FIELDS as TARGET_FIELDS
from engine.model import Trait
from engine.profiles.countries import COUNTRIES, STATES

MAX_LENGTH = 255
NUMERIC = frozenset({"phone", "zip"})
"""Target fields that producers also send as numbers."""

_EMAIL, _FOREIGN_STATE = int(Trait.EMAIL), int(Trait.FOREIGN_STATE)  # plain numbers: IntFlags are slow to join
_MAX_EXACT = 2**53  # beyond it a float is not a whole number that somebody wrote
_breaks = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_controls = re.compile("[\x00-\x1f\x7f-\x9f]")


class FieldRefused(ValueError):
    """`reason` is one of the codes above; never quotes the value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def as_text(value: object, *, numbers: bool = False) -> str:
    """The value as clean text: NFC, trimmed, line breaks and tabs as one space, other control characters gone.

    "" means absent (None and blank text are). With `numbers` whole numbers become text. Raises FieldRefused.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        return _digits(value, numbers)
    if not value.isprintable():
        value = _controls.sub("", _breaks.sub(" ", value))
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise FieldRefused("not_unicode")
    return unicodedata.normalize("NFC", value).strip()


def _digits(value: object, numbers: bool) -> str:
    if numbers and type(value) is int and abs(value) < 10**MAX_LENGTH:
        return str(value)
    if numbers and type(value) is float and abs(value) < _MAX_EXACT and value.is_integer():
        return str(int(value))
    raise FieldRefused("not_text")


def check_field(name: str, value: object) -> str:
    """The value as it is kept, "" when absent; any field but `email` and `state`. Raises FieldRefused.

    Fields beside the 12 (a source's mapping may name some) are text of the same kind, or numbers.
    """
    text = as_text(value, numbers=name in NUMERIC or name not in TARGET_FIELDS)
    if name == "countryid":
        text = _code(text)
        if text and text not in COUNTRIES:
            raise FieldRefused("not_iso_3166_1")
    if len(text) > MAX_LENGTH:
        raise FieldRefused("too_long")
    return text


def _code(text: str) -> str:
    """In upper case, ASCII alone: a sharp s would become South Sudan."""
    return text.upper() if text.isascii() else text


def check_state(value: object, country: str | None) -> str:
    """The state as it is kept, "" when absent. Raises FieldRefused.

    `country` is that of the same record: a code, "" when it gave none, None when it gave one that was dropped. US and
    CA take their codes only, in upper case; without a country only US codes pass (domain reference, U-13). Any other
    country's state is text, kept as it is written and left to the destination's `state_policy`.

    A record is judged by itself. When a later one changes the country, `merge_contents` marks the pair anew, and the
    Mapper judges it again.
    """
    text = as_text(value)
    if not text:
        return ""
    if country is None:
        raise FieldRefused("no_valid_country")
    codes = STATES.get(country or "US")
    if codes is None and len(text) > MAX_LENGTH:
        raise FieldRefused("too_long")
    if codes is not None and (text := _code(text)) not in codes:
        raise FieldRefused("not_a_state")
    return text


def is_foreign(country: str) -> bool:
    """Whether `state_policy` decides about a state beside this country ("" when there is none)."""
    return bool(country) and country not in STATES


def must_be_judged(state: str, country: str) -> bool:
    """Whether the Mapper has to look at this pair: a state that is not a code of US or CA, whichever applies."""
    return bool(state) and state not in STATES.get(country or "US", ())


def traits_of(*, email: bool, state: str, country: str) -> int:
    """The `Trait` flags of a content. FOREIGN_STATE also marks a pair that only came together in a merge."""
    return email * _EMAIL + must_be_judged(state, country) * _FOREIGN_STATE
