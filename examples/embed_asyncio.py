"""The engine inside a plain asyncio program.

    rainfocus-engine sandbox &
    python examples/embed_asyncio.py config.toml

The program below stands for your own service: it hands in events where it learns of them, and the engine delivers them
behind its back.
"""

from __future__ import annotations

import asyncio
import sys

from engine import Config, Engine, Overloaded, ProfileEvent, Receipt

EVENTS: list[ProfileEvent | dict[str, str]] = [
    ProfileEvent(email="lea.martin@example.com", firstname="Léa", city="Lille", countryid="FR"),
    ProfileEvent(email="lea.martin@example.com", city="Lyon"),
    {"email": "ivar.berg@example.com", "jobtitle": "Architect"},
    {"email": "not an address"},
]


async def hand_in(rainfocus: Engine, events: list[ProfileEvent | dict[str, str]]) -> Receipt:
    """All events are on disk when this returns. A full disk or journal is waited for, not an error."""
    while True:
        try:
            return await rainfocus.submit(events)
        except Overloaded as overloaded:
            await asyncio.sleep(overloaded.retry_after_seconds)


async def main(config: Config) -> None:
    async with Engine(config) as rainfocus:
        receipt = await hand_in(rainfocus, EVENTS)
        print(f"{receipt.accepted} accepted")
        for rejection in receipt.rejected:
            print(f"record {rejection.index} refused: {rejection.field}: {rejection.reason}")
        try:
            print(await receipt.settled(timeout=10))
        except TimeoutError:
            print("not settled yet: the events stay in the journal and go on their way")


if __name__ == "__main__":
    asyncio.run(main(Config.load(sys.argv[1] if len(sys.argv) > 1 else "config.toml")))
