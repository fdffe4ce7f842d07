"""`forget`: erase one attendee, and prove it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from engine.cli import output
from engine.cli.confirm import confirm
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Person, Url, Yes
from engine.cli.person import is_key, read_person
from engine.cli.reach import Target, reach

WAIT_SECONDS = 20.0
SHORTEST_VALUE = 4

Prove = Annotated[
    bool, typer.Option("--prove", help="Wait until it is done, and search every file of the data directory.")
]
Values = Annotated[
    list[str] | None,
    typer.Option("--value", metavar="TEXT", help="With --prove: search for this too, such as a phone number."),
]


def forget(
    email: Person,
    prove: Prove = False,
    value: Values = None,
    yes: Yes = False,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Erase what the engine holds of one attendee: pending state, dead letters, ledger, consents, journal.

    What RainFocus has already is not touched. The order is durable when the command returns; events of this person
    that were accepted before it end as excluded. With --prove it waits until that is done, searches all files for the
    address in its several spellings, and exits 1 if anything is left. An address in the arguments shows in the list of
    processes and in the shell's history: use - to hand it in on stdin.

    Example:

        echo lea@example.com | rainfocus-engine forget - --prove --yes
    """
    person = read_person(email)
    values = _checked(person, prove, value or [])
    confirm("Erase this attendee from the engine?", yes)
    answer = asyncio.run(_forget(Target(config, url, key_env), person, prove, values))
    output.print_json(answer) if json else _show(answer)
    if prove and not answer["proof"]["ok"]:
        raise typer.Exit(1)


def _checked(person: str, prove: bool, values: list[str]) -> list[str]:
    """Raises BadParameter for what cannot be searched for."""
    if values and not prove:
        raise typer.BadParameter("needs --prove", param_hint="--value")
    if prove and is_key(person):
        raise typer.BadParameter("a key stands for no text to search for: name the address", param_hint="EMAIL")
    if any(len(it) < SHORTEST_VALUE for it in values):
        raise typer.BadParameter(
            f"is shorter than {SHORTEST_VALUE} characters, and found by chance", param_hint="--value"
        )
    return values


async def _forget(target: Target, person: str, prove: bool, values: list[str]) -> dict[str, Any]:
    async with reach(target) as api:
        answer = await api.forget(person)
        if prove:
            proof = await api.traces(person, values, int(answer["offset"]), WAIT_SECONDS)
            return answer | {"proof": {name: it for name, it in proof.items() if name != "key"}}
        return answer


def _show(answer: dict[str, Any]) -> None:
    output.say(f"forgotten: {answer.get('key', '')}")
    proof = answer.get("proof")
    if proof is None:
        return
    if not proof["done"]:
        output.say(
            f"not carried out yet at {', '.join(proof['waiting_for'])}: an attempt is under way there, or it has not "
            "read so far. It will be; ask again with --prove."
        )
        return
    if proof["files"]:
        rows = [(it["file"], it["bytes"], it["found"], it["rows"], it["problem"]) for it in proof["files"]]
        output.console().print(output.table(("file", "bytes", "found", "in rows", "problem"), rows))
    if proof["ok"]:
        output.say(f"proved: {len(proof['files'])} files searched, nothing of this attendee is left in them")
    else:
        output.say("NOT proved: see the table. What came in again after the forget is found as well.")
