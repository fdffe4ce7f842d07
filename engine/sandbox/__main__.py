"""``python -m engine.sandbox``: the sandbox as a process. Exit codes: 0 stopped, 1 could not listen, 2 usage."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from engine.sandbox.faults import parse_flag
from engine.sandbox.server import announce_json, announce_line, serve
from engine.sandbox.settings import Settings

_EXAMPLE = """example:
  python -m engine.sandbox --port 8484 --requests-per-second 50 --fault 'kind=status,status=503,probability=0.2'

faults: kind=status|html_500|error_code|latency|drip|reset_before|reset_after|timeout|timeout_after|token_storm, with
probability, status, retry_after (seconds or date), code, seconds, for_seconds, count, path (store|token|any) and
email_sha256. A faults file is TOML ([[faults]]) or JSON (a list). PUT /_sandbox/faults changes them at run time.
"""


def parser() -> argparse.ArgumentParser:
    """The command line; what is not given keeps the default of `Settings`."""
    arguments = argparse.ArgumentParser(
        prog="python -m engine.sandbox",
        description="A RainFocus stand-in: token endpoint, attendee store, API log and faults on demand.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = arguments.add_argument
    add("--host", help="address to listen on (127.0.0.1); others can read what is stored unless it is loopback")
    add("--port", type=int, help="port (8484); 0: any free one")
    add("--client-id", help="OAuth client id (sandbox)")
    add("--client-secret", help="OAuth client secret (sandbox)")
    add("--org-id", dest="org_ids", action="append", help="accept only this org id (any); may be repeated")
    add("--event-code", dest="event_codes", action="append", help="accept only this event code (any); may be repeated")
    add("--api-profile", help="ask for this API profile id (not asked for)")
    add("--token-seconds", type=int, help="lifetime of a token (3600)")
    add("--requests-per-second", type=float, help="rate limit of the store (0: unlimited)")
    add("--burst", type=int, help="requests the rate limit lets through at once (one second's worth)")
    add("--retry-after", choices=("seconds", "date", "none"), help="what a 429 carries (seconds)")
    add("--latency-ms", type=float, help="wait before each store request is judged (0)")
    add("--encoding", choices=("single", "array", "both"), help="bodies that are accepted (both)")
    add("--no-array-results", dest="array_results", action="store_false", help="a bad record refuses its whole list")
    add("--seed", type=int, help="makes tokens, ids and faults repeatable")
    add("--fault", dest="faults", action="append", type=_fault, metavar="KEY=VALUE,…", help="may be repeated")
    add("--faults-file", help="TOML or JSON file with faults")
    add("--log-size", type=int, help="requests kept in the API log (10000)")
    add("--push-url", help="push changes there, as RainFocus's source connector does (nowhere)")
    add("--push-key", help="Bearer token for that (none)")
    add("--push-writes", action="store_true", help="push what the API wrote too (only what is edited)")
    add("--attendees-file", help="write all attendees there as NDJSON when the server stops")
    add("--json", action="store_true", help="print the URL as JSON")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser()
    given: dict[str, Any] = vars(arguments.parse_args(argv))
    announce = announce_json if given.pop("json", False) else announce_line
    try:
        settings = Settings(allow_remote="host" in given, **given)
        settings.all_faults()
    except (ValueError, OSError) as error:
        arguments.error(str(error))
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(settings, announce=announce))
    except OSError as error:
        sys.stderr.write(f"The sandbox cannot listen on {settings.host} port {settings.port}: {error.strerror}\n")
        return 1
    return 0


def _fault(text: str) -> object:
    try:
        return parse_flag(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _loop_factory() -> Any:
    """uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
