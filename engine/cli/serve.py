"""`serve`: the engine as a service, and what signals do to it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from engine.cli import logs, output
from engine.cli.options import ConfigPath, Json, Workers
from engine.cli.spawn import spawn
from engine.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from engine.assembly.service import Service
    from engine.config import Config

T = TypeVar("T")
log = logging.getLogger("engine.cli.serve")
EXIT_AT_ONCE = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
KEPT_BLOCK_BYTES, KEPT_BYTES = 33_554_432, 134_217_728


def serve(config: ConfigPath = None, workers: Workers = None, json: Json = False) -> None:
    """Run the engine until it is told to stop.

    SIGTERM or Ctrl-C drains: requests in flight finish (at most engine.drain_timeout_seconds), the backlog stays in
    the journal, exit 0. A second one exits at once with code 1; nothing that was acknowledged is lost by either.
    SIGHUP reads the configuration again: keys, clients and log level are taken over together, a file with a problem is
    refused as a whole and running goes on. Exit 1 when another process owns the data directory, or when the disk fails.
    With --workers 2 or more as many processes take events in, on one port; signals go to this one, which ends them.

    Example:

        rainfocus-engine serve --config /etc/rainfocus-engine/config.toml
    """
    from engine.cli.check import warnings_of
    from engine.config import Config, locate

    path = locate(config)

    def load() -> Config:
        return Config.load(path).with_workers(workers)

    loaded = load()
    logs.set_up(loaded.log.level, loaded.log.format)
    for warning in warnings_of(loaded):
        log.warning(warning)
    keep_freed_memory()
    run(_serve(loaded, load, json))


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it on uvloop where that is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _serve(config: Config, load: Callable[[], Config], json: bool) -> None:
    from engine.assembly.service import Service

    service = Service(config, spawn=spawn)
    stopping = Stopping()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.ask)
    loop.add_signal_handler(signal.SIGHUP, reload, service, load)
    try:
        async with service:
            stopping.when_asked(service.stop)
            collect_less()
            _announce(service.urls, destinations_of(config), json)
            await service.stopped()
    except (EngineError, OSError):
        raise  # has a sentence of its own, printed at the end
    except Exception:
        log.critical("the engine failed", exc_info=True)
        raise
    log.info("stopped")


def collect_less() -> None:
    """What is loaded by now stays, and what comes is mostly freed by its reference count: looking for cycles as often
    as Python does takes a tenth of the CPU, and with a million pending profiles holds everything up each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def keep_freed_memory() -> bool:
    """Whether the C library will. Bodies of some hundred kilobytes come and go with every request: glibc by itself
    gives each back to the system and faults it in again page by page, which was two thirds of the cost of reading one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


class Stopping:
    """The first request to stop drains, also one that comes while the engine starts; the second ends the process."""

    def __init__(self) -> None:
        self._asked = False
        self._stop: Callable[[], None] | None = None

    def when_asked(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        if self._asked:
            stop()

    def ask(self) -> None:
        if self._asked:
            sys.stderr.flush()
            os._exit(EXIT_AT_ONCE)
        self._asked = True
        log.info("draining; a second signal exits at once")
        if self._stop is not None:
            self._stop()


def reload(service: Service, load: Callable[[], Config]) -> None:
    """Take over what can change while running. Whatever is wrong is reported, and nothing is taken over."""
    try:
        config = load()
        remarks = service.reload(config)
    except ConfigError as error:
        for problem in error.problems:
            log.error("configuration not reloaded: %s", problem)
        return
    logs.set_level(config.log.level)
    for remark in remarks:
        log.warning("%s", remark)
    log.info("configuration reloaded")


def destinations_of(config: Config) -> dict[str, str]:
    """Where everything goes, in full: a URL made of a template is worth a look before the first request (U-1)."""
    found = {one.name: one.resolved_url(config.account_of(one)) for one in config.destinations}
    return found | {one.name: one.url for one in config.forwards}


def _announce(urls: dict[str, str], destinations: dict[str, str], json: bool) -> None:
    if json:
        output.print_json({"pid": os.getpid(), "urls": urls, "destinations": destinations}, lines=True)
        return
    for name, url in urls.items():
        output.say(f"{name:<8} {url}")
    for name, url in destinations.items():
        output.say(f"{name} -> {url}")
    sys.stdout.flush()
