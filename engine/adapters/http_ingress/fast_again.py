"""A request that comes whole, with a head that was read before, byte for byte but for the length of the body.

Producers send the same head again and again. What it means was found out when it came first, by a parser that refuses
what could mean two things; the same bytes mean the same. Anything else, be it one byte, is the parser's.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod

from engine.adapters.http_ingress.direct import Direct
from engine.adapters.http_ingress.fast_head import RequestHead
from engine.adapters.http_ingress.patience import Patience
from engine.adapters.http_ingress.turns import Turn

DIGITS = 10
"""Of a length, at most."""

_length = re.compile(rb"\r\ncontent-length: ?([0-9]+)(?=\r\n)", re.IGNORECASE).finditer
_END = b"\r\n\r\n"


class KnownHead:
    """`head`: what the parser made of it; None while there is none."""

    __slots__ = ("_before", "_behind", "head")

    def __init__(self) -> None:
        self.head: RequestHead | None = None
        self._before = self._behind = b""

    def learn(self, data: bytes, head: RequestHead) -> None:
        """`data`: what came at once, and brought a request with this head to its end. It is learned if that is all."""
        written = data[: len(data) - head.length]
        lengths = list(_length(written))
        if written.find(_END) + len(_END) == len(written) and len(lengths) == 1:
            begin, end = lengths[0].span(1)
            self._before, self._behind, self.head = written[:begin], written[end:], head

    def body_of(self, data: bytes) -> bytes | None:
        """The body of a request, if `data` is one whole request with this head, and nothing else."""
        begin = len(self._before)
        end = data.find(b"\r", begin, begin + DIGITS + 1)
        digits = data[begin:end]
        if not (data.startswith(self._before) and digits.isdigit() and data.startswith(self._behind, end)):
            return None
        start = end + len(self._behind)
        return data[start:] if len(data) - start == int(digits) else None


class Repeats(Patience):
    """The part of a connection that sees them; everything else goes to `_read`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body_seconds: float, direct: Direct) -> None:
        super().__init__(loop, body_seconds)
        self._direct, self._known = direct, KnownHead()
        self._repeatable: RequestHead | None = None  # of the last one that was read and went the direct way

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        between = not self._in_head and self._turn is None
        if not between or not self._takes_again(data):
            self._read(data)
            head, self._repeatable = self._repeatable, None
            if between and head is not None:
                self._known.learn(data, head)
        self._bound(len(data))

    def _takes_again(self, data: bytes) -> bool:
        head = self._known.head
        body = self._known.body_of(data) if head is not None and not self._turns.must_wait else None
        if head is None or body is None or not self._direct.takes(head.known.headers, len(body)):
            return False
        self._phase = ""
        self._admit(self._turns.add(last=False), head, body)
        return True

    @abstractmethod
    def _read(self, data: bytes) -> None: ...

    @abstractmethod
    def _bound(self, size: int) -> None:
        """Within what limits of what is not complete yet?"""

    @abstractmethod
    def _admit(self, turn: Turn, head: RequestHead, body: bytes) -> None:
        """A whole request."""
