"""What producers send: formats, sizes, repeated people. Equal arguments make equal bodies, in whatever process.

Every event carries its number (`No. 17,` in ``address1``), so that the sink can say which version of a person it got.
"""

from __future__ import annotations

import random
import zlib
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import Literal

import msgspec
import orjson

from engine.bench.events import DOMAIN, TEMPLATES, template

Format = Literal["object", "array", "ndjson", "aep"]
TYPES = {"object": "application/json", "array": "application/json", "aep": "application/json"}
NDJSON = "application/x-ndjson"

RECENT = 2_000
"""A repeated person is one of so many that came last."""
ZIPF_PEOPLE, ZIPF_EXPONENT, ZIPF_DRAWN = 100_000, 1.1, 1 << 16
SCATTER = 2_654_435_761
"""Knuth's multiplier: neighbouring numbers land far apart."""


class Shape(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """`sizes`: events of one request, taken in turn. `repeats`: share of events of a person that came lately."""

    format: Format = "array"
    sizes: tuple[int, ...] = (1,)
    compression: Literal["", "gzip", "zstd"] = ""
    repeats: float = 0.0
    zipf: bool = False
    run: str = "w"  # keeps the people of one phase apart from those of another
    seed: int = 1
    base: int = 0  # added to every number, to tell two loads apart that run at once

    @property
    def repeated(self) -> bool:
        """Whether some people come more than once."""
        return self.zipf or self.repeats > 0

    # -- numbers --------------------------------------------------------------------------------------------------

    @property
    def events_per_request(self) -> float:
        return sum(self.sizes) / len(self.sizes)

    def first_of(self, request: int) -> int:
        """The number of the first event of a request."""
        rounds, place = divmod(request, len(self.sizes))
        return rounds * self._starts[-1] + self._starts[place]

    def size_of(self, request: int) -> int:
        return self.sizes[request % len(self.sizes)]

    def request_of(self, event: int) -> int:
        rounds, rest = divmod(event, self._starts[-1])
        return rounds * len(self.sizes) + bisect_right(self._starts, rest) - 1

    def person_of(self, event: int) -> int:
        if self.zipf:
            return self._drawn[event % ZIPF_DRAWN]
        if not self.repeats:
            return event
        fresh = int(event * (1 - self.repeats))  # people met before this event
        if int((event + 1) * (1 - self.repeats)) > fresh or not fresh:
            return fresh
        return fresh - 1 - (event * SCATTER >> 7) % min(fresh, RECENT)

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate(self.sizes, initial=0))

    @cached_property
    def _drawn(self) -> list[int]:
        weights = [rank**-ZIPF_EXPONENT for rank in range(1, ZIPF_PEOPLE + 1)]
        return random.Random(self.seed).choices(range(ZIPF_PEOPLE), weights, k=ZIPF_DRAWN)

    # -- bodies ---------------------------------------------------------------------------------------------------

    def body(self, request: int) -> bytes:
        first = self.first_of(request)
        records = [self.record(event) for event in range(first, first + self.size_of(request))]
        return self._packed(self._joined(records))

    def record(self, event: int) -> bytes:
        return self._templates[event % TEMPLATES] % (self.base + self.person_of(event), self.base + event)

    def _joined(self, records: list[bytes]) -> bytes:
        if self.format == "object":
            return records[0]
        if self.format == "ndjson":
            return b"\n".join(records) + b"\n"
        joined = b"[" + b",".join(records) + b"]"
        return b'{"profiles":' + joined + b"}" if self.format == "aep" else joined

    def _packed(self, body: bytes) -> bytes:
        if self.compression == "gzip":
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            return packer.compress(body) + packer.flush()
        return _zstd(body) if self.compression == "zstd" else body

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        kind = ("Content-Type", TYPES.get(self.format, NDJSON))
        return (kind, ("Content-Encoding", self.compression)) if self.compression else (kind,)

    @cached_property
    def _templates(self) -> list[bytes]:
        rng = random.Random(self.seed)
        flat = [template(rng, self.run) | {"address1": "No. %d, Haddad Street"} for _ in range(TEMPLATES)]
        return [orjson.dumps(_aep(it) if self.format == "aep" else it) for it in flat]


def _aep(record: dict[str, str]) -> dict[str, object]:
    """As a Destination SDK template sends it."""
    attributes = {name: {"value": value} for name, value in record.items() if name != "email"}
    audience = {"lastQualificationTime": "2026-10-02T08:15:30Z", "status": "realized", "name": "Registrants"}
    return {
        "identityMap": {"Email": [{"id": record["email"]}]},
        "segmentMembership": {"ups": {"3f0c7a52-6d1e-4b0a-9a55-0c7b1c9f2e11": audience}},
        "attributes": attributes,
    }


def _zstd(body: bytes) -> bytes:
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.compress(body, 1))


__all__ = ["DOMAIN", "Shape"]
