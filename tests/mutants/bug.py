"""What a named bug is, and how it is put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Bug(NamedTuple):
    """`tests`: node ids; under the bug each of them fails. `promise`: its number in docs/guarantees.md."""

    name: str
    breaks: str
    promise: int
    tests: tuple[str, ...]
    sow: Callable[[], None]


BUGS: dict[str, Bug] = {}


def bug(promise: int, *tests: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register a function that changes the engine in place; its docstring says what that breaks."""

    def register(sow: Callable[[], None]) -> Callable[[], None]:
        BUGS[sow.__name__] = Bug(sow.__name__, (sow.__doc__ or "").strip(), promise, tests, sow)
        return sow

    return register


def swap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """`wrapper(original, *arguments)` in place of a function or method."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *given, **named: wrapper(original, *given, **named))
