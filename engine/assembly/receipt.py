"""What `Engine.submit` gives back."""

from __future__ import annotations

from collections.abc import Sequence

from engine.model import Rejection
from engine.ports import Intake


class Receipt:
    """The events are durable. `accepted` counts them; `rejected` and `dropped` name records and fields by index."""

    __slots__ = ("_intake", "accepted", "dropped", "id", "rejected")

    def __init__(
        self, intake: Intake, id: str, accepted: int, rejected: Sequence[Rejection], dropped: Sequence[Rejection]
    ) -> None:
        self._intake = intake
        self.id, self.accepted, self.rejected, self.dropped = id, accepted, list(rejected), list(dropped)

    def __repr__(self) -> str:
        return f"<Receipt {self.accepted} accepted, {len(self.rejected)} rejected, {len(self.dropped)} fields dropped>"

    def counts(self) -> dict[str, dict[str, int]] | None:
        """destination -> outcome -> events, as of now; None when they are not known any more."""
        if not self.id:
            return {}
        report = self._intake.receipt(self.id)
        return None if report is None else report["destinations"]  # type: ignore[return-value]

    async def settled(self, timeout: float | None = None) -> dict[str, dict[str, int]] | None:
        """Wait until every event has its outcome everywhere, and return the counts.

        Raises TimeoutError when `timeout` seconds are over first, and Stopped when the engine ends first; nothing is
        lost by either.
        """
        if self.id and not await self._intake.settled(self.id, float("inf") if timeout is None else timeout):
            raise TimeoutError("not settled yet; the events go on their way all the same")
        return self.counts()
