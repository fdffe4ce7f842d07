"""What a request says before its body is looked at: media type, source, lane, preference."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache

import msgspec

from engine.adapters.http_ingress.access import Caller, Head
from engine.adapters.http_ingress.denials import Denied
from engine.adapters.http_ingress.problems import Problem
from engine.config import RAINFOCUS
from engine.model import Lane

JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
MEDIA_TYPES = {
    JSON: JSON,
    NDJSON: NDJSON,
    "application/ndjson": NDJSON,
    "application/jsonl": NDJSON,
    "application/x-jsonlines": NDJSON,
    "application/json-lines": NDJSON,
    CSV: CSV,
}
"""What may come in -> the name under which a reader knows it. `application/*+json` is JSON too."""

PROFILES = "/v1/profiles"
CHANGES = f"/v1/sources/{RAINFOCUS}"
TOKEN = "/oauth/token"
RECEIPTS = "/v1/receipts/"
POST_PROFILES = "post_profiles"
LANES = {"live": Lane.LIVE, "backfill": Lane.BACKFILL}
WAIT_SECONDS_MAX = 60
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


class IngressRequest(msgspec.Struct):
    """One POST of events, whatever front end took it.

    The body comes from `chunks`; without them it is here already, in `received`. `decoded`: the front end has undone
    the Content-Encoding. `mount`: the path in front of `/v1`, for the address of the receipt.
    """

    head: Head
    query: Mapping[str, str]
    received: bytes = b""
    chunks: AsyncIterator[bytes] | None = None
    decoded: bool = False
    mount: str = ""


class IngressAnswer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes


def media_type(headers: Mapping[str, str], *, csv: bool = True) -> str:
    """Raises Problem (415) for what is neither JSON, NDJSON nor CSV in UTF-8: above all for what a form of a stranger's
    page can send without asking first. Without `csv` that is refused too."""
    known, charset = _content_type(headers.get("content-type", ""))
    if known is None or (known == CSV and not csv):
        wanted = f"{JSON}, {NDJSON} or {CSV}" if csv else f"{JSON} or {NDJSON}"
        raise _unsupported(f"Content-Type must be {wanted}")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise _unsupported("the body must be UTF-8")
    return known


@lru_cache(maxsize=256)
def _content_type(text: str) -> tuple[str | None, str]:
    """(the name under which a reader knows it, or None; charset)."""
    given, *parameters = (it.strip().lower() for it in text.split(";"))
    known = MEDIA_TYPES.get(given)
    if known is None and given.startswith("application/") and given.endswith("+json"):
        known = JSON
    return known, next((it.partition("=")[2].strip('" ') for it in parameters if it.startswith("charset")), "utf-8")


def _unsupported(detail: str) -> Problem:
    return Problem("unsupported-media-type", detail, supported=[*MEDIA_TYPES])


def source_of(query: Mapping[str, str], caller: Caller, sources: Mapping[str, object]) -> str:
    """`?source=`, else the key's, else the first configured. Raises Problem."""
    asked = query.get("source", "")
    if asked and asked not in sources:
        raise Problem("bad-request", f"there is no such source; there are {', '.join(sources)}")
    if asked and caller.source and asked != caller.source:
        raise Denied("source", f"this key may only write to the source {caller.source}", caller=caller.name)
    if caller.source == RAINFOCUS:
        raise Denied("source", f"this key may only write to /v1/sources/{RAINFOCUS}", caller=caller.name)
    source = asked or caller.source or next(iter(sources))
    if source not in sources:
        raise Problem("bad-request", "the source of this key is not configured")
    return source


def require_rainfocus(caller: Caller) -> None:
    """A key that is limited to another source may not speak for RainFocus, nor one that is limited to some
    destinations: a change concerns them all. Raises Problem."""
    if caller.source not in ("", RAINFOCUS):
        raise Denied("source", f"this key may only write to the source {caller.source}", caller=caller.name)
    if caller.destinations is not None:
        detail = "a change concerns every destination, and this key is limited to some"
        raise Denied("destination", detail, caller=caller.name)


def lane_of(query: Mapping[str, str], default: Lane) -> Lane:
    asked = query.get("lane", "")
    if asked and asked not in LANES:
        raise Problem("bad-request", "lane must be live or backfill")
    return LANES.get(asked, default)


def wait_seconds(headers: Mapping[str, str]) -> int | None:
    """N of `Prefer: wait=N` (RFC 7240), at most a minute. A preference that is not understood is ignored."""
    found = _WAIT.search(headers.get("prefer", ""))
    return min(int(found[1]), WAIT_SECONDS_MAX) if found else None


def content_length(headers: Mapping[str, str]) -> int | None:
    given = headers.get("content-length", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
