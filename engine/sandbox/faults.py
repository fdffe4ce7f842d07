"""Faults as data: what goes wrong, how often, for how long and for whom. No I/O: `replies.py` carries them out.

The same seed and the same sequence of requests draw the same faults: each fault has a generator of its own, so adding
one leaves the draws of the others alone.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

Kind = Literal[
    "status",
    "html_500",
    "error_code",
    "redirect",
    "latency",
    "drip",
    "half_answer",
    "not_json",
    "mislabelled",
    "huge",
    "bomb",
    "reset_before",
    "reset_after",
    "stale_connection",
    "timeout",
    "timeout_after",
    "token_storm",
]
Path = Literal["store", "token", "any"]

FINAL_BEFORE = ("reset_before", "timeout", "status", "html_500", "redirect", "error_code")
"""End a request before anything is stored; of several the first in this order wins."""

FINAL_AFTER = (
    "reset_after",
    "timeout_after",
    "drip",
    "half_answer",
    "not_json",
    "mislabelled",
    "huge",
    "bomb",
    "stale_connection",
)
"""Spoil the answer of a request that was carried out."""

UNANSWERED = ("reset_after", "timeout_after")
"""Those of them that leave the caller without any answer."""


class Fault(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that goes wrong.

    ================ ==================================================================================
    status           answers `status` (default 503) with `retry_after`: HTML from 500 on, 429 empty, else an envelope
    html_500         answers 500 as an HTML page
    error_code       answers `status` (default 200) with the response code `code`; nothing is stored
    redirect         answers `status` (default 307) with `location` (default: cloud metadata); stores nothing
    latency          waits `seconds` before the request is judged; it is carried out even if the caller has left
    drip             carries out, then sends the answer in small pieces over `seconds`
    half_answer      carries out, then sends the first half of the answer as if it were all of it: broken JSON
    not_json         carries out, then answers with an HTML page in place of the envelope
    mislabelled      carries out, then calls its JSON `text/html`
    huge             carries out, then pads the answer to `bytes` (default 100 MB)
    bomb             the same, compressed by gzip whether or not the caller takes that
    reset_before     cuts the connection (RST), nothing is stored
    reset_after      stores, then cuts the connection (RST)
    stale_connection carries out and answers; the next request on this connection finds it closed (RST), stores nothing
    timeout          stores nothing, stays silent for `seconds`, then cuts the connection
    timeout_after    stores, stays silent for `seconds`, then cuts the connection
    token_storm      revokes all tokens before the request is judged, at most once every `seconds`
    ================ ==================================================================================

    `count`: this many times at most. `for_seconds`: only so long after being set. `email_sha256`: only requests with
    this attendee; an `error_code` then refuses only that record of a list. `event`: only requests for this event code.
    """

    kind: Kind
    probability: float = 1.0
    status: int | None = None
    retry_after: float | Literal["date"] | None = None  # seconds; "date": as an HTTP date `seconds` (default 1) ahead
    code: str = "124"
    location: str = "http://169.254.169.254/latest/meta-data/"
    bytes: int = 100_000_000
    seconds: float | None = None
    for_seconds: float | None = None
    count: int | None = None
    path: Path = "store"
    email_sha256: str | None = None
    event: str | None = None

    def __post_init__(self) -> None:
        """:raises ValueError: for a value that has no meaning."""
        if not 0 <= self.probability <= 1:
            raise ValueError("probability must be between 0 and 1")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status must be between 200 and 599")
        for name in ("seconds", "for_seconds", "count", "retry_after"):
            value = getattr(self, name)
            if isinstance(value, int | float) and not 0 <= value <= 86_400_000:
                raise ValueError(f"{name} must be between 0 and 86,400,000")
        if not 0 <= self.bytes <= 10_000_000_000:
            raise ValueError("bytes must be between 0 and 10,000,000,000")
        if not self.location.isprintable():
            raise ValueError("location must be printable")
        if self.email_sha256 is not None and len(self.email_sha256) != 64:
            raise ValueError("email_sha256 must have 64 hexadecimal digits")

    def seconds_or(self, default: float) -> float:
        return default if self.seconds is None else self.seconds


def parse_flag(text: str) -> Fault:
    """The fault of ``kind=status,status=503,probability=0.2``.

    :raises ValueError: when it is not one; the message says why.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    fields: dict[str, Any] = {name.strip(): value.strip() for name, _, value in pairs}
    try:
        return msgspec.convert(fields, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"fault {text!r}: {error}") from None


def parse_document(text: bytes, *, toml: bool = False) -> list[Fault]:
    """The faults of a JSON or TOML document: a list, or an object (table) with a list under ``faults``.

    :raises ValueError: when it is neither; the message says why.
    """
    try:
        document = tomllib.loads(text.decode()) if toml else msgspec.json.decode(text)
        listed = document.get("faults", []) if isinstance(document, dict) else document
        return msgspec.convert(listed, list[Fault])
    except (msgspec.MsgspecError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"faults: {error}") from None


class FaultState:
    """One fault in force: its own generator, how often it hit, when it ends."""

    __slots__ = ("_last_hit_at", "_random", "ends_at", "fault", "hits")

    def __init__(self, fault: Fault, rng: random.Random, now: float) -> None:
        self.fault = fault
        self.hits = 0
        self.ends_at = None if fault.for_seconds is None else now + fault.for_seconds
        self._random = rng
        self._last_hit_at: float | None = None

    def draw(self, now: float) -> bool:
        """Whether it strikes a request that it could strike, at `now` (monotonic seconds); counts the hit."""
        fault = self.fault
        if self.over(now) or self._random.random() >= fault.probability or self._resting(now):
            return False
        self.hits += 1
        self._last_hit_at = now
        return True

    def over(self, now: float) -> bool:
        spent = self.fault.count is not None and self.hits >= self.fault.count
        return spent or (self.ends_at is not None and now >= self.ends_at)

    def describe(self, now: float) -> dict[str, Any]:
        """The fault and its standing, for the admin endpoint."""
        left = None if self.ends_at is None else max(0.0, self.ends_at - now)
        return {**msgspec.to_builtins(self.fault), "hits": self.hits, "over": self.over(now), "seconds_left": left}

    def _resting(self, now: float) -> bool:
        if self.fault.kind != "token_storm" or self._last_hit_at is None:
            return False
        return now - self._last_hit_at < self.fault.seconds_or(0.0)


class FaultBook:
    """The faults in force."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: list[FaultState] = []
        self.keyed = False  # some fault asks for an e-mail's hash, which is then worth computing

    def set(self, faults: Iterable[Fault], now: float) -> None:
        """Put these in the place of all others; their counts and times start at `now` (monotonic seconds)."""
        self._states = [
            FaultState(fault, random.Random(f"{self._seed}/fault/{index}"), now) for index, fault in enumerate(faults)
        ]
        self.keyed = any(state.fault.email_sha256 is not None for state in self._states)

    def describe(self, now: float) -> list[dict[str, Any]]:
        return [state.describe(now) for state in self._states]

    def draw(self, path: Literal["store", "token"], keys: Sequence[str], now: float, event: str = "") -> list[Fault]:
        """The faults that strike one request. `keys`: hashes of the e-mails in it, empty when none was asked for;
        `event`: the event code it is for."""
        if not self._states:
            return []
        return [state.fault for state in self._states if _concerns(state.fault, path, keys, event) and state.draw(now)]


def first_of(faults: Sequence[Fault], kinds: Sequence[str]) -> Fault | None:
    """The fault that decides: by the order of `kinds`, then by the order they were set in."""
    return next((fault for kind in kinds for fault in faults if fault.kind == kind), None)


def _concerns(fault: Fault, path: str, keys: Sequence[str], event: str) -> bool:
    if fault.path not in (path, "any") or fault.event not in (None, event):
        return False
    return fault.email_sha256 is None or fault.email_sha256 in keys
