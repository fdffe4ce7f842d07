"""The state file's own ways: what is answered while settling and folding go on beside the question."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.adapters.sqlite import LedgerLimits, SqliteState, held_sql
from engine.adapters.sqlite import state_sql as sql
from engine.model import LetterState
from engine.ports import KeyState, LetterFilter
from engine.testing.contracts.harness import key_of
from engine.testing.contracts.state_data import consumer_of, consumer_state, letter, settle, verdict, waiting

LEA = key_of("lea")


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[SqliteState]:
    """One that folds nothing by itself."""
    state = SqliteState(tmp_path / "state.db")
    state._writer._idle = lambda connection: False  # type: ignore[union-attr]
    await state.open()
    await state.add_consumer(consumer_state())
    yield state
    await state.close()


async def fold(state: SqliteState) -> None:
    await state._writer.run(state._fold_all)


async def test_a_question_that_is_overtaken_never_mixes_two_outcomes(state: SqliteState) -> None:
    """The key is settled anew and folded while the question waits for the reader."""
    await settle(state, verdicts=[verdict("bo", 0)])
    await fold(state)
    old, new = verdict("lea", 1, 1, digest=b"old", attendee_id="a1"), verdict("lea", 2, 2, digest=b"new")
    await settle(state, verdicts=[old])
    gate = threading.Event()
    state._reader.post(lambda _: gate.wait(30))  # type: ignore[union-attr]
    question = asyncio.ensure_future(state.keys("plain", [LEA]))
    await asyncio.sleep(0)
    await settle(state, verdicts=[new])
    await fold(state)
    gate.set()
    entry = (await question)[LEA].entry
    assert entry is not None
    assert (entry.digest, entry.confirmed_through, entry.attendee_id) == (b"new", 2, "a1")


async def test_what_enters_the_ledger_is_known_before_the_writer_has_noted_that_there_is_one(
    state: SqliteState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first verdicts of a destination are folded between a question and its answer."""
    committed, goes_on = threading.Event(), threading.Event()
    fold_some = state._folding.fold_some

    def stopped_behind_its_commit(connection: sqlite3.Connection) -> set[int] | None:
        consumers = fold_some(connection)
        committed.set()
        assert goes_on.wait(30)
        return consumers

    await settle(state, verdicts=[verdict("lea", 1, 1)], hold=[waiting("bo", 2)])
    monkeypatch.setattr(state._folding, "fold_some", stopped_behind_its_commit)
    folding = asyncio.ensure_future(state._writer.run(state._fold_some))
    assert await asyncio.to_thread(committed.wait, 30)
    found = await state.keys("plain", [LEA])
    goes_on.set()
    await folding
    assert LEA in found


async def test_a_key_that_is_in_the_ledger_and_in_memory_is_answered_as_one(state: SqliteState) -> None:
    await settle(state, verdicts=[verdict("lea", 1, 1, digest=b"old", attendee_id="a1")])
    await fold(state)
    await settle(state, verdicts=[verdict("lea", 2)])
    entry = (await state.keys("plain", [LEA]))[LEA].entry
    assert entry is not None
    assert (entry.settled_through, entry.confirmed_through, entry.digest, entry.attendee_id) == (2, 1, b"", "a1")


async def test_closing_folds_what_is_left(tmp_path: Path, state: SqliteState) -> None:
    await settle(state, verdicts=[verdict("lea", 1)])
    await state.close()
    again = SqliteState(tmp_path / "state.db")
    await again.open()
    try:
        assert len(again._unfolded) == 0
        assert (await again.keys("plain", [LEA]))[LEA].entry == verdict("lea", 1)
    finally:
        await again.close()


async def test_settling_folds_first_when_memory_holds_too_much(
    state: SqliteState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.adapters.sqlite.state.UNFOLDED_KEYS", 10)
    for offset in range(50):
        await settle(state, verdicts=[verdict(f"p{offset}", offset)])
        assert len(state._unfolded) <= 12


async def test_without_a_ledger_recovery_still_knows_what_was_settled(tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "state.db", ledger=LedgerLimits(enabled=False))
    await state.open()
    try:
        await state.add_consumer(consumer_state())
        await settle(state, verdicts=[verdict("lea", 3)], hold=[waiting("bo", 4)])
        assert set(await state.keys("plain", [LEA, key_of("bo")])) == {key_of("bo")}
        assert await state.accounted("plain") == {LEA: 3, key_of("bo"): 4}
    finally:
        await state.close()


async def test_without_a_ledger_nothing_is_written_that_recovery_does_not_read(tmp_path: Path) -> None:
    """What its own transaction puts below the watermark is settled for good."""
    state = SqliteState(tmp_path / "state.db", ledger=LedgerLimits(enabled=False))
    await state.open()
    try:
        await state.add_consumer(consumer_state())
        await settle(state, verdicts=[verdict("lea", 3)], accounted=[(key_of("bo"), 4)], watermark=5)
        assert await state._writer.run(sql.newest_verdict) == 0
        pairs = [(key_of("bo"), 9), (key_of("cy"), 6), (key_of("dan"), 7)]
        await settle(state, verdicts=[verdict("lea", 6), verdict("eva", 7)], accounted=pairs, watermark=7)
        above = {key_of("bo"): 9, key_of("dan"): 7, key_of("eva"): 7}
        assert await state.accounted("plain") == above
        await settle(state, verdicts=[verdict("lea", 8)])
        assert await state.accounted("plain") == above | {LEA: 8}
        assert (await consumer_of(state)).settled_through == 9
    finally:
        await state.close()


async def test_verdicts_are_kept_for_a_ledger_or_for_the_sake_of_dead_letters(tmp_path: Path) -> None:
    """Also for those of which nothing is left but a row that says how they were replayed."""
    for enabled in (True, False):
        state = SqliteState(tmp_path / f"{enabled}.db", ledger=LedgerLimits(enabled=enabled))
        await state.open()
        try:
            await state.add_consumer(consumer_state())
            await state.add_consumer(consumer_state("other"))
            assert state.keeps_verdicts("plain") is enabled
            await settle(state, hold=[waiting("lea", 1)])
            assert state.keeps_verdicts("plain") is enabled
            await settle(state, hold=[letter("lea", 2)])
            (found,) = await state.letters(LetterFilter(), 10)
            await settle(state, letters=[(found[1].id, LetterState.REPLAYED)])
            assert (state.keeps_verdicts("plain"), state.keeps_verdicts("other")) == (True, enabled)
        finally:
            await state.close()
        again = SqliteState(tmp_path / f"{enabled}.db", ledger=LedgerLimits(enabled=enabled))
        await again.open()
        try:
            assert (again.keeps_verdicts("plain"), again.keeps_verdicts("other")) == (True, enabled)
        finally:
            await again.close()


async def test_without_a_ledger_a_replay_still_finds_out_what_has_overtaken_it(tmp_path: Path) -> None:
    """Kept for keys with dead letters only, in memory and on disk, whatever has been settled and reclaimed since."""
    for _ in range(2):
        state = SqliteState(tmp_path / "state.db", ledger=LedgerLimits(enabled=False))
        await state.open()
        try:
            if not await state.consumers():
                await state.add_consumer(consumer_state())
                await settle(state, hold=[letter("lea", 1)])
                await settle(
                    state, verdicts=[verdict("lea", 5, confirmed=5), verdict("bo", 6, confirmed=6)], watermark=8
                )
            found = await state.keys("plain", [LEA])
            assert found[LEA].entry is not None
            assert found[LEA].entry.confirmed_through == 5
        finally:
            await state.close()
    assert set(await _reopened_keys(tmp_path, "lea", "bo")) == {LEA}


async def _reopened_keys(folder: Path, *names: str) -> dict[bytes, KeyState]:
    state = SqliteState(folder / "state.db", ledger=LedgerLimits(enabled=False))
    await state.open()
    try:
        return await state.keys("plain", [key_of(name) for name in names])
    finally:
        await state.close()


async def test_what_was_certain_is_not_any_more_once_there_was_no_ledger_for_a_while(tmp_path: Path) -> None:
    for enabled in (True, False, True):
        state = SqliteState(tmp_path / "state.db", ledger=LedgerLimits(enabled=enabled))
        await state.open()
        try:
            if not await state.consumers():
                await state.add_consumer(consumer_state())
                await settle(state, verdicts=[verdict("lea", 1, digest=b"d")])
            entry = (await state.keys("plain", [LEA]))[LEA].entry
            digest = entry.digest if entry is not None else b""
        finally:
            await state.close()
    assert digest == b""


async def test_a_consumer_is_never_renamed_onto_another(state: SqliteState) -> None:
    await state.add_consumer(consumer_state("listing"))
    with pytest.raises(ValueError, match="listing"):
        await state.rename_consumer("plain", "listing")
    assert (await consumer_of(state, "plain")).name == "plain"
    await settle(state, "plain", counts={"n": 1})


async def test_a_file_of_the_first_format_is_upgraded_where_it_stands(tmp_path: Path) -> None:
    """With all that is in it; and it is of the newest format then, so that an older version refuses it."""
    path = tmp_path / "state.db"
    made = SqliteState(path)
    await made.open()
    await made.add_consumer(consumer_state())
    await settle(made, verdicts=[verdict("lea", 3, 3, attendee_id="a1")], watermark=4)
    await made.close()
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "ALTER TABLE ledger DROP COLUMN consents; DROP TABLE run; DROP TABLE run_fate; DROP TABLE alert; "
            "DROP TABLE folded; DROP TABLE part; DROP TABLE block; DROP INDEX held_in_order"
        )
        connection.execute("INSERT INTO ledger VALUES (1, ?, 'delivered', '', 3, 3, x'', 1.0, 'a1')", (LEA,))
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    upgraded = SqliteState(path)
    await upgraded.open()
    entry = (await upgraded.keys("plain", [LEA]))[LEA].entry
    assert entry is not None
    assert (entry.attendee_id, entry.consents) == ("a1", b"")
    await settle(upgraded, verdicts=[verdict("lea", 5, consents=b"no")])
    await upgraded.close()
    upgraded = SqliteState(path)
    await upgraded.open()
    entry = (await upgraded.keys("plain", [LEA]))[LEA].entry
    assert entry is not None
    assert (entry.settled_through, entry.confirmed_through, entry.attendee_id, entry.consents) == (5, 3, "a1", b"no")
    await upgraded.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (sql.FORMAT.version,)
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (0,), "it is in parts now"
    connection.close()


async def test_the_next_held_profiles_are_read_without_sorting_all_that_wait(tmp_path: Path) -> None:
    """With 200,000 of them a page of 1,000 took 80 ms instead of 0.3, and a million as many times longer."""
    state = SqliteState(tmp_path / "state.db")
    await state.open()
    await state.close()
    asked: list[str] = []
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.set_trace_callback(asked.append)
        held_sql.waiting_after(connection, 1, 5, 10)
        connection.set_trace_callback(None)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[-1]}")]
    connection.close()
    assert not any("TEMP B-TREE" in step for step in plan), plan
