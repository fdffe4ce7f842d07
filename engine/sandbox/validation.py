"""What the attendee store accepts. No I/O.

RainFocus publishes no rules. These follow the destination page (field names, ISO 3166-1 alpha-2 countries) and the one
refusal that was seen, response code 103 "Required parameter missing: …".
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

SUCCESS = "0"
INVALID_PROFILE = "101"
PARAMETER = "103"
DENIED = "124"

FIELDS = frozenset(
    (
        "address1",
        "address2",
        "city",
        "companyname",
        "countryid",
        "email",
        "firstname",
        "jobtitle",
        "lastname",
        "phone",
        "state",
        "zip",
    )
)
"""The destination's target fields: strings. Any other field is accepted, and kept apart from them."""

RESERVED = frozenset(("email", "event", "x_version"))
"""Part of the address of a record or of a test's bookkeeping, not of an attendee's folded state."""

MAX_LENGTH = 255
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_COUNTRY = re.compile(r"[A-Z]{2}")
_VERSION = re.compile(r"[0-9]{1,18}")


class Refusal(msgspec.Struct, frozen=True):
    """Why a record or a request was refused: an envelope's two fields and the HTTP status of a lone record."""

    code: str
    message: str
    status: int = 400


class Record(msgspec.Struct, frozen=True):
    """One accepted record: where it belongs and the fields it carries."""

    event: str
    email: str  # lower case
    fields: dict[str, str]  # without `email`
    extra: dict[str, Any]
    version: int | None  # `x_version`: a test's own count of writes to this attendee, a number or its digits


def missing(name: str) -> Refusal:
    return Refusal(PARAMETER, f"Required parameter missing: {name}")


def invalid(name: str) -> Refusal:
    return Refusal(PARAMETER, f"Invalid parameter: {name}")


def check_record(record: Any, event: str, event_codes: list[str] | None) -> Record | Refusal:
    """Judge one decoded record; `event` is the one named in the URL, which the record's own overrides."""
    if type(record) is not dict:
        return invalid("attendee")
    code = record.get("event", event)
    refusal = _check_event(code, event_codes) or _check_email(record.get("email"))
    if refusal is not None:
        return refusal
    fields: dict[str, str] = {}
    extra: dict[str, Any] = {}
    for name, value in record.items():
        if name in RESERVED:
            continue
        if name not in FIELDS:
            if not _plain(value):
                return invalid(name[:MAX_LENGTH])
            extra[name] = value
        elif type(value) is not str or len(value) > MAX_LENGTH:
            return invalid(name)
        else:
            fields[name] = value
    country = fields.get("countryid")
    if country and not _COUNTRY.fullmatch(country):
        return invalid("countryid")
    version = record.get("x_version")
    if type(version) is str and _VERSION.fullmatch(version):
        version = int(version)
    if version is not None and type(version) is not int:
        return invalid("x_version")
    return Record(code, record["email"].lower(), fields, extra, version)


def _check_event(code: Any, event_codes: list[str] | None) -> Refusal | None:
    if not code:
        return missing("event")
    if type(code) is not str or len(code) > MAX_LENGTH or (event_codes is not None and code not in event_codes):
        return invalid("event")
    return None


def _check_email(email: Any) -> Refusal | None:
    if not email:
        return missing("email")
    if type(email) is not str or len(email) > MAX_LENGTH or not _EMAIL.fullmatch(email):
        return invalid("email")
    return None


def _plain(value: Any) -> bool:
    """A scalar, or a list or object of scalars: custom attributes nest no deeper, and encoders have depth limits."""
    if type(value) is list:
        return not any(type(item) in (list, dict) for item in value)
    if type(value) is dict:
        return not any(type(item) in (list, dict) for item in value.values())
    return True
