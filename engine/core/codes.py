"""Error codes: for every reason the engine gives there is one, in the pattern SERVICE-number-status. Pure.

``RFDEST-1301-400``: the hundreds of the number say where (11 excluded, 12 records, 13 fields, 14 answers, 15
connection, 16 token, 17 the engine itself), the status is the HTTP status that comes closest, or the one that was
answered. AEP publishes no such list for streaming destinations (domain reference §2.10), so this one is ours. A reason
is the stable short word in the ledger, in metrics and in dead letters; the code is what a run's errors are counted by.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from engine.core.verdicts import kind_of_status
from engine.model import VerdictKind

SERVICE = "RFDEST"


class CodeClass(StrEnum):
    """What the engine does about it."""

    EXCLUDED = "excluded"  # the event is not sent, by a rule
    FAILED = "failed"  # the event becomes a dead letter, or expires
    RETRIED = "retried"  # tried again; failed only after the last try
    CONFIG = "config"  # nothing is sent before a person has acted; the events wait
    REJECTED = "rejected"  # the record is not taken in
    DROPPED = "dropped"  # the field is left out, the record is taken in


class Code(msgspec.Struct, frozen=True):
    """One entry. `reason`: the reason itself; with a * at its end a family, whose rest the message quotes as {}.
    `status` 0: the rest of the reason is the status."""

    number: int
    status: int
    reason: str
    kind: CodeClass
    message: str
    remedy: str

    @property
    def name(self) -> str:
        return f"{SERVICE}-{self.number}-{self.status or 'STATUS'}"


class Meaning(msgspec.Struct, frozen=True):
    """What one reason means."""

    code: str
    kind: CodeClass
    message: str
    remedy: str


_EXCLUDED, _FAILED, _RETRIED = CodeClass.EXCLUDED, CodeClass.FAILED, CodeClass.RETRIED
_CONFIG, _REJECTED, _DROPPED = CodeClass.CONFIG, CodeClass.REJECTED, CodeClass.DROPPED

_SENDER = "correct it where the record is made and send it again"
_WAIT = "nothing; if it lasts, ask RainFocus and see the destination's state"
_NETWORK = "look at DNS, proxy, firewall and `check --connect`; events wait meanwhile"
_TOKEN = "look at client id, secret and token_url of the account; events wait meanwhile"

REGISTRY: tuple[Code, ...] = (
    Code(1101, 422, "no_email", _EXCLUDED, "no plain e-mail address is known", "send the address once"),
    Code(1102, 403, "audience", _EXCLUDED, "in none of the destination's audiences", "nothing, or extend `audiences`"),
    Code(1103, 410, "exited", _EXCLUDED, "has left the destination's audiences", 'nothing, or set `exits = "store"`'),
    Code(1104, 403, "consent", _EXCLUDED, "no consent for this use", "nothing: consent comes with a later event"),
    Code(1105, 410, "forgotten", _EXCLUDED, "erased on demand", "nothing"),
    Code(1106, 409, "overtaken", _EXCLUDED, "a replayed dead letter, newer data was confirmed since", "nothing"),
    Code(1107, 403, "synthetic", _EXCLUDED, "an address of the load bench", "bench against the sandbox only"),
    Code(1108, 200, "dry_run", _EXCLUDED, "everything was done but the request", "set `dry_run = false` to send"),
    Code(1109, 410, "lost", _EXCLUDED, "a damaged journal could not give it back", "ask the producers of that time"),
    Code(1201, 422, "missing", _REJECTED, "neither e-mail address nor hash", _SENDER),
    Code(1202, 422, "not_an_email", _REJECTED, "not an e-mail address", _SENDER),
    Code(1203, 422, "not_a_sha256", _REJECTED, "not a SHA-256 in 64 hexadecimal digits", _SENDER),
    Code(1204, 409, "identity_mismatch", _REJECTED, "address and hash are of two people", _SENDER),
    Code(1205, 400, "not_json", _REJECTED, "not JSON", _SENDER),
    Code(1206, 400, "not_an_object", _REJECTED, "not an object", _SENDER),
    Code(1207, 400, "not_utf_8", _REJECTED, "not UTF-8", _SENDER),
    Code(1208, 400, "ragged_row", _REJECTED, "a CSV row with more or fewer cells than the head", _SENDER),
    Code(1209, 400, "duplicate_key", _REJECTED, "a key that stands there twice", _SENDER),
    Code(1210, 400, "nested_too_deeply", _REJECTED, "nested too deeply", _SENDER),
    Code(1211, 413, "record_too_large", _REJECTED, "too large for one record", _SENDER),
    Code(1301, 400, "not_iso_3166_1", _DROPPED, "country code not ISO 3166-1 alpha-2", _SENDER),
    Code(1302, 400, "not_a_state", _DROPPED, "not a state or province of the country", _SENDER),
    Code(1303, 400, "no_valid_country", _DROPPED, "a state without a country to judge it by", "send `countryid` too"),
    Code(1304, 400, "not_text", _DROPPED, "not text", _SENDER),
    Code(1305, 400, "not_unicode", _DROPPED, "not valid Unicode", _SENDER),
    Code(1306, 400, "too_long", _DROPPED, "more than 255 characters", _SENDER),
    Code(1307, 400, "unknown_field", _DROPPED, "a field that no destination takes", "nothing, or map it"),
    Code(1308, 400, "not_an_audience_id", _DROPPED, "not an audience id", _SENDER),
    Code(1309, 400, "unknown_status", _DROPPED, "an audience status that is not known", _SENDER),
    Code(1310, 400, "missing_time", _DROPPED, "an audience without lastQualificationTime", _SENDER),
    Code(1311, 400, "not_a_time", _DROPPED, "not a point in time", _SENDER),
    Code(1312, 400, "not_a_boolean", _DROPPED, "neither true nor false", _SENDER),
    Code(1313, 400, "not_a_phone", _DROPPED, "not a valid phone number", _SENDER),
    Code(1314, 400, "not_an_id", _DROPPED, "not an id", _SENDER),
    Code(1401, 0, "http_*", _RETRIED, "RainFocus answered HTTP {}", _WAIT),
    Code(1402, 422, "response_code_*", _FAILED, "RainFocus answered responseCode {}", "see the answer of the letter"),
    Code(1403, 502, "no_envelope", _FAILED, "the answer is no JSON object", "is base_url that of the API?"),
    Code(1404, 502, "no_response_code", _FAILED, "the answer has no responseCode", "is base_url that of the API?"),
    Code(1405, 502, "results_mismatch", _FAILED, "results of another number than records", 'use `encoding = "single"`'),
    Code(1406, 401, "unauthorized", _CONFIG, "the token was refused twice in a row", _TOKEN),
    Code(1407, 502, "no_attendee_id", _RETRIED, "stored, it says, and names no attendee id", _WAIT),
    Code(1501, 503, "connect_dns", _RETRIED, "the host name was not found", _NETWORK),
    Code(1502, 502, "connect_tls", _RETRIED, "no TLS connection", _NETWORK),
    Code(1503, 502, "connect_proxy", _RETRIED, "the proxy did not connect", _NETWORK),
    Code(1504, 504, "connect_timeout", _RETRIED, "no connection in time", _NETWORK),
    Code(1505, 503, "connect_refused", _RETRIED, "the connection was refused", _NETWORK),
    Code(1506, 503, "connect_failed", _RETRIED, "no connection", _NETWORK),
    Code(1507, 504, "timeout", _RETRIED, "no answer in time; it may have been stored", _WAIT),
    Code(1508, 502, "connection_lost", _RETRIED, "the connection broke; it may have been stored", _WAIT),
    Code(1509, 502, "bad_http", _RETRIED, "the answer is not HTTP; it may have been stored", _WAIT),
    Code(1601, 401, "credentials_unreadable", _CONFIG, "client id or secret cannot be read", _TOKEN),
    Code(1602, 0, "token_http_*", _CONFIG, "the token endpoint answered HTTP {}", _TOKEN),
    Code(1603, 502, "token_unreadable", _CONFIG, "the token endpoint's answer holds no token", _TOKEN),
    Code(1604, 504, "token_timeout", _RETRIED, "no answer of the token endpoint in time", _TOKEN),
    Code(1605, 503, "token_dns", _RETRIED, "the token endpoint's host name was not found", _TOKEN),
    Code(1606, 502, "token_tls", _RETRIED, "no TLS connection to the token endpoint", _TOKEN),
    Code(1607, 503, "token_connection", _RETRIED, "no connection to the token endpoint", _TOKEN),
    Code(1701, 408, "max_age", _FAILED, "older than `max_age_seconds`", "replay it, or raise the limit"),
    Code(1702, 507, "journal_full", _FAILED, "given up to make room", "replay it; see why the destination is behind"),
    Code(1703, 500, "encoding_*", _FAILED, "the record could not be encoded ({})", "report it: a fault of the engine"),
    Code(1704, 500, "destination_*", _RETRIED, "the destination broke its contract ({})", "report it to its author"),
    Code(1705, 503, "failing", _RETRIED, "it fails, and does not say why", _WAIT),
    Code(1706, 500, "other", _FAILED, "more reasons than are counted apart", "see the reasons of the dead letters"),
)
UNKNOWN = Code(1799, 500, "*", _FAILED, "a reason without a code of its own: {}", "see who gives it")
"""Of a destination that somebody has written: what it says is its own."""

_STATUS = re.compile(r"[1-5][0-9]{2}")
_EXACT: Mapping[str, Code] = {code.reason: code for code in REGISTRY if not code.reason.endswith("*")}
_FAMILIES = [code for code in REGISTRY if code.reason.endswith("*")]


def meaning(reason: str) -> Meaning:
    """Every reason has one."""
    code = _EXACT.get(reason)
    if code is not None:
        return Meaning(code.name, code.kind, code.message, code.remedy)
    for code in (*_FAMILIES, UNKNOWN):
        stem = code.reason.removesuffix("*")
        if reason.startswith(stem):
            return _of_family(code, reason.removeprefix(stem))
    raise AssertionError("the last family takes every reason")


def code_of(reason: str | None) -> str | None:
    """None for no reason."""
    return meaning(reason).code if reason else None


def _of_family(code: Code, rest: str) -> Meaning:
    message = code.message.format(rest or "(none)")
    if code.status:
        return Meaning(code.name, code.kind, message, code.remedy)
    status = rest if _STATUS.fullmatch(rest) else "500"
    return Meaning(f"{SERVICE}-{code.number}-{status}", _kind_of_status(code, status), message, code.remedy)


def _kind_of_status(code: Code, status: str) -> CodeClass:
    """As the table of core/verdicts.py has it."""
    if code.kind == CodeClass.CONFIG:
        return code.kind
    return {
        VerdictKind.CONFIG: CodeClass.CONFIG,
        VerdictKind.REJECT: CodeClass.FAILED,
        VerdictKind.SPLIT: CodeClass.FAILED,
    }.get(kind_of_status(int(status)), CodeClass.RETRIED)


def explained(reason: str) -> str:
    """In a few words, with the code."""
    it = meaning(reason)
    return f"{it.message} ({it.code})"


def errors(fates: Mapping[str, int]) -> list[dict[str, object]]:
    """The errors of a run, those with the most events first. `fates`: "excluded:no_email", … -> events. Reasons of one
    code are one error only where they say the same: a family keeps them apart by its message."""
    found: dict[tuple[str, str, str], int] = {}
    for outcome, reason, events in _reasoned(fates):
        it = meaning(reason)
        kind = "excluded" if outcome == "excluded" else "failed"
        found[it.code, kind, it.message] = found.get((it.code, kind, it.message), 0) + events
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [{"code": code, "class": kind, "message": text, "recordCount": n} for (code, kind, text), n in ordered]


def by_code(counts: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """(code, outcome) -> events, of counts by outcome and reason."""
    found: dict[tuple[str, str], int] = {}
    for outcome, reason, events in _reasoned(counts):
        name = meaning(reason).code
        found[name, outcome] = found.get((name, outcome), 0) + events
    return found


def _reasoned(counts: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    for name, events in counts.items():
        outcome, _, reason = name.partition(":")
        if outcome in ("excluded", "dead_lettered", "expired"):
            yield outcome, reason, events
