"""The other side cannot be reached, or is not who it says it is: waited for, without dead letters and without leaks."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from outage import Names, Scene, event, impatient_breakers, open_files, real_scene, until

from engine import Config, Engine

FAILURES = 300
ACCOUNT = {"rate": {"requests_per_second": 2_000.0, "burst": 40, "max_concurrency": 8}}
RETRY = {"base_ms": 1, "cap_ms": 5, "timeout_seconds": 5.0, "unknown_hold_seconds": 0.0}


async def delivered(scene: Scene, version: int) -> None:
    await scene.submit(*[event(person, version) for person in range(20)])
    await scene.settled(30.0)


async def waited_out(scene: Scene, failures: int, reason: str, most: int) -> int:
    """So many more failures while 20 attendees wait; the growth in open files, which comes back to at most `most`
    beside those of the attempt that is under way at the moment."""
    before, failed = open_files(), '{destination="demo",outcome="failed"}'
    began = scene.metric("engine_requests_total").get(failed, 0)
    await scene.submit(*[event(person, 2) for person in range(20)])
    await until(
        lambda: scene.metric("engine_requests_total").get(failed, 0) >= began + failures,
        "it gave up trying",
    )
    assert scene.breaker() == reason
    assert "dead_lettered" not in scene.counts()
    more: list[int] = []

    def few() -> bool:
        more.append(open_files() - before)
        return more[-1] <= most

    await until(few, "open files were left behind")
    return more[-1]


async def test_a_name_that_cannot_be_resolved_is_tried_again_and_leaks_nothing(record_property) -> None:
    names = Names()
    with impatient_breakers():
        async with real_scene(
            host="sandbox.example",
            names=names,
            one_request_each=True,
            account=[ACCOUNT],
            destination=[{"retry": RETRY}],
        ) as scene:
            await delivered(scene, 1)
            names.works = False
            more = await waited_out(scene, FAILURES, "connect_dns", 2)
            record_property("failures", names.failures)
            record_property("open_files_more", more)
            names.works = True
            await scene.settled(30.0)
            assert scene.counts() == {"delivered": 40}


# -- TLS --------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str, alternative: str) -> Path:
    """A fresh self-signed certificate with its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")
    file = folder / f"{name}.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    who = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}")
    command = (openssl, "req", "-x509", *curve, *who, "-keyout", str(file), "-out", f"{file}.cert")
    subprocess.run(command, capture_output=True, check=True)
    file.write_text(file.read_text() + Path(f"{file}.cert").read_text())
    return file


@pytest.mark.parametrize("trouble", ["not-trusted", "another-host"])
async def test_a_certificate_that_is_not_theirs_sends_nothing_and_is_waited_out(
    record_property, tmp_path: Path, trouble: str
) -> None:
    """It is rotated to a wrong one under way, and back: the token and the profiles never go to whoever has it."""
    good = certificate(tmp_path, "good", "IP:127.0.0.1")
    wrong = certificate(tmp_path, "wrong", "IP:127.0.0.1" if trouble == "not-trusted" else "DNS:elsewhere.example")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(good)
    client = ssl.create_default_context(cafile=f"{good}.cert")
    if trouble == "another-host":
        client.load_verify_locations(f"{wrong}.cert")
    with impatient_breakers():
        async with real_scene(
            tls=server,
            trust=client,
            one_request_each=True,
            account=[ACCOUNT],
            destination=[{"retry": RETRY}],
        ) as scene:
            await delivered(scene, 1)
            server.load_cert_chain(wrong)
            arrived = scene.sandbox.requests.total
            more = await waited_out(scene, FAILURES // 2, "connect_tls", 4)
            record_property("failures", FAILURES // 2)
            record_property("open_files_more", more)
            assert scene.sandbox.requests.total == arrived
            server.load_cert_chain(good)
            await scene.settled(30.0)
            assert scene.counts() == {"delivered": 40}


# -- gone without a word ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def sandbox_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine.sandbox", "--port", "0", "--json"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield process, orjson.loads(await process.stdout.readline())["url"]
    finally:
        process.kill()
        await process.wait()


@pytest.mark.process
async def test_a_server_that_vanishes_without_closing_slows_no_other_account(record_property) -> None:
    """Its process is stopped: the kernel goes on accepting connections and bytes, and nobody ever answers."""
    rate = {"requests_per_second": 100.0, "burst": 4, "max_concurrency": 4}
    retry = {"base_ms": 20, "cap_ms": 200, "timeout_seconds": 0.5, "unknown_hold_seconds": 0.1}
    async with sandbox_process() as (gone, gone_url), sandbox_process() as (_, well_url):
        config = Config.from_dict(
            {
                "journal": {"kind": "memory"},
                "account": [
                    {"name": "gone", "base_url": gone_url, "rate": rate},
                    {"name": "well", "base_url": well_url, "rate": rate},
                ],
                "destination": [{"name": name, "account": name, "retry": retry} for name in ("gone", "well")],
            }
        )
        async with Engine(config) as engine:
            await (await engine.submit([event("first")])).settled(timeout=10)
            os.kill(gone.pid, signal.SIGSTOP)
            receipt = await engine.submit([event(person) for person in range(300)])
            began = asyncio.get_running_loop().time()
            await until(lambda: (receipt.counts() or {})["well"].get("delivered") == 300, "the other one was slowed")
            seconds = asyncio.get_running_loop().time() - began
            record_property("share_of_the_rate", round(300 / seconds / 100.0, 2))
            await until(lambda: "timeout" in str(engine.control.destinations()[0]["reason"]), "nothing timed out")
            os.kill(gone.pid, signal.SIGCONT)
            counts = await receipt.settled(timeout=40)
            assert counts is not None
            assert {name: row["delivered"] for name, row in counts.items()} == {"gone": 300, "well": 300}
