"""`bench` on the command line, against an engine that says what these tests want it to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import Result

METRICS = """\
# TYPE engine_events_delivered counter
engine_events_delivered_total{{destination="demo"}} {events}
# TYPE engine_delivery_seconds histogram
engine_delivery_seconds_bucket{{destination="demo",le="0.01"}} {events}
engine_delivery_seconds_bucket{{destination="demo",le="+Inf"}} {events}
engine_delivery_seconds_count{{destination="demo"}} {events}
engine_delivery_seconds_sum{{destination="demo"}} 1
"""


class FakeEngine:
    """Delivers at once what it accepts."""

    def __init__(self, server: Any, environment: str) -> None:
        self.server, self.environment, self.events = server, environment, 0
        server.handle = self.handle

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/destinations":
            entry = {"name": "demo", "environment": self.environment, "encoding": "array", "counts": {"pending": 0}}
            return web.json_response({"destinations": [entry]})
        if request.path == "/metrics":
            return web.Response(text=METRICS.format(events=self.events))
        records = await request.json()
        self.events += len(records)
        return web.json_response({"accepted": len(records)}, status=202)

    @property
    def posted(self) -> list[bytes]:
        return [body for method, path, _, body in self.server.seen if method == "POST"]


def arguments(url: str) -> list[str]:
    return ["bench", "--url", url, "--rate", "200", "--seconds", "0.2", "--events-per-request", "5", "--json"]


def test_what_was_sent_and_how_long_it_took_is_reported(server: Any, run: Callable[..., Result]) -> None:
    engine = FakeEngine(server, "sandbox")
    result = run(*arguments(server.url))
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["destinations"]
    assert (found["events"], found["failed"], found["refused"]) == (40, 0, 0)
    (latency,) = found["latencies"]
    assert latency["ack"]["count"] == 8
    assert latency["delivered"]["count"] == 40
    assert all(b"@bench.invalid" in body for body in engine.posted)


def test_the_table_is_for_people(server: Any, run: Callable[..., Result]) -> None:
    FakeEngine(server, "sandbox")
    result = run(*arguments(server.url)[:-1])
    assert result.exit_code == 0
    assert "delivered p99 ms" in result.stdout
    assert "demo (array)" in result.stdout


def test_a_real_destination_is_refused_and_nothing_is_sent(server: Any, run: Callable[..., Result]) -> None:
    engine = FakeEngine(server, "prod")
    result = run(*arguments(server.url))
    assert result.exit_code == 1
    assert "--allow-destination demo" in result.stderr
    assert engine.posted == []
    assert run(*arguments(server.url), "--allow-destination", "demo").exit_code == 0
    assert len(engine.posted) == 8


def test_the_key_goes_to_the_engine_and_nowhere_else(
    server: Any, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeEngine(server, "sandbox")
    monkeypatch.setenv("BENCH_KEY", "secret-of-this-test")
    result = run(*arguments(server.url), "--key-env", "BENCH_KEY")
    assert result.exit_code == 0
    assert {headers.get("Authorization") for _, _, headers, _ in server.seen} == {"Bearer secret-of-this-test"}
    assert "secret-of-this-test" not in result.output


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense"])
def test_an_engine_that_does_not_answer_is_one_sentence(url: str, run: Callable[..., Result]) -> None:
    result = run(*arguments(url))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_the_engine_of_the_configuration_is_the_default(
    server: Any, run: Callable[..., Result], config_file: Callable[..., Path]
) -> None:
    engine = FakeEngine(server, "sandbox")
    config_file(port=server.port)
    assert run("bench", "--rate", "100", "--seconds", "0.1").exit_code == 0
    assert engine.posted
