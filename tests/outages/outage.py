"""A whole engine and a whole sandbox with HTTP between them, on virtual time or on the clock of the machine.

On virtual time everything is real but the clock and the socket's family: the engine's adapters, aiohttp at both ends,
the sandbox and its faults. A Unix socket hands over what was written within the call that writes it, so nothing is
under way when every task waits, and the clock may jump: ten minutes of outage take a second.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import aiohttp
import anyio
import orjson
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from engine.adapters import sessions
from engine.adapters.memory_journal import MemoryJournal
from engine.adapters.raw_http import pool, reaching
from engine.adapters.raw_http import transport as raw_transport
from engine.adapters.raw_http.reaching import Make, Origin
from engine.assembly import Engine, build
from engine.config import Config
from engine.ports import LetterFilter
from engine.profiles.identity import key_of_address
from engine.sandbox import Fault, Sandbox, Settings, create_app
from engine.sandbox.request_log import Request
from engine.sandbox.state import SANDBOX
from engine.testing.clock import VirtualClock, run_virtual
from engine.testing.lasting import LastingState

STORE, TOKEN = "/api/demo/v3/attendee/store", "/oidc/token"


TRANSPORT = "raw"
"""What the engine sends with; the fixture `transport` sets it."""


class SandboxClock(VirtualClock):
    """Virtual time, as the sandbox wants it."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def address(person: int | str) -> str:
    return f"p{person}@people.example"


def fault_for(person: int | str, kind: str, **more: Any) -> Fault:
    """It strikes only requests with this person."""
    return Fault(kind=kind, email_sha256=key_of_address(address(person)).hex(), **more)  # type: ignore[arg-type]


def event(person: int | str, version: int = 1, **fields: str) -> dict[str, Any]:
    """`version` grows with the producer's own order; the sandbox counts writes that go back."""
    return {"email": address(person), "x_version": str(version), "city": f"city-{version}", **fields}


def overlaid(one: Any, other: Any) -> Any:
    """`other` laid over `one`, table by table."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: overlaid(one.get(key), value) for key, value in other.items()}}
    return other


class Scene:
    """One engine and what it sends to. `figures` are kept for the table of results."""

    def __init__(self, engine: Engine, sandbox: Sandbox) -> None:
        self.engine, self.sandbox = engine, sandbox

    # -- what happens ---------------------------------------------------------------------------------------------

    async def submit(self, *events: dict[str, Any]) -> None:
        receipt = await self.engine.submit(events)
        assert (receipt.accepted, receipt.rejected) == (len(events), [])

    async def stream(self, people: int, events_per_second: float, seconds: float, first_version: int = 1) -> int:
        """Events at an even pace, everybody in turn; how many."""
        total = round(events_per_second * seconds)
        for number in range(total):
            await self.submit(event(number % people, first_version + number))
            await anyio.sleep(1 / events_per_second)
        return total

    async def settled(self, within: float = 100_000.0) -> None:
        """Until nothing is owed any more and the sums are even."""
        began = anyio.current_time()
        with anyio.fail_after(within):
            while self.pending():  # noqa: ASYNC110 - there is no event for it
                await anyio.sleep(max(0.05, (anyio.current_time() - began) / 20))
        report = await self.engine.control.audit()
        assert report["ok"], report

    def pending(self) -> int:
        return sum(int(one["counts"]["pending"]) for one in self.engine.control.destinations())

    def faults(self, *faults: Fault) -> None:
        """Put these in the place of all others."""
        self.sandbox.set_faults(faults)

    # -- what came of it ------------------------------------------------------------------------------------------

    def counts(self, name: str = "demo") -> dict[str, int]:
        (found,) = [one for one in self.engine.control.destinations() if one["name"] == name]
        return {outcome: number for outcome, number in found["counts"].items() if number and outcome != "accepted"}

    def breaker(self, name: str = "demo") -> str:
        """Of the destination or its account, whichever is not closed."""
        (found,) = [one for one in self.engine.control.destinations() if one["name"] == name]
        return str(found["reason"])

    async def letters(self) -> dict[str, str]:
        """e-mail -> reason of its dead letter."""
        assert self.engine._parts is not None
        found = await self.engine._parts.state.letters(LetterFilter(), 1_000)
        return {orjson.loads(held.profile.content)["email"]: held.reason for _, held in found}

    def metric(self, name: str) -> dict[str, float]:
        """label values -> value, of one of the engine's metrics."""
        found: dict[str, float] = {}
        for line in self.engine.metrics.render().decode().splitlines():
            if line.startswith((f"{name}{{", f"{name} ")):
                labels, _, value = line.rpartition(" ")
                found[labels.removeprefix(name)] = float(value)
        return found

    def stored(self) -> dict[str, dict[str, Any]]:
        return {one.email: one.fields | one.extra for one in self.sandbox.store}

    def requests(self, path: str = STORE) -> list[Request]:
        """Oldest first, those the API log still knows."""
        return [one for one in reversed(list(self.sandbox.requests)) if one.path == path]

    def arrivals(self) -> list[float]:
        """Loop time of every store request."""
        return list(self.sandbox.arrivals.in_order())


def arrived(request: Request, epoch: float = VirtualClock().epoch) -> float:
    """Loop time (virtual) at which a request came in."""
    return answered(request, epoch) - request.milliseconds / 1000


def answered(request: Request, epoch: float = VirtualClock().epoch) -> float:
    return request.at - epoch


def config(url: str, tables: dict[str, Any]) -> Config:
    account = {
        "name": "a",
        "base_url": url,
        "transport": TRANSPORT,
        "rate": {"requests_per_second": 100.0, "burst": 2, "max_concurrency": 8},
    }
    retry = {"base_ms": 500, "cap_ms": 60_000, "timeout_seconds": 5.0, "unknown_hold_seconds": 1.0}
    destinations = tables.pop("destination", [{}])
    return Config.from_dict(
        {
            "journal": {"kind": "memory"},
            "source": [{"mapping": {"x_version": "x_version"}}],
            "account": [overlaid(account, one) for one in tables.pop("account", [{}])],
            "destination": [overlaid({"name": "demo", "retry": retry}, one) for one in destinations],
            **tables,
        }
    )


# -- on virtual time --------------------------------------------------------------------------------------------------


def on_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A coroutine as a test of pytest's, on virtual time."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        run_virtual(lambda: test(**fixtures))

    return run


@asynccontextmanager
async def virtual_scene(
    settings: dict[str, Any] | None = None, *, seed: int = 1, **tables: Any
) -> AsyncIterator[Scene]:
    """`settings` of the sandbox; `tables` are laid over the engine's configuration."""
    async with AsyncExitStack() as stack:
        path = stack.enter_context(tempfile.TemporaryDirectory(prefix="outage-")) + "/s"
        sandbox = await stack.enter_async_context(unix_sandbox(path, settings or {}))
        stack.enter_context(through(path))
        engine = virtual_engine(config("http://127.0.0.1:1", tables), seed)
        await stack.enter_async_context(engine)
        yield Scene(engine, sandbox)


def virtual_engine(wanted: Config, seed: int = 1) -> Engine:
    journal, state = MemoryJournal(commit_seconds=0.001), LastingState()
    return Engine(wanted, journal=journal, state=state, clock=VirtualClock(), random=random.Random(seed))


@asynccontextmanager
async def unix_sandbox(path: str, settings: dict[str, Any]) -> AsyncIterator[Sandbox]:
    app = create_app(Settings(**{"seed": 7, "log_size": 1_000_000, **settings}), clock=SandboxClock())
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.01, keepalive_timeout=1e6)
    await runner.setup()
    try:
        await web.UnixSite(runner, path, backlog=1024).start()
        yield app[SANDBOX]
    finally:
        await runner.cleanup()


@contextmanager
def through(path: str) -> Iterator[None]:
    """Every connection that the engine opens goes to this socket."""

    def connector(*, limit: int, ttl_dns_cache: int, keepalive_timeout: float) -> aiohttp.UnixConnector:
        return aiohttp.UnixConnector(path, limit=limit, keepalive_timeout=keepalive_timeout)

    async def dial(origin: Origin, make: Make) -> None:
        await asyncio.get_running_loop().create_unix_connection(make, path)

    with (
        mock.patch.object(sessions, "TCPConnector", connector),
        mock.patch.object(raw_transport, "Dialer", return_value=dial),
    ):
        yield


# -- on the clock of the machine --------------------------------------------------------------------------------------


@asynccontextmanager
async def real_scene(
    settings: dict[str, Any] | None = None,
    *,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    trust: ssl.SSLContext | None = None,
    names: Names | None = None,
    one_request_each: bool = False,
    **tables: Any,
) -> AsyncIterator[Scene]:
    """Over TCP on loopback. `host` is what the engine calls the sandbox, to be known to `names`; `trust`: whose
    certificates it believes; `one_request_each`: no connection is used twice, so that each one has to be made."""
    app = create_app(Settings(**{"seed": 7, **(settings or {})}))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        url = f"{'https' if tls else 'http'}://{host}:{runner.addresses[0][1]}"
        with reached(trust, names, one_request_each):
            async with Engine(config(url, tables), random=random.Random(1)) as engine:
                yield Scene(engine, app[SANDBOX])
    finally:
        await runner.cleanup()


class Names(AbstractResolver):
    """Knows every host to be this machine, as long as it `works`."""

    def __init__(self) -> None:
        self.works, self.failures = True, 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.ask()
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    def ask(self) -> None:
        if not self.works:
            self.failures += 1
            raise OSError(socket.EAI_AGAIN, "temporary failure in name resolution")

    async def close(self) -> None:
        """Nothing to close."""


@contextmanager
def reached(trust: ssl.SSLContext | None, names: Names | None, one_request_each: bool) -> Iterator[None]:
    """Both transports reach the other side as `real_scene` says."""
    options: dict[str, Any] = {"force_close": True, "keepalive_timeout": None} if one_request_each else {}
    options |= {"ssl": trust} if trust else {}
    options |= {"resolver": names, "use_dns_cache": False} if names else {}

    async def resolve(host: str, port: int) -> list[Any]:
        assert names is not None
        try:
            names.ask()
        except OSError as error:
            raise reaching.UnknownName(host) from error
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    with ExitStack() as stack:
        put = stack.enter_context
        put(mock.patch.object(sessions, "TCPConnector", lambda **given: aiohttp.TCPConnector(**given | options)))
        if one_request_each:
            put(mock.patch.object(pool, "KEEPALIVE_SECONDS", -1.0))
        if trust:
            put(mock.patch.object(reaching, "tls_context", return_value=trust))
        if names:
            put(mock.patch.object(reaching, "resolve", resolve))
            put(mock.patch.object(reaching, "DNS_SECONDS", 0))
        yield


@contextmanager
def impatient_breakers() -> Iterator[None]:
    """They probe every few milliseconds: for hundreds of failures on the clock of the machine."""
    with mock.patch.multiple(build, PROBE_BASE_SECONDS=0.001, PROBE_CAP_SECONDS=0.004):
        yield


async def until(condition: Callable[[], bool], otherwise: str, seconds: float = 30.0) -> None:
    """Ask again and again. Raises AssertionError with `otherwise` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        await asyncio.sleep(0.01)


def open_files() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
