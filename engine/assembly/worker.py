"""An ingress worker: accepts, authenticates, parses and judges; everything else is the core's."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress

import anyio

from engine.adapters.api_keys import Keys
from engine.adapters.clock import SystemClock
from engine.adapters.descriptors import connections_possible
from engine.adapters.http_ingress import (
    REFUSED_AT_ONCE,
    Access,
    Denials,
    FastListener,
    Ingress,
    IngressAnswer,
    IngressRequest,
    Listener,
    ask_the_core,
    create_ingress_app,
)
from engine.adapters.inflate import inflate
from engine.adapters.worker_link import LinkBroken, RemoteIntake, hello_of, read_first, take_connections, take_counts
from engine.assembly.listeners import ingress_listener
from engine.assembly.readers import readers_of
from engine.assembly.worker_plan import WorkerPlan, most_bytes, unpack_callers, unpack_plan
from engine.metrics import Metrics
from engine.profiles.changes import ChangeReader

COUNTS_SECONDS = 1.0
"""What a worker has counted for so long is lost when it is killed. Whoever asks for the counts gets them at once."""

GREETING_SECONDS = 30.0
MOST_PLAN_BYTES = 1 << 26

log = logging.getLogger("engine.workers")


def read_plan(link: socket.socket) -> WorkerPlan | None:
    """What the core says first, waited for without a loop; None when the core has ended before. Raises OSError."""
    link.settimeout(GREETING_SECONDS)
    try:
        plan = unpack_plan(hello_of(read_first(link, MOST_PLAN_BYTES)).plan)
    except LinkBroken:
        return None
    link.setblocking(False)
    return plan


class Worker:
    """`set_level` takes over another log level."""

    def __init__(self, plan: WorkerPlan, set_level: Callable[[str], None]) -> None:
        self._plan, self._set_level = plan, set_level
        self._signing_key = plan.callers.signing_key
        clock, config, self._metrics = SystemClock(), plan.config, Metrics()
        self._keys = Keys(
            plan.callers.keys, plan.callers.clients, time=clock.time, signing_key=lambda: self._signing_key
        )
        self._intake = RemoteIntake(
            plan.journal_id,
            most_bytes=most_bytes(config),
            callers=self._replace_callers,
            counts=self._tell_counts,
        )
        self._ingress = CountedIngress(
            config.ingress,
            readers_of(config, clock.time),
            changes=ChangeReader(max_events=config.ingress.max_events),
            intake=lambda: self._intake,
            readiness=lambda: [],  # asked at the core
            access=Access(self._keys, Denials(self._metrics)),
            inflate=inflate,
            metrics=self._metrics,
        )

    async def run(self, link: socket.socket, door: socket.socket) -> None:
        """Until the core's end of the link is gone. Raises ConfigError when it cannot work."""
        listener = self._listener()
        await asyncio.get_running_loop().create_unix_connection(lambda: self._intake, sock=link)
        await listener.prepare()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._send_counts, listener)
                tasks.start_soon(self._drain)
                take_connections(door, lambda connection: tasks.start_soon(_adopt, listener, connection))
                self._intake.ready()
                await self._intake.closed.wait()
                asyncio.get_running_loop().remove_reader(door.fileno())
                tasks.cancel_scope.cancel()
        finally:
            await listener.close()
        self._tidy()

    def _listener(self) -> Listener | FastListener:
        app = create_ingress_app(self._ingress)
        inner = self._plan.inner
        ask_the_core(app, inner.path, connections=inner.connections)
        config = self._plan.config
        share = -(-config.ingress.max_connections // config.ingress.workers)
        possible = connections_possible(share, inner.connections + REFUSED_AT_ONCE)
        if possible < share:
            what = "ingress.max_connections gives %d to this worker, but the files it may have open leave room for %d"
            log.warning(what, share, possible)
        return ingress_listener(app, self._ingress, config, max_connections=possible)

    def _replace_callers(self, packed: bytes) -> None:
        callers = unpack_callers(packed)
        self._signing_key = callers.signing_key
        self._keys.replace(callers.keys, callers.clients)
        self._set_level(callers.log_level)

    async def _send_counts(self, listener: Listener | FastListener) -> None:
        told = 0
        while True:
            await anyio.sleep(COUNTS_SECONDS)
            self._tell_counts()
            if listener.open_connections != told:
                told = listener.open_connections
                self._intake.has_open(told)

    def _tell_counts(self) -> None:
        counts = take_counts(self._metrics)
        if counts is not None:
            self._intake.tell(counts)

    async def _drain(self) -> None:
        """New requests are refused by now; those that were let in before have the time that an answer has."""
        await self._intake.draining.wait()
        with anyio.move_on_after(self._plan.config.ingress.answer_timeout_seconds):
            await self._ingress.idle()
            await self._ingress.close()
        self._tell_counts()
        self._intake.shut()

    def _tidy(self) -> None:
        """A core that was killed has left its folder behind."""
        if os.getppid() != self._plan.core:
            shutil.rmtree(self._plan.inner.path.parent, ignore_errors=True)


async def _adopt(listener: Listener | FastListener, connection: socket.socket) -> None:
    with suppress(OSError):  # it is gone already, or its TLS was none
        await listener.adopt(connection)


class CountedIngress(Ingress):
    """Knows whether any request with events is under way."""

    _under_way = 0
    _idle: asyncio.Event | None = None

    async def idle(self) -> None:
        self._idle = asyncio.Event()
        if self._under_way:
            await self._idle.wait()

    async def handle(self, request: IngressRequest) -> IngressAnswer:
        self._under_way += 1
        try:
            return await super().handle(request)
        finally:
            self._done()

    async def handle_changes(self, request: IngressRequest) -> IngressAnswer:
        self._under_way += 1
        try:
            return await super().handle_changes(request)
        finally:
            self._done()

    def _done(self) -> None:
        self._under_way -= 1
        if not self._under_way and self._idle is not None:
            self._idle.set()
