"""The engine as a part of an aiohttp application."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from io import BytesIO

from aiohttp import ClientSession, web

from engine import Config, Engine
from engine.adapters.memory_journal import MemoryJournal
from engine.errors import StorageFailed
from engine.testing.destination import FakeDestination

Run = Callable[[Callable[[], object]], None]
NDJSON = {"Content-Type": "application/x-ndjson"}


def host_of(rainfocus: Engine, *, starts: bool = True) -> web.Application:
    """An application with a route of its own, made as the documentation says."""
    app = web.Application()

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="host")

    app.router.add_get("/", hello)
    app.add_subapp("/ingest", rainfocus.ingress_app())
    if starts:
        app.cleanup_ctx.append(rainfocus.lifespan)
    return app


class Serving:
    """The application behind a real socket, and a client."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> ClientSession:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._session = ClientSession(f"http://127.0.0.1:{self._runner.addresses[0][1]}")
        return self._session

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._runner.cleanup()


def test_events_come_in_below_the_hosts_own_path(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        rainfocus = Engine(config, destinations={"crm": crm})
        async with Serving(host_of(rainfocus)) as session:
            event = {"email": "lea@example.com", "city": "Lille"}
            async with session.post("/ingest/v1/profiles", json=event, headers={"Prefer": "wait=10"}) as answer:
                assert answer.status == 202
                report = await answer.json()
                assert report["destinations"]["crm"]["delivered"] == 1
                assert answer.headers["Location"] == f"/ingest/v1/receipts/{report['receipt']}"
            async with session.get(answer.headers["Location"]) as receipt:
                assert (await receipt.json())["state"] == "settled"
            async with session.get("/ingest/readyz") as ready:
                assert await ready.json() == {"ready": True, "reasons": []}
            async with session.get("/") as own:
                assert await own.text() == "host"
                assert "Content-Security-Policy" not in own.headers, "the host's own answers are the host's"
        assert rainfocus.readiness() == ["stopped"]
        assert crm.stored == {"lea@example.com": event}

    run(main)


def test_the_hosts_limits_on_bodies_do_not_bind_the_ingress_and_ours_do(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        async with Serving(host_of(Engine(config, destinations={"crm": crm}))) as session:
            lines = "".join(
                json.dumps({"email": f"p{i}@example.com", "companyname": "x" * 200}) + "\n" for i in range(9_000)
            ).encode()
            assert len(lines) > 2 * 1024**2, "more than aiohttp lets an application read"
            async with session.post("/ingest/v1/profiles", data=BytesIO(lines), headers=NDJSON) as answer:
                assert (answer.status, (await answer.json())["accepted"]) == (202, 9_000)
            packed = gzip.compress(lines)
            headers = NDJSON | {"Content-Encoding": "gzip"}
            async with session.post("/ingest/v1/profiles", data=BytesIO(packed), headers=headers) as answer:
                assert (answer.status, (await answer.json())["accepted"]) == (202, 9_000)
            async with session.post("/ingest/v1/profiles", data=BytesIO(lines * 2), headers=NDJSON) as answer:
                assert (answer.status, (await answer.json())["type"]) == (413, "too-many-events")

    run(main)


def test_what_is_wrong_is_answered_as_by_the_engines_own_listener(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        async with Serving(host_of(Engine(config, destinations={"crm": crm}))) as session:
            async with session.post("/ingest/v1/profiles", data={"email": "lea@example.com"}) as answer:
                assert (answer.status, answer.content_type) == (415, "application/problem+json")
            async with session.post("/ingest/v1/profiles", json=[], headers={"X-Forwarded-For": "1.2.3.4"}) as answer:
                assert (answer.status, (await answer.json())["type"]) == (403, "not-local")
            async with session.get("/ingest/v1/receipts/unknown") as answer:
                assert answer.status == 404
            async with session.get("/ingest/nothing") as answer:
                assert answer.status == 404

    run(main)


def test_before_the_start_and_after_a_failure_the_host_answers_503_and_lives_on(
    run: Run, config: Config, crm: FakeDestination
) -> None:
    async def main() -> None:
        journal = MemoryJournal()
        rainfocus = Engine(config, destinations={"crm": crm}, journal=journal)
        async with Serving(host_of(rainfocus, starts=False)) as session:
            async with session.post("/ingest/v1/profiles", json={"email": "lea@example.com"}) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) > 0
            async with rainfocus:
                journal.fail.append(StorageFailed("fsync: EIO"))
                for _ in range(2):
                    async with session.post("/ingest/v1/profiles", json={"email": "lea@example.com"}) as answer:
                        assert answer.status == 503
                async with session.get("/ingest/readyz") as ready:
                    assert ready.status == 503
                async with session.get("/ingest/livez") as live:
                    assert live.status == 200
                async with session.get("/") as own:
                    assert await own.text() == "host"

    run(main)
