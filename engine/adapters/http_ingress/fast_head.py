"""The head of a request as the fast front wants it: what the parser lets through, and still may mean two things, is
refused."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qsl

import httptools
import msgspec

from engine.adapters.http_ingress.answers import fault_of
from engine.adapters.http_ingress.problems import Problem

HEAD_BYTES = 32_768
HEADERS = 100
TARGET_BYTES = 8_190

Headers = list[tuple[bytes, bytes]]


class RequestHead(msgspec.Struct):
    """`headers`: by lower-case name, of several the first. `target`: path and query."""

    method: bytes
    version: str
    target: str
    path: str
    headers: dict[str, str]
    raw: Headers
    length: int
    chunked: bool


def read_head(method: bytes, version: str, target: bytes, raw: Headers, size: int) -> RequestHead:
    """`size`: bytes of names and values. Raises Problem: 400, 414, 431, 501, 505."""
    if len(target) > TARGET_BYTES:
        raise Problem("target-too-long", f"path and query may have {TARGET_BYTES} bytes")
    if size + len(target) > HEAD_BYTES or len(raw) > HEADERS:
        raise too_large()
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
    length = int(headers.get("content-length", "0"))
    return RequestHead(method, version, where, where.partition("?")[0], headers, raw, length, chunked)


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
