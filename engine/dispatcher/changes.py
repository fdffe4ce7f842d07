"""What was changed at the destination by others, as it has told us itself (events of kind CHANGE).

Suppression needs certainty. A change takes the digest of its key away, so that the next event is sent even if it says
again what was confirmed before. Nothing is ever written because of a change alone: who is right, RainFocus or the
producer, is not ours to decide, and what we wrote would come back as a change.

Three moments at which a change can come::

    nothing of the key is under way   the digest is gone from memory at once, from the ledger with the next transaction
    it is leased and not yet judged   it is sent, whatever the ledger said when it was looked up
    its request is under way          `ok` settles it as delivered, without a digest: which of the two came first over
                                      there nobody knows

The watermark passes a change in the transaction that takes the digest away, or later: after a crash the change is read
again, unless an outcome of later events of its key says that this transaction was durable.
"""

from __future__ import annotations

from engine.core.coalescer import Coalescer
from engine.dispatcher.books import Books
from engine.model import Event, Trait
from engine.ports import Clock

_ENTITY = int(Trait.ENTITY)


class Changes:
    """The changes that one consumer has read."""

    def __init__(self, books: Books, coalescer: Coalescer, clock: Clock) -> None:
        self._books, self._coalescer, self._clock = books, coalescer, clock
        self.leased: set[bytes] = set()  # keys that were leased when their change was read

    def __repr__(self) -> str:
        return f"<Changes [{len(self.leased)} of leased profiles]>"

    def read(self, event: Event) -> bool:
        """Take in a change; False when it is of nobody whom a ledger could know."""
        if event.traits & _ENTITY:
            return False
        self._books.changed(event.key, event.attendee_id, at=self._clock.time())
        self.leased = {key for key in self.leased if self._is_leased(key)}
        if self._is_leased(event.key):
            self.leased.add(event.key)
        return True

    def came(self, key: bytes) -> bool:
        """Has the key's leased profile been changed over there since this was asked last, or since it was leased?"""
        if key not in self.leased:
            return False
        self.leased.discard(key)
        return True

    def _is_leased(self, key: bytes) -> bool:
        return self._coalescer.find(key)[1] is not None
