"""How far a send has come: what a second run needs to go on, and what the summary shows."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from engine.cli.send_read import STDIN, Chunk
from engine.errors import EngineError

SAMPLE_BYTES = 65_536


class Refused(msgspec.Struct, frozen=True):
    """A record that the engine refused. `record` and `line` count from 1; `line` is 0 where lines mean nothing."""

    record: int
    line: int
    field: str
    reason: str


class Answer(msgspec.Struct):
    """What became of the records of a chunk."""

    accepted: int = 0
    refused: list[Refused] = []
    dropped: Counter[str] = msgspec.field(default_factory=Counter)
    receipts: list[str] = []


class Tally(msgspec.Struct):
    """What became of a file in this run. `already`: records that an earlier run had sent."""

    file: str
    already: int = 0
    accepted: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    dropped: Counter[str] = msgspec.field(default_factory=Counter)
    receipts: list[str] = msgspec.field(default_factory=list)
    position: int = 0  # bytes of the file that are acknowledged in order
    rejects_file: str = ""

    @property
    def records(self) -> int:
        return self.accepted + self.rejected.total()

    def add(self, answer: Answer) -> None:
        self.accepted += answer.accepted
        self.rejected.update(f"{it.field}: {it.reason}" if it.field else it.reason for it in answer.refused)
        self.dropped.update(answer.dropped)
        self.receipts += answer.receipts

    def report(self) -> dict[str, Any]:
        """As --json shows it."""
        shown = {"file": self.file, "already_sent": self.already, "accepted": self.accepted}
        return shown | {
            "rejected": self.rejected.total(),
            "rejected_by_reason": dict(self.rejected),
            "dropped_fields": dict(self.dropped),
            "rejects_file": self.rejects_file or None,
        }


class Prefix:
    """Chunks are acknowledged in any order; this is how many records are, without a gap, from the first on."""

    def __init__(self, records: int) -> None:
        self.records = records
        self.position = 0
        self._later: dict[int, Chunk] = {}

    def add(self, chunk: Chunk) -> bool:
        """True when the prefix has grown."""
        self._later[chunk.first] = chunk
        before = self.records
        while (following := self._later.pop(self.records, None)) is not None:
            self.records += len(following.records)
            self.position = following.records[-1].position
        return self.records > before


class Progress(msgspec.Struct, frozen=True):
    """The content of a progress file: `records` are acknowledged, counted from the start of the file."""

    target: str
    sample: str
    sample_bytes: int
    records: int


class ProgressFile:
    """`target` is everything that makes it another send (URL, source, lane, format). `path` None: nothing is kept."""

    def __init__(self, path: Path | None, file: str, target: str) -> None:
        self.path, self._file, self._target = path, file, target
        self._sample, self._sample_bytes = _sample(file, SAMPLE_BYTES)

    def read(self) -> int:
        """How many records to leave out. Raises EngineError when the file belongs to another send."""
        if self.path is None or not self.path.exists():
            return 0
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=Progress)
        except msgspec.DecodeError:
            raise EngineError(f"{self.path}: not a progress file; delete it to begin from the start") from None
        same = _sample(self._file, found.sample_bytes)[0] == found.sample
        if found.target != self._target or not same:
            what = "another target, source or lane" if same else "other content"
            raise EngineError(f"{self.path}: belongs to a send with {what}; delete it to begin from the start")
        return found.records

    def write(self, records: int) -> None:
        """Replaced as a whole, so a kill leaves the old or the new one."""
        if self.path is None:
            return
        progress = Progress(self._target, self._sample, self._sample_bytes, records)
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.write_bytes(msgspec.json.encode(progress))
        os.replace(temporary, self.path)

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class RejectsFile:
    """NDJSON of refused records, without their content; made with the first one. `again`: a run that goes on adds."""

    def __init__(self, path: Path, file: str, again: bool) -> None:
        self.path, self._file, self.written = path, file, again and path.exists()
        if not again:
            path.unlink(missing_ok=True)

    def add(self, refused: list[Refused]) -> None:
        if not refused:
            return
        self.written = True
        with self.path.open("ab") as stream:
            stream.writelines(self._row(it) for it in refused)

    def _row(self, refused: Refused) -> bytes:
        row: dict[str, object] = {"file": self._file, "record": refused.record}
        row |= {"line": refused.line} if refused.line else {}
        return msgspec.json.encode(row | {"field": refused.field, "reason": refused.reason}) + b"\n"


def _sample(file: str, size: int) -> tuple[str, int]:
    """SHA-256 of the first `size` bytes: a file that has grown since is still the same one."""
    if file == STDIN:
        return "", 0
    with Path(file).open("rb") as stream:
        data = stream.read(size)
    return hashlib.sha256(data).hexdigest(), len(data)
