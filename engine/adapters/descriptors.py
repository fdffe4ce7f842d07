"""Open files: how many this process may have, and how many connections that leaves room for."""

from __future__ import annotations

import resource

from engine.errors import ConfigError

FILES = 40
"""What the process has open beside connections: journal and state in several threads, the event loop, logs, and some
that are open for a moment only. SQLite that finds no room for a file is a failed disk to us, so these come first."""


def connections_possible(wanted: int, outward: int) -> int:
    """How many of `wanted` connections of producers there is room for beside `outward` other ones. The soft limit of
    this process is raised as far as that needs and its hard limit permits. Raises ConfigError when there is room for
    none."""
    own = FILES + outward
    limit = _raised(own + wanted)
    if limit == resource.RLIM_INFINITY:
        return wanted
    if limit <= own:
        raise ConfigError(
            [f"this process may have {limit} files open at once and needs {own + 1} at least: raise it (ulimit -n)"]
        )
    return min(wanted, limit - own)


def _raised(needed: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
