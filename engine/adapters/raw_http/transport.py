"""The transport port on connections of our own. See `engine.transport`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from yarl import URL

from engine.adapters.raw_http.deadlines import Deadlines
from engine.adapters.raw_http.pool import Pool
from engine.adapters.raw_http.reaching import Dial, Dialer, Origin, reason_of
from engine.errors import PermitVoid
from engine.ports import Permit
from engine.transport import HEADERS, Answer


class RawTransport:
    """See `engine.transport.Transport`. At most `connections` are in use at once to each host; made inside the running
    loop."""

    def __init__(self, *, connections: int, dial: Dial | None = None) -> None:
        self._connections, self._dial = connections, dial or Dialer()
        self._pools: dict[Origin, Pool] = {}
        self._deadlines = Deadlines()

    def __repr__(self) -> str:
        return f"<RawTransport {list(self._pools.values())}>"

    def route(self, url: str, headers: Mapping[str, str], /, *, timeout_seconds: float) -> RawRoute:
        target = URL(url, encoded=True)
        origin = Origin.of(target)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, self._connections, self._dial)
        return RawRoute(pool, self._deadlines, head_of(target, headers), timeout_seconds)

    async def close(self) -> None:
        self._deadlines.close()
        for pool in self._pools.values():
            await pool.close()


class RawRoute:
    """See `engine.transport.Route`. `head`: every request's first line and headers, up to those of its own."""

    def __init__(self, pool: Pool, deadlines: Deadlines, head: str, timeout_seconds: float) -> None:
        self._pool, self._deadlines, self._head, self._timeout_seconds = pool, deadlines, head, timeout_seconds
        self._loop = asyncio.get_running_loop()

    async def post(self, body: bytes, headers: Mapping[str, str], permit: Permit, /) -> Answer:
        head = f"{self._head}{_lines(headers)}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        pool = self._pool
        connection = pool.at_hand()
        if connection is None:
            try:
                connection = await pool.take()
            except OSError as error:
                return Answer(reason=reason_of(error))
        try:
            await permit.use()
            if connection.closed:
                return Answer(reason="connect_failed")  # the other side hung up meanwhile
            waiter = connection.exchange(head, body)
            self._deadlines.watch(connection, self._loop.time() + self._timeout_seconds)
            return await waiter
        except PermitVoid:
            raise
        except BaseException:
            connection.abort()
            raise
        finally:
            self._deadlines.drop(connection)
            pool.give_back(connection)


def head_of(url: URL, headers: Mapping[str, str]) -> str:
    """Raises ValueError for what cannot stand in a header."""
    first = f"POST {url.raw_path_qs or '/'} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"
    return first + _lines({**HEADERS, **headers})


def _lines(headers: Mapping[str, str]) -> str:
    lines = ""
    for name, value in headers.items():
        line = f"{name}: {value}"
        if "\n" in line or "\r" in line:
            raise ValueError("a header must not hold a line break")
        lines += f"{line}\r\n"
    return lines


__all__ = ["RawRoute", "RawTransport", "head_of"]
