"""One body reader a source: its mapping, its order, and the extra fields that some destination asks for."""

from __future__ import annotations

from collections.abc import Callable

from engine.config import Config
from engine.model import Lane
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.formats import Reader


def extra_fields(config: Config) -> frozenset[str]:
    """Fields beside the 12 that may come in: what some source maps to, some destination lists or renames."""
    named: set[str] = set()
    for source in config.sources:
        named.update(source.mapping)
    for destination in config.destinations:
        named.update(destination.rename)
        named.update(field for field in destination.fields if field != "*")
    return frozenset(named - set(TARGET_FIELDS))


def readers_of(config: Config, now: Callable[[], float]) -> dict[str, tuple[Reader, Lane]]:
    """source -> (reader, the lane of its events). `now`: epoch seconds."""
    extra = extra_fields(config)
    return {
        source.name: (
            Reader(
                mapping=source.mapping,
                extra_fields=extra,
                order=source.order,
                max_events=config.ingress.max_events,
                format=source.format,
                now=now,
                phone_e164=source.phone_e164,
            ),
            Lane[source.lane.upper()],
        )
        for source in config.sources
    }
