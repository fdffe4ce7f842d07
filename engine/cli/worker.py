"""The program of an ingress worker; `serve` starts it, see `cli/spawn.py`. Nobody else has a use for it."""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING

from engine.cli import logs
from engine.cli.serve import collect_less, keep_freed_memory, run

if TYPE_CHECKING:
    from engine.assembly.worker_plan import WorkerPlan

log = logging.getLogger("engine.workers")


def main() -> None:
    from engine.assembly.worker import read_plan
    from engine.errors import EngineError

    link, door = (socket.socket(fileno=int(it)) for it in sys.argv[1:])
    try:
        plan = read_plan(link)
        if plan is not None:
            keep_freed_memory()
            _set_up_logs(plan)
            run(_work(plan, link, door))
    except (EngineError, OSError) as error:
        log.critical("the worker cannot work: %s", error)
        raise SystemExit(1) from None


def _set_up_logs(plan: WorkerPlan) -> None:
    def named(record: logging.LogRecord) -> bool:
        record.worker = plan.number
        return True

    logs.set_up(plan.callers.log_level, plan.config.log.format).addFilter(named)


async def _work(plan: WorkerPlan, link: socket.socket, door: socket.socket) -> None:
    from engine.assembly.worker import Worker

    worker = Worker(plan, logs.set_level)
    collect_less()
    await worker.run(link, door)
