"""Bodies of a benchmark: their numbers, their formats, how often people come again."""

from __future__ import annotations

import gzip

import msgspec
import orjson
import pytest

from benchmarks.bench import lines_of
from benchmarks.shapes import RECENT, Shape
from engine.profiles.formats import Reader

AEP_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)


def events_of(shape: Shape, request: int) -> list[int]:
    first = shape.first_of(request)
    return list(range(first, first + shape.size_of(request)))


@pytest.mark.parametrize("sizes", [(1,), (10,), AEP_SIZES])
def test_events_are_numbered_without_a_gap_and_know_their_request(sizes: tuple[int, ...]) -> None:
    shape = Shape(sizes=sizes)
    numbers = [event for request in range(40) for event in events_of(shape, request)]
    assert numbers == list(range(len(numbers)))
    assert all(shape.request_of(event) == request for request in range(40) for event in events_of(shape, request))
    assert shape.events_per_request == sum(sizes) / len(sizes)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(format="object"),
        Shape(format="array", sizes=(3,)),
        Shape(format="ndjson", sizes=(3,)),
        Shape(format="aep", sizes=(3,)),
    ],
    ids=lambda it: it.format,
)
def test_an_engine_reads_every_event_of_every_format(shape: Shape) -> None:
    reader = Reader(mapping={}, extra_fields=frozenset(), order="arrival", max_events=100)
    read = reader.read(shape.body(1), dict(shape.headers)["Content-Type"])
    assert len(read.events) == shape.size_of(1)
    assert not read.rejected
    content = orjson.loads(read.events[0].content)
    assert content["address1"].startswith(f"No. {shape.first_of(1)},")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_so_many_events_are_of_people_that_came_lately(share: float) -> None:
    shape, met, repeated = Shape(repeats=share), set(), 0
    for event in range(20_000):
        person = shape.person_of(event)
        if person in met:
            repeated += 1
            assert person >= len(met) - RECENT
        met.add(person)
    assert repeated / 20_000 == pytest.approx(share, abs=0.01)


def test_by_zipf_the_first_is_the_most_frequent() -> None:
    shape = Shape(zipf=True)
    drawn = [shape.person_of(event) for event in range(20_000)]
    assert drawn.count(0) > drawn.count(1) > drawn.count(10) > 0


def test_equal_shapes_make_equal_bodies_and_other_runs_other_people() -> None:
    shape = Shape(sizes=(5,), zipf=True)
    assert shape.body(3) == Shape(sizes=(5,), zipf=True).body(3)
    assert shape.body(3) != msgspec.structs.replace(shape, run="other").body(3)


def test_what_takes_lines_gets_one_event_a_line() -> None:
    body = lines_of(Shape(format="array", sizes=(3,), compression="gzip")).body(0)
    assert [orjson.loads(line)["address1"][:5] for line in body.splitlines()] == ["No. 0", "No. 1", "No. 2"]
    assert body.endswith(b"\n")


def test_a_compressed_body_is_the_same_body() -> None:
    shape = Shape(format="ndjson", sizes=(20,))
    packed = msgspec.structs.replace(shape, compression="gzip")
    assert gzip.decompress(packed.body(2)) == shape.body(2)
    assert ("Content-Encoding", "gzip") in packed.headers
