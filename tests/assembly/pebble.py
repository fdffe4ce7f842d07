"""As much of the Pebble template language as the template in examples/ uses: for, is empty, not loop.last, names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_token = re.compile(r"\{%\s*(.*?)\s*%\}|\{\{\s*(.*?)\s*\}\}", re.DOTALL)


def render(template: str, **context: Any) -> str:
    parts = _parts(template)
    return "".join(_block(parts, context, ends=())[0])


def _parts(template: str) -> Iterator[tuple[str, str]]:
    at = 0
    for match in _token.finditer(template):
        yield "text", template[at : match.start()]
        yield ("tag", match[1]) if match[1] is not None else ("name", match[2])
        at = match.end()
    yield "text", template[at:]


def _block(
    parts: Iterator[tuple[str, str]], context: dict[str, Any] | None, ends: tuple[str, ...]
) -> tuple[list[str], str]:
    """(what it gives, the tag that ended it). Without a context it is only skipped."""
    out: list[str] = []
    for kind, text in parts:
        if kind == "text":
            out.append(text)
        elif kind == "name":
            out.append(str(_value(text, context)) if context is not None else "")
        elif text in ends:
            return out, text
        elif text.startswith("for "):
            out += _for(parts, text, context)
        else:
            out += _if(parts, text, context)
    assert not ends, f"{ends} is missing"
    return out, ""


def _for(parts: Iterator[tuple[str, str]], text: str, context: dict[str, Any] | None) -> list[str]:
    _, name, _, expression = text.split()
    body = list(_until_end(parts))
    items = _entries(_value(expression, context)) if context is not None else []
    out: list[str] = []
    for number, item in enumerate(items, 1):
        inner = {**(context or {}), name: item, "loop.last": number == len(items)}
        out += _block(iter(body), inner, ends=())[0]
    return out


def _until_end(parts: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    depth = 1
    for part in parts:
        depth += (part[0] == "tag" and part[1].startswith("for ")) - (part == ("tag", "endfor"))
        if depth == 0:
            return
        yield part


def _if(parts: Iterator[tuple[str, str]], text: str, context: dict[str, Any] | None) -> list[str]:
    holds = context is not None and _holds(text.removeprefix("if "), context)
    first, end = _block(parts, context if holds else None, ends=("else", "endif"))
    second = _block(parts, None if holds else context, ends=("endif",))[0] if end == "else" else []
    return first if holds else second


def _holds(condition: str, context: dict[str, Any]) -> bool:
    if condition == "not loop.last":
        return not context["loop.last"]
    name, _, test = condition.partition(" is ")
    assert test == "empty", condition
    return not _value(name, context)


def _entries(value: Any) -> list[Any]:
    return [{"key": key, "value": it} for key, it in value.items()] if isinstance(value, dict) else list(value or ())


def _value(expression: str, context: dict[str, Any] | None) -> Any:
    value: Any = context
    for step in re.findall(r"\[([^\]]+)\]|([A-Za-z_]\w*)", expression):
        key = _value(step[0], context) if step[0] else step[1]
        value = value.get(key, "") if isinstance(value, dict) else ""
    return value
