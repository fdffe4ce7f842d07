"""The sandbox as a process."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import sys

import aiohttp
import pytest

pytestmark = pytest.mark.process


async def launch(*arguments: str) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "engine.sandbox", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_its_url_serves_and_stops_when_told(number) -> None:
    process = await launch("--port", "0", "--json", "--fault", "kind=status,status=429,path=token")
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["pid"] == process.pid
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{ready['url']}/oidc/token", data={}) as reply,
    ):
        assert reply.status == 429
    process.send_signal(number)
    rest, errors = await process.communicate()
    assert (process.returncode, rest, errors) == (0, b"", b"")


async def test_connections_are_reset_on_the_loop_of_the_process_too() -> None:
    process = await launch("--port", "0", "--fault", "kind=reset_before,path=token")
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().rpartition(" ")[2].strip()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await session.post(f"{url}/oidc/token", data={})
    assert caught.value.errno == errno.ECONNRESET
    process.terminate()
    await process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [("--fault", "kind=sulk"), ("--port", "70000"), ("--faults-file", "/nowhere/faults.toml"), ("--colour",)],
)
async def test_wrong_usage_ends_with_2_and_a_reason(arguments) -> None:
    process = await launch(*arguments)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"error:" in errors
    assert b"Traceback" not in errors


async def test_a_taken_port_ends_with_1_and_a_remote_host_with_a_warning() -> None:
    first = await launch("--host", "0.0.0.0", "--port", "0", "--json")
    assert first.stdout is not None
    url = json.loads(await first.stdout.readline())["url"]
    second = await launch("--host", "0.0.0.0", "--port", url.rpartition(":")[2])
    _, errors = await second.communicate()
    first.terminate()
    _, warning = await first.communicate()
    assert second.returncode == 1
    assert b"cannot listen" in errors
    assert b"keeps everything it is sent in memory" in warning
