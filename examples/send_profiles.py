"""A producer over HTTP that does what a good producer does: it slows down when it is told to, and loses nothing.

    rainfocus-engine sandbox & rainfocus-engine serve &
    python examples/send_profiles.py http://127.0.0.1:8080 examples/profiles.ndjson

It needs aiohttp only, nothing of the engine. A key is taken from $RAINFOCUS_ENGINE_KEY.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import aiohttp

EVENTS_AT_ONCE = 500
COME_AGAIN = {408, 429, 500, 502, 503, 504}
ANSWER_SECONDS = 30.0
CAP_SECONDS = 60.0


async def send(session: aiohttp.ClientSession, body: bytes) -> dict[str, object]:
    """Hand in one body of NDJSON, as often as it takes. Raises RuntimeError for what will never pass.

    One request at a time keeps the order of events per attendee. Sending again what may have been stored is safe: the
    same events again end in the same profile.
    """
    attempt = 0
    while True:
        wait = random.uniform(0, min(CAP_SECONDS, 0.5 * 2**attempt))
        try:
            async with session.post("/v1/profiles", data=body) as answer:
                if answer.status in (202, 207, 422):
                    return dict(await answer.json())
                if answer.status not in COME_AGAIN:
                    raise RuntimeError(f"refused with {answer.status}: {await answer.text()}")
                wait = max(wait, seconds_of(answer.headers.get("Retry-After", "")))
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError):
            pass  # nothing is known about this attempt
        attempt += 1
        await asyncio.sleep(wait)


def seconds_of(retry_after: str) -> float:
    """The engine sends whole seconds; a proxy in front of it may send a date, for which our own wait will do."""
    return float(retry_after) if retry_after.isdigit() else 0.0


def bodies(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        while chunk := list(islice(lines, EVENTS_AT_ONCE)):
            yield b"".join(chunk)


async def main(url: str, path: Path) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    if key := os.environ.get("RAINFOCUS_ENGINE_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as session:
        for number, body in enumerate(bodies(path), start=1):
            report = await send(session, body)
            print(f"request {number}: {report['accepted']} accepted, rejected: {report['rejected']}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: send_profiles.py URL FILE.ndjson")
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
