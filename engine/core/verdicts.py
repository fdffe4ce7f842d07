"""From a reply to what is done about it: HTTP status and responseCode → verdict. Pure.

The tables are the ones of the domain reference §1.6 with the choices of its U-7. What decides, in this order:

1. `response_codes` of the configuration, by code ("ok" counts only beside a 2xx; "0" is always RainFocus's success);
2. the status, where it speaks by itself (`STATUS`, every 3xx and 5xx);
3. a 2xx with responseCode "0" is a success, and nothing else is;
4. the known codes (`CODES`);
5. all the rest is the record's fault: reject.

A 403 is `config`, not `auth`: the token was understood, the client may not do this (address list, permission, API
profile), and another token would not change it. A body that is no envelope rejects beside any 2xx or 4xx (U-7).

Replies to several profiles: one envelope for all, or one with `"results": [envelope, …]` of the same length and order,
each judged alone. Where a record would be rejected, or was said to be stored beside a failing status, without a word on
which record it was about, the verdict is `split`: the halves find the culprit. That includes results of another
length: the request is over, nothing travels any more, and sending a stored record again changes nothing (upsert).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from engine.model import Verdict, VerdictKind

STATUS: Mapping[int, VerdictKind] = {
    401: VerdictKind.AUTH,
    403: VerdictKind.CONFIG,
    404: VerdictKind.CONFIG,
    405: VerdictKind.CONFIG,
    407: VerdictKind.CONFIG,  # the proxy wants credentials
    410: VerdictKind.CONFIG,
    408: VerdictKind.RETRY,
    425: VerdictKind.RETRY,
    429: VerdictKind.RETRY,
    413: VerdictKind.SPLIT,
}

CODES: Mapping[str, VerdictKind] = {
    "101": VerdictKind.CONFIG,  # invalid API profile
    "124": VerdictKind.CONFIG,  # endpoint not enabled for this profile
}

SUCCESS = "0"
SILENT = frozenset({"no_envelope", "no_response_code", "results_mismatch"})
"""Reasons of a rejection beside a 2xx that does not say what became of the record."""
PARAMETER_MISSING = "103"
EXCERPT_CHARACTERS = 200

_OURS_TO_SEND = re.compile(r"api\s?profile|user\s?token", re.IGNORECASE)
_CODE = re.compile(r"[0-9A-Za-z_-]{1,12}")
_ATTENDEE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_BETWEEN_WORDS = re.compile(r"""([\s"'<>()\[\]{},;:=]+)""")
_AT_SIGNS = ("@", "%40", "\\u0040", "&#64", "&#x40", "\uff20", "\\uff20")


def judge(
    status: int, body: bytes, profiles: int, overrides: Mapping[str, VerdictKind], *, array: bool = False
) -> list[Verdict]:
    """One verdict a profile, in the order of the batch. `overrides`: `response_codes` of the configuration.
    `array`: the request was a list, so that `results` in the reply means what it says."""
    if profiles == 1 and not array and 200 <= status < 300:
        stored = _stored(body)
        if stored is not None:
            return [stored]
    envelope = _envelope(body)
    results = envelope.get("results") if array and envelope else None
    if isinstance(results, list) and len(results) == profiles:
        return [_of_result(status, one, profiles, overrides) for one in results]
    verdict = _verdict(status, envelope, body, overrides)
    if isinstance(results, list) and verdict.kind in (VerdictKind.OK, VerdictKind.REJECT):
        verdict = Verdict(VerdictKind.REJECT, "results_mismatch", excerpt(body))
    return [_undivided(verdict, profiles)] * profiles


def without_id(verdict: Verdict) -> bool:
    """A success that does not say whom it stored. On reads RainFocus was seen to throttle with an empty 200 (U-21)."""
    return verdict.kind == VerdictKind.OK and not verdict.attendee_id


def may_be_stored(verdict: Verdict) -> bool:
    """Whether a record that was not confirmed may have been stored all the same: only a plain refusal rules it out."""
    return verdict.kind != VerdictKind.REJECT or verdict.reason in SILENT


def is_destination_fault(status: int) -> bool:
    """Does this status count towards the breaker?"""
    return status >= 500 or STATUS.get(status) == VerdictKind.RETRY


def kind_of_status(status: int) -> VerdictKind:
    """What a status by itself leads to, whatever stands in the body."""
    return _of_status(status) or VerdictKind.REJECT


def is_throttled(status: int) -> bool:
    return status in (429, 503)


def excerpt(body: bytes) -> str:
    """What the destination said, on one line: shortened, without control characters, e-mail addresses masked."""
    return _shortened(body[: EXCERPT_CHARACTERS * 20].decode(errors="replace"))


class _Success(msgspec.Struct):
    responseCode: str
    responseMessage: str = ""
    attendeeId: str = ""


_success = msgspec.json.Decoder(_Success).decode


def _stored(body: bytes) -> Verdict | None:
    """What nearly every reply says, sooner; None for everything else."""
    try:
        envelope = _success(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    id = envelope.attendeeId
    if envelope.responseCode != SUCCESS:
        return None
    return Verdict(VerdictKind.OK, attendee_id=id if _ATTENDEE_ID.fullmatch(id) else "")


# -- one envelope -----------------------------------------------------------------------------------------------------


def _verdict(
    status: int, envelope: Mapping[str, object] | None, body: bytes, overrides: Mapping[str, VerdictKind]
) -> Verdict:
    code = _code(envelope)
    if code == SUCCESS and 200 <= status < 300:
        return Verdict(VerdictKind.OK, attendee_id=_attendee_id(envelope))
    kind = _kind(status, code, _message(envelope), overrides)
    if kind == VerdictKind.OK:
        return Verdict(kind, attendee_id=_attendee_id(envelope))
    if kind == VerdictKind.SPLIT:  # nothing to split here
        kind = VerdictKind.REJECT
    return Verdict(kind, _reason(status, code, envelope, overrides), _said(envelope, body))


def _kind(status: int, code: str, message: str, overrides: Mapping[str, VerdictKind]) -> VerdictKind:
    success = 200 <= status < 300
    wanted = overrides.get(code) if code != SUCCESS else None
    if wanted is not None and (success or wanted != VerdictKind.OK):
        return wanted
    if not success and (spoken := _of_status(status)) is not None:
        return spoken
    if code == PARAMETER_MISSING and _OURS_TO_SEND.search(message):
        return VerdictKind.CONFIG
    return CODES.get(code, VerdictKind.REJECT)


def _of_status(status: int) -> VerdictKind | None:
    if status >= 500:
        return VerdictKind.RETRY
    return VerdictKind.CONFIG if status < 400 else STATUS.get(status)


def _reason(status: int, code: str, envelope: Mapping[str, object] | None, overrides: Mapping[str, VerdictKind]) -> str:
    success = 200 <= status < 300
    if code and code != SUCCESS and (success or code in overrides or _of_status(status) is None):
        return f"response_code_{code}" if _CODE.fullmatch(code) else "response_code_other"
    if not success:
        return f"http_{status}"
    return "no_envelope" if envelope is None else "no_response_code"


# -- several profiles -------------------------------------------------------------------------------------------------


def _undivided(verdict: Verdict, profiles: int) -> Verdict:
    """One envelope for all: nobody is rejected for what another may have done, and one id belongs to nobody."""
    if profiles == 1:
        return verdict
    if verdict.kind == VerdictKind.REJECT:
        return Verdict(VerdictKind.SPLIT, verdict.reason, verdict.excerpt)
    return Verdict(VerdictKind.OK) if verdict.kind == VerdictKind.OK else verdict


def _of_result(status: int, result: object, profiles: int, overrides: Mapping[str, VerdictKind]) -> Verdict:
    envelope = result if isinstance(result, dict) else None
    if envelope is not None and envelope.get("responseCode") == SUCCESS and 200 <= status < 300:
        return Verdict(VerdictKind.OK, attendee_id=_attendee_id(envelope))  # what nearly all of them are, sooner
    verdict = _verdict(status, envelope, b"", overrides)
    stored = not 200 <= status < 300 and _code(envelope) == SUCCESS
    return _undivided(verdict, profiles) if stored else verdict


# -- reading ----------------------------------------------------------------------------------------------------------


def _envelope(body: bytes) -> dict[str, object] | None:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return decoded if isinstance(decoded, dict) else None


def _code(envelope: Mapping[str, object] | None) -> str:
    """The responseCode as text, "" when there is none. RainFocus sends a string; an integer is taken too."""
    code = envelope.get("responseCode") if envelope else None
    if isinstance(code, str):
        return code.strip()
    return str(code) if isinstance(code, int) and not isinstance(code, bool) else ""


def _message(envelope: Mapping[str, object] | None) -> str:
    message = envelope.get("responseMessage") if envelope else None
    return message if isinstance(message, str) else ""


def _attendee_id(envelope: Mapping[str, object] | None) -> str:
    id = envelope.get("attendeeId") if envelope else None
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    return id if isinstance(id, str) and _ATTENDEE_ID.fullmatch(id) else ""


def _said(envelope: Mapping[str, object] | None, body: bytes) -> str:
    message = _message(envelope)
    return _shortened(message[: EXCERPT_CHARACTERS * 20]) if message else excerpt(body)


def _shortened(text: str) -> str:
    printable = "".join(it if it.isprintable() else " " for it in text)
    masked = "".join(_masked(word) for word in _BETWEEN_WORDS.split(printable))
    line = " ".join(masked.split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 1] + "…"


def _masked(word: str) -> str:
    return "<address>" if any(sign in word.lower() for sign in _AT_SIGNS) else word


__all__ = [
    "CODES",
    "STATUS",
    "excerpt",
    "is_destination_fault",
    "is_throttled",
    "judge",
    "kind_of_status",
    "without_id",
]
