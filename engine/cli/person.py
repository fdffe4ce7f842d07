"""How a person is named on the command line: by e-mail address, or by key as logs and answers show it."""

from __future__ import annotations

import re
import sys

import typer

KEY = re.compile(r"[0-9A-Fa-f]{64}\Z")


def is_key(person: str) -> bool:
    return KEY.match(person) is not None


def key_of_person(person: str) -> bytes:
    """32 bytes. Raises BadParameter, without quoting it, for what is neither an address nor a key."""
    if is_key(person):
        return bytes.fromhex(person)
    from engine.profiles.identity import key_of, normalise_email

    address = normalise_email(person)
    if address is None:
        raise typer.BadParameter("is neither an e-mail address nor a key of 64 hexadecimal digits", param_hint="EMAIL")
    return key_of(address)


def read_key(given: str) -> str:
    """A key. Raises BadParameter, without quoting it, for what is none."""
    if not is_key(given):
        raise typer.BadParameter("is not a key of 64 hexadecimal digits", param_hint="--key")
    return given


def read_person(argument: str) -> str:
    """The argument, or the first line of stdin for "-": an address in the arguments shows in the list of processes."""
    person = (sys.stdin.readline() if argument == "-" else argument).strip()
    key_of_person(person)
    return person
