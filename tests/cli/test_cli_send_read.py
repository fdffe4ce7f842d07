"""Files as records: numbers, lines, quotes, chunks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cli.send_read import Chunk, Format, Frame, Record, format_of, opened
from engine.errors import EngineError


def read(path: Path, content: bytes, format: Format, batch: int = 2, skip: int = 0) -> list[Chunk]:
    path.write_bytes(content)
    with opened(str(path), format) as source:
        return list(source.chunks(batch, 10_000, skip))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


def test_ndjson_is_cut_into_chunks_with_numbers_and_lines(file: Path) -> None:
    chunks = read(file, b'\xef\xbb\xbf{"a":1}\r\n\r\n{"a":2}\n{"a":3}', Format.NDJSON)
    assert [it.body for it in chunks] == [b'{"a":1}\n{"a":2}\n', b'{"a":3}\n']
    assert [(it.first, [record.line for record in it.records]) for it in chunks] == [(0, [1, 3]), (2, [4])]
    assert chunks[-1].frame.content_type == "application/x-ndjson"


def test_csv_repeats_its_header_with_every_chunk(file: Path) -> None:
    chunks = read(file, b"email,city\r\na@x.org,Lille\r\nb@x.org,Bonn\r\nc@x.org,Rom\r\n", Format.CSV)
    assert [it.body for it in chunks] == [
        b"email,city\na@x.org,Lille\nb@x.org,Bonn\n",
        b"email,city\nc@x.org,Rom\n",
    ]
    assert [it.first for it in chunks] == [0, 2]


def test_a_csv_row_goes_on_while_a_quote_is_open(file: Path) -> None:
    (chunk,) = read(file, b'email,city\na@x.org,"Li\nlle ""x"""\nb@x.org,Bonn\n', Format.CSV)
    assert [(it.line, it.data) for it in chunk.records] == [(2, b'a@x.org,"Li\nlle ""x"""'), (4, b"b@x.org,Bonn")]


def test_a_quote_that_is_never_closed_names_its_line(file: Path) -> None:
    with pytest.raises(EngineError, match="line 2 is not closed"):
        read(file, b'email,city\na@x.org,"Lille\nb@x.org,Bonn\n', Format.CSV)


def test_a_csv_with_a_header_only_has_no_records(file: Path) -> None:
    assert read(file, b"email,city\n", Format.CSV) == []
    assert read(file, b"", Format.CSV) == []


def test_a_json_list_is_cut_into_lists(file: Path) -> None:
    chunks = read(file, b'[{"a":1}, {"a":2},\n {"a":3}]', Format.JSON)
    assert [json.loads(it.body) for it in chunks] == [[{"a": 1}, {"a": 2}], [{"a": 3}]]


def test_what_stands_beside_profiles_goes_along_with_every_chunk(file: Path) -> None:
    chunks = read(file, b'{"profiles": [1, 2, 3], "meta": {"x": 1}}', Format.JSON)
    assert [json.loads(it.body) for it in chunks] == [
        {"profiles": [1, 2], "meta": {"x": 1}},
        {"profiles": [3], "meta": {"x": 1}},
    ]
    assert [json.loads(it.body) for it in read(file, b'{"profiles": [1]}', Format.JSON)] == [{"profiles": [1]}]


def test_a_single_json_object_is_one_record(file: Path) -> None:
    (chunk,) = read(file, b'{"email": "a@x.org"}', Format.JSON)
    assert json.loads(chunk.body) == {"email": "a@x.org"}


@pytest.mark.parametrize(
    ("content", "hint"), [(b'{"a":1}\n{"a":2}', "ndjson"), (b"[1,", "line 1"), (b"7", "neither a record nor a list")]
)
def test_json_that_is_none_says_where(file: Path, content: bytes, hint: str) -> None:
    with pytest.raises(EngineError, match=hint):
        read(file, content, Format.JSON)


def test_utf_16_is_named(file: Path) -> None:
    with pytest.raises(EngineError, match="UTF-16"):
        read(file, "email\na@x.org".encode("utf-16"), Format.CSV)


def test_a_chunk_has_a_limit_in_bytes(file: Path) -> None:
    file.write_bytes(b"x" * 60 + b"\n" + b"y" * 60 + b"\n" + b"z" * 500 + b"\n" + b"w\n")
    with opened(str(file), Format.NDJSON) as source:
        assert [len(it.records) for it in source.chunks(100, 130)] == [2, 1, 1]


@settings(max_examples=50)
@given(count=st.integers(0, 30), batch=st.integers(1, 7), skip=st.integers(0, 35))
def test_every_record_behind_the_skipped_ones_is_in_exactly_one_chunk(count: int, batch: int, skip: int) -> None:
    from engine.cli.send_read import Source

    frame = Frame("application/x-ndjson", b"", b"\n", b"\n")
    records = [Record(number + 1, str(number).encode(), number + 1) for number in range(count)]
    chunks = list(Source("x", None, frame, iter(records)).chunks(batch, 10_000, skip))
    assert [record for chunk in chunks for record in chunk.records] == records[skip:]
    assert [chunk.first for chunk in chunks] == list(range(skip, count, batch))
    assert all(len(chunk.records) <= batch for chunk in chunks)


def test_halves_keep_numbers_and_records() -> None:
    records = [Record(number + 1, str(number).encode(), 0) for number in range(5)]
    halves = Chunk(10, records, Frame("", b"", b"", b"")).halves()
    assert [(it.first, len(it.records)) for it in halves] == [(10, 2), (12, 3)]
    assert [record for half in halves for record in half.records] == records


def chunk_of(*records: bytes) -> Chunk:
    return Chunk(0, [Record(1, it, 0) for it in records], Frame("", b"", b"", b""))


def test_one_person_is_one_however_the_record_names_them() -> None:
    key = hashlib.sha256(b"lea@example.com").hexdigest()
    ways = [
        b'{"email":"Lea@Example.com"}',
        b"Lea,lea@example.com,Lille",
        b'{"identityMap":{"Email":[{"id":"LEA@example.com"}]}}',
        b'{"email_lc_sha256":"' + key.upper().encode() + b'"}',
    ]
    assert {frozenset(chunk_of(it).people) for it in ways} == {frozenset({bytes.fromhex(key)})}
    assert chunk_of("É@x.org".encode()).people == chunk_of("é@x.org".encode()).people


def test_different_people_are_apart() -> None:
    assert chunk_of(b"lea@example.com").people.isdisjoint(chunk_of(b"leo@example.com", b"nobody").people)


def test_a_long_text_without_a_person_is_cheap() -> None:
    assert chunk_of(b"x" * 500_000).people == set()


@pytest.mark.parametrize(("name", "format"), [("a.CSV", "csv"), ("a.jsonl", "ndjson"), ("a.b.json", "json")])
def test_the_name_tells_the_format(name: str, format: str) -> None:
    assert format_of(name, None) == format


@pytest.mark.parametrize("name", ["-", "file", "a.xlsx"])
def test_a_name_that_does_not_tell_asks_for_it(name: str) -> None:
    with pytest.raises(EngineError, match="--format"):
        format_of(name, None)
    assert format_of(name, Format.CSV) is Format.CSV
