"""One end of the link as a protocol of the loop: frames in; what is sent in one turn of the loop goes out at once."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import cast

from engine.adapters.worker_link.frames import FrameKind, Frames, LinkBroken

logger = logging.getLogger("engine.workers")


class Link(asyncio.BufferedProtocol, ABC):
    """Each end says what it does with a frame (`got`) and when there will be no more (`lost`)."""

    def __init__(self, most_bytes: int) -> None:
        self._frames = Frames(most_bytes)
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()

    @abstractmethod
    def got(self, kind: int, body: memoryview) -> None:
        """Raises LinkBroken. The memory of `body` is good until this returns."""

    @abstractmethod
    def lost(self) -> None:
        """The link has ended."""

    def send(self, *parts: bytes) -> None:
        """In order. What goes into a link that is closed goes nowhere."""
        if self.closed.is_set():
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out += parts

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(out)

    @property
    def unsent_bytes(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Once everything has been written."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    # -- called by the event loop ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for kind, body in self._frames.received(nbytes):
                self.got(kind, body)
        except LinkBroken as error:
            logger.error("the link between core and worker is broken: %s", error)
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._out.clear()
        self.lost()


__all__ = ["FrameKind", "Link"]
