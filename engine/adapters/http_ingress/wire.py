"""Answers as they go over the wire in HTTP/1.1."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from engine.adapters.http_ingress.problems import SECURITY_HEADERS
from engine.adapters.http_ingress.request import IngressAnswer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_ALWAYS = "".join(f"{name}: {value}\r\n" for name, value in SECURITY_HEADERS.items())
_HEADS = {int(it): f"HTTP/1.1 {int(it)} {it.phrase}\r\n{_ALWAYS}" for it in HTTPStatus}
_CONNECTION = {"": "", "close": "Connection: close\r\n", "keep-alive": "Connection: keep-alive\r\n"}


class _Date:
    """The header line, made once a second."""

    second, line = 0, ""


def encode(answer: IngressAnswer, connection: str = "", *, body: bool = True) -> bytes:
    """`connection`: "close", "keep-alive", or "" where that goes without saying. Without `body` (for HEAD) only its
    length is told."""
    head = (
        f"{_HEADS[answer.status]}{_date()}{_lines(answer.headers)}{_CONNECTION[connection]}"
        f"Content-Length: {len(answer.body)}\r\n\r\n"
    )
    return head.encode("ascii", "replace") + answer.body if body else head.encode("ascii", "replace")


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _date() -> str:
    second = int(time.time())
    if second != _Date.second:
        _Date.second, _Date.line = second, f"Date: {formatdate(second, usegmt=True)}\r\n"
    return _Date.line
