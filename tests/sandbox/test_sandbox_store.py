"""The attendee store: envelope, validation, upsert, lists, authorisation, rate limit."""

from __future__ import annotations

import gzip
import random
import re

import pytest

from engine.sandbox import AttendeeStore
from engine.sandbox.validation import Record


async def test_a_stored_attendee_gets_the_envelope_and_an_id_in_rainfocus_shape(start, attendee) -> None:
    client = await start()
    status, body = await client.store(attendee(firstname="Léa", countryid="FR"))
    assert (status, body["responseCode"], body["responseMessage"]) == (200, "0", "Success")
    assert re.fullmatch(r"\d{16}[A-Za-z0-9]{4}", body["attendeeId"])
    stored = client.sandbox.store.get("acme", "acme27", "lea.martin@example.com")
    assert stored.fields == {"firstname": "Léa", "countryid": "FR"}
    assert stored.attendee_id == body["attendeeId"]


async def test_ids_of_one_millisecond_differ_and_grow(start, attendee) -> None:
    client = await start()
    ids = [(await client.store(attendee(f"p{n}@example.com")))[1]["attendeeId"][:16] for n in range(5)]
    assert ids == sorted(set(ids))


def test_a_millisecond_holds_a_thousand_ids_and_the_clock_may_step_back() -> None:
    store = AttendeeStore(random.Random(1))
    records = [Record("e", f"p{n}@example.com", {}, {}, None) for n in range(1002)]
    ids = [store.put("o", record, 1_790_000_000.0).attendee_id[:16] for record in records[:1001]]
    ids.append(store.put("o", records[1001], 1_789_999_999.0).attendee_id[:16])
    assert ids[:1000] == [f"1790000000000{n:03}" for n in range(1000)]
    assert ids[1000:] == ["1790000000001000", "1790000000001001"]


async def test_a_second_write_keeps_the_fields_it_does_not_carry(start, attendee) -> None:
    client = await start()
    _, first = await client.store(attendee(city="Lille", zip="59000"))
    _, second = await client.store(attendee("Lea.Martin@Example.com", city="Lyon"))
    assert first["attendeeId"] == second["attendeeId"]
    (stored,) = client.sandbox.store
    assert (stored.fields, stored.writes) == ({"city": "Lyon", "zip": "59000"}, 2)
    assert len({write.digest for write in stored.last_writes}) == 2


async def test_orgs_and_events_do_not_share_attendees(start, attendee) -> None:
    client = await start()
    await client.store(attendee())
    await client.store({**attendee(), "event": "other"})
    await client.store(attendee(), path="/api/globex/v2/attendee/store")
    assert {(one.org_id, one.event) for one in client.sandbox.store} == {
        ("acme", "acme27"),
        ("acme", "other"),
        ("globex", "acme27"),
    }


async def test_the_event_may_stand_in_the_query(start) -> None:
    client = await start()
    status, _ = await client.store({"email": "a@example.com"}, params={"event": "fromquery"})
    assert status == 200
    assert client.sandbox.store.get("acme", "fromquery", "a@example.com") is not None


async def test_unknown_fields_are_kept_apart(start, attendee) -> None:
    client = await start()
    await client.store(attendee(badge="gold", tags=["a", "b"], optin=True))
    (stored,) = client.sandbox.store
    assert (stored.fields, stored.extra) == ({}, {"badge": "gold", "tags": ["a", "b"], "optin": True})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"event": "e"}, "Required parameter missing: email"),
        ({"event": "e", "email": ""}, "Required parameter missing: email"),
        ({"event": "e", "email": "nobody"}, "Invalid parameter: email"),
        ({"event": "e", "email": "a b@example.com"}, "Invalid parameter: email"),
        ({"event": "e", "email": "a@example..com"}, "Invalid parameter: email"),
        ({"event": "e", "email": 7}, "Invalid parameter: email"),
        ({"email": "a@example.com"}, "Required parameter missing: event"),
        ({"event": 5, "email": "a@example.com"}, "Invalid parameter: event"),
        ({"event": "e", "email": "a@example.com", "countryid": "fr"}, "Invalid parameter: countryid"),
        ({"event": "e", "email": "a@example.com", "countryid": "FRA"}, "Invalid parameter: countryid"),
        ({"event": "e", "email": "a@example.com", "city": "x" * 256}, "Invalid parameter: city"),
        ({"event": "e", "email": "a@example.com", "city": None}, "Invalid parameter: city"),
        ({"event": "e", "email": "a@example.com", "zip": 59000}, "Invalid parameter: zip"),
        ({"event": "e", "email": "a@example.com", "deep": [[1]]}, "Invalid parameter: deep"),
        ({"event": "e", "email": "a@example.com", "x_version": "one"}, "Invalid parameter: x_version"),
        ("text", "Invalid parameter: attendee"),
        ([], "Required parameter missing: attendee"),
    ],
)
async def test_a_bad_record_is_refused_with_code_103(start, record, message) -> None:
    client = await start()
    assert await client.store(record) == (400, {"responseCode": "103", "responseMessage": message})
    assert len(client.sandbox.store) == 0


async def test_an_event_code_that_is_not_listed_is_refused(start, attendee) -> None:
    client = await start(event_codes=["other"])
    status, body = await client.store(attendee())
    assert (status, body["responseMessage"]) == (400, "Invalid parameter: event")


async def test_an_org_that_is_not_listed_is_denied_with_200(start, attendee) -> None:
    client = await start(org_ids=["globex"])
    status, body = await client.store(attendee())
    assert (status, body["responseCode"]) == (200, "124")


async def test_the_api_profile_is_asked_for_when_one_is_set(start, attendee) -> None:
    client = await start(api_profile="P1")
    missing = await client.store(attendee())
    assert missing == (400, {"responseCode": "103", "responseMessage": "Required parameter missing: apiProfile"})
    _, wrong = await client.store(attendee(), params={"apiProfile": "P2"})
    assert wrong["responseCode"] == "101"
    reply, body = await client.raw(json=attendee(), headers={"apiProfile": "P1"})
    assert reply.status == 200
    assert b'"0"' in body


async def test_each_record_of_a_list_has_its_own_result(start, attendee) -> None:
    client = await start()
    status, body = await client.store([attendee("a@example.com"), {"event": "e"}, attendee("b@example.com")])
    assert status == 200
    assert [result["responseCode"] for result in body["results"]] == ["0", "103", "0"]
    assert (body["responseCode"], body["responseMessage"]) == ("103", "1 of 3 records refused")
    assert [one.email for one in client.sandbox.store] == ["a@example.com", "b@example.com"]


async def test_a_good_list_succeeds_as_a_whole(start, attendee) -> None:
    client = await start()
    _, body = await client.store([attendee("a@example.com"), attendee("b@example.com")])
    assert body["responseCode"] == "0"
    assert [result["attendeeId"] for result in body["results"]] == [one.attendee_id for one in client.sandbox.store]


async def test_without_results_one_bad_record_refuses_the_list(start, attendee) -> None:
    client = await start(array_results=False)
    status, body = await client.store([attendee("a@example.com"), {"event": "e"}])
    assert (status, body) == (400, {"responseCode": "103", "responseMessage": "Required parameter missing: email"})
    assert len(client.sandbox.store) == 0
    assert await client.store([attendee("a@example.com")]) == (
        200,
        {"responseCode": "0", "responseMessage": "Success"},
    )
    assert len(client.sandbox.store) == 1


@pytest.mark.parametrize(("encoding", "single", "several"), [("single", 200, 400), ("array", 400, 200)])
async def test_only_the_configured_encoding_is_taken(start, attendee, encoding, single, several) -> None:
    client = await start(encoding=encoding)
    assert (await client.store(attendee()))[0] == single
    assert (await client.store([attendee()]))[0] == several


async def test_a_lower_version_after_a_higher_one_is_a_regression(start, attendee) -> None:
    client = await start()
    for version in (1, "3", 2, 3, "1"):  # an engine's own fields are text
        assert (await client.store(attendee(x_version=version)))[0] == 200
    (stored,) = client.sandbox.store
    assert (stored.version, stored.regressions, client.sandbox.store.regressions) == (3, 2, 2)
    assert [write.version for write in stored.last_writes] == [1, 3, 2, 3, 1]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic abc"])
async def test_without_a_good_token_nothing_is_stored(start, attendee, header) -> None:
    client = await start()
    reply, body = await client.raw(json=attendee(), headers={"Authorization": header})
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert b'"responseCode":"103"' in body
    assert len(client.sandbox.store) == 0


async def test_a_token_ends_with_its_time(start, attendee) -> None:
    client = await start(token_seconds=60)
    client.clock.now += 59
    assert (await client.store(attendee()))[0] == 200
    client.clock.now += 1
    assert (await client.store(attendee()))[0] == 401


async def test_a_body_that_is_no_json_gets_an_envelope(start) -> None:
    client = await start()
    for data in (b"{", b"", b"\xff", b"[" * 5000):
        reply, body = await client.raw(data=data)
        assert (reply.status, reply.content_type) == (400, "application/json")
        assert b"not valid JSON" in body


async def test_a_gzip_body_is_read_and_a_broken_one_refused(start, attendee) -> None:
    client = await start()
    good = gzip.compress(b'{"event":"e","email":"a@example.com"}')
    reply, _ = await client.raw(data=good, headers={"Content-Encoding": "gzip"})
    assert reply.status == 200
    reply, body = await client.raw(data=b"no gzip at all", headers={"Content-Encoding": "gzip"})
    assert (reply.status, reply.headers["Connection"]) == (400, "close")
    assert b"103" in body
    assert (await client.store(attendee()))[0] == 200


async def test_a_body_over_16_mib_is_refused_even_when_compressed(start) -> None:
    client = await start()
    data = gzip.compress(b" " * (16 * 1024 * 1024 + 1), compresslevel=1)
    reply, body = await client.raw(data=data, headers={"Content-Encoding": "gzip"})
    assert reply.status == 413
    assert b"Request body too large" in body


async def test_an_unknown_path_gets_five_bytes_of_html(start) -> None:
    client = await start()
    for path in ("/api/acme/v1/attendee/store", "/api/acme/v3/attendee/search", "/nothing"):
        reply, body = await client.raw(path)
        assert (reply.status, reply.content_type, body) == (404, "text/html", b"Error")


async def test_the_rate_limit_answers_429_and_says_when_to_return(start, attendee) -> None:
    client = await start(requests_per_second=0.5, burst=1)
    assert (await client.store(attendee()))[0] == 200
    reply, body = await client.raw(json=attendee())
    assert (reply.status, body, reply.headers["Retry-After"]) == (429, b"", "2")
    client.clock.now += 2
    assert (await client.store(attendee()))[0] == 200


async def test_a_429_can_come_without_retry_after_or_with_a_date(start, attendee) -> None:
    silent = await start(requests_per_second=1, burst=1, retry_after="none")
    dated = await start(requests_per_second=1, burst=1, retry_after="date")
    for client in (silent, dated):
        await client.store(attendee())
    assert "Retry-After" not in (await silent.raw(json=attendee()))[0].headers
    assert (await dated.raw(json=attendee()))[0].headers["Retry-After"].endswith(" GMT")


async def test_an_error_inside_shows_no_traceback(start, attendee, monkeypatch) -> None:
    client = await start()
    monkeypatch.setattr(client.sandbox.store, "put", None)
    reply, body = await client.raw(json=attendee())
    assert (reply.status, reply.content_type) == (500, "text/html")
    assert b"Traceback" not in body
    assert b"NoneType" not in body
