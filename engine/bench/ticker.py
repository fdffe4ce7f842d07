"""A steady tick with the precision of the kernel. The timers of an event loop are late by up to a millisecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NONBLOCK_CLOEXEC = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


@contextmanager
def ticking(seconds: float, tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` from the running loop about every `seconds`, by a Linux timerfd where there is one."""
    descriptor = _timerfd(seconds)
    if descriptor is None:
        with _by_loop(seconds, tick):
            yield
        return

    def ready() -> None:
        os.read(descriptor, 8)
        tick()

    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ready)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _timerfd(seconds: float) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
    if descriptor < 0:
        return None
    whole, part = divmod(int(seconds * 1e9), 10**9)
    spec = _Timespec(whole, part)
    libc.timerfd_settime(descriptor, 0, ctypes.byref(_Timer(spec, spec)), None)
    return descriptor


@contextmanager
def _by_loop(seconds: float, tick: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def again() -> None:
        timers[:] = [loop.call_later(seconds, again)]
        tick()

    timers.append(loop.call_later(seconds, again))
    try:
        yield
    finally:
        timers[0].cancel()
