"""The ledger in parts, beside a model that keeps the last entry of every key."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from engine.adapters.sqlite import folding, merging, parts, state_sql
from engine.adapters.sqlite.merging import Merging, to_merge
from engine.adapters.sqlite.parts import Filters, Part
from engine.core.codec import encode_entry, newer_entry
from engine.model import NOTHING, LedgerEntry
from engine.testing.contracts.harness import key_of

PEOPLE = [key_of(f"p{number}") for number in range(160)]
CONSUMER, OTHER = 1, 2


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        state_sql.create(connection)
        yield connection


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes millions of keys in earnest happens with hundreds here."""
    monkeypatch.setattr(parts, "BLOCK_KEYS", 4)
    monkeypatch.setattr(merging, "SIMILAR_PARTS", 4)
    monkeypatch.setattr(merging, "SMALLEST_KEYS", 10)
    monkeypatch.setattr(merging, "SLICE_KEYS", 25)


class Ledger:
    """What is written goes into the model as well."""

    def __init__(self, connection: sqlite3.Connection, seed: int) -> None:
        self.connection, self.random = connection, random.Random(seed)
        self.merging, self.filters = Merging(), Filters()
        self.known: dict[bytes, LedgerEntry] = {}
        self.offset = 0

    def write(self, keys: int) -> None:
        raws: list[bytes] = []
        for key in self.random.choices(PEOPLE, k=keys):
            entry = self.verdict(key)
            self.known[key] = newer_entry(self.known.get(key), entry)
            raws.append(encode_entry(entry))
        packed: dict[bytes, bytes] = {}
        parts.merge_raw(packed, raws)
        self.connection.execute("BEGIN")
        folding.write(self.connection, CONSUMER, packed)
        self.connection.execute("COMMIT")

    def verdict(self, key: bytes) -> LedgerEntry:
        self.offset += 1
        if self.random.random() < 0.1:
            return LedgerEntry(key, "", "", NOTHING, NOTHING, b"", float(self.offset), self.random.choice(("", "a1")))
        confirmed = self.random.choice((NOTHING, self.offset))
        return LedgerEntry(key, "delivered", "", self.offset, confirmed, b"%d" % self.offset, float(self.offset))

    def erase(self) -> None:
        keys = set(self.random.sample(PEOPLE, 3))
        parts.erase(self.connection, CONSUMER, keys)
        for key in keys:
            self.known.pop(key, None)

    def check(self) -> None:
        assert parts.find(self.connection, CONSUMER, PEOPLE, self.filters) == self.known
        in_order = [self.known[key] for key in sorted(self.known)]
        assert list(parts.entries(self.connection, CONSUMER)) == in_order
        assert self.paged(self.random.randint(1, 50)) == in_order

    def paged(self, limit: int) -> list[LedgerEntry]:
        found, after = list[LedgerEntry](), b""
        while page := parts.after(self.connection, CONSUMER, after, limit):
            assert len(page) <= limit
            found += page
            after = page[-1].key
            if len(page) < limit:
                break
        return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_merged_and_erased_in_any_order_is_found(connection: sqlite3.Connection, seed: int) -> None:
    ledger = Ledger(connection, seed)
    for _ in range(40):
        step = ledger.random.random()
        if step < 0.4:
            ledger.write(ledger.random.choice((1, 5, 40, 120)))
        elif step < 0.9:
            ledger.merging.step(connection)
        else:
            ledger.erase()
        ledger.check()
    while ledger.merging.step(connection):
        ledger.check()
    live = {part.id for part in parts.live(connection, CONSUMER)}
    stored = {id >> parts.BLOCK_BITS for (id,) in connection.execute("SELECT id FROM block")}
    assert stored <= live, "nothing is left of what was merged"
    assert connection.execute("SELECT count(*) FROM part").fetchone() == (len(live),)
    assert to_merge(parts.live(connection, CONSUMER)) == []
    assert len(live) <= 3 * 5, "at most three of each size"


def test_a_merge_that_was_cut_off_leaves_nothing(connection: sqlite3.Connection) -> None:
    ledger = Ledger(connection, 1)
    for _ in range(4):
        ledger.write(70)
    ledger.merging.step(connection)
    ledger.merging = Merging()  # the next process
    while ledger.merging.step(connection):
        ledger.check()
    assert connection.execute("SELECT count(*), sum(live) FROM part").fetchone() == (1, 1)


def test_erased_keys_leave_no_trace_in_a_merge_under_way(connection: sqlite3.Connection) -> None:
    ledger = Ledger(connection, 2)
    for _ in range(4):
        ledger.write(70)
    for _ in range(3):
        ledger.merging.step(connection)
    gone = set(PEOPLE[:80])
    parts.erase(connection, CONSUMER, gone)
    stored = b"".join(packed for (packed,) in connection.execute("SELECT packed FROM block"))
    assert not any(key in stored for key in gone)
    ledger.known = {key: entry for key, entry in ledger.known.items() if key not in gone}
    while ledger.merging.step(connection):
        ledger.check()


def test_parts_of_one_consumer_are_no_business_of_another(connection: sqlite3.Connection) -> None:
    ledger = Ledger(connection, 3)
    ledger.write(40)
    folding.write(connection, OTHER, {PEOPLE[0]: encode_entry(LedgerEntry(PEOPLE[0], "expired", "", 7))})
    parts.erase(connection, OTHER, set(PEOPLE[1:]))
    ledger.check()
    parts.delete_all(connection, CONSUMER)
    assert parts.find(connection, CONSUMER, PEOPLE, Filters()) == {}
    assert [one.outcome for one in parts.find(connection, OTHER, PEOPLE, Filters()).values()] == ["expired"]
    assert parts.consumers(connection) == {OTHER}


def test_what_was_certain_is_not_any_more(connection: sqlite3.Connection) -> None:
    ledger = Ledger(connection, 4)
    ledger.write(100)
    parts.clear_digests(connection)
    found = parts.find(connection, CONSUMER, PEOPLE, Filters())
    assert {entry.digest for entry in found.values()} == {b""}
    assert {entry.settled_through for entry in found.values()} == {one.settled_through for one in ledger.known.values()}


def part(keys: int) -> Part:
    return Part(0, CONSUMER, 0, 0, keys)


@pytest.mark.parametrize(
    ("sizes", "merged"),
    [
        ([], []),
        ([10, 10, 10], []),
        ([10, 10, 10, 10], [10, 10, 10, 10]),
        ([400, 10, 10, 10], []),
        ([400, 10, 10, 10, 10], [10, 10, 10, 10]),
        ([10, 10, 400, 10, 10], []),
        ([100, 100, 100, 1, 100], [100, 100, 100, 1, 100]),
        ([40, 40, 40, 9_000, 40, 10, 10, 10, 10], [10, 10, 10, 10]),
    ],
)
def test_neighbours_of_one_size_are_merged(sizes: list[int], merged: list[int]) -> None:
    assert [one.keys for one in to_merge([part(keys) for keys in sizes])] == merged


def test_a_filter_knows_every_key_that_was_put_in_and_hardly_another(connection: sqlite3.Connection) -> None:
    known = {key: encode_entry(LedgerEntry(key, "delivered", "", 1)) for key in PEOPLE[:80]}
    folding.write(connection, CONSUMER, known)
    (one,) = parts.live(connection, CONSUMER)
    may_hold = Filters().among(connection, one, parts.bits_of(PEOPLE))
    assert may_hold[:80] == PEOPLE[:80]
    assert len(may_hold) < 90
