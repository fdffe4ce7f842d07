"""Commands that see and change an engine: over HTTP while it runs, on its files while it does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import Result

from engine.assembly.offline import Removed
from engine.cli import confirm
from engine.cli.dead_letters import moment
from engine.cli.top import View, empty_in
from engine.errors import DataDirectoryError
from engine.model import HeldKind, LetterState
from engine.ports import LetterFilter

Run = Callable[..., Result]
KEY = hashlib.sha256(b"lea@example.com").hexdigest()
DESTINATION = {
    **{"name": "demo", "account": "a", "environment": "sandbox", "url": "http://127.0.0.1:8484/x", "state": "open"},
    **{"reason": "http_503", "waiting": 3, "leased": 1, "held": 2, "dead_letters": 4, "oldest_pending_seconds": 1.5},
    "counts": {"accepted": 100, "delivered": 90, "pending": 10},
}
STATUS = {
    **{"version": "0.1.0", "ready": True, "reasons": [], "notes": [], "recovering": False, "settled_per_second": 5.0},
    "journal": {"bytes": 2**20, "max_bytes": 2**30, "disk_free_bytes": 2**31, "next": 100},
    "accounts": [{"name": "a", "in_flight": 1, "concurrency_limit": 4, "breaker": "closed", "paused_seconds": 0}],
    "destinations": [DESTINATION],
}
PERSON = {
    "key": KEY,
    "destinations": {
        "demo": {
            **{"state": "settled", "outcome": "delivered", "reason": "", "at": 1_767_225_600.0, "attendee_id": "A1"},
            **{"confirmed_through": 5, "pending_events": 0, "dead_letters": 0},
        }
    },
}
LETTER = {
    **{"id": 7, "destination": "demo", "key": KEY, "kind": "dead_lettered", "reason": "http_400", "excerpt": "no"},
    **{"attempts": 3, "events": 2, "first_tried_at": 1.0, "at": 2.0, "state": "kept"},
}
AUDIT = {
    **{"ok": True, "problems": []},
    "destinations": {"demo": {"accepted": 5, "delivered": 5, "pending": 0, "residual": 0}},
}
COMMANDS = [
    (["status"], STATUS),
    (["status", "lea@example.com"], PERSON),
    (["destinations", "list"], {"destinations": [DESTINATION]}),
    (
        ["destinations", "test", "demo"],
        {"ok": True, "steps": [{"step": "token", "ok": True, "detail": "", "seconds": 0.1}]},
    ),
    (["destinations", "pause", "demo"], {"name": "demo", "paused": True}),
    (["destinations", "resume", "demo"], {"name": "demo", "paused": False}),
    (["dead-letters", "list"], {"letters": [LETTER], "next": None, "total": 1}),
    (["dead-letters", "show", "7"], LETTER),
    (["dead-letters", "replay"], {"matched": 1, "replayed": 1}),
    (["dead-letters", "purge", "--yes"], {"matched": 1, "purged": 1}),
    (["audit"], AUDIT),
    (["forget", "lea@example.com", "--yes"], {"key": KEY, "offset": 9}),
    (["backup", "copy"], {"files": ["journal.db", "state.db"], "bytes": 12}),
]
IDS = [" ".join(arguments[:2]) for arguments, _ in COMMANDS]


class Control:
    """The engine's `Control` port, with answers from above; remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def status(self) -> dict[str, Any]:
        return STATUS

    def destinations(self) -> list[dict[str, Any]]:
        return [DESTINATION]

    async def test_destination(self, name: str, /, *, store_email: str | None = None) -> dict[str, Any]:
        return self._note(COMMANDS[3][1], "test", name, store_email)

    async def pause(self, name: str, /) -> None:
        self._note({}, "pause", name)

    async def resume(self, name: str, /) -> None:
        self._note({}, "resume", name)

    async def lookup(self, key: bytes, /) -> dict[str, Any]:
        return self._note(PERSON, "lookup", key.hex())

    async def forget(self, key: bytes, /) -> dict[str, Any]:
        return self._note({"key": key.hex(), "offset": 9}, "forget", key.hex())

    async def letters(
        self, which: LetterFilter, limit: int, /, *, after: int = 0, with_content: bool = False
    ) -> dict[str, Any]:
        return self._note({"letters": [LETTER], "next": None, "total": 1}, "letters", which, limit, after, with_content)

    async def replay(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, Any]:
        return self._note({"matched": 1, "replayed": 1}, "replay", which, dry_run)

    async def purge(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, Any]:
        return self._note({"matched": 1, "purged": 1}, "purge", which, dry_run)

    async def audit(self) -> dict[str, Any]:
        return AUDIT

    async def backup(self, directory: Path, /) -> dict[str, Any]:
        return self._note({"files": ["journal.db", "state.db"], "bytes": 12}, "backup", directory)

    def _note(self, answer: Any, *what: object) -> Any:
        self.asked.append(what)
        return answer


@pytest.fixture
def files(fake_module: Callable[..., None], config_file: Callable[..., Path]) -> Control:
    """A stopped engine with files."""
    control = Control()

    @asynccontextmanager
    async def open_control(config: object) -> AsyncIterator[Control]:
        yield control

    fake_module("engine.assembly.offline", open_control=open_control)
    config_file()
    return control


ANSWERS: dict[tuple[str, str], Any] = {
    ("GET", "/v1/status"): STATUS,
    ("POST", "/v1/profiles/lookup"): PERSON,
    ("GET", f"/v1/profiles/{KEY}"): PERSON,
    ("GET", "/v1/destinations"): {"destinations": [DESTINATION]},
    ("POST", "/v1/destinations/demo/test"): COMMANDS[3][1],
    ("POST", "/v1/destinations/demo/pause"): {},
    ("POST", "/v1/destinations/demo/resume"): {},
    ("GET", "/v1/dead-letters"): {"letters": [LETTER], "next": None, "total": 1},
    ("POST", "/v1/dead-letters/replay"): {"matched": 1, "replayed": 1},
    ("DELETE", "/v1/dead-letters"): {"matched": 1, "purged": 1},
    ("GET", "/v1/audit"): AUDIT,
    ("DELETE", f"/v1/profiles/{KEY}"): {"key": KEY, "offset": 9},
    ("POST", "/v1/backup"): {"files": ["journal.db", "state.db"], "bytes": 12},
}


async def answer(request: web.Request) -> web.StreamResponse:
    found = ANSWERS.get((request.method, request.path))
    if found is None:
        body = {"type": "not-found", "title": "Not found", "status": 404, "detail": "there is no such thing."}
        return web.json_response(body, status=404, content_type="application/problem+json")
    return web.json_response(found)


@pytest.fixture
def running(server: Any) -> Any:
    server.handle = answer
    return server


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS, ids=IDS)
def test_a_running_engine_is_asked_over_http(run: Run, running: Any, arguments: list[str], expected: Any) -> None:
    result = run(*arguments, "--url", running.url, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == expected
    assert len(running.seen) == 1


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS, ids=IDS)
def test_a_stopped_engine_is_worked_on_through_its_files(
    run: Run, files: Control, arguments: list[str], expected: Any
) -> None:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == expected
    assert "No engine listens" in result.stderr


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS, ids=IDS)
def test_people_get_text_without_colours(run: Run, running: Any, arguments: list[str], expected: Any) -> None:
    result = run(*arguments, "--url", running.url)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("section", ["ingress", "admin"])
def test_without_a_url_the_configuration_says_where(run: Run, running: Any, tmp_path: Path, section: str) -> None:
    port = {"ingress": running.port, "admin": 1} if section == "ingress" else {"ingress": 1, "admin": running.port}
    text = f"[ingress]\nport = {port['ingress']}\n"
    (tmp_path / "config.toml").write_text(text + (f"[admin]\nport = {port['admin']}\n" if section == "admin" else ""))
    result = run("status", "--json")
    assert json.loads(result.stdout) == STATUS
    assert result.stderr == ""


def test_with_a_url_no_configuration_is_needed_and_no_file_is_touched(run: Run, files: Control, tmp_path: Path) -> None:
    (tmp_path / "config.toml").unlink()
    result = run("audit", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.count("error: ") == 1
    assert "does not answer" in result.stderr
    assert files.asked == []


def test_an_engine_that_owns_the_files_elsewhere_is_named(
    run: Run, fake_module: Callable[..., None], config_file: Callable[..., Path]
) -> None:
    @asynccontextmanager
    async def open_control(config: object) -> AsyncIterator[Control]:
        raise DataDirectoryError("var belongs to a running engine (process 7 on here)")
        yield Control()

    fake_module("engine.assembly.offline", open_control=open_control)
    config_file(port=0)
    result = run("audit")
    assert result.exit_code == 1
    assert "process 7" in result.stderr


def test_an_address_never_stands_in_a_url(run: Run, running: Any) -> None:
    for arguments in (["status", "lea@example.com"], ["forget", "Lea@Example.com ", "--yes"], ["status", KEY]):
        assert run(*arguments, "--url", running.url).exit_code == 0
    assert not [path for _, path, _, _ in running.seen if "lea" in path.lower()]
    assert json.loads(running.seen[0][3]) == {"email": "lea@example.com"}
    assert running.seen[1][:2] == ("DELETE", f"/v1/profiles/{KEY}")


def test_a_person_may_come_on_stdin(run: Run, files: Control) -> None:
    assert run("status", "-", input="lea@example.com\n").exit_code == 0
    assert run("forget", "-", "--yes", input="lea@example.com\n").exit_code == 0
    assert files.asked == [("lookup", KEY), ("forget", KEY)]


def test_what_names_nobody_is_a_usage_error_that_does_not_repeat_it(run: Run, files: Control) -> None:
    result = run("status", "hunter2")
    assert result.exit_code == 2
    assert "hunter2" not in result.output
    assert files.asked == []


def test_the_key_comes_from_the_environment(run: Run, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAINFOCUS_ENGINE_KEY", "rfe_1")
    monkeypatch.setenv("OTHER", "rfe_2")
    run("status", "--url", running.url)
    run("status", "--url", running.url, "--key-env", "OTHER")
    assert [headers["Authorization"] for _, _, headers, _ in running.seen] == ["Bearer rfe_1", "Bearer rfe_2"]


def test_a_problem_becomes_a_sentence(run: Run, running: Any) -> None:
    result = run("destinations", "pause", "nope", "--url", running.url)
    assert (result.exit_code, result.stderr) == (1, "error: there is no such thing\n")


def test_a_refused_key_says_where_keys_come_from(run: Run, server: Any) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.json_response({"title": "Unauthorized", "status": 401}, status=401)

    server.handle = refuse
    result = run("status", "--url", server.url)
    assert result.exit_code == 1
    assert "$RAINFOCUS_ENGINE_KEY" in result.stderr


@pytest.mark.parametrize("status", [200, 500])
def test_something_that_is_no_engine_is_no_traceback(run: Run, server: Any, status: int) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text="<html>")

    server.handle = page
    result = run("status", "--url", server.url)
    assert result.exit_code == 1
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr


def test_an_unknown_destination_is_named_with_those_there_are(run: Run, files: Control) -> None:
    result = run("destinations", "pause", "demp")
    assert result.exit_code == 1
    assert "'demp'; there are demo" in result.stderr


def test_remove_and_rename_work_on_the_files(
    run: Run, fake_module: Callable[..., None], config_file: Callable[..., Path]
) -> None:
    asked: list[tuple[str, ...]] = []

    async def remove_destination(config: object, name: str) -> Removed:
        asked.append(("remove", name))
        return Removed(expired=12, letters=3)

    async def rename_destination(config: object, old: str, new: str) -> None:
        asked.append(("rename", old, new))

    fake_module("engine.assembly.offline", remove_destination=remove_destination, rename_destination=rename_destination)
    config_file()
    assert run("destinations", "remove", "old").exit_code == 2  # nobody to ask
    answer = json.loads(run("destinations", "remove", "old", "--yes", "--json").stdout)
    assert answer == {"removed": "old", "expired": 12, "dead_letters": 3}
    assert "12 pending events expired, 3 dead letters stay" in run("destinations", "remove", "old", "--yes").stdout
    assert run("destinations", "rename", "a", "b").exit_code == 0
    assert asked == [("remove", "old"), ("remove", "old"), ("rename", "a", "b")]


@pytest.mark.parametrize("arguments", [["dead-letters", "purge"], ["forget", "lea@example.com"]])
def test_nothing_is_destroyed_in_a_pipe_without_yes(run: Run, files: Control, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert files.asked == []


@pytest.mark.parametrize(("typed", "code", "asked"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0)])
def test_on_a_terminal_it_asks_first(
    run: Run, files: Control, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, asked: int
) -> None:
    monkeypatch.setattr(confirm, "_somebody_is_there", lambda: True)
    assert run("dead-letters", "purge", input=typed).exit_code == code
    assert len(files.asked) == asked


def test_a_dry_run_needs_no_yes_and_says_that_nothing_was_done(run: Run, files: Control) -> None:
    result = run("dead-letters", "purge", "--dry-run")
    assert result.exit_code == 0
    assert "nothing was done" in result.stdout
    assert files.asked == [("purge", LetterFilter(), True)]


def test_every_option_of_a_filter_arrives(run: Run, files: Control, running: Any) -> None:
    options = ["--destination", "demo", "--class", "expired", "--reason", "age", "--since", "1970-01-01T00:01:00"]
    options += ["--until", "1970-01-01T02:00:00+01:00"]
    assert run("dead-letters", "replay", *options, "--id", "3", "--id", "4").exit_code == 0
    which = LetterFilter(
        **{"consumer": "demo", "ids": (3, 4), "kind": HeldKind.EXPIRED, "reason": "age"},  # type: ignore[arg-type]
        **{"since": 60.0, "until": 3_600.0},  # type: ignore[arg-type]
    )
    assert files.asked == [("replay", which, False)]
    assert run("dead-letters", "purge", *options, "--yes", "--url", running.url).exit_code == 0
    sent = running.seen[0][1].partition("?")[2].split("&")
    assert sorted(sent) == ["class=expired", "destination=demo", "reason=age", "since=60.0", "until=3600.0"]


def test_showing_a_letter_asks_for_its_content_in_any_state(run: Run, files: Control, running: Any) -> None:
    assert run("dead-letters", "show", "7").exit_code == 0
    assert files.asked == [("letters", LetterFilter(ids=(7,), state=None), 1, 0, True)]
    assert run("dead-letters", "show", "8", "--url", running.url).exit_code == 1
    sent = running.seen[0][1].partition("?")[2].split("&")
    assert sorted(sent) == ["after=0", "content=true", "id=8", "limit=1", "state=all"]


def test_times_are_moments_or_ago() -> None:
    assert moment(None, "--since", 1_000_000.0) is None
    assert moment("2h", "--since", 1_000_000.0) == 1_000_000.0 - 7_200
    assert moment("1970-01-02", "--since", 0.0) == 86_400.0
    assert LetterFilter().state == LetterState.KEPT


def test_a_time_that_is_none_is_a_usage_error(run: Run, files: Control) -> None:
    result = run("dead-letters", "list", "--since", "yesterday")
    assert result.exit_code == 2
    assert files.asked == []


def test_a_list_is_paged_up_to_its_limit(run: Run, server: Any) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        after, limit = int(request.query["after"]), int(request.query["limit"])
        ids = list(range(after + 1, min(after + min(limit, 400), 1_000) + 1))
        letters = [{**LETTER, "id": it} for it in ids]
        return web.json_response({"letters": letters, "next": ids[-1] if ids[-1] < 1_000 else None, "total": 1_000})

    server.handle = page
    result = run("dead-letters", "list", "--limit", "900", "--url", server.url, "--json")
    report = json.loads(result.stdout)
    assert [it["id"] for it in report["letters"]] == list(range(1, 901))
    assert report["total"] == 1_000


def test_an_audit_that_does_not_add_up_is_exit_1(run: Run, server: Any) -> None:
    async def audit(request: web.Request) -> web.StreamResponse:
        return web.json_response({**AUDIT, "ok": False, "problems": ["offset 3 is missing"]})

    server.handle = audit
    assert run("audit", "--url", server.url, "--json").exit_code == 1
    result = run("audit", "--url", server.url)
    assert result.exit_code == 1
    assert "offset 3 is missing" in result.stderr


def test_a_failed_test_is_exit_1_and_shows_the_step(run: Run, server: Any) -> None:
    async def fail(request: web.Request) -> web.StreamResponse:
        steps = [{"step": "connect", "ok": False, "detail": "connection refused", "seconds": 0.1}]
        return web.json_response({"ok": False, "steps": steps})

    server.handle = fail
    result = run("destinations", "test", "demo", "--store", "lea@example.com", "--url", server.url)
    assert result.exit_code == 1
    assert "FAILED connect: connection refused" in result.stdout
    assert json.loads(server.seen[0][3]) == {"store_email": "lea@example.com"}
    assert "Writing the attendee" in result.stderr


# -- top ---------------------------------------------------------------------------------------------------------------


def test_top_shows_a_running_engine_once(run: Run, running: Any) -> None:
    assert "demo" in run("top", "--once", "--url", running.url).stdout
    assert json.loads(run("top", "--once", "--json", "--url", running.url).stdout) == STATUS


def test_top_needs_a_running_engine(run: Run, files: Control) -> None:
    result = run("top", "--once")
    assert result.exit_code == 1
    assert "no engine listens" in result.stderr
    assert files.asked == []


def test_rates_are_the_difference_between_two_answers() -> None:
    view = View()
    before = {"accepted": 100, "delivered": 90, "expired": 5}
    after = {"accepted": 120, "delivered": 98, "expired": 7}
    assert view._rates("demo", before, 10.0) == (None, None, None)
    assert view._rates("demo", after, 12.0) == (10.0, 4.0, 5.0)


@pytest.mark.parametrize(
    ("pending", "accepted", "settled", "shown"),
    [(0, 1.0, 1.0, "now"), (100, 5.0, 15.0, "10s"), (100, 5.0, 5.0, "growing"), (100, None, None, "-")],
)
def test_the_time_until_the_backlog_is_gone(
    pending: int, accepted: float | None, settled: float | None, shown: str
) -> None:
    assert empty_in(pending, accepted, settled) == shown
