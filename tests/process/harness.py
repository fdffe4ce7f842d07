"""Engines and sandboxes as processes, and producers that outlive them and remember what was promised to them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from engine.config.tables import JournalConfig
from engine.sandbox import fold_digest

START_SECONDS = 60.0
END_SECONDS = 60.0
SETTLE_SECONDS = 40.0
ORG, EVENT = "demo", "demo27"
FIELDS = ("city", "zip", "jobtitle", "companyname")
ADDRESS = re.compile(r"[\w.+-]+(?:@|%40|\\\\u0040)people\.example", re.I)
TOKEN = re.compile(r"tok-\w{40}")
ROOT = Path(__file__).resolve().parents[2]
JOURNAL_KIND = os.environ.get("JOURNAL_KIND", JournalConfig().kind)
"""Of every engine that is started here; "sqlite" or "segments"."""
WORKERS = int(os.environ.get("ENGINE_WORKERS", "1"))
"""Processes that take events in, of every engine that does not say otherwise: all of this has to pass with 2 too."""


class Result(msgspec.Struct):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """What it printed under --json."""
        return json.loads(self.out)


class Program:
    """A process of ours that serves. `ready` is what it announced, `log` the file with its stderr."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self.log = process, log
        self.ready: dict[str, Any] = {}

    @classmethod
    async def start(cls, *arguments: str, log: Path, before: Sequence[str] = ()) -> Self:
        """`spawn` and wait for its line of JSON. Raises AssertionError with its stderr when none comes."""
        program = await cls.spawn(*arguments, log=log, before=before)
        try:
            await program.announced()
        except BaseException:
            await program.kill()
            raise
        return program

    @classmethod
    async def spawn(cls, *arguments: str, log: Path, before: Sequence[str] = ()) -> Self:
        """Start `python -m …`. `before`: a command that goes on to execute what follows it, in the same process."""
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *before,
                sys.executable,
                "-m",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=environment(),
                cwd=ROOT,
            )
        return cls(process, log)

    async def announced(self) -> None:
        """Wait until it serves. Raises AssertionError with its stderr when it ends before."""
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            await self._process.wait()
            raise AssertionError(f"exit {self._process.returncode} before it served:\n{self.said()}")
        self.ready = json.loads(line)
        assert self.ready["pid"] == self.pid

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.communicate()
        except TimeoutError:
            raise AssertionError(f"it goes on and on:\n{self.said()}") from None
        assert self._process.returncode is not None
        return self._process.returncode

    async def kill(self) -> None:
        """-9, unless it has ended by itself."""
        if self.running:
            self._process.kill()
        await self._process.communicate()


class Sandbox:
    """A RainFocus stand-in as a process."""

    def __init__(self, program: Program, http: aiohttp.ClientSession) -> None:
        self.program, self._http = program, http
        self.url: str = program.ready["url"]

    async def call(self, method: str, path: str, body: object = None) -> Any:
        async with self._http.request(method, f"{self.url}/_sandbox/{path}", json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def faults(self, *faults: dict[str, object]) -> None:
        """Put these in the place of all others."""
        await self.call("PUT", "faults", list(faults))

    async def stats(self) -> dict[str, Any]:
        return dict(await self.call("GET", "stats"))

    async def digest(self, event: str = EVENT) -> str:
        return str((await self.call("GET", f"digest?event={event}"))["sha256"])

    async def attendees(self, event: str = EVENT) -> dict[str, dict[str, Any]]:
        """e-mail -> its fields."""
        found: dict[str, dict[str, Any]] = {}
        path: str | None = f"attendees?limit=1000&event={event}"
        while path is not None:
            page = await self.call("GET", path)
            found |= {one["email"]: {**one["fields"], **one["extra"]} for one in page["attendees"]}
            path = f"attendees?limit=1000&event={event}&after={page['next']}" if page["next"] is not None else None
        return found


class Place:
    """A folder with a configuration and a data directory, whoever works on them, and all that they said."""

    def __init__(self, folder: Path, sandbox_url: str, http: aiohttp.ClientSession, tables: dict[str, Any]) -> None:
        self.folder, self._http = folder, http
        folder.mkdir(parents=True, exist_ok=True)
        self.tables = merged(defaults(sandbox_url), tables)
        self.path = folder / "config.toml"
        self.log = folder / "engine.log"
        self.engine: Program | None = None
        self._started: list[Program] = []
        self.answers: list[str] = []
        self.write()

    def write(self) -> None:
        """Put `tables` into the file."""
        self.path.write_text("".join(toml(self.tables)))

    async def serve(self, *before: str) -> Program:
        """An engine that serves. Raises AssertionError with what it said when it does not."""
        engine = await self.starting(*before)
        await engine.announced()
        self.engine = engine
        return engine

    async def starting(self, *before: str) -> Program:
        """An engine that has just been started: it serves nobody yet."""
        arguments = ("engine", "serve", "--config", str(self.path), "--json")
        engine = await Program.spawn(*arguments, log=self.log, before=before)
        self._started = [one for one in self._started if one.running] + [engine]
        return engine

    @property
    def url(self) -> str:
        """ "" while no engine runs."""
        return str(self.engine.ready["urls"]["ingress"]) if self.engine is not None and self.engine.running else ""

    async def end(self) -> None:
        for engine in self._started:
            await engine.kill()

    def check_discreet(self, *secrets: str) -> None:
        """No address of a person, no secret and no token stands in what was logged or answered."""
        for said in [self.log.read_text(errors="replace") if self.log.exists() else "", *self.answers]:
            assert not (found := ADDRESS.findall(said) + TOKEN.findall(said)), found
            assert not [secret for secret in secrets if secret in said]

    async def kill(self) -> None:
        assert self.engine is not None
        assert self.engine.running, self.engine.said()
        await self.engine.kill()

    async def stop(self) -> None:
        """SIGTERM, and the exit code of a clean end."""
        assert self.engine is not None
        self.engine.send(signal.SIGTERM)
        code = await self.engine.ended()
        assert code == 0, self.engine.said()

    async def command(self, *arguments: str, stdin: str = "") -> Result:
        """Run `python -m engine …` with this configuration to its end."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "engine", *arguments, "--config", str(self.path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
        )
        try:
            async with asyncio.timeout(END_SECONDS):
                out, err = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def done(self, *arguments: str, stdin: str = "") -> Any:
        """The answer of a command that has to succeed."""
        result = await self.command(*arguments, "--json", stdin=stdin)
        assert result.code == 0, f"{arguments}: {result.out}{result.err}"
        return result.answer

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON (or text) and headers of one call. The text of every error is kept in `answers`."""
        options: dict[str, Any] = {"headers": headers} | ({} if body is None else {"json": body})
        async with self._http.request(method, f"{self.url}{path}", **options) as response:
            text = await response.text()
            if response.status >= 300:
                self.answers.append(text)
            return (
                response.status,
                msgspec.json.decode(text) if "json" in response.content_type else text,
                response.headers,
            )

    async def get(self, path: str) -> Any:
        status, answer, _ = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def destination(self, name: str = "demo") -> dict[str, Any]:
        return dict(await self.get(f"/v1/destinations/{name}"))

    async def settled(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until every accepted event has an outcome."""

        async def nothing_pending() -> bool:
            found = (await self.get("/v1/destinations"))["destinations"]
            return not any(one["counts"]["pending"] or one["recovering"] for one in found)

        await until(nothing_pending, "events are still pending", seconds)

    async def posted(self, *events: dict[str, Any], **headers: str) -> str:
        """Hand these in; the receipt of what has to be accepted as a whole."""
        status, answer, _ = await self.ask("POST", "/v1/profiles", list(events), **headers)
        assert status == 202, answer
        return str(answer["receipt"])

    async def logged(self, text: str) -> None:
        """Wait until it says so."""

        async def found() -> bool:
            return text in self.log.read_text(errors="replace")

        await until(found, f"{text!r} is not in its log")

    async def balanced(self) -> dict[str, Any]:
        """The sums by destination, recomputed by the running engine; nothing may be missing in them."""
        report = await self.get("/v1/audit")
        assert report["ok"], report
        assert not report["problems"], report
        assert all(one["residual"] == 0 for one in report["destinations"].values()), report
        return dict(report["destinations"])


class Request(msgspec.Struct):
    """What one producer sent at once. `status` None: nobody knows what became of it.

    `witness` is an address of this request alone, and a request is durable as a whole or not at all: whether the
    attendee store has the witness tells whether the engine took the request. `merged`: how many events it had beside
    `events`, of which nothing shows in the end."""

    witness: str
    events: list[dict[str, Any]]
    status: int | None = None
    merged: int = 0

    @property
    def acknowledged(self) -> bool:
        return self.status in (202, 207)


class Producer:
    """Sends one request after the other about people of its own, to whatever engine runs in `place`.

    Every event carries a number that grows, so that an attendee store can tell an older state from a newer one."""

    def __init__(self, name: str, place: Place, *, people: int = 15, pause_seconds: float = 0.01) -> None:
        """`pause_seconds`: between two requests, on average."""
        self.name, self.place, self._pause_seconds = name, place, pause_seconds
        self.random = random.Random(name)
        self.people = [f"{name}-{number}@people.example" for number in range(people)]
        self.requests: list[Request] = []
        self.resting = False
        self.headers: dict[str, str] = {}
        self._version = 0
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def producing(self) -> AsyncIterator[None]:
        """It produces inside the block. What it meets is raised at the end of it."""
        task = asyncio.create_task(self._produce())
        try:
            yield
        finally:
            self._stopping.set()
            await task

    async def _produce(self) -> None:
        timeout = aiohttp.ClientTimeout(total=10.0)
        async with aiohttp.ClientSession(timeout=timeout, headers=self.headers) as http:
            while not self._stopping.is_set():
                if not self.resting and (url := self.place.url):
                    await self._send(http, url)
                await asyncio.sleep(self.random.uniform(0.1, 1.9) * self._pause_seconds)

    async def _send(self, http: aiohttp.ClientSession, url: str) -> None:
        request = self._next()
        await self.post(http, f"{url}/v1/profiles", request, request.events)

    async def post(self, http: aiohttp.ClientSession, url: str, request: Request, events: list[dict[str, Any]]) -> None:
        """Hand it in as these events, and remember what was answered."""
        self.requests.append(request)
        try:
            async with http.post(url, json=events) as response:
                text = await response.text()
                request.status = response.status
                if response.status >= 300:
                    self.place.answers.append(text)
        except (aiohttp.ClientError, TimeoutError):
            return

    def _next(self) -> Request:
        witness = f"{self.name}-w{len(self.requests)}@people.example"
        events = [self._event(self.random.choice(self.people)) for _ in range(self.random.randint(1, 6))]
        events.insert(self.random.randrange(len(events) + 1), self._event(witness))
        if self.random.random() < 0.1:
            events.append({"firstname": "nobody"})  # no address: rejected, and the others are taken
        return Request(witness, events)

    def _event(self, email: str) -> dict[str, Any]:
        self._version += 1
        chosen = self.random.sample(FIELDS, self.random.randint(1, 2))
        return {"email": email, "x_version": self._version, **{name: f"{name}-{self._version}" for name in chosen}}

    def durable(self, stored: Mapping[str, object]) -> list[Request]:
        """The requests that the engine took, acknowledged or not; every acknowledged one has to be among them."""
        lost = [one.witness for one in self.requests if one.acknowledged and one.witness not in stored]
        assert not lost, f"acknowledged and lost: {lost}"
        return [one for one in self.requests if one.witness in stored]


class Oracle:
    """Compares what an attendee store holds with what it has to hold."""

    def __init__(self, *producers: Producer) -> None:
        self.producers = producers

    async def check(self, sandbox: Sandbox, *events: str) -> None:
        """Nothing acknowledged is missing, every attendee is the fold of its durable events, none ever went back.
        `events`: the event codes of the destinations."""
        for event in events or (EVENT,):
            stored = await sandbox.attendees(event)
            expected = self.fold(stored)
            wrong = {one: (stored.get(one), expected.get(one)) for one in {*stored, *expected}}
            wrong = {one: (had, due) for one, (had, due) in wrong.items() if had != due}
            assert not wrong, f"{event} (stored, expected): {wrong}"
            folded = fold_digest((ORG, event, email, fields) for email, fields in expected.items())
            assert await sandbox.digest(event) == folded
        assert (await sandbox.stats())["regressions"] == 0

    def fold(self, stored: Mapping[str, object]) -> dict[str, dict[str, Any]]:
        """Key sets of producers are disjoint and a producer waits for each answer, so its order is the journal's."""
        folded: dict[str, dict[str, Any]] = {}
        for event in self.durable_events(stored):
            fields = {name: value for name, value in event.items() if name in FIELDS}
            folded.setdefault(event["email"], {}).update(fields)
        return folded

    def durable_events(self, stored: Mapping[str, object]) -> list[dict[str, Any]]:
        requests = [request for producer in self.producers for request in producer.durable(stored)]
        return [event for request in requests for event in request.events if "email" in event]

    def accepted(self, stored: Mapping[str, object]) -> int:
        """How many events were taken, those included of which nothing shows."""
        merged = sum(request.merged for producer in self.producers for request in producer.durable(stored))
        return merged + len(self.durable_events(stored))

    @property
    def acknowledged_events(self) -> int:
        requests = [request for producer in self.producers for request in producer.requests if request.acknowledged]
        return sum(request.merged + sum("email" in event for event in request.events) for request in requests)

    @property
    def unknown(self) -> int:
        """Requests without an answer."""
        return sum(request.status is None for producer in self.producers for request in producer.requests)

    @property
    def acknowledged(self) -> int:
        return sum(request.acknowledged for producer in self.producers for request in producer.requests)


@asynccontextmanager
async def sandbox_at(folder: Path, *arguments: str) -> AsyncIterator[Sandbox]:
    program = await Program.start("engine.sandbox", "--port", "0", "--json", *arguments, log=folder / "sandbox.log")
    try:
        async with aiohttp.ClientSession() as http:
            yield Sandbox(program, http)
    finally:
        await program.kill()


@asynccontextmanager
async def place_at(folder: Path, sandbox_url: str, **tables: Any) -> AsyncIterator[Place]:
    """Whatever still runs there at the end is killed. `tables` are laid over `defaults`."""
    async with aiohttp.ClientSession() as http:
        place = Place(folder, sandbox_url, http, tables)
        try:
            yield place
        finally:
            await place.end()
        place.check_discreet()


async def until(condition: Callable[[], Awaitable[bool]], otherwise: str, seconds: float = 45.0) -> None:
    """Ask again and again. Raises AssertionError with `otherwise` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, otherwise
        await asyncio.sleep(0.03)


def environment() -> dict[str, str]:
    """Of this process, without what would change the commands that are tested."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAINFOCUS_", "COV_"))}
    return {**kept, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}


def defaults(sandbox_url: str) -> dict[str, Any]:
    return {
        "engine": {"data_dir": "data", "drain_timeout_seconds": 3.0},
        "ingress": {"port": 0, "workers": WORKERS},
        "journal": {"kind": JOURNAL_KIND, "min_free_bytes": 1},
        "source": [{"mapping": {"x_version": "x_version"}}],
        "account": [
            {
                "name": "demo",
                "base_url": sandbox_url,
                "rate": {"requests_per_second": 300.0, "burst": 6, "max_concurrency": 8},
            }
        ],
        "destination": [
            {
                "name": "demo",
                "retry": {"base_ms": 20, "cap_ms": 500, "timeout_seconds": 2.0, "unknown_hold_seconds": 0.5},
            }
        ],
        "log": {"level": "debug"},
    }


def merged(one: Any, other: Any) -> Any:
    """`other` laid over `one`: tables key by key, lists of tables entry by entry."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(one.get(key), other[key]) if key in other else one[key] for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        shared = [merged(mine, theirs) for mine, theirs in zip(one, other, strict=False)]
        return shared + (other[len(one) :] or one[len(other) :])
    return one if other is None else other


def toml(tables: Mapping[str, Any]) -> Iterator[str]:
    for name, value in tables.items():
        for table in value if isinstance(value, list) else [value]:
            yield f"[[{name}]]\n" if isinstance(value, list) else f"[{name}]\n"
            yield from (f"{key} = {_toml_value(it)}\n" for key, it in table.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(it)}" for key, it in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(it) for it in value) + "]"
    return json.dumps(value)
