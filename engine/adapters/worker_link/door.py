"""One port for all workers: the core accepts, and hands every connection to the worker that has the fewest.

The kernel keeps one queue of connections for the port, which the core owns as long as it lives. So a worker that is
killed takes with it the connections it had, and no other. With SO_REUSEPORT every worker would have a queue of its own:
the kernel resets what waits in it when its process dies, goes on filling it while its process hangs, and would let a
second engine take half of the connections without anybody noticing. Sockets that the workers inherit are shared as it
happens: whoever wakes up first takes all that wait (measured: 27 of 32 connections, beside 5).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack

BACKLOG = 1024
ACCEPTED_AT_ONCE = 16
REST_SECONDS = 1.0
"""How long nothing is accepted when the process has no file left for a connection."""

logger = logging.getLogger("engine.workers")


class Way:
    """To one worker. `open_there`: as the worker has told last."""

    def __init__(self, door: socket.socket) -> None:
        """`door`: connected to the worker, not blocking."""
        self._door = door
        self._open_there = self._given_since = 0

    @property
    def connections(self) -> int:
        return self._open_there + self._given_since

    def told(self, connections: int) -> None:
        self._open_there, self._given_since = connections, 0

    def give(self, connection: socket.socket) -> bool:
        """False when the worker cannot have it: it is gone, or takes nothing any more."""
        try:
            socket.send_fds(self._door, [b"\0"], [connection.fileno()])
        except OSError:
            return False
        self._given_since += 1
        return True


class Entrance:
    """`sockets`: listening, see `listening_sockets`. Nothing is accepted while there is no way to go."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = sockets
        self._ways: list[Way] = []
        self._rest: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def add(self, way: Way) -> None:
        self._ways.append(way)
        self._look()

    def remove(self, way: Way) -> None:
        if way in self._ways:
            self._ways.remove(way)
            self._look()

    def close(self) -> None:
        self._ways.clear()
        self._look()
        for one in self._sockets:
            one.close()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        for one in self._sockets:
            if self._ways:
                loop.add_reader(one.fileno(), self._accept, one)
            else:
                loop.remove_reader(one.fileno())

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            with connection:
                self._hand_on(connection)

    def _hand_on(self, connection: socket.socket) -> None:
        """Whom nobody takes sees a closed connection, and comes again."""
        for way in sorted(self._ways, key=lambda it: it.connections):
            if way.give(connection):
                return

    def _pause(self, error: OSError) -> None:
        """Too many files are open, in this process or at all: what waits goes on waiting."""
        logger.error("no connection can be accepted: %s", error.strerror)
        loop = asyncio.get_running_loop()
        for one in self._sockets:
            loop.remove_reader(one.fileno())
        self._rest = loop.call_later(REST_SECONDS, self._look)


def take_connections(door: socket.socket, adopt: Callable[[socket.socket], object]) -> None:
    """In the worker: every connection that comes through the door, from now on."""
    loop = asyncio.get_running_loop()

    def take() -> None:
        try:
            data, handed, _, _ = socket.recv_fds(door, 1, ACCEPTED_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, handed = b"", []
        if not data:
            loop.remove_reader(door.fileno())
        for one in handed:
            connection = socket.socket(fileno=one)
            connection.setblocking(False)
            adopt(connection)

    loop.add_reader(door.fileno(), take)


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """On every address of the host. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, _, _, _, address in dict.fromkeys(found):
            same_port = (address[0], sockets[0].getsockname()[1], *address[2:]) if sockets else address
            sockets.append(opened.enter_context(_listening(family, same_port)))
        opened.pop_all()
    return sockets


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.listen(BACKLOG)
        one.setblocking(False)
    except OSError as error:
        one.close()
        reason = (error.strerror or str(error)).lower()
        raise OSError(error.errno, f"error while attempting to bind on address {address}: {reason}") from None
    return one
