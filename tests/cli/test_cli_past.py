"""`runs`, `export` and `status --key`: on the files of a stopped engine, and over HTTP."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from typer.testing import Result

from engine import Config, Engine
from engine.history import HOUR_SECONDS
from engine.testing.destination import FakeDestination, Step, ok, reject

Run = Callable[..., Result]
KEY = hashlib.sha256(b"lea@example.com").hexdigest()
VIP = {"ups/vip": {"status": "realized", "lastQualificationTime": "2026-01-01T00:00:00Z"}}
PEOPLE = [{"email": "lea@example.com", "audiences": VIP}, {"email": "bad@example.com"}, {"email_lc_sha256": "ab" * 32}]


@pytest.fixture
def data(tmp_path: Path, config_file: Callable[..., Path]) -> Path:
    """What an engine left that has delivered one, refused one and excluded one."""
    config = Config.load(config_file())

    def answer(batch: Any) -> Step:
        return Step(reject("response_code_27") if b"bad@" in batch.profiles[0].content else ok("A1"))

    async def main() -> None:
        async with Engine(config, destinations={"demo": FakeDestination(answer=answer)}) as engine:
            await (await engine.submit(PEOPLE)).settled(timeout=20)

    anyio.run(main)
    return tmp_path / "var"


def test_runs_of_a_stopped_engine_are_read_from_its_files(run: Run, data: Path) -> None:
    result = run("runs", "--audiences", "--json", "--hours", "2")
    assert result.exit_code == 0, result.output
    whole, vip = json.loads(result.stdout)["runs"]
    figures = ("profiles_received", "identities_activated", "identities_excluded", "identities_failed")
    assert [whole[name] for name in figures] == [3, 1, 1, 1]
    assert (vip["audience"], [vip[name] for name in figures]) == ("ups/vip", [1, 1, 0, 0])


def test_the_table_has_aeps_names(run: Run, data: Path) -> None:
    shown = " ".join(run("runs").stdout.split())
    for name in ("Dataflow run start", "Profiles received", "Identities failed", "Activation rate", "RFDEST-1402-422"):
        assert name in shown
    assert "33.3 %" in shown


def test_an_hour_in_which_nothing_happened_is_said_to_be_so(run: Run, config_file: Callable[..., Path]) -> None:
    config_file()
    assert "Nothing was settled" in run("runs").stdout


@pytest.mark.parametrize("command", [["runs"], ["export"]])
def test_an_unknown_destination_is_named(run: Run, data: Path, command: list[str]) -> None:
    result = run(*command, "--destination", "nobody")
    assert result.exit_code == 1
    assert "no destination 'nobody'; there are demo" in result.stderr


def test_an_export_of_a_stopped_engine_has_everybody(run: Run, data: Path) -> None:
    result = run("export")
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted((row["record"], row["outcome"], row["code"]) for row in rows) == sorted(
        [
            ("last_outcome", "delivered", None),
            ("last_outcome", "dead_lettered", "RFDEST-1402-422"),
            ("last_outcome", "excluded", "RFDEST-1101-422"),
            ("dead_letter", "dead_lettered", "RFDEST-1402-422"),
        ],
        key=str,
    )
    assert "@" not in result.stdout


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        (["--outcome", "delivered"], 1),
        (["--outcome", "dead_lettered"], 2),
        (["--outcome", "expired"], 0),
        (["--until", "1h"], 0),
        (["--since", "1h", "--destination", "demo"], 4),
    ],
)
def test_an_export_is_of_what_was_asked_for(run: Run, data: Path, options: list[str], rows: int) -> None:
    result = run("export", "--format", "csv", *options)
    assert len(list(csv.DictReader(io.StringIO(result.stdout)))) == rows
    assert result.stdout.startswith("record,destination,key,")


def test_a_person_may_be_named_by_key(run: Run, data: Path) -> None:
    by_key, by_address = run("status", "--key", KEY.upper()), run("status", "lea@example.com")
    assert by_key.exit_code == 0, by_key.output
    assert by_key.stdout == by_address.stdout
    assert "demo: Delivered: RainFocus confirmed it." in by_key.stdout
    assert "A1" in by_key.stdout


@pytest.mark.parametrize("arguments", [["--key", "lea@example.com"], ["--key", KEY, "lea@example.com"]])
def test_what_is_no_key_or_two_people_is_refused_and_not_repeated(run: Run, arguments: list[str]) -> None:
    result = run("status", *arguments)
    assert result.exit_code == 2
    assert "lea@" not in result.stderr


# -- over HTTP --------------------------------------------------------------------------------------------------------


def test_every_page_of_runs_is_asked_for(run: Run, server: Any) -> None:
    one = {"destination": "demo", "started_at": 1_790_928_000.0, "status": "Completed", "errors": []}

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"runs": [one], "next": None if request.query.get("cursor") == "c1" else "c1"})

    server.handle = answer
    result = run("runs", "--url", server.url, "--json", "--hours", "3", "--destination", "demo")
    assert len(json.loads(result.stdout)["runs"]) == 2
    first, second = [path for _, path, _, _ in server.seen]
    assert "destination=demo" in first
    assert "audience" not in first
    assert "cursor=c1" in second
    since = float(first.partition("since=")[2].partition("&")[0])
    assert since % HOUR_SECONDS == 0
    assert 2 * HOUR_SECONDS <= time.time() - since <= 3 * HOUR_SECONDS + 60


def test_audiences_are_asked_for_with_a_star(run: Run, server: Any) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"runs": [], "next": None})

    server.handle = answer
    run("runs", "--url", server.url, "--audiences")
    assert "audience=*" in server.seen[0][1]


def test_an_export_is_written_as_it_comes(run: Run, server: Any) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            await response.write(b'{"n":%d}\n' % number)
        return response

    server.handle = answer
    result = run("export", "--url", server.url, "--since", "2026-01-01", "--outcome", "expired")
    assert result.stdout == '{"n":0}\n{"n":1}\n{"n":2}\n'
    assert server.seen[0][1].startswith("/v1/outcomes?")
    assert "since=1767225600.0" in server.seen[0][1]


def test_an_export_that_is_cut_off_fails(run: Run, server: Any) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"n":0}\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    server.handle = answer
    result = run("export", "--url", server.url)
    assert result.exit_code == 1
    assert "did not answer to the end" in result.stderr


def test_an_engine_that_refuses_says_why(run: Run, server: Any) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = {"type": "forbidden", "status": 403, "detail": "this needs a key with the scope profiles:view"}
        return web.json_response(body, status=403, content_type="application/problem+json")

    server.handle = answer
    result = run("export", "--url", server.url)
    assert result.exit_code == 1
    assert "profiles:view" in result.stderr
