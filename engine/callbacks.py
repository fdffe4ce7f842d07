"""Callbacks that others have handed in: one that fails is the trouble of whoever it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def call(callback: Callable[[T], None], given: T) -> None:
    """Call it; what it raises goes to the event loop, as of a callback that the loop has called, and stops nobody."""
    try:
        callback(given)
    except Exception as error:
        message = "a callback failed over what it was told"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


def future_of(begin: Callable[[Callable[[T | Exception], None]], None]) -> asyncio.Future[T]:
    """For who would rather await: `begin` is given a callback, and what that is told the future has. The future may be
    cancelled or left alone. Raises what `begin` raises."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def told(result: T | Exception) -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
            future.exception()  # read here: who waited may have gone
        else:
            future.set_result(result)

    begin(told)
    return future
