"""`alerts`: asks a running engine, and says who could not be told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from conftest import Server
from typer.testing import CliRunner, Result

from engine.cli.app import app

ALERT = {
    "alert": "late",
    "when": "delivery-delay",
    "destination": "demo",
    "state": "raised",
    "since": 1_700_000_000.0,
    "figure": 950.0,
    "threshold": 900.0,
    "unit": "seconds",
    "summary": "destination demo: events take 950 s; the threshold is 900 s",
    "advice": "look at it",
    "page": "docs/alerts.md#delivery-delay",
    "to": ["oncall"],
}
TARGETS = [
    {"name": name, "kind": "webhook", "where": "hooks.example.com", "waiting": 0, "last_result": "ok", "last_at": 1.0}
    for name in ("oncall", "chief")
]


@pytest.fixture
def engine(server: Server) -> Server:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"alerts": [ALERT], "targets": TARGETS})
        target = (await request.json())["target"]
        result = {"target": target, "ok": target == "oncall", "result": "ok" if target == "oncall" else "http_500"}
        return web.json_response(result | {"seconds": 0.1})

    server.handle = handle
    return server


def run(engine: Server, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["alerts", *arguments, "--url", engine.url])


def bodies(engine: Server) -> list[Any]:
    return [json.loads(body) for method, path, _, body in engine.seen if (method, path) == ("POST", "/v1/alerts/test")]


def test_what_is_raised_is_shown_with_its_figures_and_what_to_do(engine: Server) -> None:
    result = run(engine, "list")
    assert result.exit_code == 0
    for part in (
        "late",
        "raised",
        "950 s",
        "900 s",
        "oncall",
        "what to do: look at it (docs/alerts.md#delivery-delay)",
    ):
        assert part in result.stdout
    assert json.loads(run(engine, "list", "--json").stdout) == {"alerts": [ALERT], "targets": TARGETS}


def test_all_targets_are_tested_or_the_one_that_is_named(engine: Server) -> None:
    assert run(engine, "test", "oncall").exit_code == 0
    assert bodies(engine) == [{"target": "oncall"}]
    result = run(engine, "test")
    assert result.exit_code == 1, "one could not be told"
    assert "FAILED chief: http_500" in result.stdout
    assert bodies(engine)[1:] == [{"target": "oncall"}, {"target": "chief"}]


def test_a_target_that_is_none_is_named_with_those_there_are(engine: Server) -> None:
    result = run(engine, "test", "onkall")
    assert result.exit_code == 1
    assert "there is no [[notify]] named 'onkall'; there are oncall, chief" in result.stderr
    assert bodies(engine) == []
