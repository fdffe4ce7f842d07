"""What an ingress worker works by, as the core has read it: a file edited meanwhile makes no two of them differ.

It goes over the link from a process to its own child, packed by pickle; nothing that a producer sends is part of it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.config import Config, IngressClientConfig, IngressKeyConfig
from engine.config.access import CallerConfig

MOST_BYTES = 1 << 31
SPARE_BYTES = 1 << 20
INNER_CONNECTIONS = 32
"""That a worker may have to the core, for everything but events; fewer where the core may not have so many files."""

FILES_A_WORKER = 2
"""Beside these, of the core's."""

C = TypeVar("C", bound=CallerConfig)


class CallersPlan(msgspec.Struct, frozen=True):
    """What changes with a reload. Secrets are sums of them; quotas are the core's to keep."""

    keys: tuple[IngressKeyConfig, ...]
    clients: tuple[IngressClientConfig, ...]
    signing_key: bytes  # of tokens; b"" without clients
    log_level: str


class Inner(msgspec.Struct, frozen=True):
    """The core's socket for everything but events, and how many connections a worker may have to it."""

    path: Path
    connections: int


class WorkerPlan(msgspec.Struct, frozen=True):
    """`number`: from 1. `core`: the process id of the core."""

    number: int
    config: Config
    callers: CallersPlan
    journal_id: str
    inner: Inner
    core: int


def pack_plan(plan: WorkerPlan | CallersPlan) -> bytes:
    return pickle.dumps(plan)


def unpack_plan(packed: bytes) -> WorkerPlan:
    plan: WorkerPlan = pickle.loads(packed)
    return plan


def unpack_callers(packed: bytes) -> CallersPlan:
    plan: CallersPlan = pickle.loads(packed)
    return plan


def with_secrets_read(config: Config) -> Config:
    """The configuration with the sums of its callers' secrets instead of the places where they stand. Raises
    ConfigError when one cannot be had."""
    keys, clients = (tuple(map(_read, them)) for them in (config.ingress.keys, config.ingress.clients))
    return msgspec.structs.replace(config, ingress=msgspec.structs.replace(config.ingress, keys=keys, clients=clients))


def _read(caller: C) -> C:
    return msgspec.structs.replace(caller, sha256=caller.secret_sha256().hex(), secret_env="", secret_file="")


def callers_plan(config: Config, signing_key: Callable[[], bytes]) -> CallersPlan:
    """`config`: with its secrets read. Raises what `signing_key` does."""
    ingress = config.ingress
    return CallersPlan(
        tuple(map(_without_quota, ingress.keys)),
        tuple(map(_without_quota, ingress.clients)),
        signing_key() if ingress.clients else b"",
        config.log.level,
    )


def _without_quota(caller: C) -> C:
    return msgspec.structs.replace(caller, max_events_per_second=0)


def config_for_workers(config: Config) -> Config:
    """All that bears on reading events, and nothing that bears on sending them."""
    ingress = msgspec.structs.replace(config.ingress, keys=(), clients=())
    return msgspec.structs.replace(config, ingress=ingress, accounts=(), forwards=(), notify=(), alerts=())


def most_bytes(config: Config) -> int:
    """Of one frame: events as the journal stores them may be longer than the body they came in."""
    return min(MOST_BYTES, 4 * config.ingress.max_decompressed_bytes + SPARE_BYTES)
