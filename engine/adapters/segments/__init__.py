"""The segment journal: preallocated, zeroed files that are used again, one write and one sync a commit."""

from engine.adapters.segments.journal import SegmentJournal
from engine.adapters.segments.opening import Beginning

__all__ = ["Beginning", "SegmentJournal"]
