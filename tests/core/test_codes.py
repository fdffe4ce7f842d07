"""Every reason the engine can give has an error code of its own, and the documentation says the same."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.codes import REGISTRY, UNKNOWN, CodeClass, by_code, code_of, errors, explained, meaning
from engine.core.verdicts import STATUS
from engine.model import VerdictKind

ENGINE = Path(__file__).parents[2] / "engine"
PAGE = Path(__file__).parents[2] / "docs" / "error-codes.md"

GIVERS = {
    # what is called -> where among its arguments the reason stands
    "FieldRefused": 0,
    "Refused": 1,
    "reject": 2,
    "drop": 2,
    "RecordUnreadable": 0,
    "Verdict": 1,
    "LedgerEntry": 2,
    "trip": 0,
    "_unknown": 1,
}
BY_OUTCOME = {"settle", "bury"}  # their reason comes behind the outcome, or the kind of letter
WORDS = {
    # functions that answer with a reason
    "exclusion", "_reason", "_record", "_lost_reason", "connect_reason", "_fetch", "_concluded", "_encode", "_refusal",
}  # fmt: skip


def texts(node: ast.AST) -> Iterator[str]:
    """The texts an expression may come to; a placeholder of an f-string counts as X."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(it.value) if isinstance(it, ast.Constant) else "X" for it in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def reasons_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = GIVERS.get(name, 2 if name in BY_OUTCOME else None)
            if place is not None and len(node.args) > place:
                yield from ((node.lineno, text) for text in texts(node.args[place]))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in WORDS:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return | ast.Assign) and inner.value is not None:
                    wanted = isinstance(inner, ast.Return) or "reason" in ast.unparse(inner.targets[0])
                    yield from ((inner.lineno, text) for text in (texts(inner.value) if wanted else ()))


def given() -> dict[str, str]:
    """Every reason in the source of the rooms that give one -> where."""
    found: dict[str, str] = {}
    for room in ("profiles", "core", "dispatcher", "adapters"):
        for file in sorted((ENGINE / room).rglob("*.py")):
            if file.name != "codes.py":
                for line, text in reasons_of(ast.parse(file.read_text("utf-8"))):
                    if re.fullmatch(r"[a-z][a-z0-9_]*X?", text):
                        found[text] = f"{file.relative_to(ENGINE)}:{line}"
    return found


GIVEN = given()
EXPECTED = {
    *("no_email", "audience", "exited", "forgotten", "synthetic", "lost", "dry_run", "overtaken"),
    *("max_age", "journal_full", "http_X", "response_code_X", "response_code_other", "no_envelope", "no_response_code"),
    *("results_mismatch", "timeout", "bad_http", "connection_lost", "connect_dns", "connect_refused", "unauthorized"),
    *("encoding_X", "destination_X", "destination_miscounted", "token_http_X", "token_unreadable", "token_dns"),
    *("credentials_unreadable", "not_iso_3166_1", "not_a_state", "not_an_email", "missing", "unknown_field"),
    *("ragged_row", "not_json", "identity_mismatch", "too_long", "missing_time", "unknown_status", "not_utf_8"),
    *("record_too_large", "nested_too_deeply", "duplicate_key", "not_an_object", "failing"),
}


def test_the_source_is_read_as_it_is_written() -> None:
    """The walk below proves nothing if it finds nothing."""
    assert EXPECTED - GIVEN.keys() == {"failing"}  # a breaker's, not an event's


@pytest.mark.parametrize("reason", sorted(GIVEN.keys() | EXPECTED))
def test_every_reason_in_the_source_has_a_code(reason: str) -> None:
    assert meaning(reason.replace("X", "503")).code != UNKNOWN.name, (
        f"{GIVEN.get(reason)}: give it one in core/codes.py"
    )


def test_a_number_a_reason_and_a_name_are_given_once() -> None:
    assert len({code.number for code in REGISTRY}) == len(REGISTRY)
    assert len({code.reason for code in REGISTRY}) == len(REGISTRY)
    for code in REGISTRY:
        assert re.fullmatch(r"RFDEST-1[1-7][0-9]{2}-([1-5][0-9]{2}|STATUS)", code.name)
        assert "@" not in code.message + code.remedy


@pytest.mark.parametrize(
    ("reason", "code", "kind"),
    [
        ("not_iso_3166_1", "RFDEST-1301-400", CodeClass.DROPPED),
        ("no_email", "RFDEST-1101-422", CodeClass.EXCLUDED),
        ("http_503", "RFDEST-1401-503", CodeClass.RETRIED),
        ("http_422", "RFDEST-1401-422", CodeClass.FAILED),
        ("http_404", "RFDEST-1401-404", CodeClass.CONFIG),
        ("http_302", "RFDEST-1401-302", CodeClass.CONFIG),
        ("http_9999", "RFDEST-1401-500", CodeClass.RETRIED),
        ("response_code_27", "RFDEST-1402-422", CodeClass.FAILED),
        ("token_http_401", "RFDEST-1602-401", CodeClass.CONFIG),
        ("what_somebody_made_up", "RFDEST-1799-500", CodeClass.FAILED),
    ],
)
def test_a_reason_says_which_code_and_class_it_is(reason: str, code: str, kind: CodeClass) -> None:
    assert (code_of(reason), meaning(reason).kind) == (code, kind)


@pytest.mark.parametrize(("status", "kind"), STATUS.items())
def test_the_class_of_a_status_is_what_the_engine_does_about_it(status: int, kind: VerdictKind) -> None:
    wanted = {VerdictKind.CONFIG: "config", VerdictKind.SPLIT: "failed"}.get(kind, "retried")
    assert meaning(f"http_{status}").kind == wanted


def test_the_number_that_was_answered_stands_in_the_message() -> None:
    assert explained("response_code_27") == "RainFocus answered responseCode 27 (RFDEST-1402-422)"
    assert "HTTP 503" in explained("http_503")


def test_no_reason_has_no_code() -> None:
    assert code_of("") is None
    assert code_of(None) is None


def test_errors_of_a_run_are_counted_by_code_and_message() -> None:
    fates = {
        "delivered": 5,
        "excluded:no_email": 2,
        "dead_lettered:http_503": 1,
        "expired:http_503": 2,
        "suppressed": 1,
    }
    assert errors(fates | {"dead_lettered:response_code_27": 9}) == [
        *(
            {
                "code": "RFDEST-1402-422",
                "class": "failed",
                "message": "RainFocus answered responseCode 27",
                "recordCount": 9,
            },
        ),
        *({"code": "RFDEST-1401-503", "class": "failed", "message": "RainFocus answered HTTP 503", "recordCount": 3},),
        *(
            {
                "code": "RFDEST-1101-422",
                "class": "excluded",
                "message": "no plain e-mail address is known",
                "recordCount": 2,
            },
        ),
    ]


def test_counts_by_code_are_bounded_by_the_registry() -> None:
    counts = {f"dead_lettered:response_code_{n}": 1 for n in range(500)} | {"delivered": 3}
    assert by_code(counts) == {("RFDEST-1402-422", "dead_lettered"): 500}


def test_the_page_of_error_codes_is_that_of_the_registry() -> None:
    """`python -m engine.core.codes` would be a second truth; the page is compared line by line instead."""
    shown = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `RFDEST-")]
    assert shown == [row(code.name, code.reason, code.kind, code.message, code.remedy) for code in (*REGISTRY, UNKNOWN)]


def row(*cells: str) -> str:
    name, reason, kind, message, remedy = cells
    return f"| `{name}` | `{reason}` | {kind} | {message.format('…')} | {remedy} |"
