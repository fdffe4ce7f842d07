"""What can be put between the generator and the sink: the engine in a variant, or a peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from benchmarks.cores import Cores
from benchmarks.processes import Running, running
from benchmarks.variant import Config, Variant, toml


class System(msgspec.Struct, kw_only=True):
    """One that runs. `pids`: what its CPU time and memory are counted of."""

    name: str
    url: str
    pids: list[int]
    path: str = "/v1/profiles"
    engine: bool = False  # can be asked what is pending
    delivers: bool = True  # to the sink; an ingress alone does not
    lines: bool = False  # takes events over plain TCP
    merges: bool = False  # several events of a person may leave as one


class Place(msgspec.Struct, frozen=True):
    """Where a system is started: its folder, the sink it sends to, its cores."""

    directory: Path
    sink: str
    cores: Cores


class Contestant(msgspec.Struct, frozen=True):
    """What can be started, by name. `start` raises Failed or Unavailable."""

    name: str
    start: Callable[[Place], AbstractContextManager[System]]


class Unavailable(Exception):
    """A peer that cannot be had on this machine; its text says why."""


def engine(variant: Variant, config: Callable[[str], Config]) -> Contestant:
    """`config` makes the configuration from the URL of the sink."""
    return Contestant(variant.name, lambda place: engine_running(variant, config(place.sink), place))


@contextmanager
def engine_running(variant: Variant, config: Config, place: Place) -> Iterator[System]:
    with serve(variant, config, place) as process:
        yield System(name=variant.name, url=process.url, pids=[process.pid], engine=True, merges=True)


@contextmanager
def serve(variant: Variant, config: Config, place: Place) -> Iterator[Running]:
    """Its data is below the folder, and stays for a next one that is started there."""
    home = place.directory / variant.name
    home.mkdir(exist_ok=True, parents=True)
    file = home / "config.toml"
    file.write_text(toml(variant.config(config)), encoding="utf-8")
    arguments = ["-m", "engine", "serve", "--config", str(file), "--json", *variant.options]
    log, cores = home / "engine.log", place.cores.system
    with running(arguments, log, python=variant.python, root=variant.root, cores=cores) as process:
        yield process
