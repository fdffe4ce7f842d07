"""From raw tables to structs, with everything that is wrong found at once and named. Private to this room."""

from __future__ import annotations

import difflib
import enum
import functools
import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import SplitResult, urlsplit

import msgspec

from engine.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)
UNFIT = object()
LONGEST_STATEMENT_LINES = 200
WORDS = {
    **{"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"},
    **{"array": "a list", "object": "a table"},
}
ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]*\Z")


@functools.cache
def keys_of(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """TOML key -> field; fields in `struct.not_keys` are the program's own."""
    hidden = getattr(struct, "not_keys", ())
    return {field.encode_name: field for field in msgspec.structs.fields(struct) if field.name not in hidden}


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def table_in(wanted: Any) -> type[msgspec.Struct] | None:
    """The struct that a field of this type holds: itself, as an option, or in a tuple; None for a plain value."""
    choices = get_args(wanted) if get_origin(wanted) in (Union, UnionType, tuple) else (wanted,)
    return next((it for it in choices if isinstance(it, type) and issubclass(it, msgspec.Struct)), None)


def notes(wanted: Any) -> msgspec.Meta:
    return next((it for it in get_args(wanted)[1:] if isinstance(it, msgspec.Meta)), msgspec.Meta())


def marked(wanted: Any, mark: str) -> bool:
    return bool((notes(wanted).extra or {}).get(mark))


def masked(wanted: Any, value: Any) -> Any:
    """The value as it may be shown. What stands in place of a variable's name may be the secret itself."""
    hide = marked(wanted, "secret") or (marked(wanted, "env") and not ENVIRONMENT_NAME.match(value))
    return "***" if hide and value else value


def all_tables(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, set[str]]]:
    """(header as written in the file, its keys) of every table below `struct`."""
    for name, field in keys_of(struct).items():
        if inner := table_in(field.type):
            header = f"{path}.{name}" if path else name
            listed = get_origin(field.type) is tuple
            yield (f"[[{header}]]" if listed else f"[{header}]"), set(keys_of(inner))
            yield from all_tables(inner, header)


class Reader:
    """Reads one configuration: builds its structs and collects its problems, each one sentence."""

    def __init__(self, root: type[msgspec.Struct], file: str, text: str, base: Path) -> None:
        self.given: set[str] = set()
        self._root, self._file, self._text, self._base = root, file, text, base
        self._found: list[tuple[str, str]] = []
        self._unfit: set[str] = set()

    def report(self, key: str, what: str, about: Iterable[str] = ()) -> None:
        """A problem of `key`, unless it or a key in `about` is unfit by itself: then this would only mislead."""
        if not any(_overlap(it, unfit) for it in (key, *about) for unfit in self._unfit):
            self._found.append((key, what))

    def finish(self) -> None:
        """Raises ConfigError if there was any problem."""
        if self._found:
            lines = line_numbers(self._text)
            placed = [(_line_of(key, lines), key, what) for key, what in self._found]
            placed.sort(key=lambda it: it[0] or math.inf)
            raise ConfigError([self._sentence(*it) for it in placed])

    def table(self, struct: type[T], raw: object, key: str = "") -> T:
        """`struct` from a raw table. What does not fit is reported, and its default stands in."""
        if not isinstance(raw, Mapping):
            self._unfit_value(key, f"expected a table, got {kind(raw)}; write it under a header of its own")
            return struct()
        known = keys_of(struct)
        for name in [it for it in raw if it not in known]:
            self.report(_join(key, name), f"unknown key; {self._advice(str(name), known)}")
        values = {it.name: self._value(it, raw[name], _join(key, name)) for name, it in known.items() if name in raw}
        return struct(**{name: value for name, value in values.items() if value is not UNFIT})

    def _value(self, field: msgspec.structs.FieldInfo, raw: object, key: str) -> object:
        self.given.add(key)
        struct = table_in(field.type)
        if struct is None:
            return self._plain(field, raw, key)
        if get_origin(field.type) is not tuple:
            return self.table(struct, raw, key)
        if not isinstance(raw, list | tuple):
            header = re.sub(r"\[\d+\]", "", key)
            self._unfit_value(key, f"expected a list of tables, got {kind(raw)}; write [[{header}]] with two brackets")
            return UNFIT
        return tuple(self.table(struct, it, f"{key}[{index}]") for index, it in enumerate(raw))

    def _plain(self, field: msgspec.structs.FieldInfo, raw: object, key: str) -> object:
        default = default_of(field)
        hint = (
            f"the default is {_shown(default)}"
            if default not in ("", {})
            else "docs/configuration.md says what belongs here"
        )
        faults = list(_faults(field.type, raw, key))
        for where, what in faults:
            self._unfit_value(where, what if what.endswith("?") else f"{what}; {hint}")
        if faults:
            return UNFIT
        value = msgspec.convert(_without_paths(raw), field.type)
        return str(self._base / value) if value and marked(field.type, "file") else value

    def _unfit_value(self, key: str, what: str) -> None:
        self._found.append((key, what))
        self._unfit.add(key)

    def _advice(self, name: str, known: Iterable[str]) -> str:
        plain = name.lower().replace("-", "_")
        if question := did_you_mean(plain, known, 0.7):
            return question
        homes = {key: header for header, keys in all_tables(self._root) for key in keys}
        if close := difflib.get_close_matches(plain, homes, n=1, cutoff=0.8):
            places = [header for header, keys in all_tables(self._root) if close[0] in keys]
            return f"{close[0]!r} belongs in {' or '.join(places)}"
        return f"the keys here are {', '.join(known)}"

    def _sentence(self, line: int | None, key: str, what: str) -> str:
        place = f"{self._file}:{line}" if line else self._file
        return f"{place}: {key}: {what}" + ("" if what.endswith("?") else ".")


def did_you_mean(name: str, known: Iterable[str], likeness: float = 0.55) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return f"did you mean {close[0]!r}?" if close else ""


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _overlap(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and long[len(short) :][:1] in ("", ".", "[")


def kind(value: object) -> str:
    kinds = {Mapping: "object", list | tuple: "array", bool: "bool", int: "int", float: "float", str: "str"}
    name = next((name for types, name in kinds.items() if isinstance(value, types)), type(value).__name__)
    return WORDS.get(name, name)


def _shown(value: object) -> str:
    return str(msgspec.json.encode(value), "utf-8")


def _without_paths(raw: object) -> object:
    return os.fspath(raw) if isinstance(raw, os.PathLike) else raw


def _faults(wanted: Any, raw: object, key: str) -> Iterator[tuple[str, str]]:
    """(key path, what is wrong) of a plain value, a list or a map, item by item."""
    shape = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
    items: Iterable[tuple[str, object]] = ()
    if get_origin(shape) is dict and isinstance(raw, Mapping):
        items = [(_join(key, name), value) for name, value in raw.items()]
    if get_origin(shape) is tuple and isinstance(raw, list | tuple):
        items = [(f"{key}[{index}]", value) for index, value in enumerate(raw)]
    inner = [it for it in get_args(shape) if it is not ...]
    within = [fault for where, value in items for fault in _faults(inner[-1], value, where)]
    yield from within or ((key, what) for what in [_fault(wanted, raw)] if what)


def _fault(wanted: Any, raw: object) -> str:
    if isinstance(raw, float) and not math.isfinite(raw):
        return "must be a finite number"
    try:
        msgspec.convert(_without_paths(raw), wanted)
    except msgspec.ValidationError as error:
        return _choice_fault(wanted, raw) or _described_fault(wanted, raw, str(error))
    return ""


def _choice_fault(wanted: Any, raw: object) -> str:
    listed = isinstance(wanted, type) and issubclass(wanted, enum.Enum)
    choices = [it.value for it in wanted] if listed else get_args(wanted) if get_origin(wanted) is Literal else ()
    if not choices or not isinstance(raw, str):
        return ""
    question = did_you_mean(raw.lower(), choices)
    return f"{raw!r} is not one of {', '.join(map(repr, choices))}" + (f"; {question}" if question else "")


def _described_fault(wanted: Any, raw: object, error: str) -> str:
    description = notes(wanted).description
    if description and isinstance(raw, str):
        return f"must be {description}"
    plain = re.sub(r"`(\w+)`", lambda it: WORDS.get(it[1], it[1]), error.partition(" - at ")[0])
    return plain[0].lower() + plain[1:]


def parse(text: str, file: str) -> dict[str, Any]:
    """Raises ConfigError with line and column where the text is not TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        what, place = str(error), re.search(r" \(at line (\d+), column (\d+)\)", str(error))
        lines = text.rstrip("\n").split("\n")
        line, column = place.groups() if place else (len(lines), len(lines[-1]) + 1)
        reason = re.sub(r" \(at .*\)$", "", what)
        hint = "correct this first, the rest is checked once the file can be read"
        raise ConfigError(
            [f"{file}:{line}:{column}: line {line}, column {column}: not TOML: {reason}; {hint}."]
        ) from None


def line_numbers(text: str) -> dict[str, int]:
    """Key path -> line it begins on. Every statement is parsed by itself, so that nothing inside a text or list of
    several lines is taken for a key; after an implausibly long one the rest has no numbers."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table, start, pending = "", 1, ""
    for number, line in enumerate(text.split("\n"), start=1):
        pending += line + "\n"
        if (parsed := _statement(pending)) is None:
            if number - start > LONGEST_STATEMENT_LINES:
                break
            continue
        if pending.lstrip().startswith("["):
            table = _header(parsed, counts)
            lines.setdefault(table, start)
        else:
            for key in _paths(parsed, table):
                lines.setdefault(key, start)
        pending, start = "", number + 1
    return lines


def _statement(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except ValueError:
        return None


def _header(parsed: dict[str, Any], counts: dict[str, int]) -> str:
    """The key path a header opens, with the index of each list of tables on the way."""
    path, node = "", parsed
    while node:
        ((name, child),) = node.items()
        path = _join(path, name)
        if isinstance(child, list):
            counts[path] = counts.get(path, 0) + 1
            child = child[0]
        path = f"{path}[{counts[path] - 1}]" if path in counts else path
        node = child
    return path


def _paths(node: object, path: str) -> Iterator[str]:
    children: Iterable[tuple[str, object]] = ()
    if isinstance(node, dict):
        children = [(_join(path, name), child) for name, child in node.items()]
    elif isinstance(node, list):
        children = [(f"{path}[{index}]", child) for index, child in enumerate(node)]
    for key, child in children:
        yield key
        yield from _paths(child, key)


def _line_of(key: str, lines: Mapping[str, int]) -> int | None:
    """Where the key stands, or else the nearest table around it."""
    while key and key not in lines:
        shorter = re.sub(r"(\.[^.\[]*|\[\d+\])\Z", "", key)
        key = shorter if shorter != key else ""
    return lines.get(key)


def read_secret(literal: str, variable: str, file: str) -> str:
    """The secret from the one place that is set. Raises ConfigError, which says what is missing and never quotes it."""
    if not (literal or variable or file):
        raise ConfigError(["is not set, neither as a file nor as an environment variable"])
    value = literal or (_file_content(file) if file else os.environ.get(variable, ""))
    if not value:
        shown = variable if ENVIRONMENT_NAME.match(variable) else "named here"
        raise ConfigError([f"the file {file} is empty" if file else f"the environment variable {shown} is not set"])
    return value


def _file_content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError([f"the file {file} is not UTF-8"]) from None
    except OSError as error:
        raise ConfigError([f"the file {file} cannot be read ({error.strerror})"]) from None


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost")


def split_url(url: str) -> SplitResult:
    """Raises ValueError, saying what is wrong with it without quoting it."""
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise ValueError("must not contain spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be a whole URL such as https://host.example")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user name or password")
    return parts
