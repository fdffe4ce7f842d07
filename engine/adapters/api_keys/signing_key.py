"""The random key behind all tokens: one file in the data directory, so that a restart logs nobody out."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from engine.errors import DataDirectoryError

SIGNING_KEY_FILE = "token.key"
KEY_BYTES = 32


def read_signing_key(file: Path) -> bytes:
    """The key; a file that is missing is made, readable by its owner only and durable on return. Two processes that
    make it at once agree on one.

    Raises DataDirectoryError when it cannot be read or made, or when others may read it.
    """
    try:
        key = _read(file)
        if key is None:
            _make(file)
            key = _read(file)
    except OSError as error:
        raise DataDirectoryError(f"{file}: the key that signs tokens cannot be used ({error.strerror})") from error
    if key is None or len(key) != KEY_BYTES:
        raise DataDirectoryError(f"{file}: is damaged; remove it, then every client fetches a new token")
    return key


def _read(file: Path) -> bytes | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as opened:
        if os.fstat(descriptor).st_mode & 0o007:  # a group is what some orchestrators give a volume
            raise DataDirectoryError(
                f"{file}: others may read the key that signs tokens; remove it, then every client fetches a new token"
            )
        return opened.read(KEY_BYTES + 1)


def _make(file: Path) -> None:
    """Whole or not at all: written beside it, then linked to its name unless somebody else was faster."""
    beside = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(secrets.token_bytes(KEY_BYTES))
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(beside, file)
    finally:
        beside.unlink()
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
