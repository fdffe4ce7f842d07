"""One port for several workers: who gets a connection, and what becomes of it when a worker has gone."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from engine.adapters.worker_link import Entrance, Way, door, listening_sockets, take_connections


class There:
    """A worker's side of its door."""

    def __init__(self) -> None:
        mine, self.door = socket.socketpair()
        for one in (mine, self.door):
            one.setblocking(False)
        self._core_side = mine
        self.way = Way(mine)
        self.connections: list[socket.socket] = []
        self.more = asyncio.Event()
        take_connections(self.door, self._take)

    def _take(self, connection: socket.socket) -> None:
        self.connections.append(connection)
        self.more.set()

    def gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self.door.fileno())
        self.door.close()

    def close(self) -> None:
        if self.door.fileno() >= 0:
            self.gone()
        self._core_side.close()
        for one in self.connections:
            one.close()


@pytest.fixture
async def entrance() -> AsyncIterator[Entrance]:
    made = Entrance(await listening_sockets("127.0.0.1", 0))
    yield made
    made.close()


@pytest.fixture
async def workers() -> AsyncIterator[tuple[There, There]]:
    both = (There(), There())
    yield both
    for one in both:
        one.close()


Streams = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
Call = Callable[[int], Awaitable[Streams]]


@pytest.fixture
async def call(entrance: Entrance) -> AsyncIterator[Call]:
    """So many producers that connect."""
    opened: Streams = []

    async def connect(count: int) -> Streams:
        now = [await asyncio.open_connection("127.0.0.1", entrance.port) for _ in range(count)]
        opened.extend(now)
        return now

    yield connect
    for _, writer in opened:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def arrived(count: int, *workers: There) -> None:
    async with asyncio.timeout(5):
        while sum(len(one.connections) for one in workers) < count:
            waiting = [asyncio.ensure_future(one.more.wait()) for one in workers]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for one, wait in zip(workers, waiting, strict=True):
                one.more.clear()
                wait.cancel()


async def test_every_worker_gets_as_many(entrance: Entrance, workers: tuple[There, There], call: Call) -> None:
    one, two = workers
    entrance.add(one.way)
    entrance.add(two.way)
    await call(20)
    await arrived(20, one, two)
    assert (len(one.connections), len(two.connections)) == (10, 10)


async def test_who_has_fewer_open_gets_the_next(entrance: Entrance, workers: tuple[There, There], call: Call) -> None:
    one, two = workers
    entrance.add(one.way)
    entrance.add(two.way)
    one.way.told(7)
    two.way.told(4)
    await call(5)
    await arrived(5, one, two)
    assert (len(one.connections), len(two.connections)) == (1, 4)
    two.way.told(2)
    await call(1)
    await arrived(6, one, two)
    assert len(two.connections) == 5


async def test_a_connection_that_is_handed_on_works(
    entrance: Entrance, workers: tuple[There, There], call: Call
) -> None:
    entrance.add(workers[0].way)
    ((reader, _),) = await call(1)
    await arrived(1, workers[0])
    connection = workers[0].connections[0]
    assert not connection.getblocking()
    connection.send(b"hello")
    assert await reader.readexactly(5) == b"hello"
    connection.close()
    assert await reader.read() == b""


async def test_what_a_worker_cannot_take_another_one_takes(
    entrance: Entrance, workers: tuple[There, There], call: Call
) -> None:
    one, two = workers
    two.way.told(100)
    entrance.add(one.way)
    entrance.add(two.way)
    one.gone()
    await call(3)
    await arrived(3, two)


async def test_connections_wait_while_there_is_no_worker(
    entrance: Entrance, workers: tuple[There, There], call: Call
) -> None:
    one, two = workers
    entrance.add(one.way)
    entrance.remove(one.way)
    waiting = await call(3)
    await asyncio.sleep(0)
    assert one.connections == []
    entrance.add(two.way)
    await arrived(3, two)
    two.connections[0].send(b"served")
    assert await waiting[0][0].readexactly(6) == b"served"


async def test_where_nobody_can_take_it_a_connection_is_closed(
    entrance: Entrance, workers: tuple[There, There], call: Call
) -> None:
    entrance.add(workers[0].way)
    workers[0].gone()
    ((reader, _),) = await call(1)
    assert await reader.read() == b""


async def test_without_files_left_it_rests_and_goes_on(
    entrance: Entrance,
    workers: tuple[There, There],
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(door, "REST_SECONDS", 0.0)
    real, refused = socket.socket.accept, [OSError(errno.EMFILE, "Too many open files")]

    def accept(self: socket.socket) -> tuple[socket.socket, object]:
        if refused:
            raise refused.pop()
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)
    entrance.add(workers[0].way)
    await call(1)
    await arrived(1, workers[0])
    assert "no connection can be accepted: Too many open files" in caplog.text


async def test_a_port_that_is_taken_is_an_error_that_names_it(entrance: Entrance) -> None:
    with pytest.raises(OSError, match=rf"'127.0.0.1', {entrance.port}.*: address already in use"):
        await listening_sockets("127.0.0.1", entrance.port)


async def test_a_name_with_several_addresses_has_one_port_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.1", "127.0.0.2")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    one, two = await listening_sockets("both", 0)
    with one, two:
        assert one.getsockname()[0] != two.getsockname()[0]
        assert one.getsockname()[1] == two.getsockname()[1]
