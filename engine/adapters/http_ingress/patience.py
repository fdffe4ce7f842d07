"""For how long a connection of the fast front waits for the other side, and when it stops reading."""

from __future__ import annotations

import asyncio

from engine.adapters.http_ingress.turns import Turn, Turns

HEAD_SECONDS = 10.0
KEEPALIVE_SECONDS = 75.0
LINGER_SECONDS = 5.0
WRITE_SECONDS = 30.0
PIPELINED = 32
"""So many requests of one connection may wait for their answers; meanwhile no more is read of it."""

NEVER = float("inf")


class Patience(asyncio.Protocol):
    """`deadline`: in the loop's time; whoever looks after the connections calls `expire` then."""

    _turns: Turns

    def __init__(self, loop: asyncio.AbstractEventLoop, body_seconds: float) -> None:
        self._loop, self._body_seconds = loop, body_seconds
        self._transport: asyncio.Transport | None = None
        self._deaf = self._lingers = self._unread = self._full = self._stalled = self._in_head = False
        self._turn: Turn | None = None  # whose body is coming in
        self._holds = 0
        self.deadline, self._phase = NEVER, ""

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """The other side does not read its answers."""
        self._stalled = True
        self.hold_reading()
        self.deadline = self._loop.time() + WRITE_SECONDS
        self._turns.pause_writing()

    def resume_writing(self) -> None:
        self._stalled, self.deadline = False, NEVER
        self.release_reading()
        self._turns.resume_writing()
        if self._lingers:
            self.deadline = self._loop.time() + LINGER_SECONDS
        self._renew()

    def hold_reading(self) -> None:
        self._holds += 1
        if self._holds == 1 and self._transport is not None and not self._lingers:
            self._transport.pause_reading()

    def release_reading(self) -> None:
        self._holds = max(0, self._holds - 1)
        if self._holds == 0 and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _linger(self, transport: asyncio.Transport) -> None:
        self._lingers = True
        if transport.can_write_eof():
            transport.write_eof()
        if self._holds:
            self._holds = 1
            self.release_reading()
        self.deadline = self._loop.time() + LINGER_SECONDS

    def _renew(self) -> None:
        self._phase = ""
        self._look_after()

    def _look_after(self) -> None:
        if self._deaf or self._stalled:
            return
        waiting = len(self._turns)
        phase = "head" if self._in_head else "body" if self._turn is not None else "answer" if waiting else "idle"
        if phase != self._phase:
            self._phase = phase
            self.deadline = NEVER if phase == "answer" else self._loop.time() + self._seconds(phase)
        if (waiting >= PIPELINED or self._turns.holds_some) != self._full:
            self._full = not self._full
            (self.hold_reading if self._full else self.release_reading)()

    def _seconds(self, phase: str) -> float:
        if phase == "body":  # whoever answers from an outlet has a limit of its own, with an answer that fits
            slow = self._turn is not None and self._turn.outlet is not None
            return self._body_seconds + (LINGER_SECONDS if slow else 0.0)
        return HEAD_SECONDS if phase == "head" else KEEPALIVE_SECONDS
