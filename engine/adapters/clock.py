"""The real clock."""

from __future__ import annotations

import time


class SystemClock:
    """See `ports.Clock`."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
