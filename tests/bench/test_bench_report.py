"""What a bench of a running engine says, and which engine it refuses."""

from __future__ import annotations

import asyncio
import io
import math
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from rich.console import Console

from engine.bench.histogram import Histogram
from engine.bench.machine import cpu_seconds, file_system_of, machine, peak_memory_bytes
from engine.bench.report import running_tables
from engine.bench.results import Cell, Latency, Quantiles
from engine.bench.running import Admin, Plan, Refused, bench, check_destinations, delivery_quantiles

QUANTILES = Quantiles(1.0, 4.0, 9.0, 100)


def cell(encoding: str, ledger: bool, n: int, cpu: float) -> Cell:
    latencies = [Latency("1,000/s", 1000.0, QUANTILES, QUANTILES)]
    return Cell(
        encoding=encoding,
        ledger=ledger,
        events_per_request=n,
        events=1000,
        seconds=1.0,
        events_per_second=12_345.6,
        cpu_us_per_event=cpu,
        ack=QUANTILES,
        peak_memory_bytes=64 << 20,
        latencies=latencies,
    )


def test_quantiles_are_milliseconds() -> None:
    histogram = Histogram()
    for milliseconds in range(1, 101):
        histogram.add(milliseconds / 1000)
    quantiles = Quantiles.of(histogram)
    assert quantiles.p50 == pytest.approx(50, rel=0.011)
    assert quantiles.p99 == pytest.approx(99, rel=0.011)
    assert (quantiles.longest, quantiles.count) == (100.0, 100)


def test_delivery_is_what_was_counted_between_two_readings() -> None:
    before = {0.01: 100.0, 0.02: 100.0, math.inf: 100.0}
    after = {0.01: 100.0, 0.02: 200.0, math.inf: 200.0}
    assert delivery_quantiles(before, after) == Quantiles(15.0, 19.9, 20.0, 100)
    assert delivery_quantiles(after, after) is None


# -- whom the bench refuses -------------------------------------------------------------------------------------------

SANDBOX: dict[str, Any] = {"name": "demo", "environment": "sandbox", "encoding": "array", "counts": {"pending": 0}}
REAL: dict[str, Any] = {**SANDBOX, "name": "summit", "environment": "prod"}


@pytest.mark.parametrize("allowed", [[], ["demo"]])
def test_a_real_destination_is_refused_unless_it_is_named(allowed: list[str]) -> None:
    with pytest.raises(Refused, match="--allow-destination summit"):
        check_destinations([SANDBOX, REAL], allowed)
    check_destinations([SANDBOX, REAL], ["summit"])


def test_a_destination_that_does_not_say_where_it_is_counts_as_real() -> None:
    with pytest.raises(Refused, match="demo"):
        check_destinations([{"name": "demo"}], [])


def test_a_webhook_hears_nothing_of_a_bench() -> None:
    check_destinations([SANDBOX, {"name": "hook", "environment": "webhook"}], [])


def test_a_name_that_does_not_exist_is_no_permission() -> None:
    with pytest.raises(Refused, match="no destination 'sumit'"):
        check_destinations([SANDBOX], ["sumit"])


async def test_nothing_is_sent_to_an_engine_that_is_refused() -> None:
    connections = 0

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async def destinations() -> list[dict[str, Any]]:
        return [REAL]

    async def metrics() -> str:
        raise AssertionError("asked for metrics of an engine that is refused")

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(Refused):
        await bench(Plan(url=url, seconds=0.1), Admin(destinations, metrics))
    server.close()
    await server.wait_closed()
    assert connections == 0


def test_a_plan_shows_no_key() -> None:
    assert "secret" not in repr(Plan(url="http://127.0.0.1:1", key="secret"))


def test_a_running_engine_is_shown_by_destination() -> None:
    out = io.StringIO()
    for table in running_tables([cell("demo (single)", True, 10, 1.0)]):
        Console(file=out, width=200).print(table)
    assert "demo (single)" in out.getvalue()


# -- the machine ------------------------------------------------------------------------------------------------------


def test_the_file_system_is_that_of_the_longest_mount_point() -> None:
    mounts = [
        "22 1 254:0 / / rw - ext4 /dev/vda rw",
        "23 22 0:21 / /tmp rw - tmpfs tmpfs rw",
        "24 22 0:22 / /tmpfiles rw - xfs /dev/vdb rw",
    ]
    named = {it: file_system_of(it, mounts) for it in ("/tmp", "/tmp/x", "/tmpfile", "/var")}
    assert named == {"/tmp": "tmpfs", "/tmp/x": "tmpfs", "/tmpfile": "ext4", "/var": "ext4"}


def test_a_machine_has_a_name(tmp_path: Any) -> None:
    line = machine(tmp_path).line()
    assert "cores" in line
    assert "Python" in line


TICK_SECONDS = 2 / os.sysconf("SC_CLK_TCK")  # user and system time are cut to whole ticks each


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel accounting is read from /proc")
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "running"])
def test_the_time_of_a_child_counts_for_its_parent(ended: bool) -> None:
    """0.3 s of work, done by a grandchild of this process that has ended, or that is still there."""
    work = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint(flush=True)"
    linger = "" if ended else "\ninput()"
    script = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work + linger!r}]); print(flush=True); input()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    for _ in range(2 if ended else 1):
        parent.stdout.readline()
    used = cpu_seconds(parent.pid)
    parent.communicate(b"\n\n")
    assert used >= 0.3 - TICK_SECONDS, "the kernel counts in whole ticks"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel accounting is read from /proc")
def test_memory_is_that_of_the_process() -> None:
    assert peak_memory_bytes(os.getpid()) > 10 << 20
    assert peak_memory_bytes(2**22 + time.thread_time_ns() % 2) == 0
