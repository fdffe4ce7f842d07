"""The part of the `Control` port that looks back: hourly runs, and outcomes to export. See `history.HistoryControl`."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from engine.core import exports, runs
from engine.errors import NoSpace
from engine.history import HOUR_SECONDS, OutcomeFilter, Run, RunFilter
from engine.model import HeldKind, Outcome
from engine.ports import LetterFilter

if TYPE_CHECKING:
    from engine.assembly.build import Parts

LETTERS_AT_ONCE = 200
AUDIENCES_AT_MOST = 2_000
KINDS = {str(Outcome.DEAD_LETTERED): HeldKind.DEAD, str(Outcome.EXPIRED): HeldKind.EXPIRED}


class PastControl:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def runs(self, which: RunFilter, limit: int, /, *, cursor: str = "", flow: bool = False) -> dict[str, object]:
        if cursor:
            which = msgspec.structs.replace(which, below=_place(cursor))
        with_audiences = flow and which.audience is None
        whole = msgspec.structs.replace(which, audience="") if flow else which
        found = await self._parts.state.runs(whole, limit)
        now = self._parts.clock.time()
        if flow:
            shown = [runs.flow(run, await self._audiences(run) if with_audiences else (), now) for run in found]
        else:
            shown = [runs.describe(run, now) for run in found]
        return {"runs": shown, "next": _cursor(found[-1]) if len(found) == limit else None}

    async def _audiences(self, run: Run) -> Sequence[Run]:
        since = float(run.hour * HOUR_SECONDS)
        which = RunFilter(consumer=run.consumer, audience=None, since=since, until=since + HOUR_SECONDS)
        return [one for one in await self._parts.state.runs(which, AUDIENCES_AT_MOST) if one.audience]

    async def outcomes(self, which: OutcomeFilter, /) -> AsyncIterator[list[dict[str, object]]]:
        if which.consumer not in {consumer.name for consumer in self._parts.consumers}:
            raise KeyError(which.consumer)
        after: bytes | None = None
        with suppress(NoSpace):  # what could be written down is exported
            await self._parts.pipeline.settler.flush()
        while True:
            entries, after = await self._parts.state.outcomes(which, after)
            yield [exports.row_of_entry(which.consumer, entry) for entry in entries if entry.outcome]
            if after is None:
                break
        if which.outcome is None or which.outcome in KINDS:
            async for rows in self._letters(which):
                yield rows

    async def _letters(self, which: OutcomeFilter) -> AsyncIterator[list[dict[str, object]]]:
        kind = KINDS.get(which.outcome or "")
        wanted = LetterFilter(consumer=which.consumer, kind=kind, state=None, since=which.since, until=which.until)
        after = 0
        while found := await self._parts.state.letters(wanted, LETTERS_AT_ONCE, after=after):
            yield [exports.row_of_letter(name, held) for name, held in found]
            after = found[-1][1].id


def _cursor(run: Run) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((run.hour, run.consumer, run.audience))).decode()


def _place(cursor: str) -> tuple[int, str, str]:
    """Raises ValueError."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=tuple[int, str, str])
    except msgspec.DecodeError as error:
        raise ValueError("not a cursor of a list of runs") from error
