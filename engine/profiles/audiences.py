"""Points in time, and a record's standing in audiences.

AEP writes times as ``…Z``, ``+0000``, with milli- or microseconds, and as epoch milliseconds (domain reference, 2.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from engine.model import Membership
from engine.profiles.fields import MAX_LENGTH, FieldRefused, as_text
from engine.profiles.json_exact import Ambiguous

DEFAULT_NAMESPACE = "ups"
"""Of an audience id without one: AEP's Segmentation Service."""

_STATUSES = {"realized": True, "existing": True, "entered": True, "exited": False}
_epoch_text = re.compile(r"[0-9]{9,16}(?:\.[0-9]{1,9})?", re.ASCII).fullmatch  # eight digits are an ISO 8601 date
_MILLISECONDS_FROM = 1e11  # as seconds the year 5138, as milliseconds 1973
_END_OF_TIME = 253_402_300_800.0  # the year 10000, beyond ISO 8601


def parse_time(value: object) -> float:
    """Epoch seconds of an ISO 8601 text (UTC when it names no offset), epoch seconds or milliseconds, or a datetime.

    Numbers from 10^11 on are milliseconds. Raises FieldRefused("not_a_time") for others and outside 1970 to 9999.
    """
    try:
        seconds = _seconds(value)
    except (ValueError, OverflowError):
        raise FieldRefused("not_a_time") from None
    if not 0.0 <= seconds < _END_OF_TIME:
        raise FieldRefused("not_a_time")
    return seconds


def _seconds(value: object) -> float:
    if isinstance(value, str):
        text = value.strip()
        if not text.isascii():
            raise ValueError
        if text[4:5] != "-" and _epoch_text(text):
            return _epoch(float(text))
        return _of(datetime.fromisoformat(text))
    if isinstance(value, datetime):
        return _of(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    return _epoch(float(value))


def _of(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _epoch(number: float) -> float:
    return number / 1000.0 if number >= _MILLISECONDS_FROM else number


def audience_id(text: str) -> str:
    """``namespace/id``; a bare id is one of the Segmentation Service. The case of the namespace means nothing: Adobe
    writes it in several. Raises FieldRefused("not_an_audience_id").
    """
    id = text if "/" in text else f"{DEFAULT_NAMESPACE}/{text}"
    if not id.islower():
        namespace, _, rest = id.partition("/")
        id = f"{namespace.lower()}/{rest}"
    if len(id) > MAX_LENGTH or not id.isprintable() or id[0] == "/" or id[-1] == "/" or " " in id:
        raise FieldRefused("not_an_audience_id")
    return id


def membership_of(status: object, qualified_at: object, name: str = "") -> Membership:
    """`existing` and `entered`, which old templates still write, are `realized`. Raises FieldRefused."""
    realized = _STATUSES.get(status) or _STATUSES.get(status.lower()) if isinstance(status, str) else None
    if realized is None:
        raise FieldRefused("unknown_status")
    if qualified_at is None:
        raise FieldRefused("missing_time")
    return Membership(realized, parse_time(qualified_at), name)


def parse_audiences(value: object) -> tuple[dict[str, Membership], list[tuple[str, str]]]:
    """({audience: standing}, [(audience as given, why it was dropped)]) of a record's ``audiences``.

    ``{"ups/3f0c…": {"status": "realized", "lastQualificationTime": "2026-10-02T08:15:30Z"}}``. An audience without a
    known status and a time is dropped: without them it could not be folded. A ``name`` beside them is kept. Raises
    FieldRefused for another shape.
    """
    if not isinstance(value, Mapping):
        raise FieldRefused("not_an_object")
    if isinstance(value, Ambiguous):
        raise FieldRefused("duplicate_key")
    standing: dict[str, Membership] = {}
    bad: list[tuple[str, str]] = []
    for name, entry in value.items():
        try:
            keep_newest(standing, audience_id(str(name)), _membership(entry, str(name), bad))
        except FieldRefused as refused:
            bad.append((str(name), refused.reason))
    return standing, bad


def _membership(entry: object, id: str, bad: list[tuple[str, str]]) -> Membership:
    if not isinstance(entry, Mapping):
        raise FieldRefused("not_an_object")
    if isinstance(entry, Ambiguous):
        raise FieldRefused("duplicate_key")
    name = entry.get("name")
    try:
        text = as_text(name) if name else ""
        if len(text) > MAX_LENGTH:
            raise FieldRefused("too_long")
    except FieldRefused as refused:
        bad.append((f"{id}.name", refused.reason))
        text = ""
    return membership_of(entry.get("status"), entry.get("lastQualificationTime"), text)


def keep_newest(standing: dict[str, Membership], audience: str, membership: Membership) -> None:
    """Put one in; ``x`` and ``ups/x`` are one audience, and the newer qualification stays."""
    known = standing.get(audience)
    if known is None or membership.qualified_at >= known.qualified_at:
        standing[audience] = membership
