"""Which short ways a source has: as far as its rules can be carried out on typed records."""

from __future__ import annotations

from collections.abc import Callable, Collection

from engine.profiles.aep import AEP_MARKS, SECTIONS
from engine.profiles.aep_audiences import AUDIENCE_KEYS
from engine.profiles.fields import TARGET_FIELDS
from engine.profiles.records import RECORD_KEYS, RecordJudge
from engine.profiles.typed import TypedPath, fields_of
from engine.profiles.typed_aep import TypedAepPath, xdm_tree
from engine.profiles.typed_rules import TypedRules
from engine.profiles.typed_tree import Tree, grow


class ShortWays:
    """`typed` for flat records, `typed_aep` for AEP's; None where every record needs the exact path."""

    def __init__(self, judge: RecordJudge, format: str, now: Callable[[], float]) -> None:
        self._judge = judge
        self._fields = {name: name for name in TARGET_FIELDS} | fields_of(judge.extra)
        self.typed = None if format == "aep" else self._flat(format)
        self.typed_aep = None if format == "profile" else self._aep(now)

    def _flat(self, format: str) -> TypedPath | None:
        judge = self._judge
        reserved = {*RECORD_KEYS, *(() if format == "profile" else AEP_MARKS)}
        tree: Tree = {}
        if not self._fits(tree, reserved, plain=self._fields.keys()):
            return None
        rules = TypedRules(judge.rules, self._fields, tree, plain=self._fields) if judge.rules else None
        return TypedPath(judge.extra, judge.by_time, rules=rules, tree=tree, consents=judge.consent_parser)

    def _aep(self, now: Callable[[], float]) -> TypedAepPath | None:
        judge, tree = self._judge, xdm_tree()
        if not self._fits(tree, {*RECORD_KEYS, *SECTIONS, *AUDIENCE_KEYS, *self._fields, "organizations"}):
            return None
        rules = TypedRules(judge.rules, self._fields, tree) if judge.rules else None
        return TypedAepPath(judge.extra, judge.by_time, rules=rules, tree=tree, consents=judge.consent_parser, now=now)

    def _fits(self, tree: Tree, reserved: Collection[str], plain: Collection[str] = ()) -> bool:
        """Whether rules for fields are all there is, and look at texts that can stand in the tree, or at `plain` names.
        `reserved`: what means something else at the top of a record, in any case."""
        rules = self._judge.rules
        if not rules.keys() <= self._fields.keys():
            return False
        paths = [path for rule in rules.values() for path in rule.paths if path not in plain]
        tops = {path.partition(".")[0] for path in paths}
        return (
            tops.isdisjoint(plain)
            and {top.lower() for top in tops}.isdisjoint(name.lower() for name in reserved)
            and all(grow(tree, path) for path in paths)
        )
