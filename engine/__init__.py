"""A streaming connector that keeps RainFocus attendee profiles up to date: durable, ordered, rate-exact.

::

    from engine import Config, Engine

    async with Engine(Config.load("config.toml")) as rainfocus:
        receipt = await rainfocus.submit([{"email": "lea@example.com", "city": "Lille"}])
        await receipt.settled(timeout=5)

Names are imported when they are asked for: the command line answers `--help` without an HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.assembly import Engine, Receipt
    from engine.config import Config
    from engine.errors import ConfigError, DataDirectoryError, EngineError, Overloaded, Stopped, StorageFailed
    from engine.model import Outcome, Rejection
    from engine.profiles.event import ProfileEvent

__all__ = [
    "Config",
    "ConfigError",
    "DataDirectoryError",
    "Engine",
    "EngineError",
    "Outcome",
    "Overloaded",
    "ProfileEvent",
    "Receipt",
    "Rejection",
    "Stopped",
    "StorageFailed",
]

_HOMES = {
    **dict.fromkeys(("Engine", "Receipt"), "engine.assembly"),
    **dict.fromkeys(("Outcome", "Rejection"), "engine.model"),
    "Config": "engine.config",
    "ProfileEvent": "engine.profiles.event",
}


if not TYPE_CHECKING:  # a checker that saw it would take any name for an object, misspelt ones too

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'engine' has no attribute {name!r}")
        value: object = getattr(import_module(_HOMES.get(name, "engine.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
