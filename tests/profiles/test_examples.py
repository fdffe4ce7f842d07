"""The files that the documentation tells people to try."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from engine.model import Trait
from engine.profiles.formats import Parsed, Reader
from engine.profiles.mapping import merge_contents

EXAMPLES = Path(__file__).parents[2] / "examples"


def read(name: str, media_type: str) -> Parsed:
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=10_000)
    return reader.read((EXAMPLES / name).read_bytes(), media_type)


def test_the_attendees_are_the_same_with_every_run() -> None:
    made = runpy.run_path(str(EXAMPLES / "make_attendees.py"))["attendees"]()
    assert made.encode() == (EXAMPLES / "attendees.csv").read_bytes()


def test_reading_the_attendees_gives_what_is_written_beside_them() -> None:
    parsed = read("attendees.csv", "text/csv")
    assert {
        "records": parsed.records,
        "events": len(parsed.events),
        "people": len({event.key for event in parsed.events}),
        "hash_only": sum(not event.traits & Trait.EMAIL for event in parsed.events),
        "rejected": Counter(it.reason for it in parsed.rejected),
        "dropped": Counter(it.reason for it in parsed.dropped),
    } == runpy.run_path(str(EXAMPLES / "make_attendees.py"))["EXPECTED"]


def test_all_addresses_are_at_example_domains() -> None:
    text = (EXAMPLES / "attendees.csv").read_text("utf-8").lower()
    assert set(re.findall(r"@([a-z0-9.-]+)", text)) == {"example.com", "example.org", "example.net"}


@pytest.mark.parametrize(
    ("name", "media_type"), [("profiles.json", "application/json"), ("profiles.ndjson", "application/x-ndjson")]
)
def test_the_small_examples_are_read_without_a_complaint(name: str, media_type: str) -> None:
    parsed = read(name, media_type)
    assert (parsed.records, parsed.rejected, parsed.dropped) == (3, [], [])
    assert len({event.key for event in parsed.events}) == 2
    assert any(event.audiences for event in parsed.events)


def test_two_events_of_one_person_join() -> None:
    _, tom, news = read("profiles.json", "application/json").events
    assert tom.key == news.key
    assert merge_contents(tom.content, news.content)[0].decode().count('"jobtitle":"CTO"') == 1
