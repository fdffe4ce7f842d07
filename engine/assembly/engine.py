"""The engine as a program embeds it. One task owns everything that runs; it is the only one ever created here."""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self

import anyio
import msgspec
from aiohttp import web

from engine.adapters.api_keys import Keys
from engine.adapters.clock import SystemClock
from engine.adapters.http_ingress import Access, AsgiIngress, Denials, Ingress, create_ingress_app
from engine.adapters.inflate import inflate
from engine.assembly.build import Parts, open_parts
from engine.assembly.callers import callers_of
from engine.assembly.control import EngineControl
from engine.assembly.gauges import LoopLag
from engine.assembly.intake import Closed, EngineIntake
from engine.assembly.readers import readers_of
from engine.assembly.receipt import Receipt
from engine.config import Config
from engine.errors import ConfigError, Overloaded, Stopped
from engine.metrics import Metrics
from engine.model import Append, Lane
from engine.ports import Clock, Destination, Journal, State
from engine.profiles.changes import ChangeReader
from engine.profiles.identity import key_of_address


class Engine:
    """Keeps RainFocus attendee profiles up to date from a stream of profile events.

    ::

        async with Engine(Config.load("config.toml")) as rainfocus:
            receipt = await rainfocus.submit([{"email": "lea@example.com", "city": "Lille"}])
            await receipt.settled(timeout=5)

    Constructing needs no event loop and does no I/O. Entering recovers and starts; leaving drains: attempts under way
    finish (at most `drain_timeout_seconds`), the backlog stays in the journal. Enter and exit may come from different
    tasks. A failure of the engine never cancels its host: `stopped()` raises it, `submit` raises Stopped from it.

    `destinations` (name -> Destination), `journal`, `state`, `clock` and `random` take own implementations of the
    ports; a journal of one's own comes with a state in memory unless one is given.
    """

    dispatching = True

    def __init__(
        self,
        config: Config,
        *,
        destinations: Mapping[str, Destination] | None = None,
        journal: Journal | None = None,
        state: State | None = None,
        clock: Clock | None = None,
        random: random_module.Random | None = None,
    ) -> None:
        """Raises ConfigError for a name in `destinations` that the configuration does not have."""
        self.config = config
        self._destinations, self._journal, self._state = dict(destinations or {}), journal, state
        self._clock, self._random = clock or SystemClock(), random or random_module.Random()
        unknown = sorted(self._destinations.keys() - config.consumer_names)
        if unknown:
            raise ConfigError([f"destinations[{unknown[0]!r}]: no such destination in the configuration"])
        self.metrics = Metrics()
        self.readers = readers_of(config, self._clock.time)
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()
        self._parts: Parts | None = None
        self._lag = LoopLag(self._clock, self.metrics)
        self._intake: EngineIntake | Closed = Closed(Stopped("the engine has not been started"))

    def __repr__(self) -> str:
        return f"<Engine {self._parts.pipeline!r}>" if self._parts else "<Engine not running>"

    # -- lifecycle ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise Stopped("an Engine runs once: make a new one")
        self._ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="rainfocus-engine")
        try:
            await asyncio.wait({self._task, self._ready}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        if self._task.cancelled():
            raise Stopped("the engine was cancelled while it started")  # its host was not
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain and stop. A failure of the engine is not raised here: `stopped()` has it."""
        self._stop.set()
        if self._task is None:
            return
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            await self._cancel()
            raise
        if not self._task.cancelled():
            self._task.exception()

    async def kill(self) -> None:
        """Stop at once, without draining: what is on disk stays, attempts under way are cut off."""
        if self._task is not None:
            await self._cancel()

    async def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """For `app.cleanup_ctx.append(engine.lifespan)` and `FastAPI(lifespan=engine.lifespan)`."""
        async with self:
            yield

    async def stopped(self) -> None:
        """Wait until the engine has ended; raises what ended it, if it failed."""
        if self._task is None:
            raise Stopped("the engine has not been started")
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def drained(self) -> None:
        """Wait until the engine has ended, however it did."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def recovered(self) -> None:
        """Wait until what was pending at the start has been read. Raises Stopped when the engine ends first."""
        parts = self._running()
        for reader in parts.pipeline.readers:
            await reader.recovered.wait()
        if parts.pipeline.recovering:
            raise Stopped("the engine ended before it had recovered")

    def stop(self) -> None:
        """Begin to drain. Leaving the context waits for the end of it."""
        self._stop.set()

    def readiness(self) -> list[str]:
        """Why it is not ready, as stable short reasons; [] when it is."""
        if isinstance(self._intake, Closed):
            return ["stopped" if self._stop.is_set() else "starting"]
        return self.control.readiness()

    # -- as a part of a web application -----------------------------------------------------------------------------

    def ingress_app(self) -> web.Application:
        """Events, receipts and probes for `app.add_subapp("/ingest", engine.ingress_app())`. To be mounted before the
        engine starts: until then it answers 503."""
        return create_ingress_app(self._own_ingress())

    def asgi_app(self) -> AsgiIngress:
        """The same for Starlette, FastAPI and ASGI servers: `app.mount("/ingest", engine.asgi_app())`."""
        return AsgiIngress(self._own_ingress())

    def _own_ingress(self) -> Ingress:
        return self.ingress(Access(self.keys(), Denials(self.metrics)))

    def keys(self) -> Keys:
        """The callers of the configuration. Raises ConfigError when a secret cannot be had."""
        return callers_of(self.config, self._clock, self._running, in_memory=self._journal is not None)

    def ingress(self, access: Access) -> Ingress:
        """The HTTP ingress behind whatever server carries it."""
        return Ingress(
            self.config.ingress,
            self.readers,
            changes=ChangeReader(max_events=self.config.ingress.max_events),
            intake=lambda: self.intake,
            readiness=self.readiness,
            access=access,
            inflate=inflate,
            metrics=self.metrics,
        )

    async def _run(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                parts = self._parts = await open_parts(
                    self.config,
                    stack,
                    self._destinations,
                    self._journal,
                    self._state,
                    self._clock,
                    self._random,
                    self.metrics,
                )
                await self._serve(parts)
        except BaseException as error:
            failure = _single(error)
            stopped = Stopped("the engine has failed" if isinstance(failure, Exception) else "the engine was cancelled")
            stopped.__cause__ = failure
            self._end(stopped)
            if failure is not error:
                raise failure from None
            raise
        finally:
            if not isinstance(self._intake, Closed):
                self._end(Stopped("the engine has stopped"))

    def _end(self, reason: Stopped) -> None:
        """However it ended: whoever still waits hears it."""
        self._intake.end(reason)
        self._intake = Closed(reason)
        if self._parts is not None:
            self._parts.pipeline.close(reason)

    async def _serve(self, parts: Parts) -> None:
        pipeline = parts.pipeline
        drained: bool | None = None
        async with anyio.create_task_group() as tasks:
            await pipeline.start(tasks, dispatching=self.dispatching)
            tasks.start_soon(self._lag.run)
            if self.dispatching:
                tasks.start_soon(parts.alerting.run, tasks)
            self._intake = EngineIntake(pipeline, parts.journal_id)
            assert self._ready is not None
            if not self._ready.done():
                self._ready.set_result(None)
            await self._stop.wait()
            drained = await pipeline.drain(self.config.engine.drain_timeout_seconds)
            tasks.cancel_scope.cancel()
        if drained is None:  # a task group ends in silence when somebody else has cancelled one of its tasks
            raise Stopped("one of the engine's tasks was cancelled from outside")
        await pipeline.settler.finish(clean=drained and (self.dispatching or pipeline.was_clean))

    # -- events in ------------------------------------------------------------------------------------------------

    async def submit(
        self,
        events: Iterable[Mapping[str, Any] | msgspec.Struct],
        *,
        source: str | None = None,
        lane: str | None = None,
    ) -> Receipt:
        """Hand in events: all of the valid ones become durable together, or none. A bad record never raises: it is in
        `rejected` by index. Safe to cancel: nothing that was acknowledged is lost by it.

        Raises Overloaded (nothing was written; `retry_after_seconds`), Stopped, KeyError for an unknown source or lane,
        and ValueError for more than `ingress.max_events` events at once.
        """
        name = source or self.config.sources[0].name
        reader, default_lane = self.readers[name]
        parsed = reader.read_mappings(events)
        append = Append(parsed.events, name, Lane[lane.upper()] if lane else default_lane)
        intake = self._intake
        refusal = intake.refusal()
        if refusal is not None and not isinstance(intake, Closed) and refusal.type != "draining":
            raise refusal
        id = await intake.accept(append) if append.events else ""
        return Receipt(intake, id, len(parsed.events), parsed.rejected, parsed.dropped)

    @property
    def intake(self) -> EngineIntake | Closed:
        """What an ingress hands events to; changes when the engine starts and stops."""
        return self._intake

    # -- questions and orders -------------------------------------------------------------------------------------

    @property
    def control(self) -> EngineControl:
        """The port behind the admin API. Raises Stopped when the engine does not run."""
        return self._running().control

    def _running(self) -> Parts:
        if self._parts is None:
            raise Stopped("the engine is not running")
        return self._parts

    def status(self) -> dict[str, object]:
        return self.control.status()

    async def lookup(self, email: str) -> dict[str, object]:
        """What became of this attendee, destination by destination. Raises ValueError for what is no address."""
        return await self.control.lookup(key_of_address(email))

    async def forget(self, email: str) -> dict[str, object]:
        """Erase this attendee: pending state, dead letters, ledger. Durable on return; done behind it."""
        return await self.control.forget(key_of_address(email))

    async def pause(self, name: str) -> None:
        await self.control.pause(name)

    async def resume(self, name: str) -> None:
        await self.control.resume(name)

    @property
    def dead_letters(self) -> EngineControl:
        """`letters`, `replay` and `purge`; see `ports.Control`."""
        return self.control


def _single(error: BaseException) -> BaseException:
    """The one exception inside a group; a group of several stays one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


__all__ = ["Engine", "Overloaded"]
