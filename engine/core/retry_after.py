"""The Retry-After header (RFC 9110 §10.2.3): seconds or an HTTP date. Pure."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 3600.0
"""What a destination may ask for at most (DESIGN §4, Whose fault): a wrong date must not silence us for days."""

_SECONDS = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")


def parse(value: str, now_epoch_seconds: float) -> float | None:
    """How many seconds to be silent, between 0 and an hour; None when the value says nothing."""
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_SECONDS)
    try:
        date = parsedate_to_datetime(text)
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0.0, at - now_epoch_seconds), LONGEST_SECONDS)


__all__ = ["LONGEST_SECONDS", "parse"]
