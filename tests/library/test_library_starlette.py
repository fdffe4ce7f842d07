"""The engine in the lifespan of a Starlette application (FastAPI takes the same argument)."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

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
