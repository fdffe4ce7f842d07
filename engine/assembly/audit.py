"""`audit`: reads journal and state as they are stored and recomputes the sums, on a running engine or a stopped one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engine.core.audit import Backlog, Sums, outcomes_of, report
from engine.ports import ConsumerState, Journal, State

if TYPE_CHECKING:
    from engine.assembly.build import Parts

READ_EVENTS = 5_000


async def audit_running(parts: Parts) -> dict[str, object]:
    """Nothing is settled while the files are compared; what is accepted meanwhile is left out."""
    await parts.pipeline.settler.flush()
    async with parts.pipeline.settler.at_rest():
        following = parts.pipeline.commit.next_offset
        sources = {consumer.name: consumer.policy.sources for consumer in parts.consumers}
        return await audit(parts.journal, parts.state, following, sources)


async def audit(
    journal: Journal, state: State, following: int, sources: Mapping[str, frozenset[str] | None]
) -> dict[str, object]:
    """`following`: the first offset that is not to be looked at. `sources`: which ones each consumer reads."""
    consumers = await state.consumers()
    backlogs = {
        one.name: Backlog(one.name, one.watermark, sources.get(one.name), await state.accounted(one.name))
        for one in consumers
    }
    problems = await _scan(journal, consumers, following, list(backlogs.values()))
    sums = {one.name: _sums(one, backlogs[one.name], following) for one in consumers}
    return report(sums, problems)


def _sums(one: ConsumerState, backlog: Backlog, following: int) -> Sums:
    accepted = following - one.start - one.not_addressed - backlog.not_addressed
    return Sums(accepted, outcomes_of(one.counts), backlog.pending + one.held_events)


async def _scan(
    journal: Journal, consumers: Sequence[ConsumerState], following: int, backlogs: Sequence[Backlog]
) -> list[str]:
    position = min((one.watermark for one in consumers), default=following)
    while position < following:
        appends = await journal.read(position, READ_EVENTS)
        if not appends or appends[0].first != position:
            return [f"offsets {position} to {following - 1} are not all in the journal"]
        for append in appends:
            append.events = append.events[: max(0, following - append.first)]
            for backlog in backlogs:
                backlog.add(append)
            position = append.first + len(append.events)
            if position >= following:
                break
    return []
