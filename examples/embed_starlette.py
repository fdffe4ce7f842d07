"""The engine in the lifespan of a Starlette application; FastAPI takes the same `lifespan=`.

rainfocus-engine sandbox &
RAINFOCUS_ENGINE_CONFIG=config.toml uvicorn --app-dir examples --factory embed_starlette:build_app
curl http://127.0.0.1:8000/profiles -H 'Content-Type: application/json' -d '[{"email": "lea@example.com"}]'
"""

from __future__ import annotations

import math
import os

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine import Config, Engine, Overloaded, Stopped


class Profiles:
    """The routes; they know the engine that they hand events to."""

    def __init__(self, rainfocus: Engine) -> None:
        self._rainfocus = rainfocus

    async def post(self, request: Request) -> Response:
        try:
            events = msgspec.json.decode(await request.body(), type=list[dict[str, object]])
        except msgspec.DecodeError:
            return JSONResponse({"detail": "an array of objects is needed"}, status_code=400)
        try:
            receipt = await self._rainfocus.submit(events)
        except Overloaded as error:
            return JSONResponse(
                {"detail": error.detail}, 503, headers={"Retry-After": str(math.ceil(error.retry_after_seconds))}
            )
        except Stopped:
            return JSONResponse({"detail": "stopping"}, 503, headers={"Retry-After": "5"})
        rejected = [msgspec.to_builtins(it) for it in receipt.rejected]
        return JSONResponse({"accepted": receipt.accepted, "rejected": rejected, "receipt": receipt.id}, 202)

    async def ready(self, request: Request) -> Response:
        reasons = self._rainfocus.readiness()
        return JSONResponse({"reasons": reasons}, 503 if reasons else 200)


def build_app(config: Config | None = None) -> Starlette:
    if config is None:
        config = Config.load(os.environ.get("RAINFOCUS_ENGINE_CONFIG", "config.toml"))
    rainfocus = Engine(config)
    profiles = Profiles(rainfocus)
    routes = [
        Route("/profiles", profiles.post, methods=["POST"]),
        Route("/ready", profiles.ready),
    ]
    return Starlette(routes=routes, lifespan=rainfocus.lifespan)
