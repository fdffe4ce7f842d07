"""A destination of one's own: every merged profile is written to a file, one line each.

    python examples/own_destination.py profiles.ndjson

Journal, order, merging, retries, dead letters and the rate limit are the engine's; only the last step is this class.
`engine.ports.Destination` is its contract. Nothing is sent to RainFocus.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from engine import Config, Engine
from engine.model import Batch, Profile, Reply, Verdict, VerdictKind
from engine.ports import Permit


class FileDestination:
    """Appends profiles to a file. A line that could not be written is tried again: it is the disk's fault."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def fingerprint(self) -> bytes:
        """Another file is another place: what was confirmed there says nothing about this one."""
        return sha256(str(self._path.absolute()).encode()).digest()

    @property
    def profiles_per_request(self) -> int:
        return 500

    def encode(self, profile: Profile, /) -> bytes:
        return profile.content

    async def open(self) -> None:
        await asyncio.to_thread(self._path.touch)

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        await permit.use()
        try:
            await asyncio.to_thread(self._append, batch.records)
        except OSError as error:
            failed = Verdict(VerdictKind.RETRY, f"os_error_{error.errno}")
            return Reply([failed] * len(batch.profiles), destination_fault=True)
        return Reply([Verdict(VerdictKind.OK)] * len(batch.profiles))

    async def close(self) -> None:
        """Nothing to close."""

    def _append(self, records: list[bytes]) -> None:
        with self._path.open("ab") as file:
            file.writelines(record + b"\n" for record in records)


async def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Config.from_dict({"destination": [{"name": "archive"}]}, base=Path(folder))
        async with Engine(config, destinations={"archive": FileDestination(path)}) as engine:
            receipt = await engine.submit(
                [
                    {"email": "lea.martin@example.com", "city": "Lille"},
                    {"email": "lea.martin@example.com", "jobtitle": "Director"},
                    {"email": "ivar.berg@example.com", "city": "Oslo"},
                ]
            )
            print(await receipt.settled(timeout=10))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "profiles.ndjson")))
