"""What waits to be folded answers as the ledger will, also where it has been folded already."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.sqlite import unfolded
from engine.adapters.sqlite.unfolded import Unfolded
from engine.core.codec import newer_entry
from engine.model import NOTHING, LedgerEntry

KEYS = [bytes([n]) * 32 for n in range(4)]


@st.composite
def entries_of(draw: st.DrawFn, keys: Sequence[bytes] = KEYS) -> list[LedgerEntry]:
    """As they are settled, offsets growing; some of a change over there alone."""
    found = []
    for offset in range(draw(st.integers(1, 12))):
        key = draw(st.sampled_from(keys))
        outcome = draw(st.sampled_from(["delivered", "excluded", ""]))
        texts = [draw(st.sampled_from([b"", b"%d" % offset])) for _ in range(3)]
        confirmed = draw(st.sampled_from([NOTHING, offset])) if outcome else NOTHING
        through = offset if outcome else NOTHING
        name = draw(st.sampled_from(["", f"id{offset}"]))
        found.append(
            LedgerEntry(key, outcome, "", through, confirmed, texts[0], float(offset), name, texts[1], texts[2])
        )
    return found


def folded(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    return reduce(newer_entry, entries, None)


@given(entries_of(KEYS[:1]), st.data())
def test_what_is_folded_twice_is_as_if_folded_once(entries: list[LedgerEntry], data: st.DataObject) -> None:
    """`Unfolded` lets go of rows in heaps: of some the ledger has taken in the first ones already."""
    end = data.draw(st.integers(0, len(entries)))
    begin = data.draw(st.integers(0, end))
    known, again = folded(entries[:end]), folded(entries[begin:])
    assert (newer_entry(known, again) if again is not None else known) == folded(entries)


@given(entries_of(), st.integers(1, 4), st.integers(0, 12))
def test_every_key_is_answered_until_its_last_row_is_folded(
    entries: list[LedgerEntry], together: int, through: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfolded, "KEYS_TOGETHER", together)
        kept = Unfolded()
        for row, entry in enumerate(entries, 1):
            kept.add(7, row, [entry])
        kept.folded_through = through
        kept.drop_folded()
    found = kept.find(7, KEYS)
    for key in KEYS:
        mine = [(row, entry) for row, entry in enumerate(entries, 1) if entry.key == key]
        ledger = folded([entry for row, entry in mine if row <= through])
        if any(row > through for row, _ in mine):
            assert found[key][1] > through, "it says that it is newer than the ledger"
        answer = newer_entry(ledger, found[key][0]) if key in found else ledger
        assert answer == folded([entry for _, entry in mine])
    assert kept.find(8, KEYS) == {}
    assert (len(kept) == 0) == (through >= len(entries))


def test_a_forgotten_key_is_in_none_of_them() -> None:
    kept = Unfolded()
    for row, key in enumerate((KEYS[0], KEYS[1], KEYS[0]), 1):
        kept.add(7, row, [LedgerEntry(key, "delivered", "", row)])
    kept.forget(7, KEYS[0])
    assert set(kept.find(7, KEYS)) == {KEYS[1]}
