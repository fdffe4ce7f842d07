"""Contract batteries: whoever writes an own implementation of a port subclasses the battery of the same name."""

from engine.testing.contracts.destination import DestinationContract
from engine.testing.contracts.journal import JournalContract
from engine.testing.contracts.state import StateContract
from engine.testing.contracts.state_data import Limits

__all__ = ["DestinationContract", "JournalContract", "Limits", "StateContract"]
