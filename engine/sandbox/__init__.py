"""A RainFocus stand-in: a real HTTP server with the token endpoint, the attendee store and faults on demand.

It stands apart from the engine and is useful without it: whatever integrates with RainFocus over HTTP can be pointed
at it. What RainFocus does not publish (the token endpoint, the status of a refused token, rate limits, lists of
records) follows the most likely reading and can be set in `Settings`; no figure measured here says anything about
RainFocus itself.

    python -m engine.sandbox --port 8484 --fault 'kind=status,status=503,probability=0.2'
"""

from __future__ import annotations

from engine.sandbox.attendees import Attendee, AttendeeStore, fold_digest
from engine.sandbox.faults import Fault
from engine.sandbox.server import create_app, running_sandbox, serve
from engine.sandbox.settings import Clock, Settings, SystemClock
from engine.sandbox.state import Sandbox

__all__ = [
    "Attendee",
    "AttendeeStore",
    "Clock",
    "Fault",
    "Sandbox",
    "Settings",
    "SystemClock",
    "create_app",
    "fold_digest",
    "running_sandbox",
    "serve",
]
