"""The connections to one origin: how many at once, which one next, and when an idle one goes."""

from __future__ import annotations

import asyncio

import anyio

from engine.adapters.raw_http.connection import Connection
from engine.adapters.raw_http.reaching import Dial, Origin
from engine.transport import CONNECT_SECONDS, KEEPALIVE_SECONDS


class Pool:
    """At most `connections` are in use. The one that was used last is used next, so that what is too much goes idle
    and is closed after `KEEPALIVE_SECONDS`, before the other side does it."""

    def __init__(self, origin: Origin, connections: int, dial: Dial) -> None:
        self._origin, self._dial = origin, dial
        self._places = anyio.Semaphore(connections, max_value=connections, fast_acquire=True)
        self._idle: list[Connection] = []  # the one that was used last comes last
        self._open: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._all_closed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Pool {self._origin.host}:{self._origin.port} [open {len(self._open)} | idle {len(self._idle)}]>"

    def at_hand(self) -> Connection | None:
        """A connection without waiting, if there is one."""
        if not self._idle:
            return None
        try:
            self._places.acquire_nowait()
        except anyio.WouldBlock:
            return None
        connection = self._from_idle()
        if connection is None:
            self._places.release()
        return connection

    async def take(self) -> Connection:
        """A connection, once there is a place and it is open. Raises OSError, TimeoutError."""
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._places.acquire()
            try:
                return self._from_idle() or await self._dialed()
            except BaseException:
                self._places.release()
                raise

    def give_back(self, connection: Connection) -> None:
        """What `at_hand` and `take` gave is not needed any more. Once for each, whatever became of it."""
        self._places.release()
        if not connection.closed:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            if self._timer is None:
                self._timer = self._loop.call_at(connection.idle_since + KEEPALIVE_SECONDS, self._tidy)

    async def close(self) -> None:
        """Close all of them, idle or in use, and wait until they are."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in [*self._open]:
            connection.abort()
        if self._open:
            await self._all_closed.wait()

    def opened(self, connection: Connection) -> None:
        """See `connection.Owner`."""
        self._open.add(connection)
        self._all_closed.clear()

    def lost(self, connection: Connection) -> None:
        """See `connection.Owner`."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._open:
            self._all_closed.set()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _from_idle(self) -> Connection | None:
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now < connection.idle_since + KEEPALIVE_SECONDS:
                return connection
            connection.abort()
        return None

    def _tidy(self) -> None:
        """Close what has been idle for too long; look again when the next one will have been."""
        self._timer, now = None, self._loop.time()
        old = [one for one in self._idle if now >= one.idle_since + KEEPALIVE_SECONDS]
        del self._idle[: len(old)]
        for connection in old:
            connection.abort()
        if self._idle:
            self._timer = self._loop.call_at(self._idle[0].idle_since + KEEPALIVE_SECONDS, self._tidy)

    async def _dialed(self) -> Connection:
        made: list[Connection] = []

        def make() -> Connection:
            connection = Connection(self)
            made.append(connection)
            return connection

        try:
            await self._dial(self._origin, make)
        except BaseException:
            for connection in made:
                connection.abort()
            raise
        return made[-1]


__all__ = ["Pool"]
