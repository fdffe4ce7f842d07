"""Raw connections that lead to the simulated store: the engine's own pool, connections and parser, and no sockets.

What is answered comes as bytes, in as many ways as servers have of saying it.
"""

from __future__ import annotations

import asyncio
import random
import re
from contextvars import ContextVar
from typing import Any

import aiohttp
import anyio
from store import Answer, OtherSide

from engine.adapters.raw_http.connection import Connection
from engine.adapters.raw_http.pool import Pool
from engine.adapters.raw_http.reaching import Make, Origin
from engine.adapters.raw_http.transport import RawRoute, RawTransport
from engine.ports import Permit
from engine.transport import Answer as Outcome

RECORDS: ContextVar[list[Any]] = ContextVar("what the task is about to send")
TAKEN: ContextVar[Connection] = ContextVar("the connection that the task has taken")

_token = re.compile(rb"\r\nAuthorization: Bearer (\S+)\r\n").search


class Wire(asyncio.Transport):
    """One connection, seen from the client; what it writes is a whole request."""

    def __init__(self, other_side: OtherSide, protocol: asyncio.Protocol, source: random.Random) -> None:
        super().__init__()
        self._other_side, self._protocol, self._random = other_side, protocol, source
        self._exchange: asyncio.Task[None] | None = None
        self._closed = False

    def writelines(self, parts: Any) -> None:
        head, body = parts
        token = _token(head)
        assert token is not None
        assert self._exchange is None or self._exchange.done(), "one request at a time"
        exchange = self._other_side.received(body, token[1].decode())
        self._exchange = asyncio.get_running_loop().create_task(self._serve(exchange))

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        if self._exchange is not None and not self._exchange.done() and asyncio.current_task() is not self._exchange:
            self._exchange.cancel()
        self._close(None)

    def hang_up(self, error: Exception | None = None) -> None:
        """What the other side does."""
        if not self._closed:
            self._closed = True
            self._protocol.connection_lost(error)

    def _close(self, error: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, error)

    async def _serve(self, exchange: Any) -> None:
        try:
            answer = await exchange
        except aiohttp.ClientError:
            self.hang_up(ConnectionResetError())
            return
        if not self._closed:
            self._say(answer)

    def _say(self, answer: Answer) -> None:
        data, ends = said(answer, self._random.choice(("length", "length", "chunked", "close", "interim")))
        if answer.breaks:
            data, ends = data[: -len(answer.body) // 2 - 1], True
        cut = self._random.randrange(len(data)) if self._random.random() < 0.3 else len(data)
        for piece in filter(None, (data[:cut], data[cut:])):
            self._protocol.data_received(piece)
        if ends:
            self._protocol.eof_received()
            self.hang_up()
        elif self._other_side._chance("closed"):
            asyncio.get_running_loop().call_later(self._random.uniform(0.0, 0.2), self._hang_up_if_idle)

    def _hang_up_if_idle(self) -> None:
        """It would be a refusal of whatever is about to be sent over it."""
        if self._exchange is not None and self._exchange.done() and self._protocol not in BUSY:
            self.hang_up()


BUSY: set[asyncio.BaseProtocol] = set()
"""Taken, and not given back yet."""


def said(answer: Answer, style: str) -> tuple[bytes, bool]:
    """As bytes; does the connection end with it? A broken one says how long it would have been."""
    style = "length" if answer.breaks else style
    headers = {**answer.headers}
    body, before = answer.body, b""
    if style == "chunked":
        headers["Transfer-Encoding"] = "chunked"
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part) + b"0\r\n\r\n"
    elif style == "close":
        headers["Connection"] = "close"
    else:
        headers["Content-Length"] = str(len(body))
    if style == "interim":
        before = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 3000\r\n\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return before + f"HTTP/1.1 {answer.status} Said\r\n{lines}\r\n".encode() + body, style == "close"


class TracedPool(Pool):
    """Tells who has which connection."""

    def at_hand(self) -> Connection | None:
        return _traced(super().at_hand())

    async def take(self) -> Connection:
        found = _traced(await super().take())
        assert found is not None
        return found

    def give_back(self, connection: Connection) -> None:
        BUSY.discard(connection)
        super().give_back(connection)


def _traced(connection: Connection | None) -> Connection | None:
    if connection is not None:
        TAKEN.set(connection)
        BUSY.add(connection)
    return connection


class Wires(RawTransport):
    """See `engine.transport.Transport`."""

    def __init__(self, other_side: OtherSide, connections: int) -> None:
        super().__init__(connections=connections, dial=self._dialed)
        self._other_side = other_side
        self._random = random.Random(f"wires {other_side.knobs.seed} {other_side.facts.life}")

    def route(self, *given: Any, **named: Any) -> Any:
        return Tracked(super().route(*given, **named), self._other_side)

    async def _dialed(self, origin: Origin, make: Make) -> None:
        await anyio.sleep(self._random.choice([0.0, self._random.uniform(0.0, self._other_side.knobs.connect_seconds)]))
        if self._other_side._chance("refused"):
            self._other_side.facts.seen["refused"] += 1
            self._other_side._note_failure(RECORDS.get())
            raise ConnectionRefusedError
        protocol = make()
        protocol.connection_made(Wire(self._other_side, protocol, self._random))


class Tracked:
    """See `engine.transport.Route`. Says what is about to be sent, and breaks connections while permits are asked."""

    def __init__(self, route: RawRoute, other_side: OtherSide) -> None:
        self._route, self._other_side = route, other_side

    async def post(self, body: bytes, headers: Any, permit: Permit, /) -> Outcome:
        RECORDS.set(self._other_side._records(body))
        return await self._route.post(body, headers, Brittle(permit, self._other_side))


class Brittle:
    """See `ports.Permit`."""

    def __init__(self, permit: Permit, other_side: OtherSide) -> None:
        self._permit, self._other_side, self.token = permit, other_side, permit.token

    async def use(self) -> None:
        if not self._other_side._chance("closed"):
            await self._permit.use()
            return
        self._other_side._note_failure(RECORDS.get())
        await self._permit.use()
        wire = TAKEN.get()._transport
        if isinstance(wire, Wire):
            wire.hang_up()
