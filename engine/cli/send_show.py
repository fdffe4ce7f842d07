"""What `send` shows: a progress bar on a terminal, lines in a pipe, and a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from engine.cli import output
from engine.cli.send_state import Tally

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 5.0
TELL_WAITS_FROM_SECONDS = 1.0


class Lines:
    """Progress where nobody watches: a line now and then on stderr."""

    def __init__(self, tally: Tally, size: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally, self._size, self._clock = tally, size, clock
        self._begun = self._told = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self) -> None:
        now = self._clock()
        if now - self._told < SECONDS_BETWEEN_LINES:
            return
        self._told = now
        seconds, share = now - self._begun, self._share()
        left = f", {seconds * (1 - share) / share:,.0f} s left" if share else ""
        rate = self._tally.records / seconds
        output.note(f"{self._tally.file}: {self._tally.records:,} records, {rate:,.0f}/s{left}")

    def waiting(self, why: str, seconds: float) -> None:
        if seconds >= TELL_WAITS_FROM_SECONDS:
            output.note(f"{self._tally.file}: waiting {seconds:.1f} s: {why}")

    def _share(self) -> float:
        return min(1.0, self._tally.position / self._size) if self._size else 0.0


class Bar(Lines):
    """Progress on a terminal: share of the file that is acknowledged, records, rate and time left."""

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

        shown = [TextColumn(f"{{task.{it}}}", markup=False) for it in ("description", "fields[done]", "fields[why]")]
        columns = (SpinnerColumn(), shown[0], BarColumn(), shown[1], TimeRemainingColumn(), shown[2])
        self._progress: Progress = Progress(*columns, console=output.console(sys.stderr))
        self._task = self._progress.add_task(self._tally.file, total=self._size, done="", why="")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self) -> None:
        seconds = max(0.001, self._clock() - self._begun)
        done = f"{self._tally.records:,} records, {self._tally.records / seconds:,.0f}/s"
        self._progress.update(self._task, completed=self._tally.position, done=done, why="")

    def waiting(self, why: str, seconds: float) -> None:
        if seconds >= TELL_WAITS_FROM_SECONDS:
            self._progress.update(self._task, why=output.printable(f"waiting {seconds:.1f} s: {why}"))


def progress(tally: Tally, size: int | None) -> Lines:
    """The one that fits where stderr goes."""
    return Bar(tally, size) if sys.stderr.isatty() else Lines(tally, size)


def show_summary(report: dict[str, Any]) -> None:
    """The report of a send, for people."""
    rows: list[tuple[str, object]] = [("accepted", report["accepted"]), ("rejected", report["rejected"])]
    for file in report["files"]:
        prefix = f"  {file['file']}: " if len(report["files"]) > 1 else "  "
        rows += [(f"{prefix}{reason}", count) for reason, count in file["rejected_by_reason"].items()]
        rows += [(f"{prefix}dropped {reason}", count) for reason, count in file["dropped_fields"].items()]
        rows += [(f"{prefix}sent by an earlier run", file["already_sent"])] if file["already_sent"] else []
    rows += [("seconds", report["seconds"]), ("events/s", report["events_per_second"])]
    output.console().print(output.table(("", "records"), rows))
    for name, counts in (report.get("settled") or {}).get("destinations", {}).items():
        output.say(f"{name}: " + ", ".join(f"{outcome} {count:,}" for outcome, count in counts.items()))
    for file in report["files"]:
        if file["rejects_file"]:
            output.note(f"{file['file']}: rejected records are listed in {file['rejects_file']}")
