"""The engine in the lifespan of a Starlette application (FastAPI takes the same argument)."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from engine import Config, Engine, Stopped
from engine.testing.destination import FakeDestination

Run = Callable[[Callable[[], object]], None]


def host_of(rainfocus: Engine) -> Starlette:
    async def post(request: Request) -> JSONResponse:
        try:
            receipt = await rainfocus.submit(await request.json())
        except Stopped:
            return JSONResponse({}, 503)
        return JSONResponse({"counts": await receipt.settled(timeout=10)}, 202)

    return Starlette(routes=[Route("/profiles", post, methods=["POST"])], lifespan=rainfocus.lifespan)


def test_the_engine_runs_as_long_as_the_lifespan(run: Run, config: Config, crm: FakeDestination) -> None:
    async def main() -> None:
        rainfocus = Engine(config, destinations={"crm": crm})
        app = host_of(rainfocus)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            assert (await client.post("/profiles", json=[{"email": "lea@example.com"}])).status_code == 503
            async with app.router.lifespan_context(app):
                answer = await client.post("/profiles", json=[{"email": "lea@example.com"}])
                assert answer.status_code == 202
                assert answer.json()["counts"]["crm"]["delivered"] == 1
            assert rainfocus.readiness() == ["stopped"]
            assert (await client.post("/profiles", json=[{"email": "lea@example.com"}])).status_code == 503

    run(main)


def test_the_protocol_of_a_server_starts_and_stops_it(run: Run, config: Config, crm: FakeDestination) -> None:
    """What uvicorn and hypercorn say to an application, in a task of its own."""

    async def main() -> None:
        rainfocus = Engine(config, destinations={"crm": crm})
        app = host_of(rainfocus)
        said: list[str] = []
        heard = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            if said:
                assert rainfocus.readiness() == []
            return {"type": next(heard)}

        async def send(message: object) -> None:
            assert isinstance(message, dict)
            said.append(message["type"])

        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert rainfocus.readiness() == ["stopped"]

    run(main)


def test_the_ingress_is_mounted_beside_other_routes(run: Run, config: Config, crm: FakeDestination) -> None:
    """Before the engine runs it answers 503, as `ingress_app` does."""

    async def main() -> None:
        rainfocus = Engine(config, destinations={"crm": crm})
        mount = Mount("/ingest", app=rainfocus.asgi_app())
        app = Starlette(routes=[mount], lifespan=rainfocus.lifespan)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            events = [{"email": "lea@example.com"}]
            assert (await client.post("/ingest/v1/profiles", json=events)).status_code == 503
            async with app.router.lifespan_context(app):
                assert (await client.get("/ingest/readyz")).json() == {"ready": True, "reasons": []}
                waits = {"Prefer": "wait=10"}
                answer = await client.post("/ingest/v1/profiles", json=events, headers=waits)
                assert answer.json()["destinations"]["crm"]["delivered"] == 1
                direct = await client.post("/ingest/v1/profiles", json=events)
                assert direct.headers["Location"].startswith("/ingest/v1/receipts/")
                assert (await client.get(direct.headers["Location"])).status_code == 200
                assert (await client.get("/ingest/what")).status_code == 404
                assert (await client.get("/ingest/v1/profiles")).headers["Allow"] == "POST"

    run(main)


def test_the_ingress_takes_part_in_a_lifespan_but_needs_none(run: Run, config: Config) -> None:
    async def main() -> None:
        app = Engine(config).asgi_app()
        said: list[str] = []
        heard = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            return {"type": next(heard)}

        async def send(message: object) -> None:
            assert isinstance(message, dict)
            said.append(message["type"])

        await app({"type": "lifespan"}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    run(main)


def test_a_caller_whom_the_server_does_not_name_is_none_of_this_machine(run: Run, config: Config) -> None:
    async def main() -> None:
        app = Engine(config).asgi_app()
        for server, expected in ((("localhost", 80), 403), (("/run/engine.sock", None), 503)):
            statuses: list[int] = []

            async def receive() -> dict[str, object]:
                return {"type": "http.request", "body": b"[{}]"}

            async def send(message: object, statuses: list[int] = statuses) -> None:
                assert isinstance(message, dict)
                statuses += [message["status"]] if "status" in message else []

            headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"4")]
            scope = {"type": "http", "method": "POST", "path": "/v1/profiles", "headers": headers, "server": server}
            await app(scope, receive, send)
            assert statuses == [expected]

    run(main)
