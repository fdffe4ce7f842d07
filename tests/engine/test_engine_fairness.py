"""Promise 3 where two destinations share an account: one that hangs does not take the other's turn."""

from __future__ import annotations

import random

import anyio
import pytest

from engine import Config, Engine
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step

CONFIG = {
    "journal": {"kind": "memory"},
    "account": [{"name": "a", "rate": {"requests_per_second": 100.0, "burst": 10, "max_concurrency": 4}}],
}


@pytest.mark.parametrize("hanging", [1, 2])
def test_a_destination_that_hangs_slows_no_other_one_of_its_account(hanging: int) -> None:
    names = [*(f"hangs{number}" for number in range(hanging)), "quick"]

    async def main() -> None:
        config = Config.from_dict({**CONFIG, "destination": [{"name": name} for name in names]})
        fakes = {name: FakeDestination(answer=lambda batch: Step(seconds=300.0)) for name in names}
        fakes["quick"] = FakeDestination()
        async with Engine(config, destinations=fakes, clock=VirtualClock(), random=random.Random(1)) as engine:
            await engine.submit([{"email": f"p{number}@example.com"} for number in range(100)])
            await anyio.sleep(30)
            assert len(fakes["quick"].stored) == 100
            await engine.kill()

    run_virtual(main)


def test_a_dry_run_leaves_no_trace_in_the_ledger_and_the_sums_stay_even() -> None:
    async def main() -> None:
        config = Config.from_dict({**CONFIG, "destination": [{"name": "demo", "dry_run": True}]})
        fake = FakeDestination()
        async with Engine(config, destinations={"demo": fake}, clock=VirtualClock(), random=random.Random(1)) as engine:
            receipt = await engine.submit([{"email": "lea@example.com"}, {"email": "lea@example.com", "city": "Lille"}])
            counts = await receipt.settled(timeout=60)
            assert counts is not None
            assert (counts["demo"]["excluded"], counts["demo"]["superseded"]) == (1, 1)
            found = (await engine.lookup("lea@example.com"))["destinations"]
            assert found["demo"]["state"] == "unknown"  # type: ignore[index]
            assert (await engine.control.audit())["ok"]
        assert fake.requests == []

    run_virtual(main)
