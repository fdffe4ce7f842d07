"""Reading what is asked for: bodies, and the conditions of dead letters. No message quotes what was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import anyio
import msgspec
from aiohttp import web

from engine.adapters.http_ingress import Problem
from engine.model import NOTHING, HeldKind, LetterState
from engine.ports import LetterFilter
from engine.profiles.identity import key_of, normalise_email

BODY_SECONDS = 10.0
LETTERS_AT_ONCE = 100
LETTERS_AT_ONCE_MAX = 1_000
IDS_MAX = 1_000
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
CONDITIONS = ("destination", "class", "reason", "since", "until", "state", "key", "id", "ids")
KINDS = {str(kind): kind for kind in (HeldKind.DEAD, HeldKind.EXPIRED)}
STATES: dict[str, LetterState | None] = {**{str(state): state for state in LetterState}, "all": None}

WAIT_MAX = 20.0
VALUES_MAX = 100
SearchText = Annotated[str, msgspec.Meta(min_length=4, max_length=1_000)]
"""Shorter ones stand in any file by chance."""

T = TypeVar("T")


class Lookup(msgspec.Struct, forbid_unknown_fields=True):
    email: str


class Search(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    values: Annotated[list[SearchText], msgspec.Meta(max_length=VALUES_MAX)] = []
    offset: int = NOTHING
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=WAIT_MAX)] = 0.0


class Test(msgspec.Struct, forbid_unknown_fields=True):
    store_email: str | None = None


class TestNotification(msgspec.Struct, forbid_unknown_fields=True):
    target: str


class Backup(msgspec.Struct, forbid_unknown_fields=True):
    directory: str


async def body_as(request: web.Request, shape: type[T]) -> T:
    """The JSON body; an empty one counts as {}. Raises Problem: 400, 408, 413, 415."""
    data = await _body(request)
    try:
        return msgspec.json.decode(data or b"{}", type=shape)
    except msgspec.DecodeError:
        names = ", ".join(it.name for it in msgspec.structs.fields(shape))  # type: ignore[arg-type]
        raise Problem("bad-request", f"the body must be a JSON object with {names}") from None


async def _body(request: web.Request) -> bytes:
    """What a form sends is refused even where nothing is read of it: a stranger's page can send that unasked."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    plain_json = given == "application/json" and "content-encoding" not in request.headers
    if given in FORM_TYPES or (request.body_exists and not plain_json):
        raise Problem("unsupported-media-type", "send application/json, not compressed")
    try:
        with anyio.fail_after(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Problem("body-timeout", f"the body was not complete after {BODY_SECONDS:g} seconds") from None


async def no_body(request: web.Request) -> None:
    """For orders that need none."""
    await _body(request)


def key_from_path(request: web.Request) -> bytes:
    return _key(request.match_info["key"])


def key_of_email(email: str) -> bytes:
    return key_of(valid_email(email))


def valid_email(email: str) -> str:
    normalised = normalise_email(email)
    if normalised is None:
        raise Problem("bad-request", "this is not an e-mail address")
    return normalised


class Conditions:
    """The conditions of one request, from its query and, for a POST, its JSON body. A name that is not known is an
    error: a misspelt condition must not select everything."""

    def __init__(self, given: Mapping[str, object], names: tuple[str, ...]) -> None:
        if given.keys() - {*names}:
            raise Problem("bad-request", f"an unknown condition; there are {', '.join(names)}")
        self._given = given

    @classmethod
    async def of(cls, request: web.Request, *also: str) -> Conditions:
        given: dict[str, object] = dict(_once(request.query))
        if request.method != "GET":
            body = await body_as_mapping(request)
            if body.keys() & given.keys():
                raise Problem("bad-request", "a condition stands both in the query and in the body")
            given |= body
        return cls({name: value for name, value in given.items() if value is not None}, (*CONDITIONS, *also))

    @classmethod
    def in_query(cls, request: web.Request, *names: str) -> Conditions:
        """Of a question that has conditions of its own."""
        return cls(_once(request.query), names)

    def which(self) -> LetterFilter:
        return LetterFilter(
            consumer=self._read("destination", _text),
            ids=self._ids(),
            kind=self._read("class", lambda it: KINDS[_text(it)]),
            reason=self._read("reason", _text),
            key=self._read("key", lambda it: _key(_text(it))),
            state=STATES[self._read("state", lambda it: _one_of(STATES, it)) or LetterState.KEPT],
            since=self._read("since", _time),
            until=self._read("until", _time),
        )

    def text(self, name: str) -> str | None:
        return self._read(name, _text)

    def moment(self, name: str) -> float | None:
        """Epoch seconds."""
        return self._read(name, _time)

    def one_of(self, name: str, known: Mapping[str, object]) -> str | None:
        found = self.text(name)
        if found is not None and found not in known:
            raise Problem("bad-request", f"{name} is not one of {', '.join(known)}")
        return found

    def flag(self, name: str) -> bool:
        return bool(self._read(name, lambda it: {"true": True, "1": True, "false": False, "0": False}[str(it).lower()]))

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        found = self._read(name, _whole)
        if found is not None and not lowest <= found <= highest:
            raise Problem("bad-request", f"{name} must be {lowest} to {highest}")
        return default if found is None else found

    def _ids(self) -> tuple[int, ...] | None:
        found = [ids for name in ("id", "ids") if (ids := self._read(name, _numbers)) is not None]
        ids = tuple(it for some in found for it in some)
        if len(ids) > IDS_MAX:
            raise Problem("bad-request", f"at most {IDS_MAX} ids at once")
        return ids if found else None

    def _read(self, name: str, read: Callable[[object], T]) -> T | None:
        value = self._given.get(name)
        if value is None:
            return None
        try:
            return read(value)
        except (KeyError, ValueError, TypeError, OverflowError):
            raise Problem("bad-request", f"{name} is not {_EXPECTED.get(name, 'a number')}") from None


_EXPECTED = {
    "destination": "a name",
    "class": " or ".join(KINDS),
    "reason": "a text",
    "since": "a time (epoch seconds or ISO 8601)",
    "until": "a time (epoch seconds or ISO 8601)",
    "state": f"one of {', '.join(STATES)}",
    "key": "64 hexadecimal digits",
    "id": "a list of numbers",
    "ids": "a list of numbers",
    "audience": "a text",
    "cursor": "a text",
    "format": "a text",
    "outcome": "a text",
    "dry_run": "true or false",
    "content": "true or false",
}


async def body_as_mapping(request: web.Request) -> dict[str, object]:
    try:
        return msgspec.json.decode(await _body(request) or b"{}", type=dict[str, object])
    except msgspec.DecodeError:
        raise Problem("bad-request", "the body must be a JSON object") from None


def _once(query: Mapping[str, str]) -> Mapping[str, str]:
    if len(set(query)) != len(query):
        raise Problem("bad-request", "a condition is given twice; join ids with commas")
    return query


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _one_of(known: Mapping[str, object], value: object) -> str:
    text = _text(value)
    known[text]
    return text


def _key(text: str) -> bytes:
    if len(text) != 64 or not text.isalnum():
        raise _no_key()
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _no_key() from None


def _no_key() -> Problem:
    return Problem("bad-request", "a key is 64 hexadecimal digits; an address belongs into POST /v1/profiles/lookup")


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError
    return int(value)


def _numbers(value: object) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    return tuple(_whole(it) for it in parts)


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    try:
        seconds = float(value)
    except ValueError:
        seconds = _iso(str(value))
    if not 0 <= seconds < 1e11:
        raise ValueError
    return seconds


def _iso(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
