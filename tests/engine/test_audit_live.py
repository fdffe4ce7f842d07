"""An audit beside traffic: never a false alarm, and still one where something is wrong."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import Config, Engine
from engine.errors import EngineError
from engine.model import Batch
from engine.ports import LetterFilter
from engine.testing.destination import FakeDestination, Step, reject, retry, unknown

AUDITS = 30


class Traffic:
    """Producers, operators and an auditor of one engine with real files, and little room in memory."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.stores = {"single": FakeDestination(answer=self._answer), "array": self._array()}
        rate = {"requests_per_second": 3_000.0, "burst": 50, "max_concurrency": 8}
        retrying = {"base_ms": 1, "cap_ms": 20, "unknown_hold_seconds": 0.02, "max_attempts": 5}
        tables = {
            "buffer": {"max_profiles": 200},
            "account": [{"rate": rate}],
            "destination": [
                {"name": name, "batch": {"max_profiles": 20, "linger_ms": 1}, "retry": retrying} for name in self.stores
            ],
        }
        self.engine = Engine(Config.from_dict(tables, base=folder), destinations=self.stores)
        self.reports: list[dict[str, Any]] = []
        self.over = False

    def _array(self) -> FakeDestination:
        return FakeDestination(answer=self._answer, profiles_per_request=20)

    def _answer(self, batch: Batch) -> Step:
        number = self.random.random()
        if number < 0.05:
            return Step(reject())
        if number < 0.10:
            return Step(retry())
        return Step(unknown(), lands=True) if number < 0.12 else Step()

    def _people(self) -> list[dict[str, str]]:
        count = self.random.choice([1, 5, 150])
        return [
            {"email": f"p{self.random.randrange(400)}@example.com", "city": str(self.random.random())}
            for _ in range(count)
        ]

    async def produce(self) -> None:
        while not self.over:
            try:
                await self.engine.submit(self._people(), lane=self.random.choice(["live", "backfill"]))
            except EngineError:
                await anyio.sleep(0.01)
            await anyio.sleep(self.random.random() * 0.02)

    async def operate(self) -> None:
        while not self.over:
            await anyio.sleep(self.random.random() * 0.1)
            action = self.random.choice(["pause", "resume", "forget", "replay", "purge"])
            name = self.random.choice(list(self.stores))
            if action == "pause":
                await self.engine.pause(name)
            elif action == "resume":
                await self.engine.resume(name)
            elif action == "forget":
                await self.engine.forget(f"p{self.random.randrange(400)}@example.com")
            elif action == "replay":
                await self.engine.dead_letters.replay(LetterFilter(consumer=name))
            else:
                await self.engine.dead_letters.purge(LetterFilter(consumer=name, ids=(1, 2, 3)))

    async def audit(self) -> None:
        for _ in range(AUDITS):
            self.reports.append(await self.engine.control.audit())
            await anyio.sleep(0.01)
        self.over = True

    async def run(self) -> None:
        async with self.engine, anyio.create_task_group() as tasks:
            for work in (self.produce, self.produce, self.operate, self.audit):
                tasks.start_soon(work)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_audit_raises_no_false_alarm_beside_traffic(tmp_path: Path, seed: int) -> None:
    traffic = Traffic(tmp_path, seed)
    anyio.run(traffic.run)
    assert [report["problems"] for report in traffic.reports] == [[]] * AUDITS
    first, *_, last = [report["destinations"].values() for report in traffic.reports]
    assert sum(one["accepted"] for one in last) > sum(one["accepted"] for one in first), "nothing came meanwhile"
    for outcome in ("delivered", "superseded", "dead_lettered", "pending"):
        assert sum(one[outcome] for one in last), f"nothing was {outcome}"


def test_damage_is_named_while_the_engine_runs(tmp_path: Path) -> None:
    async def main() -> None:
        traffic = Traffic(tmp_path, 1)
        async with traffic.engine as engine:
            receipt = await engine.submit([{"email": "a@example.com"}])
            await receipt.settled(timeout=20)
            with sqlite3.connect(tmp_path / "var" / "state.db") as connection:
                connection.execute("UPDATE count SET events = events + 3")
            connection.close()
            report = await engine.control.audit()
            assert (
                "destination 'single': what the engine has counted and what it has stored differ" in report["problems"]
            )
            assert any("are counted more than once" in problem for problem in report["problems"])

    anyio.run(main)
