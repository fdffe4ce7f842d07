"""Times as people write them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import typer

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
AGO = re.compile(r"(\d+)([smhdw])\Z")


def moment(given: str | None, option: str, now: float) -> float | None:
    """Epoch seconds of "2026-03-01", "2026-03-01T12:00:00+01:00" (UTC where no zone is given) or, ago, "2h"."""
    if given is None:
        return None
    if ago := AGO.match(given):
        return now - int(ago[1]) * UNITS[ago[2]]
    try:
        parsed = datetime.fromisoformat(given)
    except ValueError:
        raise typer.BadParameter(
            "is not a time: write 2026-03-01, 2026-03-01T12:00:00Z, 2h or 7d", param_hint=option
        ) from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
