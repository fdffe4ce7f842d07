"""What is done about a reply, and what is never kept of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import verdicts
from engine.model import Verdict, VerdictKind

OK, RETRY, REJECT, AUTH, CONFIG, SPLIT = (
    VerdictKind.OK,
    VerdictKind.RETRY,
    VerdictKind.REJECT,
    VerdictKind.AUTH,
    VerdictKind.CONFIG,
    VerdictKind.SPLIT,
)


def body(code: object = "0", message: str = "", **more: object) -> bytes:
    return json.dumps({"responseCode": code, "responseMessage": message} | more).encode()


def one(status: int, reply: bytes, overrides: dict[str, VerdictKind] | None = None) -> Verdict:
    (verdict,) = verdicts.judge(status, reply, 1, overrides or {})
    return verdict


def many(status: int, reply: bytes, profiles: int = 3) -> list[Verdict]:
    found = verdicts.judge(status, reply, profiles, {}, array=True)
    assert len(found) == profiles
    return found


@pytest.mark.parametrize("code", ["0", 0, " 0 "])
@pytest.mark.parametrize("status", [200, 201, 202])
def test_success_is_2xx_and_code_zero(status: int, code: object) -> None:
    assert one(status, body(code, attendeeId="1790000000000001QwEr")) == Verdict(OK, attendee_id="1790000000000001QwEr")


@pytest.mark.parametrize(
    ("status", "reply", "kind", "reason"),
    [
        (200, body("124", "Access denied."), CONFIG, "response_code_124"),
        (200, body("101"), CONFIG, "response_code_101"),
        (400, body("103", "Required parameter missing: apiProfile"), CONFIG, "response_code_103"),
        (400, body("103", "valid userToken required"), CONFIG, "response_code_103"),
        (400, body("103", "Required parameter missing: email"), REJECT, "response_code_103"),
        (200, body("27"), REJECT, "response_code_27"),
        (200, body(27), REJECT, "response_code_27"),
        (200, body("0.0"), REJECT, "response_code_other"),
        (200, body("lea.martin@example.com"), REJECT, "response_code_other"),
        (200, body(False), REJECT, "no_response_code"),
        (200, b'{"ok": true}', REJECT, "no_response_code"),
        (200, b"<html>Sign in</html>", REJECT, "no_envelope"),
        (200, b"[" * 100_000, REJECT, "no_envelope"),
        (204, b"", REJECT, "no_envelope"),
        (400, body("0"), REJECT, "http_400"),
        (400, b"", REJECT, "http_400"),
        (422, body("77"), REJECT, "response_code_77"),
        (401, body("27"), AUTH, "http_401"),
        (403, b"", CONFIG, "http_403"),
        (404, b"Error", CONFIG, "http_404"),
        (405, b"", CONFIG, "http_405"),
        (407, b"", CONFIG, "http_407"),
        (410, b"", CONFIG, "http_410"),
        (302, b"", CONFIG, "http_302"),
        (304, b"", CONFIG, "http_304"),
        (408, b"", RETRY, "http_408"),
        (425, b"", RETRY, "http_425"),
        (429, b"", RETRY, "http_429"),
        (500, b"<html>", RETRY, "http_500"),
        (503, body("0"), RETRY, "http_503"),
        (599, body("27"), RETRY, "http_599"),
        (413, b"", REJECT, "http_413"),
    ],
)
def test_the_table(status: int, reply: bytes, kind: VerdictKind, reason: str) -> None:
    verdict = one(status, reply)
    assert (verdict.kind, verdict.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("status", "code", "wanted", "kind"),
    [
        (200, "15", OK, OK),
        (409, "15", OK, REJECT),  # success needs the 2xx
        (200, "27", CONFIG, CONFIG),
        (200, "124", REJECT, REJECT),  # overrides a known code
        (401, "27", REJECT, REJECT),  # and a status
        (200, "99", RETRY, RETRY),
        (200, "99", SPLIT, REJECT),  # one profile cannot be split
    ],
)
def test_configured_codes_win(status: int, code: str, wanted: VerdictKind, kind: VerdictKind) -> None:
    assert one(status, body(code), {code: wanted}).kind == kind


def test_zero_stays_a_success_whatever_is_configured() -> None:
    assert one(200, body("0"), {"0": REJECT}).kind == OK
    assert one(500, body("0"), {"0": OK}).kind == RETRY


def test_results_of_a_single_request_are_not_read() -> None:
    assert one(200, body("0", results=[])).kind == OK
    assert one(200, body("0", results=[{"responseCode": "27"}])).kind == OK


# -- several profiles -------------------------------------------------------------------------------------------------


def test_one_success_stands_for_all_but_its_id_for_nobody() -> None:
    assert many(200, body("0", attendeeId="1")) == [Verdict(OK)] * 3


def test_results_are_judged_one_by_one() -> None:
    results = [
        {"responseCode": "0", "attendeeId": "17A"},
        {"responseCode": "103", "responseMessage": "Required parameter missing: email"},
        {"responseCode": "124"},
    ]
    found = many(200, body("1", results=results))
    assert [verdict.kind for verdict in found] == [OK, REJECT, CONFIG]
    assert found[0].attendee_id == "17A"


def test_a_result_that_is_no_envelope_fails_alone() -> None:
    found = many(200, body("0", results=[{"responseCode": "0"}, None, {}]))
    assert [verdict.kind for verdict in found] == [OK, REJECT, REJECT]


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (200, body("27")),
        (400, body("103", "Required parameter missing: email")),
        (413, b""),
        (400, b""),
        (200, b"<html>"),
        (200, body("0", results=[{"responseCode": "0"}])),
    ],
)
def test_a_failure_without_a_culprit_is_split(status: int, reply: bytes) -> None:
    assert {verdict.kind for verdict in many(status, reply)} == {SPLIT}


@pytest.mark.parametrize(("status", "kind"), [(401, AUTH), (404, CONFIG), (503, RETRY), (429, RETRY)])
def test_what_is_nobodys_fault_is_not_split(status: int, kind: VerdictKind) -> None:
    assert {verdict.kind for verdict in many(status, body("1", results=[]))} == {kind}


def test_a_record_said_to_be_stored_beside_a_failure_is_sent_again_not_buried() -> None:
    results = [{"responseCode": "0"}, {"responseCode": "103"}, {"responseCode": "0"}]
    assert [it.kind for it in many(400, body("1", results=results))] == [SPLIT, REJECT, SPLIT]


def test_splitting_comes_to_an_end() -> None:
    (verdict,) = many(200, body("0", results=[]), profiles=1)
    assert (verdict.kind, verdict.reason) == (REJECT, "results_mismatch")
    (verdict,) = many(200, body("0", results=[{"responseCode": "0", "attendeeId": "7"}]), profiles=1)
    assert verdict == Verdict(OK, attendee_id="7")


# -- what is kept of a reply ------------------------------------------------------------------------------------------


def test_an_excerpt_is_one_short_line() -> None:
    verdict = one(500, b"<h1>\x1b[31mInternal\r\n\tError\x00</h1>" + b"x" * 5000)
    assert verdict.excerpt.startswith("<h1> [31mInternal Error </h1>xxx")
    assert len(verdict.excerpt) <= 200


def test_an_excerpt_prefers_the_message() -> None:
    assert one(400, body("103", "Required parameter missing: email")).excerpt == "Required parameter missing: email"


@pytest.mark.parametrize(
    "text",
    [
        "no attendee lea.martin@example.com here",
        '{"email":"lea.martin@example.com","x":1}',
        "<lea.martin@example.com>",
        "lea.martin%40example.com",
        "lea.martin&#64;example.com",
        "lea.martin\uff20example.com",
        "mailto:lea.martin@example.com?x",
        "x" * 190 + " lea.martin@example.com",
        "é lea.martin@exämple.com",
    ],
)
def test_no_address_is_kept(text: str) -> None:
    for reply in (text.encode(), body("27", text), json.dumps({"error": text}).encode()):
        assert "lea.martin" not in one(400, reply).excerpt


@pytest.mark.parametrize("id", [None, True, "", "a b", "lea@example.com", "9" * 65, {"a": 1}])
def test_an_odd_attendee_id_is_left_out(id: object) -> None:
    assert one(200, body("0", attendeeId=id)) == Verdict(OK)


@given(st.integers(200, 599), st.binary(max_size=300), st.integers(1, 4), st.booleans())
def test_any_reply_gets_one_verdict_a_profile(status: int, reply: bytes, profiles: int, array: bool) -> None:
    found = verdicts.judge(status, reply, profiles, {}, array=array)
    assert len(found) == profiles
    assert all(it.kind != SPLIT for it in found) or profiles > 1
    assert all(len(it.excerpt) <= 200 and "@" not in it.excerpt and it.excerpt.isprintable() for it in found)


def test_faults_of_the_destination() -> None:
    assert [s for s in (200, 302, 400, 401, 408, 413, 425, 429, 500, 503) if verdicts.is_destination_fault(s)] == [
        *(408, 425, 429, 500, 503)
    ]
    assert [s for s in (429, 500, 503) if verdicts.is_throttled(s)] == [429, 503]


# -- the edges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 399])
def test_a_redirect_is_no_success_whatever_it_says(status: int) -> None:
    """Nothing was stored: 2xx ends at 299, for one envelope and for each of several results."""
    verdict = one(status, body("0", attendeeId="17A"))
    assert (verdict.kind, verdict.reason) == (CONFIG, f"http_{status}")
    found = many(status, body("0", results=[{"responseCode": "0"}, {"responseCode": "27"}, {}]))
    assert [(it.kind, it.reason) for it in found] == [(CONFIG, f"http_{status}")] * 3


def test_299_is_the_last_success() -> None:
    assert one(299, body("0")).kind == OK
    assert one(299, body("27")).reason == "response_code_27"


@pytest.mark.parametrize("reply", [b"[1]", b"[]", b'"text"', b"5", b"null"])
def test_what_is_json_and_no_envelope_is_no_envelope(reply: bytes) -> None:
    assert (one(200, reply).kind, one(200, reply).reason) == (REJECT, "no_envelope")
    assert {verdict.reason for verdict in many(200, reply)} == {"no_envelope"}


@pytest.mark.parametrize("result", ["text", 5, [], [1], None, True])
def test_whatever_stands_in_results_fails_alone(result: object) -> None:
    found = many(200, body("0", results=[result, {"responseCode": "0"}, {"responseCode": "27"}]))
    assert found == [
        Verdict(REJECT, "no_envelope"),
        Verdict(OK),
        Verdict(REJECT, "response_code_27"),
    ], "and no excerpt is made of a reply that speaks of others"


def test_zero_cannot_be_configured_away_beside_a_failure_either() -> None:
    assert one(500, body("0"), {"0": REJECT}) == Verdict(
        RETRY, "http_500", '{"responseCode": "0", "responseMessage": ""}'
    )


def test_a_configured_success_keeps_the_attendee_id() -> None:
    assert one(200, body("15", attendeeId="17A"), {"15": OK}) == Verdict(OK, attendee_id="17A")
    assert one(200, b"<html>", {"": OK}) == Verdict(OK), "also where there is no code at all, for want of a body"


def test_an_attendee_id_may_be_a_number() -> None:
    assert one(200, body("0", attendeeId=17)).attendee_id == "17"
    found = many(200, body("0", results=[{"responseCode": 0, "attendeeId": n} for n in (1, 2, 3)]))
    assert [verdict.attendee_id for verdict in found] == ["1", "2", "3"]


def test_a_split_says_why() -> None:
    assert many(400, body("27", "No such event")) == [Verdict(SPLIT, "response_code_27", "No such event")] * 3


def test_a_mismatch_shows_what_came() -> None:
    reply = body("0", results=[{"responseCode": "0"}])
    assert many(200, reply) == [Verdict(SPLIT, "results_mismatch", verdicts.excerpt(reply))] * 3


def test_one_profile_said_to_be_stored_beside_a_failure_is_not_split_any_further() -> None:
    (verdict,) = many(400, body("1", results=[{"responseCode": "0"}]), profiles=1)
    assert (verdict.kind, verdict.reason) == (REJECT, "http_400")


def test_an_excerpt_has_200_characters_at_most_and_shows_where_it_was_cut() -> None:
    assert verdicts.excerpt(b"x" * 200) == "x" * 200
    assert verdicts.excerpt(b"x" * 201) == "x" * 199 + "…"
    assert one(400, body("27", "y" * 300)).excerpt == "y" * 199 + "…"


def test_only_the_beginning_of_a_long_reply_is_looked_at() -> None:
    """Four thousand bytes: cleaning a reply must not cost more the longer it is."""
    assert verdicts.excerpt(b"a" + b" " * 3_998 + b"bc") == "a b"
    assert one(400, body("27", "a" + " " * 3_998 + "bc")).excerpt == "a b"


def test_a_masked_address_is_seen_to_have_been_one() -> None:
    assert one(400, body("27", "no attendee lea@example.com here")).excerpt == "no attendee <address> here"


ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "responseCode": st.sampled_from(["0", " 0", "1", 0, None]),
        "responseMessage": st.sampled_from(["Success", "", 1, None]),
        "attendeeId": st.sampled_from(["17A", "not an id", "", 17, None]),
        "results": st.just([]),
        "other": st.recursive(st.none() | st.text(max_size=3), lambda it: st.lists(it, max_size=2), max_leaves=3),
    },
)


@given(ENVELOPES, st.binary(max_size=2))
def test_the_short_way_through_a_success_says_what_the_long_one_does(envelope: dict[str, object], more: bytes) -> None:
    reply = json.dumps(envelope).encode() + more
    found = verdicts._stored(reply)
    assert found is None or found == verdicts._verdict(200, verdicts._envelope(reply), reply, {})


def test_the_short_way_is_taken() -> None:
    assert verdicts._stored(body(attendeeId="17A")) == Verdict(OK, attendee_id="17A")
