"""The log: one line a record, and nothing of a person in it."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli import logs

SECRETS = ("lea@example.com", "eyJhbGciOi.J9-abc_1", "hunter2")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.mark.parametrize(
    "text",
    [
        "profile of lea@example.com refused",
        'body {"email":"lea@example.com"}',
        "GET /x?email=lea%40example.com",
        "mailto:lea@example.com,",
        "<lea@example.com>",
        "LEA@EXAMPLE.COM",
        '"lea smith"@example.com',
        "lea+tag.x@sub.example.co",
    ],
)
def test_an_address_is_masked_wherever_it_stands(text: str) -> None:
    shown = logs.masked(text).lower()
    assert "lea" not in shown
    assert "example.co" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer eyJhbGciOi.J9-abc_1",
        "authorization=Basic eyJhbGciOi.J9-abc_1",
        "sent Bearer eyJhbGciOi.J9-abc_1, got 401",
        '{"access_token": "eyJhbGciOi.J9-abc_1"}',
        "grant_type=x&client_secret=eyJhbGciOi.J9-abc_1&scope=y",
        "X-API-Key: eyJhbGciOi.J9-abc_1",
    ],
)
def test_a_credential_is_masked(text: str) -> None:
    assert "eyJ" not in logs.masked(text)


def test_other_text_stays() -> None:
    text = "destination demo: http_503 after 3 attempts, token expires in 5 s, 2026-03-01T10:00:00Z"
    assert logs.masked(text) == text


@given(
    before=st.text(alphabet="abc :,{}\"'=/<>", max_size=20),
    after=st.text(alphabet="abc :,{}\"'=/<>", max_size=20),
    local=st.from_regex(r"[a-z0-9._+-]{1,20}", fullmatch=True),
)
def test_no_address_survives_any_surroundings(before: str, after: str, local: str) -> None:
    assert f"{local}@mail.example" not in logs.masked(f"{before}{local}@mail.example{after}")


def test_a_long_line_without_an_address_is_cheap_and_kept() -> None:
    assert logs.masked("x" * 200_000) == "x" * 200_000


def test_json_lines_have_time_level_logger_message_and_extras(stream: io.StringIO) -> None:
    logs.set_up("info", "json", stream)
    logging.getLogger("engine.x").warning("refused by %s", "demo", extra={"destination": "demo", "attempts": 3})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        **{"level": "warning", "logger": "engine.x", "message": "refused by demo"},
        **{"destination": "demo", "attempts": 3},
    }


@pytest.mark.parametrize("format", ["json", "console"])
def test_messages_extras_and_tracebacks_are_masked(stream: io.StringIO, format: str) -> None:
    logs.set_up("info", format, stream)  # type: ignore[arg-type]
    log = logging.getLogger("engine.x")
    try:
        raise ValueError("cannot take lea@example.com with Bearer eyJhbGciOi.J9-abc_1")
    except ValueError:
        log.exception(
            "lost %s",
            "lea@example.com",
            extra={"who": "lea@example.com", "deep": {"a": ["lea@example.com"]}, "client_secret": "hunter2"},
        )
    written = stream.getvalue()
    assert "ValueError" in written
    assert not [it for it in SECRETS if it in written]


def test_a_traceback_in_json_is_on_the_same_line(stream: io.StringIO) -> None:
    logs.set_up("info", "json", stream)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("engine").exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError: odd" in json.loads(stream.getvalue())["exception"]


def test_a_message_whose_arguments_do_not_fit_is_still_logged(stream: io.StringIO) -> None:
    logs.set_up("info", "json", stream)
    logging.getLogger("engine").info("%d events", "many")
    assert json.loads(stream.getvalue())["message"] == "%d events"


def test_what_json_cannot_hold_is_logged_as_text(stream: io.StringIO) -> None:
    logs.set_up("info", "json", stream)
    logging.getLogger("engine").info(
        "x", extra={"big": 2**70, "odd": "\ud800", "object": object(), "nan": float("nan")}
    )
    line = json.loads(stream.getvalue())
    assert line["big"] == str(2**70)
    assert line["nan"] is None


def test_the_level_changes_while_running(stream: io.StringIO) -> None:
    logs.set_up("info", "console", stream)
    log = logging.getLogger("engine.x")
    log.debug("first")
    logs.set_level("debug")
    log.debug("second")
    logs.set_level("error")
    log.warning("third")
    assert "second" in stream.getvalue()
    assert "first" not in stream.getvalue()
    assert "third" not in stream.getvalue()


def test_setting_up_again_does_not_write_twice(stream: io.StringIO) -> None:
    logs.set_up("info", "console", stream)
    logs.set_up("info", "console", stream)
    logging.getLogger("engine").info("once")
    assert stream.getvalue().count("once") == 1
