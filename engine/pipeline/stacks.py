"""Where the engine's tasks wait, as lines of code and nothing else: no value of anything is looked at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = f"{ROOT / 'engine'}/"
MOST = 50


def stacks() -> list[str]:
    """One line for all tasks that wait at the same place in this package, the most frequent first; at most MOST.

    Names of tasks are left out: a host may give them any, even an address."""
    waiting = Counter(line for task in asyncio.all_tasks() if (line := _stack(task.get_coro())))
    return [f"{count} × {line}" for line, count in waiting.most_common(MOST)]


def _stack(coroutine: Any) -> str:
    """`file:line function` of every frame of ours, outermost first, and where outside of it the innermost waits."""
    frames = list(_frames(coroutine))
    ours = [frame for frame in frames if frame.f_code.co_filename.startswith(OURS)]
    if not ours:
        return ""
    shown = [f"{_name(frame)}:{frame.f_lineno} {frame.f_code.co_name}" for frame in ours]
    if frames[-1] is not ours[-1]:
        shown.append(f"{Path(frames[-1].f_code.co_filename).name}:{frames[-1].f_lineno} {frames[-1].f_code.co_name}")
    return " > ".join(shown)


def _frames(coroutine: Any) -> Iterable[Any]:
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)


def _name(frame: Any) -> str:
    return str(Path(frame.f_code.co_filename).relative_to(ROOT))
