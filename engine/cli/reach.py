"""Where a command finds the engine: over HTTP while it runs, else in its files, under its lock."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from engine.cli import output
from engine.cli.person import key_of_person
from engine.config import Config, locate
from engine.core import exports
from engine.errors import EngineError
from engine.history import OutcomeFilter, RunFilter
from engine.ports import Control, LetterFilter

CONNECT_SECONDS = 2.0
ANYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


class Target(msgspec.Struct, frozen=True):
    """What the options said about where the engine is."""

    config_path: str | None
    url: str | None
    key_variable: str

    @property
    def key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()

    def config(self) -> Config:
        return Config.load(locate(self.config_path))


class Api(Protocol):
    """What both ways offer. Answers have the shapes of `engine.ports.Control`."""

    async def status(self) -> dict[str, Any]: ...

    async def destinations(self) -> list[dict[str, Any]]: ...

    async def lookup(self, person: str) -> dict[str, Any]: ...

    async def audit(self) -> dict[str, Any]: ...

    async def alerts(self) -> dict[str, Any]: ...

    async def test_notification(self, target: str) -> dict[str, Any]: ...

    async def test_destination(self, name: str, store_email: str | None) -> dict[str, Any]: ...

    async def pause(self, name: str) -> None: ...

    async def resume(self, name: str) -> None: ...

    async def forget(self, person: str) -> dict[str, Any]: ...

    async def traces(self, email: str, values: Sequence[str], offset: int, wait_seconds: float) -> dict[str, Any]: ...

    async def backup(self, directory: Path) -> dict[str, Any]: ...

    async def letters(self, which: LetterFilter, limit: int, after: int, with_content: bool) -> dict[str, Any]: ...

    async def runs(self, which: RunFilter, limit: int, cursor: str) -> dict[str, Any]: ...

    def export(self, which: OutcomeFilter, format: str) -> AsyncIterator[bytes]:
        """Of the destination `which.consumer`, of all if that is empty."""

    async def replay(self, which: LetterFilter, dry_run: bool) -> dict[str, Any]: ...

    async def purge(self, which: LetterFilter, dry_run: bool) -> dict[str, Any]: ...


class Files:
    """An engine that does not run, through its files."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def status(self) -> dict[str, Any]:
        return self._control.status()

    async def destinations(self) -> list[dict[str, Any]]:
        return self._control.destinations()

    async def lookup(self, person: str) -> dict[str, Any]:
        return await self._control.lookup(key_of_person(person))

    async def audit(self) -> dict[str, Any]:
        return await self._control.audit()

    async def alerts(self) -> dict[str, Any]:
        return self._control.alerts()

    async def test_notification(self, target: str) -> dict[str, Any]:
        return await self._control.test_notification(target)

    async def test_destination(self, name: str, store_email: str | None) -> dict[str, Any]:
        return await self._control.test_destination(self._known(name), store_email=store_email)

    async def pause(self, name: str) -> None:
        await self._control.pause(self._known(name))

    async def resume(self, name: str) -> None:
        await self._control.resume(self._known(name))

    async def forget(self, person: str) -> dict[str, Any]:
        return await self._control.forget(key_of_person(person))

    async def traces(self, email: str, values: Sequence[str], offset: int, wait_seconds: float) -> dict[str, Any]:
        key, texts = key_of_person(email), [email, *values]
        return await self._control.traces(key, texts, offset=offset, wait_seconds=wait_seconds)

    async def backup(self, directory: Path) -> dict[str, Any]:
        return await self._control.backup(directory)

    async def letters(self, which: LetterFilter, limit: int, after: int, with_content: bool) -> dict[str, Any]:
        return await self._control.letters(which, limit, after=after, with_content=with_content)

    async def runs(self, which: RunFilter, limit: int, cursor: str) -> dict[str, Any]:
        if which.consumer is not None:
            self._known(which.consumer)
        return await self._control.runs(which, limit, cursor=cursor)

    async def export(self, which: OutcomeFilter, format: str) -> AsyncIterator[bytes]:
        names = [self._known(which.consumer)] if which.consumer else self._names()
        yield exports.head(format).encode()
        for name in names:
            async for rows in self._control.outcomes(msgspec.structs.replace(which, consumer=name)):
                yield exports.text(rows, format).encode()

    async def replay(self, which: LetterFilter, dry_run: bool) -> dict[str, Any]:
        return await self._control.replay(which, dry_run=dry_run)

    async def purge(self, which: LetterFilter, dry_run: bool) -> dict[str, Any]:
        return await self._control.purge(which, dry_run=dry_run)

    def _names(self) -> list[str]:
        return [str(it["name"]) for it in self._control.destinations()]

    def _known(self, name: str) -> str:
        names = self._names()
        if name not in names:
            raise EngineError(f"there is no destination {name!r}; there are {', '.join(names)}")
        return name


@asynccontextmanager
async def reach(target: Target, *, files: bool = True) -> AsyncIterator[Api]:
    """The running engine, or, when no --url was given and nothing listens where the configuration says, its files.

    `files=False`: only a running engine will do. Raises Unreachable, and DataDirectoryError when the files belong to
    an engine that listens elsewhere.
    """
    from engine.cli.client import Client, Unreachable

    if target.url:
        async with Client(target.url, target.key, key_variable=target.key_variable) as client:
            yield client
        return
    config = target.config()
    url = admin_url(config)
    if url and await listening(url):
        certificate = config.ingress.tls_cert if config.admin is None else ""
        async with Client(url, target.key, key_variable=target.key_variable, certificate=certificate) as client:
            yield client
    elif files:
        output.note(f"No engine listens at {url or 'a known port'}: working on the files in {config.data_dir}.")
        async with open_files(config) as api:
            yield api
    else:
        raise Unreachable(f"no engine listens at {url or 'a known port'}; start it with `serve` or name it with --url")


@asynccontextmanager
async def open_files(config: Config) -> AsyncIterator[Files]:
    from engine.assembly.offline import open_control

    async with open_control(config) as control:
        yield Files(control)


def ingress_url(config: Config) -> str:
    """Where producers reach the engine of this configuration from here; "" when the system chooses its port."""
    return _url("https" if config.ingress.tls_cert else "http", config.ingress.host, config.ingress.port)


def admin_url(config: Config) -> str:
    """Where its admin API is; "" when the system chooses its port."""
    return _url("http", config.admin.host, config.admin.port) if config.admin else ingress_url(config)


def _url(scheme: str, host: str, port: int) -> str:
    reachable = ANYWHERE.get(host, host)
    shown = f"[{reachable}]" if ":" in reachable else reachable
    return f"{scheme}://{shown}:{port}" if port else ""


async def listening(url: str) -> bool:
    """Whether a connection can be made. One that neither succeeds nor is refused counts: the call will tell why."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except TimeoutError:
        return True
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
