"""For how long one destination could not send at all: nobody ages meanwhile."""

from __future__ import annotations

from engine.ports import Clock


class Standstill:
    """The time nothing could be sent, and what the wall clock was set ahead meanwhile: ages are taken from the wall
    clock, and nobody has waited for that long."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        self._total = 0.0
        self._wall_ahead = clock.time() - clock.monotonic()

    @property
    def lasts(self) -> bool:
        return self._since is not None

    def note(self, still: bool) -> None:
        """It stands still from now on, or no longer."""
        now = self._clock.monotonic()
        if still and self._since is None:
            self._since = now
        elif not still and self._since is not None:
            self._total += now - self._since
            self._since = None

    def seconds(self) -> float:
        """In all, since the process began. Below 0 when the wall clock was set back."""
        now = self._clock.monotonic()
        stepped = self._clock.time() - now - self._wall_ahead
        return self._total + stepped + (0.0 if self._since is None else now - self._since)
