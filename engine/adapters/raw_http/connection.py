"""One connection: a request at a time, and what is made of the bytes that come back.

Who reads the wire does not trust it: every way in which a reply can end is in `Answer.reason`, and a connection is used
again only if the reply ended where it said it would, nothing came behind it, and the request had left whole.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from engine.transport import REPLY_BYTES, Answer, unpacked

HEAD_BYTES = 65_536
"""Of the headers of one reply, those of 1xx replies before it included."""

SWITCHING = 101
LENIENT = ("lenient_headers", "lenient_optional_cr_before_lf", "lenient_spaces_after_chunk_size")
"""What servers get wrong and clients forgive; nothing that could move the end of a reply."""


class Owner(Protocol):
    """Whose connection it is."""

    def opened(self, connection: Connection, /) -> None: ...

    def lost(self, connection: Connection, /) -> None:
        """It is closed, whether it was idle or in use."""


class Connection(asyncio.Protocol):
    """See the module's docstring. `deadline` and `idle_since` (loop time) belong to the pool."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**dict.fromkeys(LENIENT, True))
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        self._encoding = b""
        self._parts: list[bytes] = []
        self._size = self._head_size = 0
        self._in_head = self._has_end = self._complete = self._reusable = False
        self.closed = True
        self.deadline = self.idle_since = 0.0

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self._waiter is None else "in use"
        return f"<Connection [{state}]>"

    # -- one request ----------------------------------------------------------------------------------------------

    def exchange(self, head: bytes, body: bytes) -> asyncio.Future[Answer]:
        """Send a request; the future always ends in an answer. Only while it is open, with none under way."""
        assert self._transport is not None
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        self._answer = Answer(sent=True)
        self._head_size = 0
        self._expect()
        self._transport.writelines((head, body))
        return waiter

    def expire(self) -> None:
        """The time for it is over."""
        self._conclude("timeout")

    def abort(self) -> None:
        """Close at once, whatever is under way: nothing more of it is sent or read."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    def _expect(self) -> None:
        """A reply, from its first line on."""
        self._encoding = b""
        self._parts, self._size = [], 0
        self._in_head, self._has_end, self._complete, self._reusable = True, False, False, False

    def _conclude(self, reason: str = "") -> None:
        """The one place where a request ends. Of what is not whole, the connection ends too."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self.abort()
            return
        answer = self._answer
        answer.reason = reason
        if not reason:
            answer.body = self._body()
        if reason or not self._reusable or self.closed or self._is_sending():
            self.abort()
        if not waiter.done():
            waiter.set_result(answer)

    def _body(self) -> bytes:
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._size > REPLY_BYTES:
            body = body[:REPLY_BYTES]
        return unpacked(body, self._encoding.decode("latin-1")) if self._encoding else body

    def _is_sending(self) -> bool:
        """The reply came before the request had left: what is left of it would be taken for the next one."""
        return self._transport is None or self._transport.get_write_buffer_size() > 0

    # -- what the loop says ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.closed = False
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # nobody has asked: a farewell, or the rest of something that was cut
            return
        if self._in_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._reusable = False
        except HttpParserError:
            self._reusable = False
            if not self._complete:
                self._conclude("bad_http")
                return
        self._look()

    def _look(self) -> None:
        if self._complete or self._size > REPLY_BYTES:
            self._conclude()
        elif self._in_head and self._head_size > HEAD_BYTES:
            self._conclude("bad_http")

    def eof_received(self) -> None:
        """The other side is done; a reply without a length ends here. The transport closes itself."""
        self.closed = True
        if self._waiter is not None and not self._in_head and not self._has_end:
            self._reusable = False
            self._conclude()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._transport = None
        if self._waiter is not None:
            self._conclude("connection_lost")
        self._owner.lost(self)

    # -- what the parser says -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:  # a second reply to one request
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # behind a chunked body
        length = len(name)
        if length == 14 or length == 17:
            self._note_end(name.lower(), value)
        elif length == 11 and name.lower() == b"retry-after" and self._answer.retry_after is None:
            self._answer.retry_after = value.decode("latin-1")
        elif length == 16 and name.lower() == b"content-encoding":
            self._encoding = value

    def _note_end(self, name: bytes, value: bytes) -> None:
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            self._has_end = True

    def on_headers_complete(self) -> None:
        if not self._complete:
            self._answer.status = self._parser.get_status_code()
            self._in_head = False

    def on_body(self, body: bytes) -> None:
        if not self._complete and self._size <= REPLY_BYTES:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        status = self._answer.status
        if status < 200 and status != SWITCHING:
            self._answer.status, self._answer.retry_after = 0, None
            self._expect()
            return
        self._complete = True
        self._reusable = status != SWITCHING and self._parser.should_keep_alive()


__all__ = ["Connection", "Owner"]
