"""What arrives over the link is divided rightly, however it is cut, and nothing of it is trusted."""

from __future__ import annotations

import random
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters.worker_link import LinkBroken, hello_of, read_first
from engine.adapters.worker_link.frames import HEAD, SPARE_BYTES, FrameKind, Frames, head
from engine.adapters.worker_link.messages import (
    AppendHead,
    Hello,
    Ready,
    Stored,
    Wait,
    append_of,
    framed,
    framed_append,
    to_core,
    to_worker,
)
from engine.model import Lane

MOST = 4 * SPARE_BYTES
Frame = tuple[int, bytes]


def fed(frames: Frames, data: bytes) -> list[Frame]:
    """As the event loop does it: as much at a time as there is room for."""
    found: list[Frame] = []
    while data:
        room = frames.room()
        part = data[: len(room)]
        room[: len(part)] = part
        found += [(kind, bytes(body)) for kind, body in frames.received(len(part))]
        data = data[len(part) :]
    return found


def written(*frames: Frame) -> bytes:
    return b"".join(head(FrameKind(kind), len(body)) + body for kind, body in frames)


bodies = st.lists(st.tuples(st.sampled_from([0, 1]), st.binary(max_size=300)), max_size=20)


@settings(deadline=None)
@given(bodies, st.lists(st.integers(1, 400), min_size=1))
def test_frames_arrive_whole_and_in_order_however_they_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    frames, data, found, turn = Frames(MOST), written(*sent), [], 0
    while data:
        cut = cuts[turn % len(cuts)]
        found += fed(frames, data[:cut])
        data, turn = data[cut:], turn + 1
    assert found == sent


def test_frames_larger_than_the_buffer_arrive_and_leave_no_large_buffer_behind() -> None:
    source = random.Random(1)
    sent = [(1, source.randbytes(size)) for size in (10, 2 * SPARE_BYTES, 0, SPARE_BYTES - HEAD.size, MOST, 7)]
    frames = Frames(MOST)
    assert fed(frames, written(*sent)) == sent
    assert len(frames.room()) == SPARE_BYTES


def test_what_is_not_whole_is_not_given() -> None:
    frames, whole = Frames(MOST), written((0, b"abc"))
    assert fed(frames, whole[:-1]) == []
    assert fed(frames, whole[-1:]) == [(0, b"abc")]


def test_a_length_that_no_frame_may_have_breaks_the_link_before_any_memory_is_taken() -> None:
    frames = Frames(1_000)
    with pytest.raises(LinkBroken, match="a frame of 4294967295 bytes"):
        fed(frames, HEAD.pack(2**32 - 1, 1))
    assert len(frames.room()) <= SPARE_BYTES


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_whatever_stands_in_a_frame_is_a_message_or_breaks_the_link(body: bytes) -> None:
    for read in (lambda: to_core(memoryview(body)), lambda: to_worker(0, body), lambda: append_of(memoryview(body))):
        try:
            read()
        except LinkBroken:
            continue


def test_messages_of_the_other_direction_and_unknown_kinds_break_the_link() -> None:
    body = framed(Ready())[HEAD.size :]
    with pytest.raises(LinkBroken):
        to_worker(FrameKind.MESSAGE, body)
    with pytest.raises(LinkBroken):
        to_core(memoryview(framed(Stored([(1, 2)]))[HEAD.size :]))
    with pytest.raises(LinkBroken, match="unknown kind 7"):
        to_worker(7, body)


def test_numbers_are_numbers() -> None:
    with pytest.raises(LinkBroken):
        to_core(memoryview(framed(Wait("1", "receipt", "owner", 1.0))[HEAD.size :]))  # type: ignore[arg-type]


def test_an_append_comes_back_as_it_was() -> None:
    given = AppendHead(7, "crm", "aep", Lane.BACKFILL)
    data = b"".join(framed_append(given, b"the events"))
    ((kind, body),) = fed(Frames(MOST), data)
    assert kind == FrameKind.APPEND
    found, events = append_of(memoryview(body))
    assert (found, bytes(events)) == (given, b"the events")


@pytest.mark.parametrize("body", [b"", b"\x05", b"\xff\xff", b"\x10\x00short"])
def test_an_append_that_is_shorter_than_its_head_breaks_the_link(body: bytes) -> None:
    with pytest.raises(LinkBroken):
        append_of(memoryview(body))


def test_a_lane_that_does_not_exist_breaks_the_link() -> None:
    body = b"".join(framed_append(AppendHead(1, "a", "b", 9), b""))[HEAD.size :]  # type: ignore[arg-type]
    with pytest.raises(LinkBroken):
        append_of(memoryview(body))


def test_the_first_message_is_read_without_a_loop_and_nothing_behind_it() -> None:
    core, worker = socket.socketpair()
    with core, worker:
        core.sendall(framed(Hello(b"plan" * 10_000)) + b"behind")
        assert hello_of(read_first(worker, MOST)).plan == b"plan" * 10_000
        assert worker.recv(100) == b"behind"


def test_another_first_message_or_none_breaks_the_link() -> None:
    core, worker = socket.socketpair()
    with core, worker:
        core.sendall(framed(Stored([])))
        with pytest.raises(LinkBroken, match="no greeting"):
            hello_of(read_first(worker, 1_000))
        core.sendall(head(FrameKind.MESSAGE, 1_001))
        with pytest.raises(LinkBroken, match="no message"):
            read_first(worker, 1_000)
        core.close()
        with pytest.raises(LinkBroken, match="has closed"):
            read_first(worker, 1_000)
