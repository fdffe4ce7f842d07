"""Governance as AEP enforces it: not record by record but on the activation, which is refused as it stands.

A label counts for a destination if its field leaves for it, or if the rule of an audience that goes there looks at the
field. Each audience is an activation of its own, so labels of two audiences never come together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from engine.config.checks_outward import HASH_FIELD, TARGET_FIELDS
from engine.config.governance import ACTIONS, LABELS, AudienceConfig, GovernanceConfig, PolicyConfig
from engine.config.mapping import MappingRule
from engine.config.problems import Reader, did_you_mean
from engine.config.tables import DestinationConfig, Tables

RECORD_KEYS = ("audiences", "consents", "timestamp", HASH_FIELD)


class Carried(NamedTuple):
    """A label, and how the destination comes to it."""

    origin: str
    label: str


def check_governance(config: Tables, reader: Reader) -> None:
    governance = config.governance
    _check_names(config, governance, reader)
    for index, destination in enumerate(config.destinations):
        for place, action in enumerate(destination.marketing_actions):
            for what in violations(config, destination, action):
                reader.report(f"destination[{index}].marketing_actions[{place}]", what, ["governance"])


# -- names ------------------------------------------------------------------------------------------------------------


def _check_names(config: Tables, governance: GovernanceConfig, reader: Reader) -> None:
    """A name that nobody has declared is a slip, and a label with a slip in it protects nothing."""
    labels, actions = (*LABELS, *governance.custom_labels), (*ACTIONS, *governance.custom_actions)
    for key, name in _labels_in(config, governance):
        _check_name(key, name, "label", labels, "governance.custom_labels", reader)
    for index, policy in enumerate(governance.policies):
        for place, name in enumerate(policy.deny):
            key = f"governance.policy[{index}].deny[{place}]"
            _check_name(key, name, "marketing action", actions, "governance.custom_actions", reader)
    for index, destination in enumerate(config.destinations):
        for place, name in enumerate(destination.marketing_actions):
            key = f"destination[{index}].marketing_actions[{place}]"
            _check_name(key, name, "marketing action", actions, "governance.custom_actions", reader)
    fields = known_fields(config)
    for key, name in _fields_in(governance):
        if name not in fields:
            advice = did_you_mean(name, fields) or f"there are {', '.join(fields)}"
            reader.report(key, f"there is no target field {name!r}; {advice}", ["source"])
    seen: set[str] = set()
    for index, policy in enumerate(governance.policies):
        if policy.name in seen:
            reader.report(f"governance.policy[{index}].name", f"{policy.name!r} is the name of another policy already")
        seen.add(policy.name)


def _labels_in(config: Tables, governance: GovernanceConfig) -> Iterator[tuple[str, str]]:
    """(key path, label) wherever one stands."""
    listed: dict[str, Iterable[str]] = {f"governance.labels.{name}": it for name, it in governance.labels.items()}
    listed |= {f"governance.audience[{index}].labels": it.labels for index, it in enumerate(governance.audiences)}
    listed |= {f"governance.policy[{index}].labels": it.labels for index, it in enumerate(governance.policies)}
    for index, source in enumerate(config.sources):
        listed |= {f"source[{index}].labels.{path}": it for path, it in source.labels.items()}
    for key, names in listed.items():
        yield from ((f"{key}[{place}]", name) for place, name in enumerate(names))


def _fields_in(governance: GovernanceConfig) -> Iterator[tuple[str, str]]:
    yield from ((f"governance.labels.{name}", name) for name in governance.labels)
    for index, audience in enumerate(governance.audiences):
        yield from (
            (f"governance.audience[{index}].fields[{place}]", name) for place, name in enumerate(audience.fields)
        )


def _check_name(key: str, name: str, kind: str, known: tuple[str, ...], home: str, reader: Reader) -> None:
    if name not in known:
        same = next((it for it in known if it.lower() == name.lower()), "")
        advice = f"did you mean {same!r}?" if same else did_you_mean(name, known, 0.7)
        advice = advice or f"declare it in {home} if it is your own"
        reader.report(key, f"there is no {kind} {name!r}; {advice}", [home])


def known_fields(config: Tables) -> tuple[str, ...]:
    mapped = (target for source in config.sources for target in source.mapping)
    extra = (it for it in mapped if it not in RECORD_KEYS and not it.startswith("consents."))
    return tuple(dict.fromkeys((*TARGET_FIELDS, HASH_FIELD, *extra)))


# -- lineage ----------------------------------------------------------------------------------------------------------


def violations(config: Tables, destination: DestinationConfig, action: str) -> Iterator[str]:
    """What forbids this marketing action here, one sentence each, with the whole way from the field to the action."""
    base, audiences = _carried(config, destination)
    for policy in config.governance.in_force():
        if action not in policy.deny:
            continue
        for origins in _matches(policy, base, audiences):
            way = f"{origins} → policy {policy.name!r} → marketing action {action!r} → destination {destination.name!r}"
            home = "governance.core_policies" if policy.name in config.governance.core_policies else "the policy"
            hint = f"keep the field or audience from this destination, or correct the label, the action or {home}"
            yield f"a policy forbids it: {way}; {hint}"


def _matches(policy: PolicyConfig, base: list[Carried], audiences: list[list[Carried]]) -> Iterator[str]:
    if policy.match == "any":
        carried = dict.fromkeys(it for part in (base, *audiences) for it in part if it.label in policy.labels)
        yield from (_shown([it]) for it in carried)
        return
    for part in [base] if _has_all(policy, base) else [[*base, *audience] for audience in audiences]:
        if _has_all(policy, part):
            yield _shown([it for it in part if it.label in policy.labels])


def _has_all(policy: PolicyConfig, carried: list[Carried]) -> bool:
    return {it.label for it in carried}.issuperset(policy.labels)


def _shown(carried: list[Carried]) -> str:
    return " and ".join(f"{it.origin} → label {it.label!r}" for it in dict.fromkeys(carried))


def _carried(config: Tables, destination: DestinationConfig) -> tuple[list[Carried], list[list[Carried]]]:
    """(of the fields that leave, of each audience that goes there)."""
    leaving = leaving_fields(config, destination)
    base = [Carried(f"field {name!r}", label) for name in leaving for label in config.governance.labels.get(name, ())]
    for source in config.sources:
        if "*" in destination.sources or source.name in destination.sources:
            base += [
                Carried(f"field {path!r} of source {source.name!r} → field {name!r}", label)
                for path, labels in source.labels.items()
                for name in targets_of(path, source.mapping)
                if name in leaving
                for label in labels
            ]
    return base, [list(_of_audience(config, it.id, it.labels, it.fields)) for it in _activated(config, destination)]


def _of_audience(config: Tables, id: str, labels: Iterable[str], fields: Iterable[str]) -> Iterator[Carried]:
    yield from (Carried(f"audience {id!r}", label) for label in labels)
    for name in fields:
        for label in config.governance.labels.get(name, ()):
            yield Carried(f"field {name!r} in the rule of audience {id!r}", label)


def _activated(config: Tables, destination: DestinationConfig) -> Iterator[AudienceConfig]:
    chosen = {_whole_id(it) for it in destination.audiences}
    yield from (it for it in config.governance.audiences if "*" in chosen or _whole_id(it.id) in chosen)


def _whole_id(id: str) -> str:
    return id if "/" in id or id == "*" else f"ups/{id}"


def leaving_fields(config: Tables, destination: DestinationConfig) -> list[str]:
    chosen = known_fields(config) if "*" in destination.fields else ("email", *destination.fields)
    hashed = [HASH_FIELD] if destination.apply_transformation else []
    return list(dict.fromkeys((*(it for it in chosen if it != HASH_FIELD), *hashed)))


def targets_of(path: str, mapping: Mapping[str, str | MappingRule]) -> list[str]:
    """The target fields that a source field ends in: those mapped to it, by whatever rule, and the one of its name."""
    mapped = [target for target, it in mapping.items() if path in ((it,) if isinstance(it, str) else it.paths)]
    return mapped + ([path] if path not in mapping else [])
