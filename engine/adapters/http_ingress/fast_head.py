"""The head of a request as the fast front wants it: what the parser lets through, and still may mean two things, is
refused."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qsl

import httptools
import msgspec

from engine.adapters.http_ingress.access import Head
from engine.adapters.http_ingress.answers import fault_of
from engine.adapters.http_ingress.problems import Problem

HEAD_BYTES = 32_768
HEADERS = 100
TARGET_BYTES = 8_190

Headers = list[tuple[bytes, bytes]]


class RequestHead(msgspec.Struct):
    """`known`: for whom it is asked whether they may; one object for requests of a connection whose heads are alike. Of
    several headers of one name it has the first, and none of the length, which is `length`. `target`: path and query.
    """

    method: bytes
    version: str
    target: str
    path: str
    known: Head
    raw: Headers
    length: int
    chunked: bool


class HeadReader:
    """Of one connection, whose heads are mostly alike but for the length of the body. `peer`: see `Head`."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._line = (b"", "", b"")
        self._head: RequestHead | None = None
        self._length_at = 0

    def read(self, method: bytes, version: str, target: bytes, raw: Headers, size: int) -> RequestHead:
        """`size`: bytes of names and values. Raises Problem: 400, 414, 431, 501, 505."""
        if len(target) > TARGET_BYTES:
            raise Problem("target-too-long", f"path and query may have {TARGET_BYTES} bytes")
        if size + len(target) > HEAD_BYTES or len(raw) > HEADERS:
            raise too_large()
        last = self._head
        if last is not None and (method, version, target) == self._line and self._are_alike(last.raw, raw):
            return self._again(last, raw)
        head = _read(method, version, target, raw, self._peer)
        at = [index for index, (name, _) in enumerate(raw) if _name(name) == "content-length"]
        if at:
            self._line, self._head, self._length_at = (method, version, target), head, at[0]
        return head

    def _are_alike(self, last: Headers, raw: Headers) -> bool:
        at = self._length_at
        return (
            len(raw) == len(last)
            and raw[at][0] == last[at][0]
            and raw[:at] == last[:at]
            and raw[at + 1 :] == last[at + 1 :]
        )

    def _again(self, last: RequestHead, raw: Headers) -> RequestHead:
        """With another length; the parser has seen to it that it is one."""
        length = int(raw[self._length_at][1])
        return RequestHead(last.method, last.version, last.target, last.path, last.known, raw, length, last.chunked)


def _read(method: bytes, version: str, target: bytes, raw: Headers, peer: str) -> RequestHead:
    check_version(version)
    headers: dict[str, str] = {}
    hosts = 0
    for name, value in raw:
        known = _name(name)
        hosts += known == "host"
        headers.setdefault(known, value.decode("utf-8", "surrogateescape"))
    if hosts != 1 and (hosts or version == "1.1"):
        raise Problem("bad-request", "a request has the header Host once")
    chunked = "transfer-encoding" in headers
    if chunked:
        check_transfer_encoding(headers["transfer-encoding"], version)
    where = in_origin_form(target.decode("ascii"), headers.get("host", ""))
    length = int(headers.pop("content-length", "0"))
    return RequestHead(method, version, where, where.partition("?")[0], Head(headers, peer), raw, length, chunked)


@lru_cache(maxsize=512)
def _name(name: bytes) -> str:
    return name.decode("ascii").lower()


def check_version(version: str) -> None:
    if version not in ("1.1", "1.0"):
        raise Problem("unknown-version", "this address speaks HTTP/1.1")


def check_transfer_encoding(value: str, version: str) -> None:
    if version == "1.0":
        raise Problem("bad-request", "HTTP/1.0 has no Transfer-Encoding")
    if value.strip().lower() != "chunked":
        raise Problem("unknown-transfer-encoding", "of Transfer-Encoding only chunked is understood")


def in_origin_form(target: str, host: str) -> str:
    """Of the absolute form too, where it names the host that Host names."""
    if "#" in target:
        raise Problem("bad-request", "the target of a request has no fragment")
    if target.startswith("/") or target == "*":
        return target
    scheme, separator, rest = target.partition("://")
    authority, slash, path = rest.partition("/")
    if not separator or scheme.lower() not in ("http", "https") or authority.lower() != host.lower():
        raise Problem("bad-request", "the target of a request is a path, or an address with the host that Host names")
    return f"/{path}" if slash else "/"


@lru_cache(maxsize=256)
def query_of(target: str) -> dict[str, str]:
    """Of several values the first."""
    query = target.partition("?")[2]
    return dict(reversed(parse_qsl(query, keep_blank_values=True))) if query else {}


def too_large() -> Problem:
    return Problem("head-too-large", f"a head may have {HEADERS} headers and {HEAD_BYTES} bytes")


def length_by_hand(head: RequestHead) -> int:
    """Of the body of a request that offers another protocol, which is not taken up. Raises Problem."""
    if head.chunked:
        raise Problem("bad-request", "a request that offers another protocol cannot have a body in chunks")
    return head.length


def unreadable(error: Exception) -> Problem:
    """What the parser did not take."""
    if isinstance(error, httptools.HttpParserCallbackError):
        return fault_of(error, "a callback of the parser")
    return Problem("bad-request", "this is no HTTP/1.1 request")
