"""How a segment file looks: one header block, then records back to back, then zeros.

A record is the events of one append: a fixed head with lengths, offset and two checksums, the name of the source, and
the packed events. All records of one group commit are written by one write; `back` says how far before a record its
commit begins, and the last one carries `ENDS`: a commit is whole or it is not there. The checksum of a head is seeded
with a random number of its segment, and with its place, so what an earlier use of the file left behind, or what
somebody put into the fields of a profile, is never taken for a record.

The payload is what `codec.pack_events` makes and not the body of the request: a body would have to be judged again
after a restart, by a configuration that may have changed since and so with another answer than the one given.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import msgspec

from engine.core.codec import pack_events, unpack_events
from engine.errors import StorageFailed
from engine.model import Append, Event, Lane

VERSION = 1
DATA_START = 4_096
"""Where the first record of a segment stands."""
SECTOR_BYTES = 512
HEADER_BYTES = 2 * SECTOR_BYTES
"""The header stands in two sectors, each of which is there or not: a turned bit must not cost a whole segment."""
SEGMENT_MAGIC = b"RFSEGMNT"
_HEADER = struct.Struct("<8sHH8s32sQQQQ")
_CHECKSUM = struct.Struct("<I")
_SUMMED_BYTES = SECTOR_BYTES - _CHECKSUM.size
ACTIVE, RELEASED = 1, 2
SALT_BYTES = 8

RECORD_MAGIC = b"\xc1R"
_RECORD = struct.Struct("<2sBBHIIIQdI")
RECORD_BYTES = _RECORD.size + _CHECKSUM.size
APPEND, MARK, KIND = 0x01, 0x02, 0x0F
ERASED, ENDS = 0x40, 0x80
_USED = struct.Struct("<I")
_RELEASED_BELOW = struct.Struct("<Q")


class Header(msgspec.Struct, frozen=True):
    """`base`: the offset of its first event. `released`: nothing below this was needed when it was begun. `size`: of
    the whole file. Sequences of the segments of a journal follow each other without a gap."""

    id: str
    salt: bytes
    sequence: int
    base: int
    released: int
    size: int
    state: int = ACTIVE
    version: int = VERSION

    @property
    def seed(self) -> int:
        return zlib.crc32(self.salt + self.sequence.to_bytes(8, "little"))

    def packed(self) -> bytes:
        fields = (self.salt, self.id.encode(), self.sequence, self.base, self.released, self.size)
        sector = _HEADER.pack(SEGMENT_MAGIC, self.version, self.state, *fields).ljust(_SUMMED_BYTES, b"\0")
        return (sector + _CHECKSUM.pack(zlib.crc32(sector))) * 2


def read_header(block: bytes) -> Header | None:
    """None when neither copy is as it was written. Two whole ones differ while a segment is being released."""
    copies = [_read_copy(block[start : start + SECTOR_BYTES]) for start in (0, SECTOR_BYTES)]
    whole = [one for one in copies if one is not None]
    return max(whole, key=lambda one: one.state, default=None)


def _read_copy(sector: bytes) -> Header | None:
    """The checksum is in the same place in every version, so of a newer one its number may be believed."""
    if len(sector) < SECTOR_BYTES or sector[:8] != SEGMENT_MAGIC:
        return None
    if zlib.crc32(sector[:_SUMMED_BYTES]) != _CHECKSUM.unpack_from(sector, _SUMMED_BYTES)[0]:
        return None
    _, version, state, salt, id, sequence, base, released, size = _HEADER.unpack_from(sector)
    return Header(id.rstrip(b"\0").decode("ascii", "replace"), salt, sequence, base, released, size, state, version)


class Record(msgspec.Struct, frozen=True, gc=False):
    """The head of a record that stands at `position` of its file, whole."""

    position: int
    flags: int
    lane: int
    source_bytes: int
    back: int
    payload_bytes: int
    count: int
    first: int
    accepted_at: float
    checksum: int

    @property
    def kind(self) -> int:
        return self.flags & KIND

    @property
    def body(self) -> int:
        """Where its source begins, and behind that its payload."""
        return self.position + RECORD_BYTES

    @property
    def end(self) -> int:
        return self.position + RECORD_BYTES + self.source_bytes + self.payload_bytes

    @property
    def commit(self) -> int:
        """Where its commit begins."""
        return self.position - self.back

    @property
    def following(self) -> int:
        """The offset after its events."""
        return self.first + self.count


def _seed_at(position: int, seed: int) -> int:
    """A head is one only where it was written."""
    return seed ^ (position & 0xFFFFFFFF)


def read_record(buffer: bytes, index: int, position: int, seed: int) -> Record | None:
    """The record whose head stands at `index` of the buffer, which is `position` of the file; None if none does."""
    if index + RECORD_BYTES > len(buffer) or buffer[index : index + 2] != RECORD_MAGIC:
        return None
    end = index + _RECORD.size
    if zlib.crc32(buffer[index:end], _seed_at(position, seed)) != _CHECKSUM.unpack_from(buffer, end)[0]:
        return None
    return Record(position, *_RECORD.unpack_from(buffer, index)[1:])


def is_whole(record: Record, body: bytes | memoryview) -> bool:
    """Is this, its source and its payload, what was written?"""
    return zlib.crc32(body) == record.checksum


class Packed(msgspec.Struct, frozen=True, gc=False):
    """What a record is made of, apart from its place."""

    flags: int
    lane: int
    source: bytes
    payload: bytes
    count: int
    accepted_at: float

    @property
    def bytes(self) -> int:
        return RECORD_BYTES + len(self.source) + len(self.payload)


def pack_append(append: Append) -> Packed:
    payload = append.packed or pack_events(append.events)
    return Packed(APPEND, append.lane, append.source.encode(), payload, len(append.events), append.accepted_at)


def pack_mark(released: int) -> Packed:
    """A record without events that notes what was released."""
    return Packed(MARK, 0, b"", _RELEASED_BELOW.pack(released), 0, 0.0)


def released_below(payload: bytes) -> int:
    """What a mark has noted."""
    return int(_RELEASED_BELOW.unpack(payload)[0])


def commit_of(packed: Sequence[Packed], first: int, seed: int, position: int) -> bytes:
    """These records as one commit that begins at `position`; the first of its events has the offset `first`."""
    parts: list[bytes] = []
    back, last = 0, len(packed) - 1
    for index, one in enumerate(packed):
        parts += record_of(one, first, back, seed, position + back, ends=index == last)
        back += one.bytes
        first += one.count
    return b"".join(parts)


def record_of(
    packed: Packed, first: int, back: int, seed: int, position: int, *, ends: bool
) -> tuple[bytes, bytes, bytes, bytes]:
    flags = packed.flags | ENDS if ends else packed.flags
    checksum = zlib.crc32(packed.payload, zlib.crc32(packed.source))
    sizes = (len(packed.source), back, len(packed.payload), packed.count)
    head = _RECORD.pack(RECORD_MAGIC, flags, packed.lane, *sizes, first, packed.accepted_at, checksum)
    return head, _CHECKSUM.pack(zlib.crc32(head, _seed_at(position, seed))), packed.source, packed.payload


def append_from(record: Record, body: bytes) -> Append:
    """The append of a whole record. Raises StorageFailed when it holds something else."""
    try:
        events = unpack_events(_payload(record, body))
        source = body[: record.source_bytes].decode()
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
        raise StorageFailed(f"the record of offset {record.first} cannot be read") from error
    if len(events) != record.count:
        raise StorageFailed(f"the record of offset {record.first} does not hold {record.count} events")
    return Append(events, source, Lane(record.lane), record.accepted_at, record.first)


def _payload(record: Record, body: bytes) -> bytes:
    """Events that were emptied take less room: how much stands before them, and zeros behind."""
    payload = body[record.source_bytes :]
    if not record.flags & ERASED:
        return payload
    return payload[_USED.size : _USED.size + _USED.unpack_from(payload)[0]]


def rewritten(record: Record, body: bytes, events: list[Event], seed: int) -> bytes:
    """The record with these events, at the same place and of the same length. An emptied event always leaves room for
    the number of bytes that are in use: the shortest content with something in it is four bytes longer than none."""
    payload, room = pack_events(events), record.payload_bytes - _USED.size
    if len(payload) > room:
        raise StorageFailed(f"the record of offset {record.first} has no room for its own events")
    flags, source = record.flags | ERASED, body[: record.source_bytes]
    packed = Packed(
        flags,
        record.lane,
        source,
        _USED.pack(len(payload)) + payload.ljust(room, b"\0"),
        record.count,
        record.accepted_at,
    )
    return b"".join(record_of(packed, record.first, record.back, seed, record.position, ends=False))


def moved(record: Record, body: bytes) -> Packed:
    """The record as it is, to be written somewhere else as a commit of its own."""
    source, payload = body[: record.source_bytes], body[record.source_bytes :]
    return Packed(record.flags & ~ENDS, record.lane, source, payload, record.count, record.accepted_at)
