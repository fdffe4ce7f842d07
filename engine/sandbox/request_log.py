"""The API log: what a RainFocus user looks at to see whether a profile arrived. In memory, bounded, without e-mails."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator

import msgspec

TEXT_LIMIT = 200
"""Characters of a path, a header or an event code that the log keeps."""


def printable(text: str) -> str:
    """`text` cut to `TEXT_LIMIT`, and fit for JSON: a header may hold bytes that are no UTF-8."""
    return text[:TEXT_LIMIT].encode("utf-8", "replace").decode()


class Request(msgspec.Struct, frozen=True):
    """One answered request. `status` 0: it got no answer. `key` is the start of the first record's e-mail hash,
    `attendee` the id of the first attendee that was stored, "" if none was."""

    at: float  # epoch seconds
    method: str
    path: str
    status: int
    code: str  # the envelope's responseCode, "" without one
    milliseconds: float
    event: str
    records: int
    key: str
    traceparent: str
    fault: str  # kind of the fault that struck, "" without one
    attendee: str = ""


class RequestLog:
    """The last `size` requests, and counts over all of them."""

    def __init__(self, size: int) -> None:
        self._requests: deque[Request] = deque(maxlen=size)
        self.clear()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        """Newest first."""
        return reversed(self._requests)

    def clear(self) -> None:
        self._requests.clear()
        self.total = 0
        self.by_status: Counter[int] = Counter()
        self.by_code: Counter[str] = Counter()
        self.by_fault: Counter[str] = Counter()

    def add(self, request: Request) -> None:
        self._requests.append(request)
        self.total += 1
        self.by_status[request.status] += 1
        if request.code:
            self.by_code[request.code] += 1
        if request.fault:
            self.by_fault[request.fault] += 1
