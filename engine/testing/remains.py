"""What is left of files whose last writes were not synced when the power went."""

from __future__ import annotations

from random import Random

SECTOR_BYTES = 512
"""What a disk writes as a whole."""
KEPT = 0.6
TORN = 0.3


class Change:
    """A write of `data` at `offset`, or (None) a truncation to `offset` bytes; `serial` orders all of a disk."""

    __slots__ = ("data", "offset", "serial")

    def __init__(self, serial: int, offset: int, data: bytes | None) -> None:
        self.serial, self.offset, self.data = serial, offset, data

    def apply(self, content: bytearray) -> None:
        if len(content) < self.offset:
            content.extend(bytes(self.offset - len(content)))
        if self.data is None:
            del content[self.offset :]
        else:
            content[self.offset : self.offset + len(self.data)] = self.data

    def sectors(self) -> list[Change]:
        """The same write, one change a sector; a truncation has no parts."""
        if self.data is None:
            return [self]
        end = self.offset + len(self.data)
        starts = [self.offset, *range((self.offset // SECTOR_BYTES + 1) * SECTOR_BYTES, end, SECTOR_BYTES)]
        return [
            Change(self.serial, start, self.data[start - self.offset : stop - self.offset])
            for start, stop in zip(starts, [*starts[1:], end], strict=True)
        ]


class File:
    """What is durable of a file, and what was changed since, in order."""

    def __init__(self, durable: bytes) -> None:
        self.durable = bytearray(durable)
        self.pending: list[Change] = []
        self.failed_syncs = 0

    def sync(self, until: int) -> None:
        for change in self._take(until):
            change.apply(self.durable)

    def spoil(self, until: int, survivors: Survivors) -> None:
        """A failed sync: some of it is on disk, and the system remembers of none of it that it is not."""
        self.failed_syncs += 1
        for change in self._take(until):
            survivors.apply(change, self.durable)

    def _take(self, until: int) -> list[Change]:
        taken = [change for change in self.pending if change.serial <= until]
        self.pending = [change for change in self.pending if change.serial > until]
        return taken


class Name:
    """Which file a name stands for: durably, and after each change that no sync of the directory has covered."""

    def __init__(self, durable: File | None) -> None:
        self.durable = self.now = durable
        self.pending: list[tuple[int, File | None]] = []

    def change(self, file: File | None, serial: int) -> None:
        self.now = file
        self.pending.append((serial, file))

    def sync(self) -> None:
        self.durable = self.now
        self.pending.clear()


class Survivors:
    """Chooses what is left. `lose`: see `SimulatedDisk.image`; `newest`: the serial of the last change there is."""

    def __init__(self, random: Random, lose: str, newest: int) -> None:
        self._random = random
        self._is_random = lose == "random"
        self._until = {"all": -1, "none": newest, "prefix": random.randint(0, newest)}.get(lose, -1)
        self._tears = lose == "prefix"

    def entry(self, name: Name) -> File | None:
        """What the name stands for. Changes of one name come one after the other; names do not wait for each other."""
        if self._is_random:
            kept = self._random.randint(0, len(name.pending))
        else:
            kept = sum(serial <= self._until for serial, _ in name.pending)
        return name.pending[kept - 1][1] if kept else name.durable

    def content(self, file: File) -> bytes:
        content = bytearray(file.durable)
        for change in file.pending:
            self.apply(change, content)
        return bytes(content)

    def apply(self, change: Change, content: bytearray) -> None:
        if self._is_random:
            if self._random.random() < KEPT:
                self._tear(change, content) if self._random.random() < TORN else change.apply(content)
        elif change.serial <= self._until:
            change.apply(content)
        elif self._tears and change.serial == self._until + 1:
            self._tear(change, content)

    def _tear(self, change: Change, content: bytearray) -> None:
        for sector in change.sectors():
            if self._random.random() < 0.5:
                sector.apply(content)
