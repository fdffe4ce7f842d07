"""`check --sample`: what each record of a file becomes, side by side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Run = Callable[..., Result]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CONFIG = """
[[source]]
name = "crm"

[[source]]
name = "aep"
mapping = { jobtitle = { constant = "Attendee" }, city = { path = "homeAddress.city", upper = true } }

[[destination]]
name = "all"
rename = { jobtitle = "title" }

[[destination]]
name = "vip"
audiences = ["Workshop waiting list"]
state_policy = "foreignstate"

[[destination]]
name = "other"
sources = ["crm"]
"""


@pytest.fixture
def sample(tmp_path: Path, config_file: Callable[..., Path]) -> Callable[..., Path]:
    config_file(CONFIG)

    def write(content: object, name: str = "sample.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def records(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)["records"]
    return found


def test_each_value_is_shown_where_it_was_and_what_it_leaves_as(run: Run, sample: Callable[..., Path]) -> None:
    sample("")
    shutil.copy(EXAMPLES / "aep_http_api.json", "aep.json")
    lea, tom = records(run("check", "--sample", "aep.json", "--source", "aep", "--json"))
    fields = {it["field"]: it for it in lea["fields"]}
    assert fields["firstname"] == {
        "field": "firstname",
        "origin": "person.name.firstName",
        "given": {"person.name.firstName": "Léa"},
        "value": "Léa",
    }
    assert (fields["city"]["given"], fields["city"]["value"]) == ({"homeAddress.city": "Lille"}, "LILLE")
    assert (fields["jobtitle"]["origin"], fields["jobtitle"]["value"]) == ("constant 'Attendee'", "Attendee")
    assert lea["unused"]["extendedWorkDetails.jobTitle"] == "Acheteuse"
    assert lea["destinations"]["all"]["record"]["title"] == "Attendee"
    assert lea["destinations"]["vip"] == {"record": {}, "excluded": "exited", "renamed": {}}
    assert lea["destinations"]["other"]["excluded"] == "source"
    assert [it["reason"] for it in lea["dropped"]] == ["unknown_field"]
    assert tom["fields"][0]["given"] == {"person.name.firstName": "Tom"}


def test_people_see_it_as_a_table_with_the_values(run: Run, sample: Callable[..., Path]) -> None:
    profile = {
        "attributes": {"email": "lea@example.com", "firstname": {"value": "Léa"}, "state": "Nord", "countryid": "FR"},
        "segmentMembership": {"ups": {"3f0c": {"status": "realized", "lastQualificationTime": "2026-10-02T08:15:30Z"}}},
        "note": "unasked",
    }
    path = sample([profile, {"attributes": {"firstname": "x"}}])
    result = run("check", "--sample", str(path), "--source", "aep")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["attributes.firstname.value", "Léa", "firstname", "Léa", "Léa"] in lines
    assert ["attributes.state", "Nord", "state", "Nord", "-"] in lines
    assert ["-", "-", "-", "-", "event", "=", "demo27"] in lines
    assert ["note", "unasked", "-", "-", "-"] in lines
    assert "  audience ups/3f0c  realized 2026-10-02 08:15:30Z" in result.stdout
    assert "  not sent to vip: audience" in result.stdout
    assert "  dropped note: unknown_field" in result.stdout
    assert "  rejected email: missing" in result.stdout
    assert "1 of 2 records accepted; nothing was sent." in result.stdout
    assert result.exit_code == 1


def test_a_state_that_moves_is_shown_under_its_new_name(run: Run, sample: Callable[..., Path]) -> None:
    standing = {"ups/3": {"status": "realized", "lastQualificationTime": "2026-10-02", "name": "Workshop waiting list"}}
    path = sample({"email": "a@b.example", "state": "Nord", "countryid": "FR", "audiences": standing})
    assert "foreignstate = Nord" in run("check", "--sample", str(path)).stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "email,city\na@b.example,Lille\n\nnobody,Lyon\n"),
        ("a.ndjson", '{"email":"a@b.example","city":"Lille"}\n\n{"email":"nobody","city":"Lyon"}\n'),
        ("a.json", '[{"email":"a@b.example","city":"Lille"},{"email":"nobody","city":"Lyon"}]'),
    ],
)
def test_every_format_of_file_is_taken(run: Run, sample: Callable[..., Path], name: str, content: str) -> None:
    first, second = records(run("check", "--sample", str(sample(content, name)), "--json"))
    assert first["destinations"]["all"]["record"] == {"event": "demo27", "email": "a@b.example", "city": "Lille"}
    assert second["rejected"] == [{"index": 1, "field": "email", "reason": "not_an_email"}]


def test_a_sample_without_a_fault_ends_well(run: Run, sample: Callable[..., Path]) -> None:
    assert run("check", "--sample", str(sample({"email": "a@b.example"}))).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--sample", "none.json"], 1, "cannot be read"),
        (["--sample", "broken.json"], 1, "the body is not JSON"),
        (["--sample", "sample.txt"], 1, "has to end in .json"),
        (["--sample", "sample.json", "--source", "nobody"], 2, "there are crm, aep"),
        (["--source", "aep"], 2, "needs --sample"),
        (["--sample", "sample.json", "--connect"], 2, "sends nothing"),
    ],
)
def test_a_sample_that_cannot_be_tried_says_why(
    run: Run, sample: Callable[..., Path], arguments: list[str], code: int, said: str
) -> None:
    sample("[{]", "broken.json")
    sample("[]")
    result = run("check", *arguments)
    assert result.exit_code == code
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_nothing_in_a_file_can_steer_the_terminal(run: Run, sample: Callable[..., Path]) -> None:
    path = sample({"email": "a@b.example", "\x1b[31mred": "\x1b]0;title\x07", "city": "\x1b[2J"})
    assert "\x1b" not in run("check", "--sample", str(path)).stdout


def test_the_help_says_that_values_are_shown(run: Run) -> None:
    assert "prints the values of the file" in " ".join(run("check", "--help").stdout.split())
