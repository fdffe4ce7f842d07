"""Logging set-up: one line a record to stderr, JSON or plain, and nothing of a person in it.

Masked everywhere (message, extra fields, tracebacks): whatever looks like an e-mail address, and credentials.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
MASK = "***"
LARGEST_NUMBER = 2**63  # of the JSON encoder
# Quantifiers have bounds: a long line without an @ must not cost the square of its length.
EMAIL = re.compile(
    r"""(?:"[^"\n]{1,320}"|[^\s@"'<>(),;:\[\]{}\\]{1,320})(?:@|\uff20|%40|\\u0040)[^\s@"'<>(),;:/?&#\[\]{}\\]{1,255}""",
    re.I,
)
CREDENTIAL = re.compile(
    r"""(?P<name>\b(?:bearer|basic)\s+|\b(?:authorization|x-api-key|client_secret|access_token|refresh_token|password)"""
    r"""["']?\s*[=:]\s*["']?(?:(?:bearer|basic)\s+)?)[^\s"',;&}]+""",
    re.I,
)
SECRET_NAMES = frozenset({"authorization", "x-api-key", "client_secret", "access_token", "refresh_token", "password"})
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def masked(text: str) -> str:
    """The text without e-mail addresses and credentials, and without what UTF-8 cannot hold."""
    text = text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
    return EMAIL.sub(MASK, CREDENTIAL.sub(rf"\g<name>{MASK}", text))


def clean(value: Any, depth: int = 6) -> Any:
    """The value as JSON can hold it, masked."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < LARGEST_NUMBER else str(value)
    if isinstance(value, bytes):
        return masked(value.decode("utf-8", "replace"))
    if depth and isinstance(value, Mapping):
        return {masked(str(key)): _field(str(key), it, depth - 1) for key, it in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [clean(it, depth - 1) for it in value]
    return masked(str(value))


def _field(name: str, value: Any, depth: int) -> Any:
    return MASK if name.lower() in SECRET_NAMES else clean(value, depth)


class Formatter(logging.Formatter):
    """What both formats share: the parts of a record, masked."""

    def extras(self, record: logging.LogRecord) -> dict[str, Any]:
        given = {name: it for name, it in vars(record).items() if name not in STANDARD and not name.startswith("_")}
        return {masked(name): _field(name, it, 6) for name, it in given.items()}

    def trouble(self, record: logging.LogRecord) -> str:
        """The traceback, if there is one."""
        if record.exc_info and record.exc_info[0] is not None:
            return masked(self.formatException(record.exc_info))
        return masked(record.exc_text or "")

    def message(self, record: logging.LogRecord) -> str:
        try:
            return masked(record.getMessage())
        except (TypeError, ValueError):  # the arguments do not fit the message: keep the message
            return masked(str(record.msg))

    @staticmethod
    def time(record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(Formatter):
    """{"time", "level", "logger", "message", extra fields…, "exception"?} on one line."""

    def format(self, record: logging.LogRecord) -> str:
        import orjson

        line = {
            "time": self.time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
        }
        line |= {name: it for name, it in self.extras(record).items() if name not in line}
        if trouble := self.trouble(record):
            line["exception"] = trouble
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode("utf-8", "replace")


class ConsoleFormatter(Formatter):
    """`time LEVEL logger: message name=value`, and a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {name}={value}" for name, value in self.extras(record).items())
        message = self.message(record).replace("\n", "\\n")
        line = f"{self.time(record)} {record.levelname:<7} {record.name}: {message}{extras}"
        trouble = self.trouble(record)
        return f"{line}\n{trouble}" if trouble else line


def set_up(level: str, format: Literal["json", "console"], stream: TextIO | None = None) -> logging.Handler:
    """Make the root logger write to `stream` (default: stderr), and to nothing else. Returns the handler."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(handler)
    logging.captureWarnings(True)
    set_level(level)
    return handler


def set_level(level: str) -> None:
    """Change the level of a running program; what libraries tell below "info" is only wanted at "debug"."""
    logging.getLogger().setLevel(LEVELS[level])
