"""`forget`: erase one attendee."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.cli import output
from engine.cli.confirm import confirm
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Person, Url, Yes
from engine.cli.person import read_person
from engine.cli.reach import Target, reach


def forget(
    email: Person,
    yes: Yes = False,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Erase what the engine holds of one attendee: pending state, dead letters, ledger.

    What RainFocus has already is not touched. The order is durable when the command returns; events of this person
    that were accepted before it end as excluded. An address in the arguments shows in the list of processes and in
    the shell's history: use - to hand it in on stdin.

    Example:

        echo lea@example.com | rainfocus-engine forget - --yes
    """
    person = read_person(email)
    confirm("Erase this attendee from the engine?", yes)
    answer = asyncio.run(_forget(Target(config, url, key_env), person))
    if json:
        output.print_json(answer)
    else:
        output.say(f"forgotten: {answer.get('key', '')}")


async def _forget(target: Target, person: str) -> dict[str, Any]:
    async with reach(target) as api:
        return await api.forget(person)
