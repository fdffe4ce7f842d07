"""The other direction: what RainFocus's streaming source connector pushes when something has changed there.

Records have the fields that Adobe's page on the RainFocus source names, and go to one URL, one after the other, each
tried once. Edits by a person are pushed; what the API wrote is only if `push_writes` says so: whether RainFocus itself
pushes those is not published.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from engine.sandbox.attendees import Attendee
from engine.sandbox.settings import Clock, Settings

PUSH_SECONDS = 10.0


class Pushed(msgspec.Struct):
    """What came of one push. `status` 0: no answer, or nobody to push to."""

    status: int = 0
    answer: str = ""


class Pusher:
    """Pushes in the order of the calls. `pushed` counts answers by status."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._url, self._key, self._clock = settings.push_url, settings.push_key, clock
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Pushed]]] = asyncio.Queue()
        self._transmissions = 0
        self.pushed: dict[str, int] = {}

    @property
    def wanted(self) -> bool:
        return bool(self._url)

    def record_of(self, attendee: Attendee, kind: str) -> dict[str, Any]:
        """`kind`: the `eventType`."""
        self._transmissions += 1
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        return {
            "attendee": {"registered": "Yes", "attendeeId": attendee.attendee_id, "email": attendee.email},
            "transmissionId": f"{int(self._clock.time() * 1000):013}{self._transmissions % 1000:03}sBox",
            "eventType": kind,
            "timestamp": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "event": {"name": attendee.event},
        }

    def offer(self, record: Any) -> asyncio.Future[Pushed]:
        """Push it after what waits already; await the future for what comes of it."""
        done: asyncio.Future[Pushed] = asyncio.get_running_loop().create_future()
        if self._url:
            self._waiting.put_nowait((record, done))
        else:
            done.set_result(Pushed())
        return done

    async def running(self, app: web.Application) -> AsyncIterator[None]:
        """As a cleanup context of the application."""
        worker = asyncio.create_task(self._work())
        yield
        worker.cancel()
        await asyncio.wait({worker})

    async def _work(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PUSH_SECONDS)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            while True:
                record, done = await self._waiting.get()
                pushed = await self._push(session, record)
                self.pushed[str(pushed.status)] = self.pushed.get(str(pushed.status), 0) + 1
                if not done.done():
                    done.set_result(pushed)

    async def _push(self, session: aiohttp.ClientSession, record: Any) -> Pushed:
        try:
            async with session.post(self._url, data=msgspec.json.encode(record)) as reply:
                return Pushed(reply.status, await reply.text())
        except (aiohttp.ClientError, OSError) as error:
            return Pushed(0, type(error).__name__)
