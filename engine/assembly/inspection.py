"""`journal check`: what the files of a stopped engine hold, what is damaged, and a new data directory with the rest."""

from __future__ import annotations

from pathlib import Path

from engine.adapters.data_directory import owned
from engine.adapters.segments import inspection as segments
from engine.adapters.sqlite import inspection as sqlite
from engine.adapters.sqlite.inspection import FoundState
from engine.assembly.journal_kind import DATABASE, KINDS, kind_in
from engine.config import Config
from engine.core.reconcile import disagreements
from engine.errors import DataDirectoryError, EngineError

FoundJournal = sqlite.FoundJournal | segments.FoundJournal
RESTORE = "restore the journal and state.db from one backup"
SALVAGE = "rainfocus-engine journal check --salvage DIR"


def check_journal(config: Config, salvage: Path | None = None) -> dict[str, object]:
    """Read all of both files, under the lock, without changing them. `salvage`: an empty or missing directory for a
    copy in which every whole row is kept and every lost offset is accounted for.

    Raises DataDirectoryError when an engine runs on the directory, EngineError when there is nothing to check or to
    salvage."""
    if config.journal.kind not in KINDS:
        raise EngineError(f"the journal of this configuration is kept in {config.journal.kind}: there are no files")
    if not config.data_dir.is_dir():
        raise EngineError(f"there is no data directory {config.data_dir}")
    try:
        with owned(config.data_dir):
            return _check(config, salvage)
    except DataDirectoryError as error:
        if "belongs to a running engine" in str(error):
            raise DataDirectoryError(
                f"{error}. A running engine is asked with `rainfocus-engine audit`; its files can be checked when it "
                "has stopped, and a `backup` of it at any time"
            ) from error
        raise


def _check(config: Config, salvage: Path | None) -> dict[str, object]:
    directory = config.data_dir
    state = sqlite.inspect_state(directory / "state.db")
    journal: FoundJournal = (
        segments.inspect_journal(directory, state.consumers)
        if kind_in(config).name == "segments"
        else sqlite.inspect_journal(directory / DATABASE, state.consumers)
    )
    problems = [*journal.problems, *state.problems, *_between(journal, state)]
    report: dict[str, object] = {
        "ok": not problems,
        "journal": {
            "first": journal.first,
            "next": journal.next,
            "appends": journal.appends,
            "events": journal.events,
            "discarded_frames": journal.discarded_frames,
            "lost": [list(gap) for gap in journal.lost],
            "lost_events": sum(end - begin for begin, end in journal.lost),
        },
        "state": {"whole": state.exists and not state.problems, "destinations": [one.name for one in state.consumers]},
        "problems": problems,
        "advice": _advice(journal, state) if problems else "",
    }
    if salvage is not None:
        report["salvaged"] = _salvage(directory, salvage, journal, state)
    return report


def _between(journal: FoundJournal, state: FoundState) -> list[str]:
    if journal.exists and journal.next and not state.exists:
        return ["state.db is missing: what was delivered, held and counted is not known"]
    if journal.foreign or journal.lost:
        return []  # said already, offset by offset
    return disagreements(state.consumers, journal.first, journal.next)


def _advice(journal: FoundJournal, state: FoundState) -> str:
    if journal.foreign or any("format" in problem or "not a file" in problem for problem in state.problems):
        return f"name another data_dir, run the version that wrote these files, or {RESTORE}"
    if state.problems or not state.exists:
        return (
            f"{RESTORE}. Without one: move state.db away; destinations then start anew as `start_at` says, and with "
            "'oldest' everything that is in the journal is sent again"
        )
    return (
        f"{RESTORE}; or save what is whole: `{SALVAGE}` writes a new data directory in which the lost offsets end "
        "excluded with the reason 'lost'"
    )


def _salvage(directory: Path, target: Path, journal: FoundJournal, state: FoundState) -> dict[str, object]:
    if journal.foreign or not journal.exists:
        raise EngineError("there is no journal of this engine to save anything of")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if isinstance(journal, segments.FoundJournal):
        segments.salvage(journal, target)
        files = [segments.FILE]
    else:
        sqlite.salvage(journal, target)
        files = [DATABASE]
    if state.exists and not state.problems:
        sqlite.salvage_state(directory / "state.db", target)
        files.append("state.db")
    return {"directory": str(target), "files": files}
