"""The answers of one connection, in the order of its requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engine.adapters.http_ingress.outlet import Outlet


class Turn:
    """One request. `begin`: what waits until the requests before it are answered. `wire`: the answer. `outlet`: writes
    it by itself, while the turn is the first. `last`: the connection ends with it."""

    __slots__ = ("begin", "last", "outlet", "wire")

    def __init__(self, *, last: bool) -> None:
        self.last = last
        self.wire = b""
        self.begin: Callable[[], None] | None = None
        self.outlet: Outlet | None = None


class Turns:
    """`write` is given what is due; `ended` is told when the answer of a last turn is out."""

    def __init__(self, write: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._write, self._ended = write, ended
        self._waiting: deque[Turn] = deque()
        self._slow = self._held = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def newest(self) -> Turn:
        return self._waiting[-1]

    @property
    def holds_some(self) -> bool:
        """Whether a request that has come in waits for those before it."""
        return self._held > 0

    @property
    def must_wait(self) -> bool:
        """Whether a request that comes now has to wait for a slow one before it."""
        return self._slow > 0

    def add(self, *, last: bool) -> Turn:
        turn = Turn(last=last)
        self._waiting.append(turn)
        return turn

    def begin(self, turn: Turn, work: Callable[[], None], outlet: Outlet | None = None) -> None:
        """Do it once everything before it is answered; at once, if that is so. With an `outlet` the ones after it
        wait for it."""
        turn.outlet = outlet
        if outlet is not None:
            self._slow += 1
        if self._waiting[0] is turn:
            work()
        else:
            turn.begin = work
            self._held += 1

    def settle(self, turn: Turn, wire: bytes) -> None:
        turn.wire = wire
        if self._waiting and self._waiting[0] is turn:
            self._go_on()

    def settle_instead(self, turn: Turn, wire: bytes) -> None:
        """Of what its outlet would have written."""
        self._take_back(turn)
        self.settle(turn, wire)

    def outlet_done(self, *, keep_alive: bool) -> None:
        """The first has written its answer by itself."""
        turn = self._waiting.popleft()
        self._slow -= 1
        if turn.last or not keep_alive:
            self._ended()
        else:
            self._go_on()

    def drop(self, turn: Turn) -> None:
        """It will not be answered: its request broke off. What is before it is the last."""
        self._take_back(turn)
        self._waiting.remove(turn)
        if self._waiting:
            self._waiting[-1].last = True

    def _take_back(self, turn: Turn) -> None:
        self._slow -= turn.outlet is not None
        self._held -= turn.begin is not None
        turn.outlet = turn.begin = None

    def clear(self) -> list[Outlet]:
        """The connection is gone; the outlets that should know."""
        outlets = [turn.outlet for turn in self._waiting if turn.outlet is not None]
        self._waiting.clear()
        self._slow = self._held = 0
        return outlets

    def pause_writing(self) -> None:
        if self._waiting and self._waiting[0].outlet is not None:
            self._waiting[0].outlet.pause_writing()

    def resume_writing(self) -> None:
        if self._waiting and self._waiting[0].outlet is not None:
            self._waiting[0].outlet.resume_writing()

    def _go_on(self) -> None:
        ready: list[bytes] = []
        while self._waiting and self._waiting[0].wire:
            turn = self._waiting.popleft()
            ready.append(turn.wire)
            if turn.last:
                self._write(b"".join(ready))
                self._ended()
                return
        if ready:
            self._write(ready[0] if len(ready) == 1 else b"".join(ready))
        if self._held:
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        """Up to the next slow one, which begins when it is the first."""
        for index, turn in enumerate(list(self._waiting)):
            if turn.outlet is not None and index:
                return
            begin, turn.begin = turn.begin, None
            if begin is not None:
                self._held -= 1
                begin()
            if turn.outlet is not None:
                return
