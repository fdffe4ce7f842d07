"""config -> who may call."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from engine.adapters.api_keys import SIGNING_KEY_FILE, Keys, read_signing_key
from engine.config import Config
from engine.ports import Clock

SIGNING_KEY_BYTES = 32


def callers_of(config: Config, clock: Clock, running: Callable[[], object], *, in_memory: bool) -> Keys:
    """`running` raises Stopped while nobody owns the data directory. `in_memory`: the engine has none; then tokens end
    with the process, as everything else does. Raises ConfigError when a secret cannot be had."""
    kept = not in_memory and config.journal.kind != "memory"

    def signing_key() -> bytes:
        running()
        if not kept:
            return secrets.token_bytes(SIGNING_KEY_BYTES)
        return read_signing_key(config.data_dir / SIGNING_KEY_FILE)

    return Keys(config.ingress.keys, config.ingress.clients, time=clock.time, signing_key=signing_key)
