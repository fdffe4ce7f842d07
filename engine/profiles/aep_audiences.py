"""A profile's standing in audiences, in the ways that AEP tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from engine.profiles.audiences import DEFAULT_NAMESPACE
from engine.profiles.json_exact import Ambiguous

AUDIENCE_KEYS = ("aggregationKey", "audienceId", "audienceNamespace", "audienceName", "audienceStatus")
"""What names one audience for a whole call, beside ``profiles`` or in a profile that is sent alone."""

_KEYS = frozenset(AUDIENCE_KEYS)

Drop = Callable[[str, str], None]
"""(where, why)"""


class CallAudience(msgspec.Struct, frozen=True):
    """The audience that all profiles of one call are about: Destination SDK's aggregation key."""

    id: str  # namespace/id
    name: str = ""
    status: str = "realized"


def audience_of(call: Mapping[str, Any], drop: Drop) -> CallAudience | None:
    """The audience that this envelope or profile names at its top, if any."""
    if _KEYS.isdisjoint(call):
        return None
    key = call.get("aggregationKey")
    if key is not None and not isinstance(key, Mapping):
        drop("aggregationKey", "not_an_object")
        key = None
    if isinstance(key, Ambiguous):
        drop("aggregationKey", "duplicate_key")
        key = None
    id, namespace, name, status = (
        _text(call.get(top)) or _text((key or {}).get(inner))
        for top, inner in (
            ("audienceId", "segmentId"),
            ("audienceNamespace", "segmentNamespace"),
            ("audienceName", "segmentAlias"),
            ("audienceStatus", "segmentStatus"),
        )
    )
    if not id and not name:
        return None
    return CallAudience(audience_key(id, namespace) if id else named(name), name, status or "realized")


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def audience_key(id: str, namespace: str) -> str:
    """``namespace/id`` as one audience is known by, whatever the case of its namespace."""
    return f"{namespace.lower() or DEFAULT_NAMESPACE}/{id}"


def named(text: str) -> str:
    """The key of an audience of which a template wrote only a text: its id, or a name; a name has spaces at most."""
    if "/" in text and " " not in text:
        namespace, _, id = text.partition("/")
        return audience_key(id, namespace)
    return audience_key(text.replace("%", "%25").replace(" ", "%20").replace("/", "%2F") if " " in text else text, "")


class Memberships:
    """The entries of one profile as ``audiences`` holds them. `now` is asked only for what was sent without a time."""

    __slots__ = ("_drop", "_now", "standing")

    def __init__(self, now: Callable[[], float], drop: Drop) -> None:
        self._now, self._drop = now, drop
        self.standing: dict[str, object] = {}

    def of_profile(self, membership: Mapping[Any, object]) -> None:
        """``segmentMembership``: {namespace: {id: {"status", "lastQualificationTime", "name"}}}. Its times are the
        audiences' own, so it wins over `added_and_removed`."""
        for namespace, entries in membership.items():
            if isinstance(entries, Ambiguous) or not isinstance(entries, Mapping):
                reason = "duplicate_key" if isinstance(entries, Ambiguous) else "not_an_object"
                self._drop(f"segmentMembership.{namespace}", reason)
            elif isinstance(entries.get("status"), str):  # older templates leave the namespace out
                self.standing[audience_key(str(namespace), "")] = entries
            else:
                low = str(namespace).lower()
                for id, entry in entries.items():
                    self.standing[f"{low}/{id}"] = entry

    def added_and_removed(self, segments: Mapping[Any, object]) -> None:
        """``{"add": […], "remove": […]}``: ids or names, without a time: as of now."""
        for key, status in (("add", "realized"), ("remove", "exited")):
            texts = segments.get(key)
            if texts is None:
                continue
            if not isinstance(texts, list):
                self._drop(f"AdobeExperiencePlatformSegments.{key}", "not_a_list")
                continue
            for text in texts:
                if isinstance(text, str) and text.strip():
                    self._timeless(named(text.strip()), status, text.strip() if " " in text.strip() else "")
                else:
                    self._drop(f"AdobeExperiencePlatformSegments.{key}", "not_text")

    def of_call(self, audience: CallAudience) -> None:
        """The call's audience counts for a profile that does not tell its standing there itself; its name always."""
        own = self.standing.get(audience.id)
        if own is None:
            self._timeless(audience.id, audience.status, audience.name)
        elif audience.name and type(own) is dict and not own.get("name"):
            self.standing[audience.id] = {**own, "name": audience.name}

    def _timeless(self, id: str, status: str, name: str) -> None:
        self.standing[id] = {"status": status, "lastQualificationTime": self._now(), "name": name}
