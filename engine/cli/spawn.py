"""How `serve` starts an ingress worker: this interpreter again, with its end of the link and its door."""

from __future__ import annotations

import asyncio
import socket
import sys

ENTRY = """
import signal
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
from engine.cli.worker import main
main()
"""
"""Signals are for the core, which ends its workers in order, also where a terminal or a supervisor sends them to all
processes: they are ignored before anything else is loaded. A worker ends when the core's end of the link is gone."""


async def spawn(link: socket.socket, door: socket.socket) -> asyncio.subprocess.Process:
    """See `assembly.workers.Spawn`."""
    inherited = [link.fileno(), door.fileno()]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ENTRY, *map(str, inherited)),
        pass_fds=inherited,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
