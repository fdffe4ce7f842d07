"""A disk that takes half a second for every sync: answers take as long, nobody is lost, and nothing else waits for it.

strace holds up the real system calls of the real process; where it is missing or may not trace, this is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from harness import Oracle, Place, Producer, Sandbox, place_at, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(170)]

MICROSECONDS = 500_000
SLOW_SYNC = (
    *("strace", "-D", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync,pwritev2"),
    *("-e", f"inject=fsync,fdatasync,pwritev2:delay_exit={MICROSECONDS}"),
)


def syncs_can_be_slow() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*SLOW_SYNC, "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
async def place(tmp_path: Path, sandbox: Sandbox) -> AsyncIterator[Place]:
    if not syncs_can_be_slow():
        pytest.skip("strace cannot hold up system calls here")
    async with place_at(tmp_path / "engine", sandbox.url) as made:
        yield made


async def test_commits_on_a_slow_disk_are_shared_and_a_kill_among_them_loses_nothing(
    place: Place, sandbox: Sandbox
) -> None:
    producers = [Producer(f"p{number}", place) for number in range(12)]
    oracle = Oracle(*producers)
    async with AsyncExitStack() as stack:
        await place.serve(*SLOW_SYNC)
        for producer in producers:
            await stack.enter_async_context(producer.producing())

        async def many() -> bool:
            return oracle.acknowledged >= 3 * len(producers)

        await until(many, "hardly anything is acknowledged", 90.0)
        assert (await place.ask("GET", "/readyz"))[0] == 200
        await place.kill()
        await place.serve()
    await place.settled(90.0)
    await oracle.check(sandbox)
    await place.balanced()
    refused = [request for producer in producers for request in producer.requests if request.status == 503]
    assert len(refused) < oracle.acknowledged, "most of them can wait for two syncs"
