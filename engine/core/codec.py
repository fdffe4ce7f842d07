"""How events, verdicts and held profiles look as bytes: one msgpack call for each row, and a checksum. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from operator import is_not

import msgspec

from engine.model import NOTHING, Consent, Event, Kind, LedgerEntry, Profile, Trait

_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(list[Event])
_profile = msgspec.msgpack.Decoder(Profile)


SEAL = b"\xc1"
"""Stands before a checksum and what it covers. No msgpack begins with it, so rows from before it are read as well."""
SEAL_BYTES = 5


def pack_events(events: list[Event]) -> bytes:
    return _encoder.encode(events)


def unpack_events(payload: bytes) -> list[Event]:
    """Raises msgspec.DecodeError for what was never packed here."""
    return _events.decode(payload)


def checksum(first: int, count: int, source: str, lane: int, accepted_at: float, payload: bytes) -> int:
    """CRC-32 over all of a row, so that a flipped bit anywhere is seen."""
    head = _encoder.encode((first, count, source, lane, accepted_at))
    return zlib.crc32(payload, zlib.crc32(head))


def erase_events(events: list[Event], first: int, below: Mapping[bytes, int]) -> list[Event] | None:
    """The events of an append that begins at `first`, those of each key emptied whose content is from below its offset:
    the offset stays taken, the content is gone. None when there is nothing to empty."""
    erased = [
        _emptied(event) if _holds_something(event) and below.get(event.key, NOTHING) > _origin(event, offset) else event
        for offset, event in enumerate(events, first)
    ]
    return erased if any(map(is_not, erased, events)) else None


def _origin(event: Event, offset: int) -> int:
    """What a replay carries is as old as its dead letter."""
    return event.through if event.kind == Kind.REPLAY else offset


def _holds_something(event: Event) -> bool:
    """A hash alone has no fields, but its audiences and consents are data of the person as well."""
    return event.content != b"{}" or bool(event.audiences) or bool(event.consents)


def _emptied(event: Event) -> Event:
    """Still of its kind, so that it is counted as it was accepted; a replay keeps its destination."""
    return Event(event.key, b"{}", Trait.ERASED, kind=event.kind, destination=event.destination, through=event.through)


class VerdictRow(msgspec.Struct, array_like=True):
    """One settled transition: last outcomes, and (key, offset) pairs that are accounted for without one (held)."""

    entries: list[LedgerEntry]
    accounted: list[tuple[bytes, int]]

    def through(self) -> int:
        """The highest offset this row accounts for."""
        offsets = [entry.settled_through for entry in self.entries]
        return max(max(offsets, default=NOTHING), max((offset for _, offset in self.accounted), default=NOTHING))


_rows = msgspec.msgpack.Decoder(VerdictRow)


def pack_verdicts(row: VerdictRow) -> bytes:
    return _sealed(_encoder.encode(row))


def unpack_verdicts(packed: bytes) -> VerdictRow:
    """Raises msgspec.DecodeError for what was never packed here, or is not as it was."""
    return _rows.decode(_opened(packed))


class RawVerdictRow(msgspec.Struct, array_like=True):
    """A verdict row of which the entries stay as they are packed."""

    entries: list[msgspec.Raw]


_raw_rows = msgspec.msgpack.Decoder(RawVerdictRow)
_entry = msgspec.msgpack.Decoder(LedgerEntry)
_block = msgspec.msgpack.Decoder(list[bytes])

KEY_AT, KEY_BYTES = 3, 32
"""Where the key stands in a packed entry: behind the head of an array and that of 32 bytes."""


def raw_entries(packed: bytes) -> list[bytes]:
    """The packed entries of a verdict row. Raises as `unpack_verdicts`."""
    return [bytes(raw) for raw in _raw_rows.decode(_opened(packed)).entries]


def encode_entry(entry: LedgerEntry) -> bytes:
    return _encoder.encode(entry)


def decode_entry(packed: bytes) -> LedgerEntry:
    """Raises msgspec.DecodeError for what was never packed here."""
    return _entry.decode(packed)


def pack_block(entries: list[bytes]) -> bytes:
    """Packed entries, as the ledger keeps them together."""
    return _sealed(_encoder.encode(entries))


def unpack_block(packed: bytes) -> list[bytes]:
    """Raises msgspec.DecodeError for what was never packed here, or is not as it was."""
    return _block.decode(_opened(packed))


def pack_profile(profile: Profile) -> bytes:
    assert profile.receipts is None, "nobody's receipt is ever stored"
    return _sealed(_encoder.encode(profile))


def unpack_profile(packed: bytes) -> Profile:
    """Raises msgspec.DecodeError for what was never packed here, or is not as it was."""
    return _profile.decode(_opened(packed))


_consents = msgspec.msgpack.Decoder(dict[str, Consent])


def pack_consents(consents: dict[str, Consent] | None) -> bytes:
    """As a ledger entry keeps them; b"" for none."""
    return _encoder.encode(consents) if consents else b""


def unpack_consents(packed: bytes) -> dict[str, Consent] | None:
    """Raises msgspec.DecodeError for what was never packed here."""
    return _consents.decode(packed) if packed else None


def _sealed(content: bytes) -> bytes:
    return SEAL + zlib.crc32(content).to_bytes(4, "big") + content


def _opened(packed: bytes) -> bytes | memoryview:
    if packed[:1] != SEAL:
        return packed
    content = memoryview(packed)[SEAL_BYTES:]
    if zlib.crc32(content) != int.from_bytes(packed[1:SEAL_BYTES], "big"):
        raise msgspec.DecodeError("its checksum does not match")
    return content


def newer_entry(known: LedgerEntry | None, entry: LedgerEntry) -> LedgerEntry:
    """The later verdict replaces the earlier one; offsets only grow; an attendee id, and consents, are kept until there
    are others. An entry without an outcome tells of a change there: the last outcome stands, and no digest is certain
    any more."""
    if known is None:
        return entry
    last = entry if entry.outcome else known
    return LedgerEntry(
        entry.key,
        last.outcome,
        last.reason,
        max(known.settled_through, entry.settled_through),
        max(known.confirmed_through, entry.confirmed_through),
        entry.digest,
        last.at if last.outcome else entry.at,
        entry.attendee_id or known.attendee_id,
        entry.consents or known.consents,
    )
