"""Phone numbers in E.164, for sources that ask for it. Off by default: nothing says how RainFocus wants them (U-19).

phonenumberslite, a port of Google's libphonenumber, comes with the extra ``[phone]`` and is loaded when a source wants
it. It is pure: tables and regular expressions.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from engine.profiles.fields import FieldRefused


def e164() -> Callable[[str, str], str]:
    """(number, ISO 3166-1 alpha-2 country or "") -> the number as ``+33320000000``. A national number needs the
    country. What it returns raises FieldRefused (``not_a_phone``). Raises ImportError without the package."""
    numbers: Any = import_module("phonenumbers")

    def check(text: str, country: str) -> str:
        try:
            number = numbers.parse(text, country or None)
        except numbers.NumberParseException:
            raise FieldRefused("not_a_phone") from None
        if not numbers.is_valid_number(number):
            raise FieldRefused("not_a_phone")
        return str(numbers.format_number(number, numbers.PhoneNumberFormat.E164))

    return check
