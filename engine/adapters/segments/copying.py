"""A backup: one segment that holds all that is needed, made beside running work."""

from __future__ import annotations

import os
import secrets
from functools import partial
from pathlib import Path

from engine.adapters.segments.files import NO_SPACE, DirectoryFiles, OpenFile
from engine.adapters.segments.keeper import Keeper, Place, Stretch
from engine.adapters.segments.layout import DATA_START, SALT_BYTES, Header, Packed, commit_of, pack_mark, record_of
from engine.adapters.segments.scan import is_segment
from engine.adapters.segments.worker import Trust, Worker
from engine.errors import DataDirectoryError, NoSpace
from engine.model import NOTHING


async def write_copy(path: Path, worker: Worker, keeper: Keeper, stretch: Stretch, start: int) -> None:
    """What is needed from the offset `start` on. A failure of the copy is nobody else's: it is read by the keeper, and
    written in a thread of its own. Raises NoSpace, and DataDirectoryError for every other failure of the copy."""
    own = Worker(f"copy {path.name}", Trust(path.name))
    own.start()
    target = SegmentWriter(path, stretch.segments[0].header.id, stretch.following)
    try:
        await own.run(target.create)
        place: Place | None = stretch.start()
        while place is not None:
            copied = await worker.run(partial(keeper.copy, stretch, place, start, target.header.seed, target.position))
            await own.run(partial(target.add, copied.data, copied.first))
            place = copied.following
        await own.run(target.finish)
    finally:
        own.post(target.close)
        await own.close()


class SegmentWriter:
    """One segment with everything in it, written from front to end. Its header comes last: without one it is none."""

    def __init__(self, path: Path, id: str, following: int) -> None:
        self._path, self._following = path, following
        self.header = Header(id, secrets.token_bytes(SALT_BYTES), 1, following, following, 0)
        self._file: OpenFile | None = None
        self.position, self._first = DATA_START, NOTHING

    def create(self) -> None:
        try:
            self._check_folder()
            self._file = OpenFile(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        except OSError as error:
            raise self._failure(error) from error

    def _check_folder(self) -> None:
        others = {name for name in DirectoryFiles(self._path.parent).names() if is_segment(name)}
        if others - {self._path.name}:
            raise DataDirectoryError(f"{self._path.parent} holds other segments of a journal: name another folder")

    def add(self, data: bytes, first: int) -> None:
        if self._first == NOTHING:
            self._first = first
        self._write(self.position, data)
        self.position += len(data)

    def add_record(self, packed: Packed, first: int) -> None:
        self.add(b"".join(record_of(packed, first, 0, self.header.seed, self.position, ends=True)), first)

    def finish(self) -> None:
        base = self._following if self._first == NOTHING else self._first
        self.add(commit_of([pack_mark(base)], self._following, self.header.seed, self.position), NOTHING)
        old = self.header
        self._write(0, Header(old.id, old.salt, 1, base, base, self.position).packed())
        assert self._file is not None
        try:
            self._file.sync()
            DirectoryFiles(self._path.parent).sync_directory()
        except OSError as error:
            raise self._failure(error) from error

    def _write(self, position: int, data: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(position, data)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> NoSpace | DataDirectoryError:
        if error.errno in NO_SPACE:
            return NoSpace("disk-full", f"no room for the copy {self._path.name}")
        return DataDirectoryError(f"the copy {self._path.name} cannot be written: {error}")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
