"""`backup`: copy journal and state."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from engine.cli import output
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Directory, Json, KeyVariable, Url
from engine.cli.reach import Target, reach


def backup(
    directory: Directory,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Copy journal and state to a folder, beside running work.

    A running engine writes the copy itself: the folder is one of its machine. An engine started from a copy sends
    again what was delivered since the copy was made.

    Example:

        rainfocus-engine backup /backups/2026-03-01
    """
    answer = asyncio.run(_backup(Target(config, url, key_env), directory.absolute()))
    if json:
        output.print_json(answer)
    else:
        files = ", ".join(answer.get("files", []))
        output.say(f"{directory}: {files} ({output.text(answer.get('bytes', 0))} bytes)")


async def _backup(target: Target, directory: Path) -> dict[str, Any]:
    async with reach(target) as api:
        return await api.backup(directory)
