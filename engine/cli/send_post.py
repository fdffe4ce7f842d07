"""Sending chunks: several at once, in order for every person, and never faster than the engine asks for."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson

from engine.cli.client import trouble
from engine.cli.send_read import Chunk
from engine.cli.send_state import Answer, Refused
from engine.errors import EngineError

JUDGED = (202, 207, 422)  # every record has its answer
LATER = (429, 503)
FAILED = (408, 500, 502, 504)
TOO_LARGE = 413
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 30.0
SHORTEST_WAIT_SECONDS, LONGEST_RETRY_AFTER_SECONDS = 0.05, 3_600.0


class Poster:
    """Posts chunks to one engine. A pause that it asks for holds for all of them.

    `patience_seconds`: how long failures (no connection, 5xx) are tried again without any success between. 429, and
    503 with Retry-After, are waited for as long as it takes. `sleep` and `now` (monotonic seconds) are the loop's
    unless given. `on_wait` is told why nothing goes out.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        query: Mapping[str, str],
        *,
        patience_seconds: float,
        on_wait: Callable[[str, float], None],
        chance: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session, self._url, self._query = session, f"{url}/v1/profiles", dict(query)
        self._patience_seconds, self._on_wait = patience_seconds, on_wait
        self._chance, self._sleep = chance or random.Random(), sleep
        self._now = asyncio.get_running_loop().time
        self._resume_at = 0.0
        self._success_at = self._now()

    async def post(self, chunk: Chunk) -> Answer:
        """Until it is judged. Raises EngineError when the engine will not take it, or does not answer any more."""
        failures, since = 0, self._now()
        while True:
            await self._pause()
            status, headers, data, why = await self._attempt(chunk)
            if status in JUDGED:
                self._success_at = self._now()
                return answer_of(chunk, data)
            if status == TOO_LARGE:
                return await self._smaller(chunk, data)
            asked = retry_after(headers.get("Retry-After")) if status in LATER else None
            if asked is not None:
                self._hold(max(asked, SHORTEST_WAIT_SECONDS) * self._chance.uniform(1.0, 1.2), why)
                self._success_at = self._resume_at  # it answers, and says when: patience counts from then
                continue
            if status and status not in LATER + FAILED:
                raise EngineError(why)
            failures += 1
            self._give_up_after(self._now() - max(since, self._success_at), why)
            self._hold(self._chance.uniform(0.1, 1.0) * _backoff(failures), why)

    async def _attempt(self, chunk: Chunk) -> tuple[int, Mapping[str, str], Any, str]:
        """(status, headers, JSON body, what it says); status 0 when no answer came."""
        headers = {"Content-Type": chunk.frame.content_type}
        try:
            async with self._session.post(
                self._url, data=chunk.body, headers=headers, params=self._query, allow_redirects=False
            ) as response:
                data = _decoded(await response.read())
                return response.status, response.headers, data, _said(response.status, data)
        except (aiohttp.ClientError, TimeoutError) as error:
            return 0, {}, None, trouble(error)

    async def _smaller(self, chunk: Chunk, data: Any) -> Answer:
        """The engine takes smaller bodies only: halve. A single record that is too large is refused."""
        if len(chunk.records) == 1:
            record = chunk.records[0]
            return Answer(refused=[Refused(chunk.first + 1, record.line, "", _said(TOO_LARGE, data))])
        whole = Answer(dropped=Counter())
        for half in chunk.halves():
            part = await self.post(half)
            whole.accepted += part.accepted
            whole.refused = whole.refused + part.refused
            whole.dropped.update(part.dropped)
            whole.receipts = whole.receipts + part.receipts
        return whole

    async def _pause(self) -> None:
        while (seconds := self._resume_at - self._now()) > 0:
            await self._sleep(seconds)

    def _hold(self, seconds: float, why: str) -> None:
        self._resume_at = max(self._resume_at, self._now() + seconds)
        self._on_wait(why, seconds)

    def _give_up_after(self, silent_seconds: float, why: str) -> None:
        if silent_seconds > self._patience_seconds:
            raise EngineError(f"nothing was accepted for {silent_seconds:.0f} seconds: {why}")


async def post_all(
    chunks: Iterator[Chunk],
    post: Callable[[Chunk], Awaitable[Answer]],
    concurrency: int,
    done: Callable[[Chunk, Answer], None],
) -> None:
    """Post every chunk, at most `concurrency` at once, and tell `done`.

    A chunk waits until no other one on its way names a person of its own, so that the last record of a person in the
    file is also the last to arrive. Chunks are read in a thread: a slow pipe does not hold up what is on its way.
    """
    travelling: dict[int, set[bytes]] = {}
    changed = asyncio.Condition()

    async def one(chunk: Chunk) -> None:
        try:
            done(chunk, await post(chunk))
        finally:
            async with changed:
                del travelling[chunk.first]
                changed.notify_all()

    async with asyncio.TaskGroup() as tasks:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            people = chunk.people
            async with changed:
                await changed.wait_for(lambda people=people: _may_go(people, travelling, concurrency))  # type: ignore[misc]
                travelling[chunk.first] = people
            tasks.create_task(one(chunk))


def _may_go(people: set[bytes], travelling: dict[int, set[bytes]], concurrency: int) -> bool:
    return len(travelling) < concurrency and all(people.isdisjoint(others) for others in travelling.values())


def answer_of(chunk: Chunk, data: Any) -> Answer:
    """The body of a 202, 207 or 422, with its indexes turned into places in the file."""
    if not isinstance(data, dict) or "accepted" not in data:
        raise EngineError("what answers there is not an engine; name the engine with --url")
    refused = [_refused(chunk, it) for it in data.get("rejected", [])]
    dropped = Counter(f"{it.get('field', '')}: {it.get('reason', '')}" for it in data.get("dropped", []))
    return Answer(int(data["accepted"]), refused, dropped, [str(data["receipt"])] if data.get("receipt") else [])


def _refused(chunk: Chunk, told: dict[str, Any]) -> Refused:
    index = int(told.get("index", 0))
    line = chunk.records[index].line if 0 <= index < len(chunk.records) else 0
    return Refused(chunk.first + index + 1, line, str(told.get("field") or ""), str(told.get("reason") or ""))


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, a number or a date, at most an hour; None when there is none to read."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else _until(value)
    except ValueError:
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS)


def _until(date: str) -> float:
    moment = parsedate_to_datetime(date)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()


def _backoff(failures: int) -> float:
    return float(min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(failures - 1, 10)))


def _decoded(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _said(status: int, data: Any) -> str:
    problem = data if isinstance(data, dict) else {}
    return str(problem.get("detail") or problem.get("title") or f"HTTP {status}").rstrip(".")
