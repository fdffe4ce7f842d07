"""What SQLite does to its files, seen call by call: a VFS in Python over the one of the system.

Only writing, truncating, syncing, creating and deleting databases, WALs and rollback journals pass through Python;
reading, locks and shared memory stay what they are. Memory mapping is off, so that nothing passes by.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import sqlite3
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, PYFUNCTYPE, Structure, c_char_p, c_int, c_int64, c_void_p
from functools import cache
from typing import Any, Protocol
from urllib.parse import quote
from weakref import WeakValueDictionary

NAME = "watched"
MAIN_DATABASE, MAIN_JOURNAL, SUPER_JOURNAL, WAL = 0x100, 0x800, 0x4000, 0x80000
WATCHED_KINDS = MAIN_DATABASE | MAIN_JOURNAL | SUPER_JOURNAL | WAL
SUFFIXES = ("-wal", "-journal")
VERSION_WITHOUT_MAPPING = 2


class VfsUnavailable(RuntimeError):
    """The SQLite of this Python cannot be reached from outside, because it is linked in without its symbols."""


class WatchedFile(Protocol):
    """An open file. Each method does what it is told by calling `carry_out`, or does not, and returns a result code
    of SQLite. Called in whatever thread uses the connection; must not raise."""

    def write(self, offset: int, data: bytes, carry_out: Callable[[int], int], /) -> int:
        """`carry_out(n)` writes the first n bytes of the data."""

    def truncate(self, size: int, carry_out: Callable[[], int], /) -> int: ...

    def sync(self) -> int:
        """The real file is not synced: what is durable is the watcher's to say."""


class Watcher(Protocol):
    def open(self, path: str, *, is_new: bool, is_database: bool) -> WatchedFile: ...

    def delete(self, path: str, carry_out: Callable[[], int], /, *, syncs_directory: bool) -> int: ...


def connect(watcher: Watcher, path: str, **options: Any) -> sqlite3.Connection:
    """As `sqlite3.connect`, with everything that changes this database told to the watcher. Raises VfsUnavailable."""
    name = register()
    real = os.path.realpath(path)
    _watchers[real] = watcher
    connection: sqlite3.Connection = sqlite3.connect(f"file:{quote(real)}?vfs={name}", uri=True, **options)
    return connection


@cache
def register() -> str:
    """Make the VFS known to SQLite, once a process; its name. Raises VfsUnavailable."""
    library = _library()
    _originals["vfs"] = library.sqlite3_vfs_find(None).contents
    vfs = _vfs
    ctypes.memmove(ctypes.addressof(vfs), ctypes.addressof(_originals["vfs"]), ctypes.sizeof(_Vfs))
    vfs.next, vfs.name = None, NAME.encode()
    vfs.open, vfs.delete = ctypes.cast(_CALLED["open"], c_void_p), ctypes.cast(_CALLED["delete"], c_void_p)
    if library.sqlite3_vfs_register(ctypes.byref(vfs), 0) != sqlite3.SQLITE_OK:
        raise VfsUnavailable("SQLite does not take another VFS")
    _check_it_is_ours()
    return NAME


def _library() -> ctypes.CDLL:
    """The SQLite that the module `sqlite3` uses: a copy of it elsewhere would not know our VFS."""
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
    try:
        library.sqlite3_vfs_find.restype, library.sqlite3_vfs_find.argtypes = POINTER(_Vfs), [c_char_p]
        library.sqlite3_vfs_register.argtypes = [POINTER(_Vfs), c_int]
    except AttributeError:
        raise VfsUnavailable("this Python is linked with SQLite without its symbols") from None
    return library


def _check_it_is_ours() -> None:
    try:
        sqlite3.connect(f"file::memory:?vfs={NAME}", uri=True).close()
    except sqlite3.OperationalError as error:
        raise VfsUnavailable(f"the SQLite that was found is not the one this Python uses: {error}") from None


# -- the structures of sqlite3.h --------------------------------------------------------------------------------------


class _Vfs(Structure):
    _fields_ = [
        ("version", c_int),
        ("file_size", c_int),
        ("longest_path", c_int),
        ("next", c_void_p),
        ("name", c_char_p),
        ("data", c_void_p),
        ("open", c_void_p),
        ("delete", c_void_p),
        # access, full path, four for shared libraries, randomness, sleep, time, last error, time, three system calls
        ("others", c_void_p * 14),
    ]


class _Methods(Structure):
    """The functions of an open file, without the memory mapping of version 3."""

    _fields_ = [
        ("version", c_int),
        ("close", c_void_p),
        ("read", c_void_p),
        ("write", c_void_p),
        ("truncate", c_void_p),
        ("sync", c_void_p),
        ("others", c_void_p * 7),  # size, lock, unlock, reserved?, control, sector size, device
        ("shared_memory", c_void_p * 4),  # since version 2
    ]


class _File(Structure):
    _fields_ = [("methods", POINTER(_Methods))]


_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
# Writes go to memory and take no lock of SQLite's; to give up the interpreter's would cost more than they do.
_QUICK_WRITE = PYFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_QUICK_TRUNCATE = PYFUNCTYPE(c_int, c_void_p, c_int64)


class _Shim:
    """The functions that stand before those of one kind of file, and the ones behind them."""

    def __init__(self, original: _Methods) -> None:
        self.methods = _Methods()
        size = ctypes.sizeof(_Methods) if original.version >= VERSION_WITHOUT_MAPPING else _Methods.shared_memory.offset
        ctypes.memmove(ctypes.addressof(self.methods), ctypes.addressof(original), size)
        self.methods.version = min(original.version, VERSION_WITHOUT_MAPPING)
        for name in ("close", "write", "truncate", "sync"):
            setattr(self.methods, name, ctypes.cast(_CALLED[name], c_void_p))
        self.close = _CLOSE(original.close)
        self.write = _QUICK_WRITE(original.write)
        self.truncate = _QUICK_TRUNCATE(original.truncate)


_watchers: WeakValueDictionary[str, Watcher] = WeakValueDictionary()
_originals: dict[str, Any] = {}
_shims: dict[int, _Shim] = {}
_opened: dict[int, tuple[WatchedFile, _Shim]] = {}
_vfs = _Vfs()


def _watcher_of(path: str) -> Watcher | None:
    for suffix in SUFFIXES:
        path = path.removesuffix(suffix)
    return _watchers.get(path)


# -- what SQLite calls ------------------------------------------------------------------------------------------------


def _open(vfs: int, name: int | None, file: int, flags: int, out_flags: int) -> int:
    path = os.fsdecode(ctypes.string_at(name)) if name else ""
    watcher = _watcher_of(path) if flags & WATCHED_KINDS else None
    is_new = not os.path.exists(path)
    code: int = _OPEN(_originals["vfs"].open)(vfs, name, file, flags, out_flags)
    if code == sqlite3.SQLITE_OK and watcher is not None:
        opened = watcher.open(path, is_new=is_new, is_database=bool(flags & MAIN_DATABASE))
        _opened[file] = (opened, _stand_before(_File.from_address(file)))
    return code


def _stand_before(file: _File) -> _Shim:
    original = ctypes.addressof(file.methods.contents)
    if original not in _shims:
        _shims[original] = _Shim(file.methods.contents)
    file.methods = ctypes.pointer(_shims[original].methods)
    return _shims[original]


def _delete(vfs: int, name: int, syncs_directory: int) -> int:
    def carry_out() -> int:
        return int(_DELETE(_originals["vfs"].delete)(vfs, name, 0))

    path = os.fsdecode(ctypes.string_at(name))
    watcher = _watcher_of(path)
    if watcher is None:
        return int(_DELETE(_originals["vfs"].delete)(vfs, name, syncs_directory))
    return watcher.delete(path, carry_out, syncs_directory=bool(syncs_directory))


def _close(file: int) -> int:
    _, shim = _opened.pop(file)
    return int(shim.close(file))


def _write(file: int, buffer: int, amount: int, offset: int) -> int:
    watched, shim = _opened[file]
    data = ctypes.string_at(buffer, amount)
    return watched.write(offset, data, lambda first: int(shim.write(file, buffer, first, offset) if first else 0))


def _truncate(file: int, size: int) -> int:
    watched, shim = _opened[file]
    return watched.truncate(size, lambda: int(shim.truncate(file, size)))


def _sync(file: int, flags: int) -> int:
    return _opened[file][0].sync()


_CALLED: dict[str, Any] = {
    "open": _OPEN(_open),
    "delete": _DELETE(_delete),
    "close": _CLOSE(_close),
    "write": _WRITE(_write),
    "truncate": _TRUNCATE(_truncate),
    "sync": _SYNC(_sync),
}
"""Kept for as long as SQLite may call them: to the end of the process."""
