"""`check --sample`: what a file of records becomes, side by side. It shows values: the file is the user's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from engine.cli import output
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.assembly.sample import Sent, Tried
    from engine.config import Config

LONGEST = 60
NDJSON = "application/x-ndjson"
MEDIA_TYPES = {".json": "application/json", ".ndjson": NDJSON, ".jsonl": NDJSON, ".csv": "text/csv"}


def check_sample(config: Config, sample: Path, source: str | None, json: bool) -> bool:
    """Print what would become of the records; whether all were accepted. Raises EngineError for an unreadable file."""
    import msgspec

    tried = _tried(config, sample, source or config.sources[0].name)
    if json:
        output.print_json({"ok": all(it.accepted for it in tried), "records": msgspec.to_builtins(tried)})
    else:
        for one in tried:
            _show(one)
        output.say(f"{sum(it.accepted for it in tried)} of {len(tried)} records accepted; nothing was sent.")
    return all(it.accepted for it in tried)


def _tried(config: Config, sample: Path, source: str) -> list[Tried]:
    from engine.assembly.sample import try_sample
    from engine.profiles.formats import BodyUnreadable, TooManyEvents

    if source not in (names := [it.name for it in config.sources]):
        raise typer.BadParameter(f"there is no [[source]] named {source!r}; there are {', '.join(names)}")
    media_type = MEDIA_TYPES.get(sample.suffix.lower())
    if media_type is None:
        raise EngineError(f"{sample}: its name has to end in {', '.join(MEDIA_TYPES)}")
    try:
        return try_sample(config, source, sample.read_bytes(), media_type, time.time())
    except OSError as error:
        raise EngineError(f"{sample}: cannot be read ({error.strerror})") from None
    except (BodyUnreadable, TooManyEvents) as error:
        raise EngineError(f"{sample}: {error}") from None


def _show(one: Tried) -> None:
    destinations = [name for name, sent in one.destinations.items() if not sent.excluded]
    sent = [one.destinations[name] for name in destinations]
    rows: list[tuple[str, ...]] = [
        (
            _places(field.given) or field.origin,
            _values(field.given),
            field.field,
            field.value,
            *(_leaves(it, field.field) for it in sent),
        )
        for field in one.fields
    ]
    rows += [("", "", "", "", *(_named(it, key) for it in sent)) for key in _beside(one)]
    rows += [(path, _short(value), "", "", *("" for _ in sent)) for path, value in one.unused.items()]
    headers = ("given at", "given", "field", "value", *(f"to {name}" for name in destinations))
    output.console().print(output.table(headers, rows, title=f"record {one.index}"))
    for id, membership in one.audiences.items():
        standing = "realized" if membership.realized else "exited"
        output.say(f"  audience {id} {membership.name} {standing} {output.when(membership.qualified_at)}")
    for name, it in one.destinations.items():
        if it.excluded:
            output.say(f"  not sent to {name}: {it.excluded}")
    for kind, rejections in (("rejected", one.rejected), ("dropped", one.dropped)):
        for rejection in rejections:
            output.say(f"  {kind} {rejection.field or 'record'}: {rejection.reason}")


def _beside(one: Tried) -> dict[str, None]:
    """Names of values that are no field's: the event code, a flag, a hash, a state that moved."""
    shown = {field.field for field in one.fields}
    return dict.fromkeys(
        key
        for sent in one.destinations.values()
        for key in sent.record
        if key not in {sent.renamed.get(name, name) for name in shown}
    )


def _leaves(sent: Sent, field: str) -> str:
    """The value as it leaves, under its name there if that is another."""
    name = sent.renamed.get(field, field)
    return _short(sent.record.get(name)) if name == field else _named(sent, name)


def _named(sent: Sent, key: str) -> str:
    return _short(f"{key} = {sent.record[key]}") if key in sent.record else ""


def _places(given: dict[str, object]) -> str:
    return ", ".join(given)


def _values(given: dict[str, object]) -> str:
    return ", ".join(_short(value) for value in given.values())


def _short(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
