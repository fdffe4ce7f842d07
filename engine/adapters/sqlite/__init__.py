"""SQLite: the embedded journal and the state file. Two files, each with threads of its own."""

from engine.adapters.sqlite.journal import SqliteJournal
from engine.adapters.sqlite.limits import LedgerLimits, LetterLimits, RunLimits
from engine.adapters.sqlite.state import SqliteState

__all__ = ["LedgerLimits", "LetterLimits", "RunLimits", "SqliteJournal", "SqliteState"]
