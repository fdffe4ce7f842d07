"""What RainFocus does not publish (U-1 … U-22 of docs/rainfocus.md): the choice made here, one table each.

Only what no other test shows; docs/rainfocus.md names the test of every choice, and `test_docs` that it exists.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from engine.adapters.oauth import ASSUMED_LIFE_SECONDS
from engine.adapters.rainfocus import RainFocusDestination, request_url
from engine.adapters.sessions import AiohttpTransport, MeteredRequest, open_session
from engine.assembly.outward import mapper_of
from engine.config import AccountConfig, Config, DestinationConfig, RateConfig
from engine.core.handover import Policy
from engine.core.verdicts import judge, without_id
from engine.errors import ConfigError
from engine.model import Batch, Lane, Profile, Reply, Trait, Verdict, VerdictKind
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.formats import Reader
from engine.testing.clock import VirtualClock

ROOT = Path(__file__).parents[1]


def read(record: object, **settings: Any) -> Any:
    body = record if isinstance(record, bytes) else json.dumps(record).encode()
    given = {"mapping": {}, "extra_fields": frozenset(), "order": "arrival", "max_events": 10, **settings}
    return Reader(**given).read(body, "application/json")


def sent(record: object, *, source: dict[str, Any] | None = None, **destination: Any) -> dict[str, Any]:
    """The record as it leaves for RainFocus."""
    parsed = read(record, **(source or {}))
    (event,) = parsed.events
    config = DestinationConfig(**destination)
    return dict(json.loads(mapper_of(config).encode(event.content, event.traits, None)))


# -- U-1, U-11: the URL, and where the event code stands -------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "url"),
    [
        ({}, "https://events.rainfocus.com/api/acme%2F..%2Fx/v3/attendee/store"),
        (
            {"url_template": "{base}/api/{org_id}/v2/attendee/store"},
            "https://events.rainfocus.com/api/acme%2F..%2Fx/v2/attendee/store",
        ),
        ({"url_template": "{base}/api/global/store"}, "https://events.rainfocus.com/api/global/store"),
        ({"event_in": "query"}, "https://events.rainfocus.com/api/acme%2F..%2Fx/v3/attendee/store?event=a%26b"),
        (
            {"event_in": "both", "event_param": "eventcode"},
            "https://events.rainfocus.com/api/acme%2F..%2Fx/v3/attendee/store?eventcode=a%26b",
        ),
    ],
)
def test_u1_the_url_is_a_template_and_what_is_put_in_stays_in_its_place(destination: Any, url: str) -> None:
    account = AccountConfig(environment="prod", org_id="acme/../x")
    assert str(request_url(DestinationConfig(event_code="a&b", **destination), account)) == url


@pytest.mark.parametrize(
    ("destination", "in_body"),
    [
        ({}, {"event": "acme27"}),
        ({"event_in": "query"}, {}),
        ({"event_in": "both"}, {"event": "acme27"}),
        ({"event_param": "eventcode"}, {"eventcode": "acme27"}),
    ],
)
def test_u11_the_event_code_has_a_name_and_a_place(destination: Any, in_body: dict[str, str]) -> None:
    record = sent({"email": "lea@example.com"}, event_code="acme27", **destination)
    assert record == {**in_body, "email": "lea@example.com"}


# -- U-3, U-8: cautious defaults -------------------------------------------------------------------------------------


def test_u3_a_token_whose_life_is_not_told_lives_an_hour() -> None:
    assert ASSUMED_LIFE_SECONDS == 3600


def test_u8_the_rate_is_cautious_until_rainfocus_names_another() -> None:
    assert RateConfig() == RateConfig(requests_per_second=10.0, burst=2, max_concurrency=4, adaptive=True)


# -- U-4, U-7: what a reply means ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"responseCode": "103", "responseMessage": "Required parameter missing: apiProfile"}, VerdictKind.CONFIG),
        (400, {"responseCode": "103", "responseMessage": "valid userToken required"}, VerdictKind.CONFIG),
        (400, {"responseCode": "103", "responseMessage": "Required parameter missing: email"}, VerdictKind.REJECT),
        (200, {"responseCode": "101", "responseMessage": "Invalid API Profile"}, VerdictKind.CONFIG),
        (200, {"responseCode": "124", "responseMessage": "denied"}, VerdictKind.CONFIG),
        (200, {"responseCode": "999", "responseMessage": "what nobody has seen"}, VerdictKind.REJECT),
        (200, {"responseCode": 0}, VerdictKind.OK),
        (200, {"responseMessage": "Success"}, VerdictKind.REJECT),
    ],
)
def test_u4_u7_a_missing_api_profile_is_ours_to_mend_and_an_unknown_code_the_record_s(
    status: int, body: dict[str, object], kind: VerdictKind
) -> None:
    (verdict,) = judge(status, json.dumps(body).encode(), 1, {})
    assert verdict.kind == kind
    if kind != VerdictKind.OK:
        assert verdict.excerpt, "what RainFocus said is shown"


# -- U-9, U-10, U-12, U-19: what a record holds ----------------------------------------------------------------------

NOTHING = (None, "", "  ", "\t\n")


@pytest.mark.parametrize("nothing", NOTHING, ids=repr)
@pytest.mark.parametrize("name", sorted(set(TARGET_FIELDS) - {"email"}))
def test_u10_nothing_is_never_sent_as_a_value(name: str, nothing: str | None) -> None:
    """Neither null nor an empty text leaves: whether they erase a field is not known."""
    record = sent({"email": "lea@example.com", "zip": "59000" if name != "zip" else "1"} | {name: nothing})
    assert name not in record
    assert all(isinstance(value, str) and value for value in record.values())


def test_u10_a_field_that_a_newer_event_lacks_or_empties_stays_as_it_was() -> None:
    from engine.profiles.mapping import merge_contents

    older, newer = (read({"email": "lea@example.com", "city": city}).events[0].content for city in ("Lille", ""))
    assert json.loads(merge_contents(older, newer)[0]) == {"email": "lea@example.com", "city": "Lille"}


def test_u9_the_address_always_leaves() -> None:
    assert sent({"email": "Lea@Example.com", "city": "Lille"}, fields=("city",))["email"] == "lea@example.com"


def test_u12_fields_have_the_page_s_names_unless_they_are_renamed_and_others_stay_here() -> None:
    record = {"email": "lea@example.com", "jobtitle": "Cook", "companyname": "Nord", "shoesize": "44"}
    assert sent(record).keys() == {"event", "email", "jobtitle", "companyname"}
    renamed = sent(record, rename={"jobtitle": "title", "email": "emailaddress"})
    assert (renamed["title"], renamed["emailaddress"]) == ("Cook", "lea@example.com")
    assert [(it.field, it.reason) for it in read(record).dropped] == [("shoesize", "unknown_field")]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("Le\u0301a", "L\u00e9a"),  # NFC
        (" Léa\t Anne\n", "Léa  Anne"),
        ("Lé\x00\x1ba", "Léa"),
        ("x" * 255, "x" * 255),
        ("x" * 256, None),
    ],
)
def test_u19_text_is_composed_printable_and_not_too_long(value: str, kept: str | None) -> None:
    assert sent({"email": "lea@example.com", "firstname": value}).get("firstname") == kept


def test_u19_phones_stay_as_they_are_written_by_default() -> None:
    assert sent({"email": "lea@example.com", "phone": "03 20 00 00 00", "countryid": "FR"})["phone"] == "03 20 00 00 00"


@pytest.mark.parametrize(
    ("phone", "country", "kept"),
    [
        ("03 20 00 00 00", "FR", "+33320000000"),
        ("+33 (0)3 20 00 00 00", "", "+33320000000"),
        ("+1 415-555-2671", "FR", "+14155552671"),
        (14155552671, "US", "+14155552671"),
        ("03 20 00 00 00", "", None),
        ("03 20 00 00 00", "XX", None),  # no such country: dropped, and the number cannot be told
        ("12", "FR", None),
        ("call me", "FR", None),
    ],
)
def test_u19_phones_in_e164_where_a_source_asks_for_it(phone: object, country: str, kept: str | None) -> None:
    pytest.importorskip("phonenumbers")
    record = {"email": "lea@example.com", "phone": phone} | ({"countryid": country} if country else {})
    assert sent(record, source={"phone_e164": True}).get("phone") == kept
    dropped = {(it.field, it.reason) for it in read(record, phone_e164=True).dropped}
    assert (("phone", "not_a_phone") in dropped) is (kept is None)


def test_u19_without_the_package_the_configuration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.config.checks.find_spec", lambda name: None)
    assert Config.from_dict({}).sources[0].phone_e164 is False
    with pytest.raises(ConfigError, match=re.escape("pip install 'rainfocus-engine[phone]'")):
        Config.from_dict({"source": [{"phone_e164": True}]})


# -- U-21: a throttle that hides behind a 200 ------------------------------------------------------------------------


async def replied(answer: object, profiles: int = 1, **destination: Any) -> Reply:
    """What one request that is answered like this comes to."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(answer)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    config = DestinationConfig(**destination)
    async with TestServer(app) as server:
        url = str(server.make_url("")).rstrip("/")
        async with open_session(url, connections=1, request_class=MeteredRequest) as session:
            it = RainFocusDestination(
                config,
                AccountConfig(base_url=url),
                mapper=mapper_of(config),
                policy=Policy(),
                transport=AiohttpTransport(session),
                clock=VirtualClock(),
                random=random.Random(1),
            )
            content = b'{"email":"lea@example.com"}'
            them = [Profile(b"%d" % n, content, Trait.EMAIL, Lane.LIVE, 0, 0, 0, 1, 0.0) for n in range(profiles)]
            return await it.send(Batch(them, [it.encode(one) for one in them]), _Permit())


class _Permit:
    token = "t"

    async def use(self) -> None:
        """At once."""


OK = {"responseCode": "0", "responseMessage": "Success"}


async def test_u21_a_success_without_an_id_is_one_unless_ids_are_required() -> None:
    assert (await replied(OK)).verdicts == [Verdict(VerdictKind.OK)]
    hollow = await replied(OK, require_attendee_id=True)
    assert hollow.verdicts == [Verdict(VerdictKind.RETRY, "no_attendee_id")]
    assert (hollow.throttled, hollow.destination_fault) == (True, True), (
        "the destination's fault: nobody is dead-lettered"
    )
    whole = await replied({**OK, "attendeeId": "1700000000000001AbCd"}, require_attendee_id=True)
    assert whole.verdicts == [Verdict(VerdictKind.OK, attendee_id="1700000000000001AbCd")]
    assert (whole.throttled, whole.destination_fault) == (False, False)


async def test_u21_of_a_list_each_result_needs_its_id() -> None:
    results = [{**OK, "attendeeId": "a1"}, OK, {"responseCode": "103", "responseMessage": "email"}]
    reply = await replied({**OK, "results": results}, 3, encoding="array", require_attendee_id=True)
    assert [it.kind for it in reply.verdicts] == [VerdictKind.OK, VerdictKind.RETRY, VerdictKind.REJECT]
    assert reply.throttled


def test_u21_a_refusal_needs_no_id() -> None:
    assert without_id(Verdict(VerdictKind.OK))
    assert not without_id(Verdict(VerdictKind.OK, attendee_id="a1"))
    assert not without_id(Verdict(VerdictKind.REJECT))


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_names_every_unknown_and_only_tests_that_exist() -> None:
    page = (ROOT / "docs/rainfocus.md").read_text()
    sections = re.findall(r"^### (U-\d+)", page, re.MULTILINE)
    assert sections == [f"U-{number}" for number in range(1, 23)]
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text() or not test, f"{file}::{test}"


def test_the_page_names_keys_that_exist() -> None:
    page = (ROOT / "docs/rainfocus.md").read_text()
    known = (ROOT / "config.toml").read_text()
    keys = {key for line in re.findall(r"^Keys: (.*)$", page, re.MULTILINE) for key in re.findall(r"`([\w.]+)`", line)}
    assert len(keys) > 20
    for key in keys:
        assert re.search(rf"^(# )?{key.rpartition('.')[2]} = ", known, re.MULTILINE), key
