"""Where a text still stands in the files of a data directory: the proof that an erasure was one.

Every file is searched twice: its bytes as they lie on the disk, which finds what is left in freed space and in logs,
and, if it is a database, the values of its rows, which finds what lies in pieces on several pages.
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

CHUNK_BYTES = 1 << 20
SQLITE = b"SQLite format 3\0"


class Traces(msgspec.Struct):
    """Of one file: how often the texts stand in its bytes and, for a database, in how many values of its rows.
    `problem`: why it could not be searched whole; "" when it was."""

    file: str
    bytes: int
    found: int = 0
    rows: int = 0
    problem: str = ""


def search(directory: Path, texts: Sequence[str]) -> list[Traces]:
    """Every file below `directory`, in whatever case and spelling the texts may stand there. Blocks for as long as it
    takes to read all of them."""
    needles = sorted({needle for text in texts for needle in spellings(text)})
    return [_search(path, directory, needles) for path in sorted(directory.rglob("*")) if path.is_file()]


def spellings(text: str) -> set[bytes]:
    """As it is given, lower-cased and composed, each as plain text, inside JSON, inside a URL, and in UTF-16; all with
    ASCII in lower case, as what is searched is brought to it too."""
    forms = {text, text.strip(), text.strip().lower(), text.strip().upper()}
    forms |= {unicodedata.normalize(form, it) for it in set(forms) for form in ("NFC", "NFD")}
    found: set[bytes] = set()
    for it in filter(None, forms):
        found |= {it.encode(), json.dumps(it)[1:-1].encode(), json.dumps(it, ensure_ascii=False)[1:-1].encode()}
        found |= {quote(it, safe="").encode(), it.encode("utf-16-le"), it.encode("utf-16-be")}
    return {it.lower() for it in found}


def _search(path: Path, directory: Path, needles: Sequence[bytes]) -> Traces:
    traces = Traces(str(path.relative_to(directory)), 0)
    try:
        traces.found = sum(_count(chunk, fresh, needles) for chunk, fresh in _chunks(path, needles, traces))
        if _is_database(path):
            traces.rows = sum(_holds(value, needles) for value in _values(path))
    except FileNotFoundError:
        pass  # it was there when the directory was listed: a log that has been folded in since
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        traces.problem = f"could not be searched whole ({type(error).__name__})"
    return traces


def _chunks(path: Path, needles: Sequence[bytes], traces: Traces) -> Iterator[tuple[bytes, int]]:
    """(bytes, from where on they are new): what lies over the end of one chunk is whole in the next."""
    overlap, tail = max(map(len, needles), default=1) - 1, b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            traces.bytes += len(chunk)
            yield (tail + chunk).lower(), len(tail)
            tail = (tail + chunk)[-overlap:] if overlap else b""


def _count(chunk: bytes, fresh: int, needles: Sequence[bytes]) -> int:
    """How often they stand there, apart from those that the chunk before ended with."""
    found = 0
    for needle in needles:
        place = chunk.find(needle, max(0, fresh - len(needle) + 1))
        while place >= 0:
            found += 1
            place = chunk.find(needle, place + 1)
    return found


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def _values(path: Path) -> Iterator[object]:
    """Every value of every row, read beside whoever works on the file. One that has no log is not written to either."""
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=30.0)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield from row


def _holds(value: object, needles: Sequence[bytes]) -> bool:
    content = value.encode() if isinstance(value, str) else value
    return isinstance(content, bytes) and any(needle in content.lower() for needle in needles)
