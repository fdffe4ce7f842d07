"""Has a forget been carried out, and does anything of the person stand in the data directory still?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec

from engine.adapters.sqlite.threads import in_thread
from engine.adapters.traces import search
from engine.pipeline import Pipeline


async def prove(
    pipeline: Pipeline, directory: Path | None, key: bytes, texts: Sequence[str], offset: int, wait_seconds: float
) -> dict[str, object]:
    """See `ports.Control.traces`. `directory`: None when there are no files."""
    waiting = await _carried_out(pipeline, key, offset, wait_seconds)
    if waiting:
        return {"key": key.hex(), "done": False, "waiting_for": waiting, "ok": False, "found": None, "files": []}
    files = [] if directory is None else await in_thread(search, directory, texts)
    found = sum(one.found + one.rows for one in files)
    return {
        "key": key.hex(),
        "done": True,
        "waiting_for": [],
        "ok": not found and not any(one.problem for one in files),
        "found": found,
        "files": [msgspec.to_builtins(one) for one in files],
    }


async def _carried_out(pipeline: Pipeline, key: bytes, offset: int, wait_seconds: float) -> list[str]:
    """The destinations that have still to carry out the forget at this offset, [] once it is done and written down."""
    with anyio.move_on_after(wait_seconds):
        while _behind(pipeline, key, offset):
            await pipeline.settler.round()
    behind = _behind(pipeline, key, offset)
    if not behind:
        await pipeline.settler.flush()  # what was carried out is on disk, and scrubbed there
    return behind


def _behind(pipeline: Pipeline, key: bytes, offset: int) -> list[str]:
    return [one.name for one in pipeline.consumers if not one.has_forgotten(key, offset)]
