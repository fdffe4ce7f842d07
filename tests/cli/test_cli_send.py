"""`send` against a fake ingress over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import Result

from engine.cli import send_post
from engine.cli.send_post import post_all, retry_after
from engine.cli.send_read import Chunk, Frame, Record
from engine.cli.send_state import Answer, Prefix
from engine.errors import EngineError

Run = Callable[..., Result]


class Ingress:
    """Takes NDJSON. `script` are the answers to the first requests: a (status, headers) to refuse, "drop" to hang up,
    None to take it. Emails that begin with "bad" are refused."""

    def __init__(self, server: Any) -> None:
        self.script: list[tuple[int, dict[str, str]] | str | None] = []
        self.requests = 0
        self.taken: list[dict[str, Any]] = []
        self.receipts: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        server.handle = self.handle

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v1/receipts/"):
            answers = self.receipts[request.path.rpartition("/")[2]]
            return web.json_response(answers.pop(0) if len(answers) > 1 else answers[0])
        self.requests += 1
        step = self.script.pop(0) if self.script else None
        if step == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(step, tuple):
            body = {"type": "journal-full", "title": "Full", "status": step[0], "detail": "the journal is full."}
            return web.json_response(body, status=step[0], headers=step[1], content_type="application/problem+json")
        return self.take((await request.text()).splitlines())

    def take(self, lines: list[str]) -> web.Response:
        events = [json.loads(line) for line in lines]
        bad = [index for index, it in enumerate(events) if it["email"].startswith("bad")]
        dropped = [
            {"index": index, "field": "zip", "reason": "too long"} for index, it in enumerate(events) if "zip" in it
        ]
        rejected = [{"index": index, "field": "email", "reason": "not an address"} for index in bad]
        good = [it for index, it in enumerate(events) if index not in bad]
        with self._lock:
            self.taken += good
        body = {"accepted": len(good), "rejected": rejected, "dropped": dropped}
        body |= {"receipt": f"r{len(self.taken)}"} if good else {"receipt": None}
        return web.json_response(body, status=202 if not bad else 207 if good else 422)


@pytest.fixture
def ingress(server: Any) -> Ingress:
    return Ingress(server)


@pytest.fixture
def send(run: Run, server: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(send_post, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(send_post, "SHORTEST_WAIT_SECONDS", 0.001)
    return lambda *arguments, **options: run("send", *arguments, "--url", server.url, **options)


def write(path: Path, events: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(it)}\n" for it in events))
    return str(path)


def people(count: int) -> list[dict[str, Any]]:
    return [{"email": f"p{number}@x.org", "n": number} for number in range(count)]


def test_every_record_arrives_once_and_the_summary_says_so(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", people(25))
    result = send(file, "--batch", "4", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["accepted"], report["rejected"], ingress.requests) == (25, 0, 7)
    assert sorted(it["n"] for it in ingress.taken) == list(range(25))
    assert not (tmp_path / "a.ndjson.progress").exists()
    assert not (tmp_path / "a.ndjson.rejects.ndjson").exists()


def test_source_lane_and_key_travel_along(
    send: Run, ingress: Ingress, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    file = write(tmp_path / "a.ndjson", people(1))
    assert send(file, "--source", "crm", "--lane", "backfill", "--key-env", "MY_KEY").exit_code == 0
    method, path, headers, _ = server.seen[0]
    assert (method, path) == ("POST", "/v1/profiles?source=crm&lane=backfill")
    assert headers["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("status", [429, 503])
def test_it_waits_when_the_engine_asks_for_it(send: Run, ingress: Ingress, tmp_path: Path, status: int) -> None:
    ingress.script = [(status, {"Retry-After": "0"}), (status, {"Retry-After": "0"})]
    result = send(write(tmp_path / "a.ndjson", people(3)), "--patience", "0")
    assert result.exit_code == 0, result.output
    assert ingress.requests == 3
    assert len(ingress.taken) == 3


def test_a_retry_after_is_never_cut_short(
    send: Run, ingress: Ingress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[float] = []
    monkeypatch.setattr(send_post.Poster, "_hold", lambda self, seconds, why: held.append(seconds))
    ingress.script = [(503, {"Retry-After": "5"})]
    assert send(write(tmp_path / "a.ndjson", people(3))).exit_code == 0
    assert 5.0 <= held[0] <= 6.0


@pytest.mark.parametrize("fault", ["drop", (500, {}), (502, {}), (503, {})], ids=str)
def test_failures_are_tried_again(send: Run, ingress: Ingress, tmp_path: Path, fault: Any) -> None:
    ingress.script = [fault, None, fault]
    result = send(write(tmp_path / "a.ndjson", people(4)), "--batch", "2", "--concurrency", "1")
    assert result.exit_code == 0, result.output
    assert [it["n"] for it in ingress.taken] == [0, 1, 2, 3]


def test_it_gives_up_when_nothing_goes_through_any_more(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    ingress.script = [(500, {})] * 1_000
    result = send(write(tmp_path / "a.ndjson", people(4)), "--patience", "0.01")
    assert result.exit_code == 1
    assert "nothing was accepted" in result.stderr
    assert "the journal is full" in result.stderr


def test_nobody_listens(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", people(1))
    result = run("send", file, "--url", "http://127.0.0.1:1", "--patience", "0")
    assert result.exit_code == 1
    assert result.stderr.count("error:") == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 415])
def test_a_refusal_of_the_whole_ends_it_with_the_engines_words(
    send: Run, ingress: Ingress, tmp_path: Path, status: int
) -> None:
    ingress.script = [(status, {})]
    result = send(write(tmp_path / "a.ndjson", people(1)))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: the journal is full"
    assert ingress.requests == 1


def test_refused_records_are_listed_with_their_place_in_the_file(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    events = people(10)
    events[3]["email"], events[7]["email"] = "bad1", "bad2"
    events[5]["zip"] = "x" * 100
    file = tmp_path / "a.ndjson"
    write(file, events)
    file.write_text("\n" + file.read_text())  # an empty line first: lines and records count apart
    result = send(str(file), "--batch", "3", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)["files"][0]
    assert report["rejected_by_reason"] == {"email: not an address": 2}
    assert report["dropped_fields"] == {"zip: too long": 1}
    rows = [json.loads(line) for line in Path(report["rejects_file"]).read_text().splitlines()]
    told = sorted((it["record"], it["line"], it["field"], it["reason"]) for it in rows)
    assert told == [(4, 5, "email", "not an address"), (8, 9, "email", "not an address")]
    assert "bad" not in Path(report["rejects_file"]).read_text()


def test_a_request_of_nothing_but_bad_records_is_no_failure(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", [{"email": "bad"}, {"email": "a@x.org"}])
    result = send(file, "--batch", "1", "--allow-rejects", "--rejects", str(tmp_path / "mine"))
    assert result.exit_code == 0
    assert len(ingress.taken) == 1
    assert json.loads((tmp_path / "mine").read_text())["record"] == 1
    assert "1" in result.stdout


def test_a_second_run_goes_on_behind_what_was_acknowledged(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", people(10))
    ingress.script = [None, None, (403, {})]
    first = send(file, "--batch", "2", "--concurrency", "1")
    assert first.exit_code == 1
    assert "4 records are acknowledged" in first.stderr
    assert json.loads((tmp_path / "a.ndjson.progress").read_text())["records"] == 4
    second = send(file, "--batch", "3", "--json")
    assert second.exit_code == 0, second.output
    assert json.loads(second.stdout)["files"][0]["already_sent"] == 4
    assert sorted(it["n"] for it in ingress.taken) == list(range(10))
    assert not (tmp_path / "a.ndjson.progress").exists()


def test_refused_records_keep_their_numbers_in_a_second_run(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    events = people(6)
    events[1]["email"] = events[4]["email"] = "bad"
    file = write(tmp_path / "a.ndjson", events)
    ingress.script = [None, (403, {})]
    send(file, "--batch", "3", "--concurrency", "1")
    send(file, "--batch", "3")
    rows = [json.loads(line)["record"] for line in (tmp_path / "a.ndjson.rejects.ndjson").read_text().splitlines()]
    assert rows == [2, 5]


@pytest.mark.parametrize("change", ["content", "source"])
def test_progress_of_another_send_is_not_taken_for_this_one(
    send: Run, ingress: Ingress, tmp_path: Path, change: str
) -> None:
    file = write(tmp_path / "a.ndjson", people(6))
    ingress.script = [None, (403, {})]
    send(file, "--batch", "2", "--concurrency", "1")
    if change == "content":
        write(tmp_path / "a.ndjson", people(7)[1:])
    result = send(file, *(["--source", "other"] if change == "source" else []))
    assert result.exit_code == 1
    assert "another" in result.stderr or "other content" in result.stderr
    assert len(ingress.taken) == 2


def test_a_file_that_has_grown_goes_on(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    file = write(tmp_path / "a.ndjson", people(4))
    ingress.script = [None, (403, {})]
    send(file, "--batch", "2", "--concurrency", "1")
    write(tmp_path / "a.ndjson", people(9))
    assert send(file).exit_code == 0
    assert sorted(it["n"] for it in ingress.taken) == list(range(9))


def test_a_body_that_is_too_large_is_halved(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    ingress.script = [(413, {}), (413, {}), None, (413, {})]
    result = send(write(tmp_path / "a.ndjson", people(5)), "--concurrency", "1", "--json")
    # 5 are too many; of 2 so are both, the first 1 goes, the second 1 is too large by itself
    report = json.loads(result.stdout)
    assert (report["accepted"], report["rejected"]) == (4, 1)
    assert sorted(it["n"] for it in ingress.taken) == [0, 2, 3, 4]


def test_stdin_is_read_with_a_format(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    lines = "".join(json.dumps(it) + "\n" for it in people(3))
    assert send("-", "--format", "ndjson", input=lines).exit_code == 0
    assert len(ingress.taken) == 3
    assert list(tmp_path.iterdir()) == []
    result = send("-", input=lines)
    assert result.exit_code == 1
    assert "--format" in result.stderr


def test_several_files_are_one_send(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.ndjson", [{"email": name}]) for name in ("bad", "good", "bad2")]
    result = send(*files, "--rejects", str(tmp_path / "all"), "--json")
    report = json.loads(result.stdout)
    assert (report["accepted"], report["rejected"], len(report["files"])) == (1, 2, 3)
    assert [json.loads(it)["file"] for it in (tmp_path / "all").read_text().splitlines()] == [files[0], files[2]]
    assert send(*files, "--state", "x").exit_code == 2


def test_waiting_sums_up_what_became_of_the_events(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    pending = {"id": "r2", "state": "pending", "destinations": {"demo": {"pending": 2}}}
    settled = {"id": "r2", "state": "settled", "destinations": {"demo": {"pending": 0, "delivered": 2}}}
    ingress.receipts = {"r2": [pending, settled], "r3": [{"id": "r3", "state": "settled", "destinations": None}]}
    file = write(tmp_path / "a.ndjson", people(3))
    result = send(file, "--batch", "2", "--concurrency", "1", "--wait", "30", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["settled"] == {
        "pending": 0,
        "unknown": 1,
        "destinations": {"demo": {"delivered": 2}},
    }


def test_events_without_an_outcome_in_time_are_exit_1(send: Run, ingress: Ingress, tmp_path: Path) -> None:
    ingress.receipts = {"r1": [{"id": "r1", "state": "pending", "destinations": {"demo": {"pending": 1}}}]}
    result = send(write(tmp_path / "a.ndjson", people(1)), "--wait", "0.001", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["settled"]["pending"] == 1


def test_something_else_at_that_address_is_named(send: Run, server: Any, tmp_path: Path) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(status=202, text="<html>hello</html>")

    server.handle = page
    result = send(write(tmp_path / "a.ndjson", people(1)))
    assert result.exit_code == 1
    assert "not an engine" in result.stderr


# -- order and progress ------------------------------------------------------------------------------------------------


def chunk(first: int, *records: bytes) -> Chunk:
    return Chunk(first, [Record(0, it, first) for it in records], Frame("", b"", b"\n", b""))


class Posts:
    """A `post` whose ends the test decides."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ends: dict[int, asyncio.Event] = {}
        self.changed = asyncio.Event()

    async def __call__(self, chunk: Chunk) -> Answer:
        self.begun.append(chunk.first)
        self.ends[chunk.first] = asyncio.Event()
        self.changed.set()
        await self.ends[chunk.first].wait()
        return Answer(accepted=len(chunk.records))

    async def until(self, count: int) -> None:
        while len(self.begun) < count:
            self.changed.clear()
            await self.changed.wait()


async def inline(call: Callable[..., Any], *arguments: Any) -> Any:
    """In the place of a thread: what can go on has gone on after a few turns of the loop."""
    return call(*arguments)


async def test_records_of_one_person_never_overtake_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "to_thread", inline)
    posts, done = Posts(), list[int]()
    chunks = [chunk(0, b"lea@x.org"), chunk(1, b"leo@x.org"), chunk(2, b"Lea@x.org"), chunk(3, b"max@x.org")]
    sending = asyncio.ensure_future(post_all(iter(chunks), posts, 9, lambda it, answer: done.append(it.first)))
    await posts.until(2)
    posts.ends[1].set()
    for _ in range(50):
        await asyncio.sleep(0)
    assert posts.begun == [0, 1]
    posts.ends[0].set()
    await posts.until(4)
    for event in posts.ends.values():
        event.set()
    await sending
    assert sorted(done) == [0, 1, 2, 3]


async def test_no_more_requests_at_once_than_asked_for() -> None:
    posts = Posts()
    chunks = [chunk(number, f"p{number}@x.org".encode()) for number in range(6)]
    sending = asyncio.ensure_future(post_all(iter(chunks), posts, 2, lambda it, answer: None))
    for number in range(6):
        await posts.until(min(6, number + 2))
        assert len(posts.begun) <= number + 2
        posts.ends[number].set()
    await sending


def post_failing(error: Exception) -> Callable[[Chunk], Awaitable[Answer]]:
    async def post(chunk: Chunk) -> Answer:
        raise error

    return post


async def test_the_first_failure_ends_all() -> None:
    chunks = iter([chunk(0, b"a@x.org"), chunk(1, b"b@x.org")])
    with pytest.raises(ExceptionGroup) as caught:
        await post_all(chunks, post_failing(EngineError("no")), 1, lambda it, answer: None)
    assert caught.group_contains(EngineError)


def test_progress_counts_only_what_has_no_gap_before_it() -> None:
    prefix = Prefix(0)
    assert not prefix.add(chunk(2, b"c", b"d"))
    assert prefix.records == 0
    assert prefix.add(chunk(0, b"a", b"b"))
    assert prefix.records == 4
    assert prefix.add(chunk(4, b"e"))
    assert prefix.records == 5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("17", 17.0), ("999999", 3_600.0), ("", None), (None, None), ("soon", None), ("-3", None)],
)
def test_retry_after_is_read_as_a_number(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("Wed, 21 Oct 2195 07:28:00 GMT") == 3_600.0
