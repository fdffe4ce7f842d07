"""What is said over the link beside events. Decoded by type: what does not fit its type breaks the link."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.adapters.worker_link.frames import FrameKind, LinkBroken, head
from engine.model import Lane

# -- core to worker ---------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, tag="hello", array_like=True, frozen=True):
    """The first of all. `plan`: what the worker works by, as the assembly packed it."""

    plan: bytes


class Callers(msgspec.Struct, tag="callers", array_like=True, frozen=True):
    """Others may call now. As the assembly packed it."""

    plan: bytes


class Stored(msgspec.Struct, tag="stored", array_like=True, frozen=True):
    """(number of an append, its first offset): durable."""

    appends: list[tuple[int, int]]


class Refused(msgspec.Struct, tag="refused", array_like=True, frozen=True):
    """See `errors.Overloaded`: nothing of this append was written."""

    number: int
    problem: str
    detail: str
    retry_after_seconds: float


class Ended(msgspec.Struct, tag="ended", array_like=True, frozen=True):
    """The engine has stopped before this was answered; the append may be durable all the same."""

    number: int
    detail: str


class Found(msgspec.Struct, tag="found", array_like=True, frozen=True):
    """What became of a receipt that was waited for. `report`: as `ports.Intake.receipt` has it, in JSON."""

    number: int
    settled: bool
    report: bytes


class Drain(msgspec.Struct, tag="drain", array_like=True, frozen=True):
    """Let nobody new in; say `Drained` once nothing more will come."""


class Count(msgspec.Struct, tag="count", array_like=True, frozen=True):
    """Say `Counted` once everything that was counted until now has been told."""

    number: int


# -- worker to core ---------------------------------------------------------------------------------------------------


class AppendHead(msgspec.Struct, array_like=True, frozen=True):
    """Stands before the packed events of one request. `number` is the worker's own, to be named in the answer."""

    number: int
    source: str
    owner: str
    lane: Lane


class Ready(msgspec.Struct, tag="ready", array_like=True, frozen=True):
    """It listens."""


class Wait(msgspec.Struct, tag="wait", array_like=True, frozen=True):
    """Tell me what became of this receipt once it is settled, or after so many seconds."""

    number: int
    receipt: str
    owner: str
    timeout_seconds: float


class GiveUp(msgspec.Struct, tag="give-up", array_like=True, frozen=True):
    """Nobody waits for that any more."""

    number: int


class Open(msgspec.Struct, tag="open", array_like=True, frozen=True):
    """So many connections are open here."""

    connections: int


class Counts(msgspec.Struct, tag="counts", array_like=True, frozen=True):
    """What was counted since the last one; see `metrics.Metrics`."""

    rejected: dict[str, int]
    fields_dropped: dict[str, int]
    answers: dict[str, int]
    denied: dict[str, int]
    ack_counts: list[int]
    ack_seconds: float


class Counted(msgspec.Struct, tag="counted", array_like=True, frozen=True):
    number: int


class Drained(msgspec.Struct, tag="drained", array_like=True, frozen=True):
    """No append follows this."""


ToWorker = Hello | Callers | Stored | Refused | Ended | Found | Drain | Count
ToCore = Ready | Open | Wait | GiveUp | Counts | Counted | Drained

_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_to_core = msgspec.msgpack.Decoder(ToCore)
_append_head = msgspec.msgpack.Decoder(AppendHead)

HEAD_LENGTH_BYTES = 2


def framed(message: ToWorker | ToCore) -> bytes:
    body = _encoder.encode(message)
    return head(FrameKind.MESSAGE, len(body)) + body


def framed_append(given: AppendHead, events: bytes) -> tuple[bytes, bytes]:
    """Two parts, to be sent one after the other. Raises LinkBroken when names in it are absurdly long."""
    packed = _encoder.encode(given)
    if len(packed) >= 1 << 8 * HEAD_LENGTH_BYTES:
        raise LinkBroken("the head of an append is too long")
    length = HEAD_LENGTH_BYTES + len(packed) + len(events)
    return head(FrameKind.APPEND, length) + len(packed).to_bytes(HEAD_LENGTH_BYTES, "little") + packed, events


def append_of(body: memoryview) -> tuple[AppendHead, memoryview]:
    """Raises LinkBroken."""
    begin = HEAD_LENGTH_BYTES
    end = begin + int.from_bytes(body[:begin], "little")
    if len(body) < end:
        raise LinkBroken("an append that is shorter than its head")
    given: AppendHead = _decoded(_append_head, body[begin:end])
    return given, body[end:]


def to_worker(kind: int, body: bytes | memoryview) -> ToWorker:
    """Raises LinkBroken."""
    if kind != FrameKind.MESSAGE:
        raise LinkBroken(f"a frame of the unknown kind {kind}")
    message: ToWorker = _decoded(_to_worker, body)
    return message


def hello_of(body: bytes) -> Hello:
    """What has to come first. Raises LinkBroken."""
    message = to_worker(FrameKind.MESSAGE, body)
    if not isinstance(message, Hello):
        raise LinkBroken("the first message is no greeting")
    return message


def to_core(body: memoryview) -> ToCore:
    """Raises LinkBroken."""
    message: ToCore = _decoded(_to_core, body)
    return message


def _decoded(decoder: Any, body: bytes | memoryview) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise LinkBroken(f"a message that cannot be read ({error})") from None
