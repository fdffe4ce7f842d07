"""What a sandbox can be told, and the time it is handed."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from engine.sandbox.faults import Fault, parse_document

MAX_BODY_BYTES = 16 * 1024 * 1024
"""Of one request, after decompression."""


class Clock(Protocol):
    """Time, handed in. `monotonic` for durations, `time` (epoch seconds) for what is stored or shown."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The time of this machine and of the running event loop."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How one sandbox behaves. Every field has a default.

    `host` other than a loopback address needs `allow_remote`: the sandbox keeps what it is sent in memory, readable by
    whoever reaches it. `org_ids` and `event_codes` None: any. `api_profile` "": not asked for.
    """

    host: str = "127.0.0.1"
    port: int = 8484  # 0: any free one
    allow_remote: bool = False
    client_id: str = "sandbox"
    client_secret: str = "sandbox"
    org_ids: list[str] | None = None
    event_codes: list[str] | None = None
    api_profile: str = ""
    token_seconds: int = 3600
    requests_per_second: float = 0.0  # of the attendee store; 0: unlimited
    burst: int = 0  # requests; 0: one second's worth, at least 1
    retry_after: Literal["seconds", "date", "none"] = "seconds"  # what a 429 of the rate limit carries
    latency_ms: float = 0.0  # before each store request is judged
    encoding: Literal["single", "array", "both"] = "both"
    array_results: bool = True  # one result a record; False: one bad record refuses the whole list
    seed: int | None = None  # of tokens, ids and faults; None: a new one each time, so tokens do not outlive a restart
    faults: list[Fault] = msgspec.field(default_factory=list)
    faults_file: str = ""
    log_size: int = 10_000  # requests kept in the API log
    arrivals_size: int = 1_000_000  # arrival times kept for the measured rate
    push_url: str = ""  # where changes are pushed, as RainFocus's source connector does; "": nowhere
    push_key: str = ""  # sent there as a Bearer token
    push_writes: bool = False  # push what the API wrote too, not only what a person edits
    attendees_file: str = ""  # NDJSON of all attendees, written when the server stops

    def __post_init__(self) -> None:
        """:raises ValueError: for a value no sandbox can run with."""
        for name in ("port", "token_seconds", "requests_per_second", "burst", "latency_ms"):
            if not 0 <= getattr(self, name) < 1e9:
                raise ValueError(f"{name} must be between 0 and 1e9")
        for name in ("log_size", "arrivals_size"):
            if not 1 <= getattr(self, name) <= 100_000_000:
                raise ValueError(f"{name} must be between 1 and 100,000,000")
        if self.port > 65535:
            raise ValueError("port must be at most 65535")

    def __repr__(self) -> str:
        return f"Settings(host={self.host!r}, port={self.port})"

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def all_faults(self) -> list[Fault]:
        """`faults`, then those of `faults_file` (TOML by its suffix, else JSON).

        :raises ValueError: when the file holds something else.
        :raises OSError: when it cannot be read.
        """
        if not self.faults_file:
            return list(self.faults)
        file = Path(self.faults_file)
        return [*self.faults, *parse_document(file.read_bytes(), toml=file.suffix.lower() == ".toml")]


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, brackets allowed) can only be reached from this machine."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
