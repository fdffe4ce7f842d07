"""Contract batteries: whoever writes an own implementation of a port subclasses the battery of the same name."""

from engine.testing.contracts.journal import JournalContract

__all__ = ["JournalContract"]
