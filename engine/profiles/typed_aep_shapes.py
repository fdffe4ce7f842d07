"""AEP's shapes of a profile as types that msgspec decodes; see `typed_aep`."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.profiles.typed_tree import Member, Text, Tree, attributes, members, struct_type

_TYPES = {"organizations": list[Text] | Text}


class Identity(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One entry of a namespace of ``identityMap``."""

    id: str
    primary: bool | None = None
    authenticatedState: str | None = None


class Qualification(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """One entry of ``segmentMembership``; the times after the name are ignored."""

    status: str
    lastQualificationTime: str | int
    name: str | None = None
    createdAt: str | int | None = None
    updatedAt: str | int | None = None
    mappingCreatedAt: str | int | None = None
    mappingUpdatedAt: str | int | None = None


class Value(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A free-form attribute; one that is absent is {}."""

    value: Text = None


Attribute = Value | Text


class Beside(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What may stand at the top of a profile beside the tree and ``attributes``."""

    identityMap: dict[str, list[Identity]] | None = None
    segmentMembership: dict[str, dict[str, Qualification]] | None = None
    timestamp: str | float | None = None
    consents: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Named(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """``attributes`` under the names of the fields and no others."""


def decoder(tree: Tree, steps: list[Member], given: Any) -> Any:
    """Of profiles with these members of the tree, and ``attributes`` of this type."""
    rename = {attribute: step for step, attribute in attributes(tree).items()}
    profile = struct_type("Profile", [*steps, ("attributes", given | None, None)], rename, Beside)
    return msgspec.json.Decoder(profile).decode


def steps_of(tree: Tree) -> list[Member]:
    """What stands at the top of a profile where a path of the tree begins."""
    return members(tree, _TYPES)
