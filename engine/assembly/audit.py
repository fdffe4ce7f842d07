"""`audit`: reads journal and state as they are stored, recomputes the sums, and looks whether the two agree; on a
running engine or a stopped one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.core import consistency
from engine.core.audit import Addressed, Backlog, Sums, outcomes_of, report
from engine.core.reconcile import disagreements
from engine.dispatcher import Consumer
from engine.ports import ConsumerState, Inspection, Journal, State

if TYPE_CHECKING:
    from engine.assembly.build import Parts

READ_EVENTS = 5_000
HELD_AT_ONCE = 500


async def audit_running(parts: Parts) -> dict[str, object]:
    """Nothing is settled while the files are compared; what is accepted meanwhile is left out. Raises NoSpace and
    Stopped."""
    inspected = await parts.state.inspect()  # offsets only grow: what it names is below an end that is looked up later
    await parts.pipeline.settler.flush()
    async with parts.pipeline.settler.at_rest():
        following = parts.pipeline.commit.next_offset
        addressed = {one.name: Addressed(one.policy.sources, one.policy.takes) for one in parts.consumers}
        consumers = await parts.state.consumers()
        problems = [
            *dict.fromkeys([*parts.problems, *contradictions(consumers, inspected, following)]),
            *consistency.problems_of_pauses(await parts.state.pauses(), parts.clock.time()),
            *_memory(consumers, parts.consumers),
        ]
        return await audit(parts.journal, parts.state, following, addressed, problems)


async def audit(
    journal: Journal,
    state: State,
    following: int,
    addressed: Mapping[str, Addressed],
    problems: Sequence[str] = (),
) -> dict[str, object]:
    """`following`: the first offset that is not to be looked at. `addressed`: what is for each consumer. `problems`:
    what was found before."""
    found = list(problems)
    consumers = await state.consumers()
    backlogs: dict[str, Backlog] = {}
    for one in consumers:
        accounted = await state.accounted(one.name)
        backlogs[one.name] = Backlog(one.name, one.watermark, addressed.get(one.name, Addressed()), accounted)
        found += consistency.of_destination(one.name, await _held(state, one, accounted, following))
    first = await _first(journal, following)
    found += disagreements(consumers, first, following)
    found += await _scan(journal, consumers, following, list(backlogs.values()))
    sums = {one.name: _sums(one, backlogs[one.name], following) for one in consumers}
    return report(sums, found) | {"journal": _journal(consumers, first, following)}


def _sums(one: ConsumerState, backlog: Backlog, following: int) -> Sums:
    accepted = following - one.start - one.not_addressed - backlog.not_addressed
    return Sums(accepted, outcomes_of(one.counts), backlog.pending + one.held_events)


def _journal(consumers: Sequence[ConsumerState], first: int, following: int) -> dict[str, int]:
    """What nobody needs any more and is not reclaimed yet is no problem."""
    lowest = min((one.watermark for one in consumers), default=following)
    return {"first": first, "next": following, "reclaimable": max(0, lowest - first)}


async def _first(journal: Journal, following: int) -> int:
    appends = await journal.read(0, 1)
    return appends[0].first if appends else following


async def _held(state: State, one: ConsumerState, accounted: Mapping[bytes, int], following: int) -> list[str]:
    check, after = consistency.HeldCheck(one, accounted, following), 0
    try:
        while found := await state.held(one.name, HELD_AT_ONCE, after=after):
            check.add(found)
            after = found[-1].id
    except (msgspec.MsgspecError, ValueError):
        return ["a held profile cannot be read"]
    return list(check.problems())


def contradictions(
    consumers: Sequence[ConsumerState], inspected: Mapping[str, Inspection], following: int
) -> list[str]:
    """What the state says of its consumers that cannot be so. `inspected`: see `State.inspect`; {} if it was not."""
    problems = list(inspected.get("", Inspection()).problems)
    for one in consumers:
        found = inspected.get(one.name, Inspection())
        problems += consistency.of_destination(one.name, consistency.problems_of_offsets(one, found, following))
        problems += consistency.of_destination(one.name, consistency.problems_of_counts(one))
    return problems


def _memory(consumers: Sequence[ConsumerState], running: Sequence[Consumer]) -> list[str]:
    """To be called while nothing is settled."""
    stored, problems = {one.name: one for one in consumers}, list[str]()
    for consumer in running:
        durable = consumer.books.durable_counts()
        found = consistency.problems_of_memory(stored[consumer.name], durable, consumer.watermark)
        problems += consistency.of_destination(consumer.name, found)
    return problems


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
