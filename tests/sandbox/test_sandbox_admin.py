"""The admin side: attendees, digest, API log, measured rate, the page, and who may ask."""

from __future__ import annotations

import asyncio
import hashlib
import json

import aiohttp
import pytest

from engine.sandbox import Settings, fold_digest, running_sandbox, serve


async def test_attendees_are_paged_in_order_of_creation(start, attendee) -> None:
    client = await start()
    for n in range(5):
        await client.store(attendee(f"p{n}@example.com"))
    await client.store({**attendee("other@example.com"), "event": "other"})
    emails, after = [], -1
    while after is not None:
        query = {"event": "acme27", "limit": 2} | ({"after": after} if after >= 0 else {})
        page = await client.get("attendees", **query)
        emails += [one["email"] for one in page["attendees"]]
        after = page["next"]
    assert emails == [f"p{n}@example.com" for n in range(5)]
    newest = await client.get("attendees", order="newest", limit=2)
    assert [one["email"] for one in newest["attendees"]] == ["other@example.com", "p4@example.com"]
    further = await client.get("attendees", order="newest", limit=2, after=newest["next"])
    assert [one["email"] for one in further["attendees"]] == ["p3@example.com", "p2@example.com"]


async def test_one_attendee_is_found_by_the_hash_of_its_email(start, attendee) -> None:
    client = await start()
    await client.store(attendee(city="Lille"))
    key = hashlib.sha256(b"lea.martin@example.com").hexdigest()
    (found,) = (await client.get(f"attendees/{key}"))["attendees"]
    assert (found["key"], found["fields"], found["writes"]) == (key, {"city": "Lille"}, 1)
    async with client.session.get(f"/_sandbox/attendees/{'0' * 64}") as reply:
        assert reply.status == 404


async def test_the_digest_is_that_of_the_expected_fold_in_any_order(start, attendee) -> None:
    client = await start()
    await client.store(attendee("b@example.com", city="Lille", x_version=1))
    await client.store(attendee("a@example.com", city="Rom", badge="gold"))
    await client.store(attendee("B@example.com", zip="59000", x_version=2))
    expected = [
        ("acme", "acme27", "a@example.com", {"badge": "gold", "city": "Rom"}),
        ("acme", "acme27", "b@example.com", {"zip": "59000", "city": "Lille"}),
    ]
    assert await client.get("digest") == {"sha256": fold_digest(expected), "attendees": 2}
    assert fold_digest(reversed(expected)) == fold_digest(expected)
    assert await client.get("digest", event="none") == {"sha256": hashlib.sha256().hexdigest(), "attendees": 0}
    await client.store(attendee("a@example.com", city="Roma"))
    assert (await client.get("digest"))["sha256"] != fold_digest(expected)


async def test_the_api_log_shows_the_newest_first_and_no_address(start, attendee) -> None:
    client = await start()
    await client.raw(json=[attendee(), attendee("b@example.com")], headers={"traceparent": "00-ab-cd-01"})
    await client.store({"event": "acme27"})
    log = await client.get("requests", limit=2)
    assert [(entry["status"], entry["code"], entry["records"]) for entry in log["requests"]] == [
        (400, "103", 1),
        (200, "0", 2),
    ]
    logged = log["requests"][1]
    assert logged["key"] == hashlib.sha256(b"lea.martin@example.com").hexdigest()[:12]
    assert (logged["event"], logged["traceparent"], logged["path"]) == (
        "acme27",
        "00-ab-cd-01",
        "/api/acme/v3/attendee/store",
    )
    assert "@" not in json.dumps(log)
    assert [entry["status"] for entry in (await client.get("requests", status=400))["requests"]] == [400]


async def test_the_api_log_is_bounded_and_the_totals_are_not(start, attendee) -> None:
    client = await start(log_size=2)
    for _ in range(4):
        await client.store(attendee())
    log = await client.get("requests")
    assert (len(log["requests"]), log["total"]) == (2, 5)
    stats = await client.get("stats")
    assert (stats["by_status"], stats["by_code"], stats["created"], stats["updated"]) == ({"200": 5}, {"0": 4}, 1, 3)


async def test_a_header_that_is_no_text_does_not_spoil_the_log(start) -> None:
    client = await start()
    host, port = client.sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /oidc/token HTTP/1.1\r\nHost: x\r\ntraceparent: \xff\r\nContent-Length: 0\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
    writer.close()
    await writer.wait_closed()
    assert (await client.get("requests"))["requests"][0]["traceparent"] == "?"


async def test_the_rate_is_measured_over_sliding_windows(start, attendee) -> None:
    client = await start()
    for pause in (0, 0.25, 0.25, 0.25, 0.25, 8):
        client.clock.now += pause
        await client.store(attendee())
    measured = await client.get("rate", rate=2, burst=1)
    assert (measured["requests"], measured["span_seconds"]) == (6, 9.0)
    assert measured["windows"] == [
        {"seconds": 1.0, "max": 4, "allowed": 3.0, "over": 2},
        {"seconds": 10.0, "max": 6, "allowed": 21.0, "over": 0},
    ]
    assert measured["used"] == pytest.approx(6 / 18)


async def test_reset_forgets_everything_but_faults_and_tokens(start, attendee) -> None:
    client = await start()
    await client.store(attendee())
    async with client.session.post("/_sandbox/reset") as reply:
        assert reply.status == 200
    stats = await client.get("stats")
    assert (stats["attendees"], stats["created"], stats["requests"], stats["store_requests"]) == (0, 0, 0, 0)
    assert (await client.store(attendee()))[0] == 200


@pytest.mark.parametrize("query", ["limit=x", "after=-1", "limit=nan", "status=1e99"])
async def test_a_bad_query_is_answered_with_its_reason(start, query) -> None:
    client = await start()
    path = "requests" if query.startswith("status") else "attendees"
    async with client.session.get(f"/_sandbox/{path}?{query}") as reply:
        assert reply.status == 400
        assert "must be a number" in (await reply.json())["error"]


async def test_the_page_and_its_parts_come_with_security_headers(start) -> None:
    client = await start()
    for path, kind in (
        ("/", "text/html"),
        ("/_sandbox/app.js", "text/javascript"),
        ("/_sandbox/style.css", "text/css"),
    ):
        async with client.session.get(path) as reply:
            text = await reply.text()
        assert (reply.status, reply.content_type) == (200, kind)
        assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
        assert "unsafe" not in reply.headers["Content-Security-Policy"]
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Referrer-Policy"] == "no-referrer"
        assert "innerHTML" not in text
        assert "http://" not in text
        assert "https://" not in text


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "["}]
)
async def test_other_sites_cannot_act_through_a_browser(start, attendee, headers) -> None:
    client = await start()
    await client.store(attendee())
    async with client.session.post("/_sandbox/reset", headers=headers) as reply:
        assert reply.status in (400, 403)
    assert len(client.sandbox.store) == 1


async def test_the_page_itself_may_act(start) -> None:
    client = await start()
    async with client.session.delete("/_sandbox/faults", headers={"Origin": client.sandbox.url}) as reply:
        assert reply.status == 200


async def test_attendees_are_written_to_a_file_when_it_stops(tmp_path, attendee, basic) -> None:
    target = tmp_path / "attendees.ndjson"
    async with running_sandbox(Settings(port=0, attendees_file=str(target))) as sandbox:
        async with aiohttp.ClientSession(sandbox.url) as session:
            form = {"grant_type": "client_credentials"}
            async with session.post("/oidc/token", data=form, headers=basic("sandbox", "sandbox")) as reply:
                bearer = {"Authorization": f"Bearer {(await reply.json())['access_token']}"}
            async with session.post("/api/o/v3/attendee/store", json=attendee(), headers=bearer) as reply:
                assert reply.status == 200
        assert not target.exists()
    (line,) = target.read_bytes().splitlines()
    assert json.loads(line)["email"] == "lea.martin@example.com"
    assert target.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [target]


async def test_an_address_that_others_can_reach_has_to_be_allowed() -> None:
    with pytest.raises(ValueError, match="allow_remote"):
        await serve(Settings(host="0.0.0.0", port=0))


@pytest.mark.parametrize("wrong", [{"port": 70000}, {"burst": -1}, {"latency_ms": float("inf")}, {"log_size": 0}])
def test_settings_no_sandbox_can_run_with_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


def test_settings_do_not_show_their_secret() -> None:
    assert "hunter2" not in repr(Settings(client_secret="hunter2"))
