"""Which consumers go on, which start anew, and which have no place in the configuration any more. Pure.

A consumer belongs to (name, environment, URL, org id, event code): change any of these and it is another consumer with
an empty ledger, since what the old one confirmed says nothing about the new place (DESIGN §4, Limits).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.ports import ConsumerState


class Wanted(msgspec.Struct, frozen=True):
    name: str
    identity: str
    start_at: str  # "now" or "oldest"


class Plan(msgspec.Struct):
    keep: list[ConsumerState]  # as stored
    add: list[ConsumerState]  # to be stored before anything is read
    orphans: list[ConsumerState]  # stored, but not configured: somebody has to say what happens to their backlog
    notes: list[str]  # what `check` and `serve` have to say

    def states(self) -> dict[str, ConsumerState]:
        return {state.name: state for state in [*self.keep, *self.add]}


def reconcile(stored: Sequence[ConsumerState], wanted: Sequence[Wanted], first: int, following: int) -> Plan:
    """`first`, `following`: the offsets that the journal holds, [first, following)."""
    known = {state.name: state for state in stored}
    keep, add, notes = list[ConsumerState](), list[ConsumerState](), list[str]()
    for want in wanted:
        state = known.pop(want.name, None)
        if state is not None and state.identity == want.identity:
            keep.append(state)
            continue
        start = first if want.start_at == "oldest" else following
        add.append(ConsumerState(want.name, want.identity, start, start, start, clean=True))
        where = f"at offset {start} ({want.start_at})"
        if state is None:
            notes.append(f"destination {want.name!r} is new: it starts {where}")
        else:
            notes.append(
                f"destination {want.name!r} points somewhere else now ({state.identity} -> {want.identity}): it starts "
                f"as a new consumer {where} with an empty ledger; up to {backlog(state, following)} undelivered events "
                "of the old one expire"
            )
    return Plan(keep, add, list(known.values()), notes)


def disagreements(stored: Sequence[ConsumerState], first: int, following: int) -> list[str]:
    """What the state knows and the journal, holding [first, following), does not have. Offsets that were given once
    must never be given again: what is settled under them would hide what comes."""
    problems = []
    for one in stored:
        known = max(one.watermark, one.settled_through + 1)
        if known > following:
            problems.append(
                f"state.db knows of offsets up to {known - 1} (destination {one.name!r}), and journal.db ends before "
                f"offset {following}"
            )
        elif one.watermark < first:
            problems.append(
                f"destination {one.name!r} still needs the events from offset {one.watermark} on, and journal.db "
                f"begins at {first}"
            )
    return problems


def backlog(state: ConsumerState, following: int) -> int:
    """How many accepted events may have no outcome yet; those at or above the watermark that were not addressed to it
    are counted with them."""
    return max(0, following - state.start - state.not_addressed - sum(state.counts.values()))


def orphan_problem(state: ConsumerState, following: int) -> str:
    """The start-up error for a consumer that is missing from the configuration."""
    return (
        f"destination {state.name!r} is in the data directory (with up to {backlog(state, following)} undelivered "
        "events) but not in the "
        f"configuration: put it back, run 'rainfocus-engine destinations remove {state.name}' to expire its backlog, "
        f"or 'rainfocus-engine destinations rename {state.name} NEW' to move it"
    )
