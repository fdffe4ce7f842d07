"""Which files the journal is kept in, and the way from one kind to the other.

A data directory has one journal. Where the configuration names the other kind than the one that is there, the new one
goes on where the old one ended, under the same id and at the same offset, once nothing in the old one is needed any
more; before that the start is refused. The new journal is on disk before the old one is deleted; a crash in between
leaves both, and the next start deletes the one that ends earlier.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.adapters.segments import SegmentJournal
from engine.adapters.segments import inspection as segments
from engine.adapters.sqlite import SqliteJournal
from engine.adapters.sqlite.glance import glance_journal, glance_state
from engine.adapters.sqlite.inspection import go_on_from
from engine.config import Config
from engine.errors import DataDirectoryError
from engine.ports import ConsumerState, Journal

DATABASE, STATE = "journal.db", "state.db"


class Kind(msgspec.Struct, frozen=True):
    """`file`: what a backup of it is called; `glance`: (id, first offset, next offset) of what is there."""

    name: str
    file: str
    exists: Callable[[Path], bool]
    glance: Callable[[Path], tuple[str, int, int]]
    go_on_from: Callable[[Path, str, int], None]
    patterns: tuple[str, ...]


KINDS = {
    "sqlite": Kind(
        "sqlite",
        DATABASE,
        lambda directory: (directory / DATABASE).exists(),
        lambda directory: glance_journal(directory / DATABASE),
        lambda directory, id, following: go_on_from(directory / DATABASE, id, following),
        ("journal.db-*", "journal.db"),
    ),
    "segments": Kind(
        "segments",
        segments.FILE,
        segments.holds_segments,
        segments.glance_journal,
        segments.go_on_from,
        ("journal-*.segment", "journal-rewriting"),
    ),
}


def make_journal(config: Config, directory: Path) -> Journal:
    """The journal in this directory, not opened yet. Raises DataDirectoryError when one of the other kind is there and
    still needed, NoSpace."""
    kind = config.journal.kind
    other = KINDS["segments" if kind == "sqlite" else "sqlite"]
    if other.exists(directory):
        _take_over(KINDS[kind], other, directory)
    most, free = config.journal.max_bytes, config.journal.min_free_bytes
    if kind == "segments":
        return SegmentJournal(directory, max_bytes=most, min_free_bytes=free)
    return SqliteJournal(directory / DATABASE, max_bytes=most, min_free_bytes=free)


def _take_over(kind: Kind, other: Kind, directory: Path) -> None:
    id, first, following = other.glance(directory)
    unread = following - _needed_from(directory, first, following)
    if unread > 0:
        raise DataDirectoryError(
            f"{directory} holds a journal of kind {other.name!r} with {unread} events that not every destination has "
            f'an outcome for, and journal.kind is "{kind.name}" now: start with journal.kind = "{other.name}" until '
            "nothing is pending (`rainfocus-engine status`), stop, and change it then"
        )
    if not kind.exists(directory) or kind.glance(directory)[2] < following:
        _delete(kind, directory)
        kind.go_on_from(directory, id, following)
    _delete(other, directory)


def _needed_from(directory: Path, first: int, following: int) -> int:
    """The lowest offset that somebody has no outcome for; without a state file nobody knows."""
    if not (directory / STATE).exists():
        return first
    return min((one.watermark for one in glance_state(directory / STATE)), default=following)


def _delete(kind: Kind, directory: Path) -> None:
    for pattern in kind.patterns:
        for path in directory.glob(pattern):
            path.unlink()


def glance(config: Config) -> tuple[list[ConsumerState], int, int]:
    """(consumers, first offset, next offset) of the files in a data directory, whoever owns it: as they are at the
    moment, without a look at their contents. Raises DataDirectoryError when they cannot be read."""
    consumers = glance_state(config.data_dir / STATE)
    return consumers, *kind_in(config).glance(config.data_dir)[1:]


def kind_in(config: Config) -> Kind:
    """What the data directory holds: the configured kind, unless it holds the other one only."""
    kind = KINDS[config.journal.kind]
    other = KINDS["segments" if kind.name == "sqlite" else "sqlite"]
    return other if other.exists(config.data_dir) and not kind.exists(config.data_dir) else kind
