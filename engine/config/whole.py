"""The whole of config.toml: its only reader.

Attributes are named as the TOML keys are, except that `[[source]]`, `[[account]]`, `[[destination]]` and `[[alert]]`
are the tuples `sources`, `accounts`, `destinations` and `alerts`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.config import checks_alerts
from engine.config.access import KEY_SECRET
from engine.config.checks import check
from engine.config.checks_outward import CLIENT_ID, CLIENT_SECRET
from engine.config.forward import FORWARD_SECRET
from engine.config.kinds import Table
from engine.config.mapping import read_mapping
from engine.config.problems import Reader, keys_of, masked, parse
from engine.config.tables import SourceConfig, Tables
from engine.errors import ConfigError

PATH_VARIABLE = "RAINFOCUS_ENGINE_CONFIG"

T = TypeVar("T", bound=Table)


class Config(Tables, frozen=True, kw_only=True):
    """A whole configuration, checked. Made by `load` or `from_dict`, which check it; the constructor does not."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Config:
        """Raises ConfigError with every problem of the file."""
        file = Path(path)
        text = _read(file)
        return _checked(parse(text, str(file)), str(file), text, file.absolute().parent, file.absolute())

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], *, base: Path = Path()) -> Config:
        """The tables as TOML would give them; relative file names start at `base`. Raises ConfigError like `load`."""
        return _checked(mapping, "configuration", "", base.absolute(), None)

    def with_workers(self, workers: int | None) -> Config:
        """With so many `ingress.workers`; None leaves them."""
        if workers is None:
            return self
        return msgspec.structs.replace(self, ingress=msgspec.structs.replace(self.ingress, workers=workers))

    def describe(self) -> dict[str, Any]:
        """The effective values under their TOML keys, secrets masked, with the URLs that follow from them."""
        shown: dict[str, Any] = _described(self)
        shown["engine"]["data_dir"] = str(self.data_dir)
        for account, table in zip(self.accounts, shown["account"], strict=True):
            table |= {"base_url": account.base_url_resolved(), "token_url": account.token_url_resolved()}
        for destination, table in zip(self.destinations, shown["destination"], strict=True):
            table["resolved_url"] = destination.resolved_url(self.account_of(destination))
        return shown


def locate(option: str | None) -> Path:
    """Where the configuration is: `--config`, else $RAINFOCUS_ENGINE_CONFIG, else ./config.toml."""
    return Path(option or os.environ.get(PATH_VARIABLE) or "config.toml")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8."]) from None
    except OSError as error:
        hint = f"name another with --config or ${PATH_VARIABLE}"
        raise ConfigError([f"{file}: cannot be read ({error.strerror}); {hint}."]) from None


def _described(value: Any) -> Any:
    if isinstance(value, Table):
        fields = keys_of(type(value)).items()
        return {key: _described(masked(it.type, getattr(value, it.name))) for key, it in fields}
    if isinstance(value, dict):
        return {name: _described(it) for name, it in value.items()}
    return [_described(it) for it in value] if isinstance(value, tuple) else value


def _checked(raw: Mapping[str, Any], file: str, text: str, base: Path, path: Path | None) -> Config:
    reader = Reader(Config, file, text, base)
    config = _completed(reader.table(Config, raw), reader)
    check(config, reader)
    reader.finish()
    return msgspec.structs.replace(config, path=path, base=base)


def _completed(config: Config, reader: Reader) -> Config:
    """What a file may leave open is filled in: a destination's account, and of a secret's places only the named one."""
    for key, tables in (("source", config.sources), ("account", config.accounts), ("destination", config.destinations)):
        if not tables:
            reader.report(key, f"is empty; write at least one [[{key}]] or leave it out")
    ingress = config.ingress
    keys = [_one_place(it, f"ingress.keys[{i}]", KEY_SECRET, reader) for i, it in enumerate(ingress.keys)]
    clients = [_one_place(it, f"ingress.clients[{i}]", KEY_SECRET, reader) for i, it in enumerate(ingress.clients)]
    accounts = [_one_place(it, f"account[{i}]", CLIENT_ID, reader) for i, it in enumerate(config.accounts)]
    accounts = [_one_place(it, f"account[{i}]", CLIENT_SECRET, reader) for i, it in enumerate(accounts)]
    sources = [_with_rules(it, f"source[{i}].mapping", reader) for i, it in enumerate(config.sources)]
    notify = [_one_place(it, f"notify[{i}]", checks_alerts.URL, reader) for i, it in enumerate(config.notify)]
    notify = [_one_place(it, f"notify[{i}]", checks_alerts.SECRET, reader) for i, it in enumerate(notify)]
    first = accounts[0].name if accounts else ""
    destinations = [msgspec.structs.replace(it, account=it.account or first) for it in config.destinations]
    forwards = [_one_place(it, f"forward[{i}]", FORWARD_SECRET, reader) for i, it in enumerate(config.forwards)]
    ingress = msgspec.structs.replace(ingress, keys=tuple(keys), clients=tuple(clients))
    return msgspec.structs.replace(
        config,
        ingress=ingress,
        sources=tuple(sources),
        accounts=tuple(accounts),
        destinations=tuple(destinations),
        forwards=tuple(forwards),
        notify=tuple(notify),
    )


def _with_rules(source: SourceConfig, key: str, reader: Reader) -> SourceConfig:
    return msgspec.structs.replace(source, mapping=read_mapping(source.mapping, key, reader))


def _one_place(table: T, key: str, places: tuple[str, ...], reader: Reader) -> T:
    named = [it for it in places if getattr(table, it) and f"{key}.{it}" in reader.given]
    for extra in named[1:]:
        reader.report(f"{key}.{extra}", f"stands beside {named[0]}; keep one of {', '.join(places)}")
    return msgspec.structs.replace(table, **{it: "" for it in places if named and it not in named})
