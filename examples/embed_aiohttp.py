"""The engine inside an aiohttp application that has routes of its own.

    rainfocus-engine sandbox &
    python examples/embed_aiohttp.py config.toml
    curl http://127.0.0.1:8000/ingest/v1/profiles -H 'Content-Type: application/json' -d '{"email": "lea@example.com"}'
    curl http://127.0.0.1:8000/checkin -d email=lea@example.com

`/ingest/...` takes events, receipts and probes as the engine's own listener does, with the keys and limits of
`[ingress]`. `/checkin` is a route of this application, which hands in an event by itself.
"""

from __future__ import annotations

import math
import sys

from aiohttp import web

from engine import Config, Engine, Overloaded, Stopped

ENGINE = web.AppKey("engine", Engine)


async def checkin(request: web.Request) -> web.Response:
    form = await request.post()
    event = {"email": str(form.get("email", "")), "jobtitle": "Checked in"}
    try:
        receipt = await request.app[ENGINE].submit([event])
    except Overloaded as error:
        seconds = str(math.ceil(error.retry_after_seconds))
        raise web.HTTPServiceUnavailable(headers={"Retry-After": seconds}) from None
    except Stopped:
        raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"}) from None
    if receipt.rejected:
        return web.json_response({"reason": receipt.rejected[0].reason}, status=422)
    return web.json_response({"receipt": receipt.id}, status=202)


def build_app(config: Config) -> web.Application:
    rainfocus = Engine(config)
    app = web.Application()
    app[ENGINE] = rainfocus
    app.router.add_post("/checkin", checkin)
    app.add_subapp("/ingest", rainfocus.ingress_app())
    app.cleanup_ctx.append(rainfocus.lifespan)
    return app


if __name__ == "__main__":
    web.run_app(build_app(Config.load(sys.argv[1] if len(sys.argv) > 1 else "config.toml")), port=8000)
