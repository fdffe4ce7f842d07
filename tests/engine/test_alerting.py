"""Alerts of a running engine: raised and resolved by what really happens, told to a receiver that verifies them, and
never in anybody's way."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.assembly import alerting, courier
from engine.assembly.alerting import BUILT_IN, rules_of
from engine.errors import NoSpace
from engine.sandbox import Settings, running_sandbox
from engine.sandbox.faults import Fault
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination, Step, reject, retry
from engine.testing.lasting import LastingState

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Tables = dict[str, Any]


class Receiver:
    """Verifies what comes; answers 500 while `down`, never while `slow`."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.attempts = 0
        self.down = self.slow = False
        self.came = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        self.attempts += 1
        said = Webhook(SECRET).verify(await request.read(), dict(request.headers))
        self.came.set()
        if self.slow:
            await asyncio.Event().wait()
        if self.down:
            return web.Response(status=500)
        self.said.append(said)
        self.ids.append(request.headers["webhook-id"])
        return web.Response(status=204)

    def events(self) -> list[tuple[str, str]]:
        return [(it["data"]["alert"], it["type"].removeprefix("alert.")) for it in self.said]


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    one, application = Receiver(), web.Application()
    application.router.add_post("/hook", one.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("ALERT_SECRET", SECRET)
    monkeypatch.setenv("ALERT_URL", f"http://127.0.0.1:{runner.addresses[0][1]}/hook")
    monkeypatch.setattr(alerting, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(courier, "RETRY_BASE_SECONDS", 0.01)
    monkeypatch.setattr(courier, "RETRY_CAP_SECONDS", 0.05)
    yield one
    await runner.cleanup()


def alerts_of(*whens: str, **more: Any) -> Tables:
    """Alerts that are raised and resolved at once, to one webhook."""
    times = {"for_seconds": 0.0, "clear_seconds": 0.0, "to": ["oncall"]} | more
    target = {"name": "oncall", "url_env": "ALERT_URL", "secret_env": "ALERT_SECRET"}
    return {"notify": [target], "alert": [{"name": when, "when": when, **times} for when in whens]}


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in other tasks and on the wire
            await anyio.sleep(0.01)


def config_of(**tables: Any) -> Config:
    account = {"rate": {"requests_per_second": 1_000.0, "burst": 100}}
    return Config.from_dict({"account": [account], "journal": {"kind": "memory"}} | tables)


class Disk:
    def __init__(self) -> None:
        self.journal, self.state = MemoryJournal(), LastingState()

    def engine(self, fake: FakeDestination, config: Config, *, virtual: bool = False) -> Engine:
        more: dict[str, Any] = {"clock": VirtualClock(), "random": random.Random(1)} if virtual else {}
        return Engine(config, destinations={"demo": fake}, journal=self.journal, state=self.state, **more)


def people(number: int, prefix: str = "p") -> list[Mapping[str, str]]:
    return [{"email": f"{prefix}{it}@example.com"} for it in range(number)]


def hashes(number: int) -> list[Mapping[str, str]]:
    return [{"email_lc_sha256": hashlib.sha256(f"h{it}@example.com".encode()).hexdigest()} for it in range(number)]


def raised(engine: Engine) -> list[object]:
    return [it["alert"] for it in engine.status()["alerts"]]  # type: ignore[attr-defined]


# -- with a sandbox and a receiver, in real time ----------------------------------------------------------------------


async def test_a_sandbox_that_fails_is_told_and_its_recovery_too_with_a_restart_between(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with running_sandbox(Settings(port=0)) as sandbox:
        account = {"base_url": sandbox.url, "rate": {"requests_per_second": 500.0, "burst": 10}}
        tables = {"account": [account], "destination": [{"retry": {"base_ms": 1, "cap_ms": 10}}]}
        config = Config.from_dict(tables | alerts_of("breaker-open"), base=tmp_path)
        sandbox.set_faults([Fault(kind="status")])
        async with Engine(config) as engine:
            await engine.submit(people(5))
            await until(lambda: engine.metrics.notifications["oncall", "ok"] == 1)
            await engine._running().alerting.look()
            assert raised(engine) == ["breaker-open"]
            assert (
                'engine_alert_active{alert="breaker-open",destination="demo"} 1.0' in engine.metrics.render().decode()
            )
        said = receiver.said[0]["data"]
        assert said["summary"] == "destination demo: the breaker is open (http_503), nothing is sent"
        assert said["page"] == "docs/alerts.md#breaker-open"
        assert "example.com" not in str(receiver.said), "no data of a person"
        config = Config.from_dict(tables | alerts_of("breaker-open", clear_seconds=0.3), base=tmp_path)
        async with Engine(config) as engine:
            await until(lambda: engine.status()["destinations"][0]["state"] == "open")  # type: ignore[index]
            sandbox.set_faults([])
            await until(lambda: len(receiver.said) > 1)
        assert receiver.events() == [("breaker-open", "raised"), ("breaker-open", "resolved")]
        assert len(set(receiver.ids)) == 2


async def test_more_than_one_percent_of_hash_only_profiles_is_told(receiver: Receiver) -> None:
    disk, fake = Disk(), FakeDestination(profiles_per_request=100)
    config = config_of(**alerts_of("activation-skipped-rate"))
    async with disk.engine(fake, config) as engine:
        await until(lambda: bool(engine._running().alerting.book.report()))
        await (await engine.submit(people(99))).settled(timeout=10)
        await (await engine.submit(hashes(1))).settled(timeout=10)
        await engine._running().alerting.look()
        assert raised(engine) == [], "exactly one percent"
    async with disk.engine(fake, config) as engine:
        await (await engine.submit(hashes(2)[1:])).settled(timeout=10)
        await until(lambda: bool(receiver.said))
    assert receiver.events() == [("activation-skipped-rate", "raised")]
    assert receiver.said[0]["data"]["figure"] == pytest.approx(2 / 101), "the window has survived the restart"


async def test_a_receiver_that_is_down_is_told_once_it_is_back_under_the_same_id(receiver: Receiver) -> None:
    receiver.down = True
    fake = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    async with Disk().engine(fake, config_of(**alerts_of("dead-letters-growing"))) as engine:
        await until(lambda: bool(engine._running().alerting.book.report()))
        await engine.submit(people(1))
        await until(lambda: receiver.attempts >= 3)
        counts = engine.metrics.notifications
        assert counts["oncall", "http_500"] >= 2
        receiver.down = False
        await until(lambda: bool(receiver.said))
        await until(lambda: counts["oncall", "ok"] == 1)
    assert receiver.events() == [("dead-letters-growing", "raised")]


async def test_what_was_not_told_before_a_stop_is_told_after_the_next_start(receiver: Receiver) -> None:
    receiver.down = True
    disk, fake = Disk(), FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    config = config_of(**alerts_of("dead-letters-growing"))
    async with disk.engine(fake, config) as engine:
        await until(lambda: bool(engine._running().alerting.book.report()))
        await engine.submit(people(1))
        await until(lambda: receiver.attempts >= 1)
    receiver.down = False
    async with disk.engine(fake, config) as engine:
        await until(lambda: bool(receiver.said))
        await until(lambda: engine.metrics.notifications["oncall", "ok"] == 1)
        await engine._running().alerting.keep()
    async with disk.engine(fake, config) as engine:
        await engine._running().alerting.look()
        assert engine.control.alerts()["targets"][0]["waiting"] == 0  # type: ignore[index]
    assert receiver.events() == [("dead-letters-growing", "raised")]
    assert len(set(receiver.ids)) == 1


async def test_a_receiver_that_never_answers_holds_up_neither_events_nor_the_drain(receiver: Receiver) -> None:
    receiver.slow = True
    fake = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    config = config_of(engine={"drain_timeout_seconds": 11.0}, **alerts_of("dead-letters-growing"))
    async with Disk().engine(fake, config) as engine:
        await until(lambda: bool(engine._running().alerting.book.report()))
        await engine.submit(people(1))
        with anyio.fail_after(20):
            await receiver.came.wait()
        await (await engine.submit(people(20, "more"))).settled(timeout=10)
        with anyio.fail_after(8):  # less than the notification's own time limit of 10 s
            engine.stop()
            await engine.drained()
    assert receiver.said == []


async def test_one_target_that_is_down_does_not_keep_another_waiting(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOBODY", "http://127.0.0.1:1/")
    tables = alerts_of("dead-letters-growing", to=["nobody", "oncall"])
    tables["notify"].append({"name": "nobody", "url_env": "NOBODY", "secret_env": "ALERT_SECRET"})
    fake = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    async with Disk().engine(fake, config_of(**tables)) as engine:
        await until(lambda: bool(engine._running().alerting.book.report()))
        await engine.submit(people(1))
        await until(lambda: bool(receiver.said))
        await until(lambda: engine.metrics.notifications["nobody", "connection"] > 1)


async def test_a_test_is_one_attempt_and_tells_how_it_went(receiver: Receiver) -> None:
    async with Disk().engine(FakeDestination(), config_of(**alerts_of("breaker-open"))) as engine:
        good = await engine.control.test_notification("oncall")
        receiver.down = True
        bad = await engine.control.test_notification("oncall")
        with pytest.raises(KeyError):
            await engine.control.test_notification("nobody")
        (target,) = engine.control.alerts()["targets"]  # type: ignore[misc]
    assert (good["ok"], bad["ok"], bad["result"]) == (True, False, "http_500")
    assert receiver.events() == [("test", "test")]
    assert (target["name"], target["kind"], target["where"], target["waiting"]) == ("oncall", "webhook", "127.0.0.1", 0)


async def test_the_built_in_alerts_go_to_a_target_that_asks_for_them(receiver: Receiver) -> None:
    tables = alerts_of()
    tables["notify"][0]["built_in"] = True
    fake = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    async with Disk().engine(fake, config_of(**tables)) as engine:
        await until(lambda: bool(engine._running().alerting.book.report()))
        await engine.submit(people(1))
        await until(lambda: bool(receiver.said))
    assert receiver.events()[0] == ("dead-letters-growing", "raised")


async def test_neither_secret_nor_url_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.down = True
    fake = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
    with caplog.at_level(logging.DEBUG, "engine"):
        async with Disk().engine(fake, config_of(**alerts_of("dead-letters-growing"))) as engine:
            await until(lambda: bool(engine._running().alerting.book.report()))
            await engine.submit(people(1))
            await until(lambda: receiver.attempts >= 2)
            shown = str([engine.control.alerts(), engine.config.describe(), engine.config])
    ours = "\n".join(it.getMessage() for it in caplog.records if it.name.startswith("engine"))
    assert "could not be told (http_500)" in ours
    for secret in (SECRET, SECRET.removeprefix("whsec_"), "/hook"):
        assert secret not in ours + shown


# -- on virtual time --------------------------------------------------------------------------------------------------


def test_the_built_in_alerts_are_shown_and_logged_without_any_configuration(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        fake = FakeDestination(answer=lambda batch: Step(retry("http_503")))
        async with Disk().engine(fake, config_of(), virtual=True) as engine:
            await engine.submit(people(5))
            await anyio.sleep(50.0)
            assert raised(engine) == [], "not before a minute"
            await anyio.sleep(30.0)
            assert raised(engine) == ["breaker-open"]
            fake.answer = None
            await anyio.sleep(120.0)
            assert raised(engine) == []

    run_virtual(main)
    said = [it.getMessage() for it in caplog.records if it.name == "engine.alerts"]
    assert [line.partition(" (alert ")[2].partition(")")[0] for line in said] == ["breaker-open raised"]


def test_a_state_file_without_room_is_no_reason_to_be_silent(caplog: pytest.LogCaptureFixture) -> None:
    class Full(LastingState):
        async def keep_alerts(self, rows: Any, /) -> None:
            raise NoSpace("disk-full", "no room")

    async def main() -> None:
        disk = Disk()
        disk.state = Full()
        fake = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
        async with disk.engine(fake, config_of(), virtual=True) as engine:
            await engine.submit(people(1))
            await anyio.sleep(20.0)
            assert raised(engine) == ["dead-letters-growing", "run-failed"] or raised(engine) == [
                "dead-letters-growing"
            ]

    run_virtual(main)


def test_a_state_file_that_hangs_is_no_reason_to_be_silent() -> None:
    class Hangs(LastingState):
        async def keep_alerts(self, rows: Any, /) -> None:
            await anyio.sleep_forever()

    async def main() -> None:
        disk = Disk()
        disk.state = Hangs()
        fake = FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
        async with disk.engine(fake, config_of(), virtual=True) as engine:
            await anyio.sleep(60.0)
            await engine.submit(people(1))
            await anyio.sleep(60.0)
            assert "dead-letters-growing" in raised(engine)

    run_virtual(main)


def test_a_delivery_that_took_too_long_is_told_though_nothing_waits_any_more() -> None:
    async def main() -> None:
        fake = FakeDestination(answer=lambda batch: Step(seconds=2.5))
        table = {"name": "late", "when": "delivery-delay", "threshold": 1.5, "for_seconds": 0.0, "clear_seconds": 600.0}
        async with Disk().engine(fake, config_of(alert=[table]), virtual=True) as engine:
            await anyio.sleep(5.1)  # right after a look: the next one is in five seconds
            await engine.submit(people(1))
            await anyio.sleep(5.0)
            assert raised(engine) == ["late"]

    run_virtual(main)


def test_a_journal_that_passes_a_level_is_looked_at_at_once() -> None:
    async def main() -> None:
        disk, fake = Disk(), FakeDestination()
        disk.journal = MemoryJournal(max_bytes=20_000)
        async with disk.engine(fake, config_of(), virtual=True) as engine:
            await engine.pause("demo")
            await anyio.sleep(0.5)
            while engine.control._parts.journal.size().bytes < 10_500:
                await engine.submit(people(5))
            await anyio.sleep(0.1)
            assert raised(engine) == ["journal-filling"]
            (alert,) = engine.status()["alerts"]  # type: ignore[misc]
            assert "destination demo is furthest behind" in alert["summary"]

    run_virtual(main)


def test_a_built_in_alert_gives_way_to_one_of_its_kind_and_the_others_stay() -> None:
    names = [rule.name for rule in rules_of(config_of(alert=[{"name": "mine", "when": "journal-filling"}]))]
    assert names == ["mine", *(name for name, (when, *_) in BUILT_IN.items() if when != "journal-filling")]
    thresholds = {rule.name: rule.threshold for rule in rules_of(config_of())}
    assert thresholds["disk-filling"] == 2 * 268_435_456
    assert thresholds["activation-skipped-rate"] == 0.01
    assert (thresholds["journal-filling"], thresholds["journal-nearly-full"]) == (0.5, 0.8)


def test_a_stopped_engines_files_raise_and_tell_nothing() -> None:
    async def main() -> None:
        disk, fake = Disk(), FakeDestination(answer=lambda batch: Step(reject("response_code_27")))
        async with disk.engine(fake, config_of(), virtual=True) as engine:
            await anyio.sleep(6.0)
            await engine.submit(people(1))
            await anyio.sleep(10.0)
            before = await disk.state.alerts()
            assert "dead-letters-growing" in raised(engine)
        resting = disk.engine(fake, config_of(), virtual=True)
        resting.dispatching = False
        async with resting as engine:
            await anyio.sleep(4_000.0)
            assert "dead-letters-growing" in raised(engine)
        after = await disk.state.alerts()
        assert msgspec.msgpack.encode(sorted(after)) == msgspec.msgpack.encode(sorted(before))

    run_virtual(main)
