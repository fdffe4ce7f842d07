"""Whatever is thrown at the ingress: no 5xx, no crash, good lines kept, bad requests without a trace.

`FUZZ_SEED=7 FUZZ_REQUESTS=1000000 python -m pytest tests/outages/test_outage_ingress.py -m process` goes on for longer.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import msgspec
import orjson
import pytest
from outage import open_files

from engine import Config, Engine
from engine.adapters.api_keys import Keys
from engine.adapters.http_ingress import Access, create_ingress_app
from engine.assembly.listeners import ingress_listener
from engine.testing.destination import FakeDestination

SEED = int(os.environ.get("FUZZ_SEED", "1"))
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "2000"))
FRONTS = ["aiohttp", "fast"]
WORKERS = 8
MAX_BODY, MAX_CLEAR, MAX_EVENTS = 65_536, 1_000_000, 200
BODY_SECONDS = 1.5
STALLED_EVERY = 70  # they take that long
CONFIG: dict[str, Any] = {
    "journal": {"kind": "memory"},
    "ingress": {
        "max_body_bytes": MAX_BODY,
        "max_decompressed_bytes": MAX_CLEAR,
        "max_events": MAX_EVENTS,
        "body_timeout_seconds": BODY_SECONDS,
        "answer_timeout_seconds": 30.0,
    },
    "account": [{"name": "a", "rate": {"requests_per_second": 5_000.0, "burst": 100}}],
    "destination": [{"name": "demo", "encoding": "array", "batch": {"max_profiles": 500}}],
}
BAD_LINES = (
    b"{",
    b"[]",
    b"7",
    b'"x"',
    b"null",
    b'{"city": "Lille"}',
    b'{"email": "nobody"}',
    b'{"email": 7}',
    b"\xff\xfe",
)
NDJSON = "application/x-ndjson"


class Case(msgspec.Struct):
    """One request as bytes. `good`: addresses that must be kept if it is answered with 202 or 207. `statuses`: what it
    may be answered with; none: it is not waited for an answer."""

    kind: str
    parts: list[bytes]
    statuses: set[int]
    good: list[str] = []
    pause_seconds: float = 0.0  # between the parts


class Answered(msgspec.Struct):
    case: Case
    status: int  # 0: nobody waited for it, or the connection was closed
    accepted: int = 0


@cache
def packed_bomb() -> bytes:
    """60 MB in less than a body may have."""
    return gzip.compress(b" " * 60 * MAX_CLEAR)


def most_resident_bytes(*, begin: bool = False) -> int:
    """Of this process, since the last time it was asked to `begin`."""
    if begin:
        Path("/proc/self/clear_refs").write_text("5")
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024


def request(body: bytes, media_type: str = NDJSON, *, length: int | None = None, **headers: str) -> list[bytes]:
    """Head and body."""
    named = {"Host": "localhost", "Content-Type": media_type, "Connection": "close", **headers}
    if "Transfer_Encoding" not in named:
        named["Content-Length"] = str(len(body) if length is None else length)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items()]
    return ["\r\n".join(["POST /v1/profiles HTTP/1.1", *lines, "", ""]).encode(), body]


class Fuzz:
    """Makes one case after the other, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random, self._number = random.Random(seed), 0
        self._kinds: list[Callable[[], Case]] = [
            self.mixed, self.mixed, self.mixed, self.packed, self.mutated, self.mutated, self.oversize, self.endless,
            self.bomb, self.corrupt, self.unknown_type, self.unknown_encoding, self.too_many, self.left_before,
            self.left_after, self.slow, self.no_http,
        ]  # fmt: skip

    def next(self) -> Case:
        self._number += 1
        if self._number % STALLED_EVERY == 0:
            return self.stalled()
        return self._random.choice(self._kinds)()

    def _good(self, number: int) -> list[str]:
        return [f"f{self._number}-{index}@people.example" for index in range(number)]

    def _lines(self, good: list[str], bad: int) -> bytes:
        lines = [orjson.dumps({"email": one, "city": one[0]}) for one in good]
        lines += [self._random.choice(BAD_LINES) for _ in range(bad)]
        self._random.shuffle(lines)
        return b"\n".join(lines)

    def mixed(self) -> Case:
        good, bad = self._good(self._random.randrange(6)), self._random.randrange(4)
        status = 422 if bad and not good else 207 if bad else 202 if good else 400
        return Case("mixed", request(self._lines(good, bad)), {status}, good)

    def packed(self) -> Case:
        good = self._good(5)
        return Case("packed", request(gzip.compress(self._lines(good, 1)), Content_Encoding="gzip"), {207}, good)

    def mutated(self) -> Case:
        body = bytearray(self._lines(self._good(4), 1))
        for _ in range(self._random.randint(1, 20)):
            body[self._random.randrange(len(body))] = self._random.randrange(256)
        media_type = self._random.choice([NDJSON, "application/json", "text/csv"])
        packed = self._random.random() < 0.2
        headers = {"Content_Encoding": self._random.choice(["gzip", "deflate", "zstd"])} if packed else {}
        return Case("mutated", request(bytes(body), media_type, **headers), {202, 207, 400, 413, 422})

    def oversize(self) -> Case:
        return Case("oversize", request(b" " * (MAX_BODY + 1)), {413})

    def endless(self) -> Case:
        """Chunked: nobody says how much it will be."""
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        return Case("endless", [request(b"", Transfer_Encoding="chunked")[0], *[chunk] * 6], {413})

    def bomb(self) -> Case:
        return Case("bomb", request(packed_bomb(), Content_Encoding="gzip"), {413})

    def corrupt(self) -> Case:
        body = bytearray(gzip.compress(self._lines(self._good(3), 0)))
        body[len(body) // 2 :] = self._random.randbytes(len(body) // 2)
        return Case("corrupt", request(bytes(body), Content_Encoding="gzip"), {400})

    def unknown_type(self) -> Case:
        media_type = self._random.choice(["text/plain", "application/x-www-form-urlencoded", "", "\t", 'a/b;c="d'])
        return Case("unknown type", request(self._lines(self._good(2), 0), media_type), {415})

    def unknown_encoding(self) -> Case:
        return Case("unknown encoding", request(self._lines(self._good(2), 0), Content_Encoding="br"), {415})

    def too_many(self) -> Case:
        return Case("too many", request(self._lines(self._good(MAX_EVENTS + 1), 0)), {413})

    def left_before(self) -> Case:
        head, body = request(self._lines(self._good(5), 0))
        return Case("left before", [head, body[: self._random.randrange(len(body))]], set())

    def left_after(self) -> Case:
        good = self._good(5)
        return Case("left after", request(self._lines(good, 0)), set(), good)

    def slow(self) -> Case:
        good = self._good(5)
        head, body = request(self._lines(good, 0))
        return Case("slow", [head, *(body[at : at + 80] for at in range(0, len(body), 80))], {202}, good, 0.01)

    def stalled(self) -> Case:
        head, body = request(self._lines(self._good(5), 0))
        return Case("stalled", [head, body[:20], b""], {408}, pause_seconds=0.01)

    def no_http(self) -> Case:
        noise = bytearray(b"\r\n".join(request(b"{}")))
        for _ in range(10):
            noise[self._random.randrange(60)] = self._random.randrange(256)
        return Case("no http", [bytes(noise)], set())


async def send(case: Case, port: int) -> Answered:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in case.parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(case.pause_seconds)
        if not case.statuses:
            return Answered(case, 0)
        return read(case, await asyncio.wait_for(reader.read(), 30.0))
    except ConnectionError:
        return Answered(case, 0)
    finally:
        writer.transport.abort()


def read(case: Case, reply: bytes) -> Answered:
    head, _, body = reply.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head else 0
    return Answered(case, status, orjson.loads(body)["accepted"] if status in (202, 207) else 0)


class Target:
    """An engine with its ingress on a port, and where its profiles end."""

    def __init__(self, engine: Engine, port: int, stored: FakeDestination) -> None:
        self.engine, self.port, self._stored = engine, port, stored

    def holds(self, address: str) -> bool:
        return address in self._stored.stored

    async def settled(self) -> None:
        with anyio.fail_after(60.0):
            while self.engine.control.destinations()[0]["counts"]["pending"]:  # noqa: ASYNC110 - no event for it
                await anyio.sleep(0.02)
        assert (await self.engine.control.audit())["ok"]


@asynccontextmanager
async def target(front: str) -> AsyncIterator[Target]:
    stored = FakeDestination(profiles_per_request=500)
    config = Config.from_dict(CONFIG | {"ingress": {**CONFIG["ingress"], "front": front, "port": 0}})
    async with Engine(config, destinations={"demo": stored}) as engine:
        ingress = engine.ingress(Access(Keys(())))
        listener = ingress_listener(create_ingress_app(ingress), ingress, config)
        await listener.open()
        try:
            yield Target(engine, listener.port, stored)
        finally:
            await listener.close()


async def throw(target: Target, seed: int, requests: int) -> list[Answered]:
    fuzz, answers, left = Fuzz(seed), list[Answered](), requests

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            answers.append(await send(fuzz.next(), target.port))

    async with anyio.create_task_group() as workers:
        for _ in range(WORKERS):
            workers.start_soon(work)
    return answers


def check(target: Target, answers: list[Answered]) -> None:
    for one in answers:
        case = one.case
        assert one.status < 500, (case.kind, one.status, case.parts)
        assert not one.status or one.status in case.statuses, (case.kind, one.status, case.parts)
        if case.kind == "mutated":
            continue
        if one.status in (202, 207):
            assert one.accepted == len(case.good)
            assert all(map(target.holds, case.good)), "good lines were lost"
        elif case.good:
            assert len({target.holds(address) for address in case.good}) == 1, "a request was torn"


LONG = [pytest.mark.process, pytest.mark.timeout(0)]


@pytest.mark.parametrize(
    ("front", "requests"),
    [
        ("fast", 100),
        pytest.param("fast", REQUESTS, marks=LONG),
        pytest.param("aiohttp", REQUESTS // 8, marks=LONG),  # it listens for five seconds to a body that it has refused
    ],
)
async def test_whatever_is_thrown_at_the_ingress_good_lines_are_kept_and_nothing_breaks(
    record_property, requests: int, front: str
) -> None:
    async with target(front) as it:
        packed_bomb()
        await throw(it, SEED + 1_000_000, 40)
        files, memory = open_files(), most_resident_bytes(begin=True)
        answers = await throw(it, SEED, requests)
        grown = most_resident_bytes() - memory
        await it.settled()
        check(it, answers)
        statuses = Counter(one.status for one in answers)
        record_property("requests", requests)
        record_property("answers", dict(sorted(statuses.items())))
        record_property("memory_grew_by_mb_at_most", round(grown / 1e6, 1))
        assert {202, 207, 400, 408, 413, 415, 422} <= set(statuses)
        assert grown <= 40e6 + 10_000 * requests  # the attendees it keeps and the cases we keep grow with the requests
        assert open_files() <= files + WORKERS
        assert (await send(Fuzz(0).packed(), it.port)).status == 207


@pytest.mark.parametrize("front", FRONTS)
async def test_a_hundred_resends_at_once_converge_and_every_one_is_accounted_for(record_property, front: str) -> None:
    """There is no Idempotency-Key: a resend is a further event, which changes nothing."""
    case = Fuzz(5).packed()
    async with target(front) as it:
        answers: list[Answered] = []

        async def resend() -> None:
            answers.append(await send(case, it.port))

        async with anyio.create_task_group() as producers:
            for _ in range(100):
                producers.start_soon(resend)
        await it.settled()
        counts = it.engine.control.destinations()[0]["counts"]
        record_property("resends", len(answers))
        record_property("outcomes", {name: number for name, number in counts.items() if number})
        assert {one.status for one in answers} == {207}
        assert all(map(it.holds, case.good))
        assert counts["accepted"] == 100 * len(case.good)
        assert sum(counts[one] for one in ("delivered", "superseded", "suppressed")) == 100 * len(case.good)
        assert counts["delivered"] + counts["suppressed"] >= len(case.good)
