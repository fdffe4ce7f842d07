"""A connection of the fast front: HTTP/1.1 with callbacks, without a task for what comes in one piece.

Rules of this file. Answers leave in the order of their requests: each request has a turn. What `Direct` takes is begun
at once, so that pipelined requests share a commit, unless a slow one is before it; a slow one begins when it is the
first, and is answered by aiohttp. A request that cannot be read is the last of its connection.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol, cast

import httptools

from engine.adapters.http_ingress.admission import Admitted
from engine.adapters.http_ingress.body import too_slow
from engine.adapters.http_ingress.direct import Admitting, Direct
from engine.adapters.http_ingress.fast_again import Repeats
from engine.adapters.http_ingress.fast_head import (
    HEAD_BYTES,
    Headers,
    HeadReader,
    RequestHead,
    length_by_hand,
    query_of,
    too_large,
    unreadable,
)
from engine.adapters.http_ingress.outlet import Outlet
from engine.adapters.http_ingress.patience import HEAD_SECONDS, NEVER
from engine.adapters.http_ingress.problems import Problem
from engine.adapters.http_ingress.request import PROFILES, IngressAnswer
from engine.adapters.http_ingress.turns import Turn, Turns
from engine.adapters.http_ingress.wire import encode

FRAMING_BYTES = 65_536
"""Beside as many bytes again as the body has: what sizes, extensions and trailers of chunks may cost."""

UNCOUNTED = -1  # it began amid the bytes that were read last: how many of them are its own is not known


class House(Protocol):
    """What the connections of one listener share."""

    direct: Direct
    body_seconds: float
    connections: set[Connection]

    closing: bool

    def left(self, connection: Connection) -> None: ...

    def handler(self) -> asyncio.Protocol:
        """One of aiohttp's, for one request."""

    def refusal(self, problem: Problem) -> IngressAnswer: ...


class Connection(Repeats):
    def __init__(self, house: House, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, house.body_seconds, house.direct)
        self._house = house
        self._parser = httptools.HttpRequestParser(self)
        self._turns = Turns(self.write, self._ended)
        self._tls = self._at_end = False
        self._heads, self._admitting = HeadReader(""), Admitting(house.direct)
        self._head_bytes = self._by_hand = 0
        self._target, self._raw, self._size = b"", Headers(), 0
        self._head: RequestHead | None = None
        self._admitted: Admitted | None = None
        self._refusal: IngressAnswer | None = None
        self._pieces: list[bytes] = []
        self._body_bytes = self._read_bytes = 0

    # -- the connection -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        peer = transport.get_extra_info("peername")
        self._heads = HeadReader(peer[0] if isinstance(peer, tuple) else "")
        self._tls = transport.get_extra_info("sslcontext") is not None
        self._house.connections.add(self)
        self._look_after()

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.left(self)
        self._transport, self._deaf = None, True
        for outlet in self._turns.clear():
            outlet.lose()
        del self._parser  # each holds the other

    def eof_received(self) -> bool:
        """Who has said everything still hears the answers; under TLS that cannot be."""
        self._at_end = True
        if self._turn is not None:
            turn, self._turn, self._deaf = self._turn, None, True
            outlet = turn.outlet
            self._turns.drop(turn)
            if outlet is not None:
                outlet.lose()
        self.deadline = NEVER
        if self._turns:
            self._turns.newest.last = True
        return bool(self._turns) and not self._tls

    def drain(self) -> None:
        """The listener closes: so does who waits for nothing."""
        if not self._turns and self._transport is not None:
            self._transport.close()

    def expire(self) -> None:
        if self._lingers or self._stalled:
            self.abort()
        elif self._holds:
            self._renew()  # it is we who do not read
        elif self._phase == "head":
            self._last(Problem("head-timeout", f"the head was not complete after {HEAD_SECONDS:g} seconds"))
        elif self._phase == "body" and self._turn is not None and self._turn.outlet is None:
            self._last(too_slow(self._body_seconds))
        else:
            self.abort()

    # -- reading --------------------------------------------------------------------------------------------------

    def _bound(self, size: int) -> None:
        if self._deaf:
            return
        if self._in_head:
            self._head_bytes = 0 if self._head_bytes == UNCOUNTED else self._head_bytes + size
            if self._head_bytes > HEAD_BYTES:
                self._last(too_large())
        elif self._refusal is not None:
            self._last_answer(self._refusal)
        elif self._turn is not None and self._head is not None and self._head.chunked:
            self._read_bytes = 0 if self._read_bytes == UNCOUNTED else self._read_bytes + size
            if self._read_bytes > 2 * self._body_bytes + FRAMING_BYTES:
                self._last(Problem("bad-request", "the chunks of the body have more around them than in them"))
        self._look_after()

    def _read(self, data: bytes | memoryview) -> None:
        while data and not self._deaf:
            if self._by_hand:
                data = self._read_by_hand(data)
                continue
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = memoryview(data)[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            except httptools.HttpParserError as error:
                if not self._deaf:
                    self._last(unreadable(error))

    def _read_by_hand(self, data: bytes | memoryview) -> memoryview:
        """The body of a request that offers another protocol: the parser takes it for that other protocol."""
        mine = bytes(data[: self._by_hand])
        self._by_hand -= len(mine)
        self.on_body(mine)
        if not self._by_hand:
            self._whole()
        return memoryview(data)[len(mine) :]

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes, self._phase = True, UNCOUNTED, ""
        self._target, self._raw, self._size = b"", [], 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else of a trailer, where nothing is looked for
            self._raw.append((name, value))
            self._size += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        self._in_head, self._phase, parser = False, "", self._parser
        self._turn = turn = self._turns.add(last=not parser.should_keep_alive())
        try:
            version = parser.get_http_version()
            head = self._heads.read(parser.get_method(), version, self._target, self._raw, self._size)
            self._head = head
            if parser.should_upgrade():
                self._by_hand = length_by_hand(head)
        except Problem as problem:
            self._last(problem)
            raise
        self._pieces, self._body_bytes, self._read_bytes = [], 0, UNCOUNTED
        if head.path != PROFILES or head.method != b"POST" or not self._direct.takes(head.known.headers, head.length):
            self._begin_slow(turn, head)
        elif not self._turns.must_wait:
            admitted = self._admitting.admit(head.known, query_of(head.target))
            if isinstance(admitted, IngressAnswer):
                self._refusal = admitted
            else:
                self._admitted = admitted

    def _begin_slow(self, turn: Turn, head: RequestHead) -> None:
        assert self._transport is not None
        turn.last = turn.last or head.version == "1.0"
        outlet = Outlet(
            self,
            self._transport.get_extra_info,
            self._house.handler(),
            chunked=head.chunked,
            keep_alive=not turn.last and not self._house.closing,
        )
        line = b"%b %b HTTP/%b" % (head.method, head.target.encode("ascii"), head.version.encode("ascii"))
        self._turns.begin(turn, partial(outlet.begin, line, head.raw, head.length), outlet)

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._turn is not None and self._turn.outlet is not None:
            self._turn.outlet.feed(data)
        elif self._refusal is None:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if not self._by_hand:
            self._whole()

    def _whole(self) -> None:
        turn, head, admitted, refusal = self._turn, self._head, self._admitted, self._refusal
        assert turn is not None, "a message has a head first"
        assert head is not None, "a message has a head first"
        self._turn = self._admitted = self._refusal = None
        if turn.last:
            self._deaf, self.deadline = True, NEVER
        if turn.outlet is not None:
            turn.outlet.end()
        elif refusal is not None:
            self._settle(turn, head, refusal)
        else:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces = []
            if admitted is not None:
                self._repeatable = head
                self._take(turn, head, admitted, body)
            else:
                self._turns.begin(turn, partial(self._admit, turn, head, body))

    # -- answering ------------------------------------------------------------------------------------------------

    def _admit(self, turn: Turn, head: RequestHead, body: bytes) -> None:
        admitted = self._admitting.admit(head.known, query_of(head.target))
        if isinstance(admitted, IngressAnswer):
            self._settle(turn, head, admitted)
        else:
            self._take(turn, head, admitted, body)

    def _take(self, turn: Turn, head: RequestHead, admitted: Admitted, body: bytes) -> None:
        answered = partial(self._settle, turn, head)
        self._direct.take(admitted, head.known, body, "", answered)

    def _settle(self, turn: Turn, head: RequestHead, answer: IngressAnswer) -> None:
        if self._transport is None:
            return
        if self._house.closing and self._turns.newest is turn:
            turn.last = True
        connection = "close" if turn.last else "keep-alive" if head.version == "1.0" else ""
        self._turns.settle(turn, encode(answer, connection))
        self._look_after()

    def _last(self, problem: Problem) -> None:
        self._last_answer(self._house.refusal(problem))

    def _last_answer(self, answer: IngressAnswer) -> None:
        """To a request that will not be read to its end, and nothing after it."""
        turn = self._turn or self._turns.add(last=True)
        self._turn = self._refusal = None
        self._deaf = turn.last = self._unread = True
        self.deadline = NEVER
        outlet = turn.outlet
        if outlet is not None and outlet.answering:
            self.abort()
            return
        self._turns.settle_instead(turn, encode(answer, "close"))
        if outlet is not None:
            outlet.lose()

    def answered(self, *, keep_alive: bool) -> None:
        self._turns.outlet_done(keep_alive=keep_alive and not self._house.closing)
        self._look_after()

    def _ended(self) -> None:
        """The last answer is out. What still comes is thrown away for a moment: a connection that is closed over unread
        bytes takes the answer with it."""
        if self._transport is None:
            return
        unread = self._unread or self._turn is not None
        self._deaf, self._turn = True, None
        if self._at_end or not unread:
            self._transport.close()
        else:
            self._linger(self._transport)
