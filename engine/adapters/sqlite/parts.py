"""The ledger on disk: sorted parts, each of many keys, newer ones over older ones.

A part is written once, in blocks of some dozens of verdicts, by the order of their keys; what is settled later of the
same key goes into a later part. `merging` makes one part of several. A key's entry is what the parts say of it, folded
from the oldest to the newest (`codec.newer_entry`). Keys are hashes, so that the first bits of a key name its block.
"""

from __future__ import annotations

import sqlite3
import struct
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from engine.core.codec import KEY_AT, KEY_BYTES, decode_entry, encode_entry, newer_entry, pack_block, unpack_block
from engine.model import LedgerEntry

BLOCK_KEYS = 64
BLOCK_BITS = 20
FILTER_BITS_A_KEY = 16
"""Two of them are set for each key: of a hundred keys that a part does not hold, it is asked for one or two."""
_BITS = struct.Struct(">4xII20x")  # behind the bits of a key that name its block
Bits = tuple[bytes, tuple[int, int]]
"""A key, and what of it points into a filter."""
PARTS = "id, consumer, rank, width, keys"


class Part(msgspec.Struct, frozen=True):
    """`width`: how many bits of a key name its block. `rank`: newer ones have higher ones. `keys`: about how many."""

    id: int
    consumer: int
    rank: int
    width: int
    keys: int

    def block(self, key: bytes) -> int:
        return self.id << BLOCK_BITS | number_of(key, self.width)

    def blocks(self, slot: int, width: int) -> tuple[int, int]:
        """[from, to): the blocks that hold the keys which begin with the `width` bits of `slot`."""
        if width >= self.width:
            first = end = slot >> (width - self.width)
        else:
            first, end = slot << (self.width - width), ((slot + 1) << (self.width - width)) - 1
        return self.id << BLOCK_BITS | first, (self.id << BLOCK_BITS | end) + 1


def number_of(key: bytes, width: int) -> int:
    return int.from_bytes(key[:4], "big") >> (32 - width)


def width_for(keys: int) -> int:
    return min(BLOCK_BITS, (keys // BLOCK_KEYS).bit_length())


# -- writing --------------------------------------------------------------------------------------------------------


def merge_raw(known: dict[bytes, bytes], raws: Sequence[bytes]) -> None:
    """Fold packed entries over those that are known, by key."""
    newer = {raw[KEY_AT : KEY_AT + KEY_BYTES]: raw for raw in raws}
    if len(newer) == len(raws) and known.keys().isdisjoint(newer):
        known.update(newer)
        return
    for raw in raws:
        key = raw[KEY_AT : KEY_AT + KEY_BYTES]
        older = known.get(key)
        known[key] = raw if older is None else encode_entry(newer_entry(decode_entry(older), decode_entry(raw)))


def begin(connection: sqlite3.Connection, consumer: int, keys: int, rank: int | None = None) -> Part:
    """A part that nobody sees yet; `rank` None: the newest of all."""
    (newest,) = connection.execute("SELECT coalesce(max(rank), 0) FROM part").fetchone()
    part = Part(0, consumer, newest + 1 if rank is None else rank, width_for(keys), keys)
    cursor = connection.execute(
        "INSERT INTO part (consumer, rank, width, keys, live, filter) VALUES (?, ?, ?, ?, 0, x'')",
        (consumer, part.rank, part.width, keys),
    )
    return msgspec.structs.replace(part, id=cursor.lastrowid)


def write_blocks(
    connection: sqlite3.Connection, part: Part, known: Mapping[bytes, bytes], slot: int, width: int
) -> None:
    """All that the part holds of the keys which begin with the `width` bits of `slot`; `width` at most the part's."""
    first, end = part.blocks(slot, width)
    keys = sorted(known)
    connection.executemany(
        "INSERT INTO block VALUES (?, ?)",
        [(id, pack_block([known[key] for key in some])) for id, some in _split(keys, part, first, end)],
    )


def _split(keys: Sequence[bytes], part: Part, first: int, end: int) -> Iterator[tuple[int, Sequence[bytes]]]:
    begin, last = 0, (1 << part.width) - 1
    for id in range(first, end):
        number = id & ((1 << BLOCK_BITS) - 1)
        stop = len(keys)
        if number < last:
            stop = bisect_left(keys, ((number + 1) << (32 - part.width)).to_bytes(4, "big"), begin)
        if stop > begin:
            yield id, keys[begin:stop]
        begin = stop


def publish(connection: sqlite3.Connection, part: Part, keys: int, filter: bytes) -> None:
    """From now on it is seen."""
    connection.execute("UPDATE part SET live = 1, keys = ?, filter = ? WHERE id = ?", (keys, filter, part.id))


def retire(connection: sqlite3.Connection, parts: Iterable[Part]) -> None:
    """What they hold stands in another one."""
    connection.executemany("UPDATE part SET live = 0 WHERE id = ?", [(part.id,) for part in parts])


def sweep(connection: sqlite3.Connection, building: int | None, *, limit: int = 100) -> bool:
    """Delete some of what nobody sees, but for the part `building`; is there perhaps more?"""
    row = connection.execute("SELECT id FROM part WHERE live = 0 AND id <> ?", (building or 0,)).fetchone()
    if row is None:
        return False
    first = row[0] << BLOCK_BITS
    done = connection.execute(
        "DELETE FROM block WHERE id IN (SELECT id FROM block WHERE id >= ? AND id < ? LIMIT ?)",
        (first, first + (1 << BLOCK_BITS), limit),
    )
    if done.rowcount < limit:
        connection.execute("DELETE FROM part WHERE id = ?", row)
    return True


def delete_all(connection: sqlite3.Connection, consumer: int) -> None:
    for (id,) in connection.execute("SELECT id FROM part WHERE consumer = ?", (consumer,)).fetchall():
        connection.execute("DELETE FROM block WHERE id >= ? AND id < ?", (id << BLOCK_BITS, (id + 1) << BLOCK_BITS))
    connection.execute("DELETE FROM part WHERE consumer = ?", (consumer,))


def erase(connection: sqlite3.Connection, consumer: int, keys: Collection[bytes]) -> None:
    """Every trace of these keys, also in what nobody sees any more or yet."""
    for part in _parts(connection, "consumer = ?", (consumer,)):
        for id in sorted({part.block(key) for key in keys}):
            rewrite(connection, id, lambda raws: [raw for raw in raws if raw[KEY_AT : KEY_AT + KEY_BYTES] not in keys])


def rewrite(connection: sqlite3.Connection, id: int, change: Callable[[list[bytes]], list[bytes]]) -> None:
    row = connection.execute("SELECT packed FROM block WHERE id = ?", (id,)).fetchone()
    if row is None:
        return
    raws = unpack_block(row[0])
    changed = change(raws)
    if changed != raws:
        connection.execute("UPDATE block SET packed = ? WHERE id = ?", (pack_block(changed), id))


def clear_digests(connection: sqlite3.Connection) -> None:
    """Nothing that was confirmed before is certain any more."""
    connection.execute("BEGIN IMMEDIATE")
    for (id,) in connection.execute("SELECT id FROM block").fetchall():
        rewrite(connection, id, lambda raws: [_without_digest(raw) for raw in raws])
    connection.execute("COMMIT")


def _without_digest(raw: bytes) -> bytes:
    entry = decode_entry(raw)
    entry.digest = b""
    return encode_entry(entry)


# -- filters --------------------------------------------------------------------------------------------------------


def empty_filter(keys: int) -> bytearray:
    """Of as many bits as a power of two, `FILTER_BITS_A_KEY` or more a key."""
    return bytearray(max(1, (1 << (keys * FILTER_BITS_A_KEY - 1).bit_length()) >> 3) if keys else 1)


def fill_filter(filter: bytearray, keys: Iterable[bytes]) -> None:
    mask = (len(filter) << 3) - 1
    for one, other in _BITS.iter_unpack(b"".join(keys)):
        filter[(one & mask) >> 3] |= 1 << (one & 7)
        filter[(other & mask) >> 3] |= 1 << (other & 7)


class Filters:
    """Of the parts that were asked, in the thread that asks. Tells of most keys that a part does not hold them."""

    def __init__(self) -> None:
        self._filters: dict[int, bytes] = {}

    def keep(self, parts: Sequence[Part]) -> None:
        """Forget those of all others, once there are many."""
        if len(self._filters) > 4 * len(parts) + 64:
            self._filters.clear()

    def among(self, connection: sqlite3.Connection, part: Part, keys: Sequence[Bits]) -> list[bytes]:
        """Of those from `bits_of` the keys that the part may hold."""
        filter = self._filters.get(part.id)
        if filter is None:
            (filter,) = connection.execute("SELECT filter FROM part WHERE id = ?", (part.id,)).fetchone()
            self._filters[part.id] = filter
        mask = (len(filter) << 3) - 1
        return [
            key
            for key, (one, other) in keys
            if filter[(one & mask) >> 3] >> (one & 7) & 1 and filter[(other & mask) >> 3] >> (other & 7) & 1
        ]


def bits_of(keys: Sequence[bytes]) -> list[Bits]:
    return list(zip(keys, _BITS.iter_unpack(b"".join(keys)), strict=True))


# -- reading --------------------------------------------------------------------------------------------------------


def live(connection: sqlite3.Connection, consumer: int) -> list[Part]:
    """From the oldest to the newest."""
    return _parts(connection, "consumer = ? AND live = 1 ORDER BY rank", (consumer,))


def _parts(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Part]:
    return [Part(*row) for row in connection.execute(f"SELECT {PARTS} FROM part WHERE {where}", values)]


def find(
    connection: sqlite3.Connection, consumer: int, keys: Sequence[bytes], filters: Filters
) -> dict[bytes, LedgerEntry]:
    found: dict[bytes, LedgerEntry] = {}
    parts, bits = live(connection, consumer), bits_of(keys)
    filters.keep(parts)
    for part in parts:
        wanted = filters.among(connection, part, bits)
        blocks = _blocks(connection, sorted({part.block(key) for key in wanted})) if wanted else {}
        for key in wanted:
            packed = blocks.get(part.block(key))
            if packed is not None and key in packed:
                entry = _entry_of(packed, key)
                if entry is not None:
                    found[key] = newer_entry(found.get(key), entry)
    return found


def _blocks(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        found |= connection.execute(f"SELECT id, packed FROM block WHERE id IN ({', '.join('?' * len(some))})", some)
    return found


def _entry_of(packed: bytes, key: bytes) -> LedgerEntry | None:
    for raw in unpack_block(packed):
        if raw[KEY_AT : KEY_AT + KEY_BYTES] == key:
            return decode_entry(raw)
    return None


def slot_of(connection: sqlite3.Connection, parts: Sequence[Part], slot: int, width: int) -> dict[bytes, bytes]:
    """key -> packed entry, of the keys which begin with the `width` bits of `slot`. `parts`: from the oldest on."""
    known: dict[bytes, bytes] = {}
    for part in parts:
        first, end = part.blocks(slot, width)
        for (packed,) in connection.execute("SELECT packed FROM block WHERE id >= ? AND id < ?", (first, end)):
            raws = unpack_block(packed)
            if part.width < width:
                raws = [raw for raw in raws if number_of(raw[KEY_AT : KEY_AT + 4], width) == slot]
            merge_raw(known, raws)
    return known


def after(connection: sqlite3.Connection, consumer: int, key: bytes, limit: int) -> list[LedgerEntry]:
    """In the order of the keys, from behind `key`; at most `limit`, fewer only at the end."""
    parts = live(connection, consumer)
    width = max((part.width for part in parts), default=0)
    found: list[LedgerEntry] = []
    for slot in range(number_of(key.ljust(4, b"\0"), width), 1 << width) if parts else ():
        known = slot_of(connection, parts, slot, width)
        found += [decode_entry(known[one]) for one in sorted(known) if one > key]
        if len(found) >= limit:
            break
    return found[:limit]


def entries(connection: sqlite3.Connection, consumer: int) -> Iterator[LedgerEntry]:
    """All of them, in the order of their keys."""
    parts = live(connection, consumer)
    width = max((part.width for part in parts), default=0)
    for slot in range(1 << width) if parts else ():
        known = slot_of(connection, parts, slot, width)
        yield from (decode_entry(known[key]) for key in sorted(known))


def consumers(connection: sqlite3.Connection) -> set[int]:
    return {id for (id,) in connection.execute("SELECT DISTINCT consumer FROM part WHERE live = 1")}
