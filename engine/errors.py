"""The engine's own failures. Each class says what happens next.

Expected ends of a record are values (`Rejection`, `Verdict`, `Outcome`), not exceptions.
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of everything the engine raises on purpose."""


class ConfigError(EngineError):
    """The configuration cannot be used: nothing starts. `problems` are sentences, all of them at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Overloaded(EngineError):
    """Not accepted, nothing written: come back after `retry_after_seconds`. `type` is the stable problem type."""

    def __init__(self, type: str, detail: str, retry_after_seconds: float) -> None:
        super().__init__(detail)
        self.type = type
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class Stopped(EngineError):
    """The engine is not running (not started, draining, or failed: then the failure is `__cause__`)."""


class DataDirectoryError(EngineError):
    """The data directory is not usable as it is: owned by another process, of a newer version, or damaged."""


class NoSpace(EngineError):
    """The disk or the journal's own limit is full: nothing was written, a later try may pass. `type` names which."""

    def __init__(self, type: str, detail: str) -> None:
        super().__init__(detail)
        self.type = type
        self.detail = detail


class StorageFailed(EngineError):
    """A write or fsync failed with an I/O error: what is on disk is unknown, so nothing may follow. Fail-stop."""


class PermitVoid(EngineError):
    """The right to send was withdrawn (pause, open breaker) before the first byte: put the batch back, uncounted."""


class TokenUnavailable(EngineError):
    """No token can be had now; the account's breaker stays open until one can."""
