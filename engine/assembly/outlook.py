"""What a start with this configuration would mean for the destinations that the data directory knows.

Nothing is changed, and a running engine is not disturbed.
"""

from __future__ import annotations

import msgspec

from engine.assembly.journal_kind import glance
from engine.config import Config
from engine.core.reconcile import Wanted, orphan_problem, reconcile


class Outlook(msgspec.Struct):
    """Names of destinations, and what there is to say of them. `problems` stop a start."""

    kept: list[str]
    new: list[str]
    changed: list[str]
    orphaned: list[str]
    notes: list[str]
    problems: list[str]


def wanted_of(config: Config) -> list[Wanted]:
    """Of every consumer: destinations first, then forwards."""
    wanted = [Wanted(one.name, one.identity(config.account_of(one)), one.start_at) for one in config.destinations]
    return [*wanted, *(Wanted(one.name, one.identity(), one.start_at) for one in config.forwards)]


def outlook(config: Config) -> Outlook | None:
    """None where nothing is stored yet. Raises DataDirectoryError when the files cannot be read."""
    if config.journal.kind == "memory" or not (config.data_dir / "state.db").exists():
        return None
    stored, first, following = glance(config)
    plan, known = reconcile(stored, wanted_of(config), first, following), {one.name for one in stored}
    return Outlook(
        kept=[one.name for one in plan.keep],
        new=[one.name for one in plan.add if one.name not in known],
        changed=[one.name for one in plan.add if one.name in known],
        orphaned=[one.name for one in plan.orphans],
        notes=plan.notes,
        problems=[orphan_problem(one, following) for one in plan.orphans],
    )
