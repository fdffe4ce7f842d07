"""Waiting on receipts: what became of the events of a send."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from engine.cli.client import ApiError, Client

POLL_SECONDS = 0.25


async def settled(client: Client, receipts: Iterable[str], seconds: float) -> dict[str, Any]:
    """{"pending": receipts that were not settled in time, "unknown": ones the engine knows no counts of any more,
    "destinations": {name: {outcome: events}}}. What is pending goes on its way all the same."""
    end = asyncio.get_running_loop().time() + seconds
    counts: dict[str, Counter[str]] = {}
    pending = unknown = 0
    for receipt in receipts:
        report = await _one(client, receipt, end)
        pending += report.get("state") == "pending"
        unknown += report.get("destinations") is None
        for name, outcomes in (report.get("destinations") or {}).items():
            counts.setdefault(name, Counter()).update(outcomes)
    shown = {name: {outcome: events for outcome, events in it.items() if events} for name, it in counts.items()}
    return {"pending": pending, "unknown": unknown, "destinations": shown}


async def _one(client: Client, receipt: str, end: float) -> dict[str, Any]:
    clock = asyncio.get_running_loop().time
    while True:
        report = await _ask(client, receipt)
        left = end - clock()
        if report.get("state") != "pending" or left <= 0:
            return report
        await asyncio.sleep(min(POLL_SECONDS, left))


async def _ask(client: Client, receipt: str) -> dict[str, Any]:
    try:
        return dict(await client.call("GET", f"/v1/receipts/{quote(receipt, safe='')}"))
    except ApiError as error:
        if error.status == 404:  # another journal since: nothing is known of it
            return {"state": "settled", "destinations": None}
        raise
