"""The floors of DESIGN §7, read from the source with ast: who imports whom, what a pure room touches, who makes tasks.

Every rule is a function from the parsed package to sentences; the second half of the file feeds each of them a made-up
package that breaks it. An exception to a rule stands in a list at the top, by name, or it does not exist.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest

ROOT = Path(__file__).parents[1] / "engine"

FLOORS = {
    **dict.fromkeys(["model", "errors", "callbacks"], 0),
    **dict.fromkeys(["config", "ports", "history", "metrics", "transport"], 1),
    **dict.fromkeys(["profiles", "core"], 2),
    "adapters": 3,
    "dispatcher": 4,
    "pipeline": 5,
    "service": 6,
    **dict.fromkeys(["assembly", "testing", "bench"], 7),
    "cli": 8,
    **dict.fromkeys(["__init__", "__main__"], 9),  # the front door: nobody inside goes through it
}
SIDE_BY_SIDE = {
    ("ports", "history"),
    ("transport", "ports"),
    ("testing", "assembly"),
    ("bench", "testing"),
    ("bench", "assembly"),
}
"""On one floor, and still one of them uses the other."""

APART = "sandbox"
MAY_KNOW_THE_SANDBOX = {"cli", "testing", "bench"}
THE_SANDBOX_MAY_KNOW = {"model"}

MAY_KNOW_ADAPTERS = {"assembly", "testing", "bench"}
ADAPTERS_KNOWN_ELSEWHERE = {
    ("service", "engine.adapters.http_ingress"),  # its front end: problems, access and the listener are shared
    ("cli", "engine.adapters.api_keys"),  # `keys new` makes what this adapter checks
}

PURE = {"core", "profiles"}
IMPURE_MODULES = {
    *("asyncio", "anyio", "threading", "multiprocessing", "concurrent", "subprocess", "signal", "selectors"),
    *("time", "os", "sys", "socket", "ssl", "pathlib", "shutil", "tempfile", "glob", "sqlite3", "logging", "secrets"),
    *("aiohttp", "aiolimiter", "httpx", "urllib", "http", "uvloop", "prometheus_client"),
}
IMPURE_CALLS = {"open", "print", "input", "datetime.now", "datetime.utcnow", "date.today"}

ONLY_FOR_TYPES = {
    ("engine.dispatcher.attempts", "engine.dispatcher.account"),
    ("engine.dispatcher.attempts", "engine.dispatcher.consumer"),
    ("engine.dispatcher.fault", "engine.dispatcher.account"),
    ("engine.dispatcher.fault", "engine.dispatcher.consumer"),
    ("engine.dispatcher.holding", "engine.dispatcher.consumer"),
    ("engine.dispatcher.together", "engine.dispatcher.consumer"),
    ("engine.assembly.alerting", "engine.assembly.build"),
    ("engine.assembly.audit", "engine.assembly.build"),
    ("engine.assembly.control", "engine.assembly.build"),
    ("engine.assembly.past", "engine.assembly.build"),
    ("engine.assembly.gauges", "engine.assembly.build"),
    *(
        (f"engine.testing.contracts.{whole}_{part}", f"engine.testing.contracts.{whole}")
        for whole, parts in {
            "journal": ("reading", "offsets", "erasing", "space"),
            "state": ("model", "letters", "settling", "consumers", "keeping", "runs", "alerts"),
        }.items()
        for part in parts
    ),
}
"""Imports under TYPE_CHECKING that would be a cycle at run time: a part that is handed its whole."""

MAKES_TASKS = {
    "engine.assembly.engine": 1,  # the one task that owns everything else
    "engine.assembly.workers": 2,  # the one that owns the ingress workers, and one that waits until they serve
    "engine.cli.send_post": 1,  # the client side: a TaskGroup of its own process
    "engine.bench.load": 1,  # replaces a connection that broke; a TaskGroup of its own
}
TASK_MAKERS = {"create_task", "ensure_future", "run_coroutine_threadsafe"}

MOST_LINES = 300
LONGER = {
    "config/problems.py": 360,
    "ports.py": 460,  # contracts, mostly text
    "core/coalescer.py": 580,  # one invariant over six indexes; it does not split
    "dispatcher/account.py": 370,
    "assembly/engine.py": 320,  # the front door of the library, mostly docstrings
    "dispatcher/attempts.py": 380,
    "dispatcher/consumer.py": 380,
}


class Import(msgspec.Struct, frozen=True):
    module: str  # who imports
    name: str  # what: a module, of ours or not
    line: int
    for_types: bool


class Source(msgspec.Struct):
    """A parsed package: module name -> tree. Packages carry their own name, without `__init__`."""

    trees: dict[str, ast.Module]
    lengths: dict[str, int]  # path below the root -> lines

    @staticmethod
    def of(files: Mapping[str, str]) -> Source:
        """`files`: path below the root -> text."""
        return Source(
            {_module(path): ast.parse(text, path) for path, text in files.items()},
            {path: len(text.splitlines()) for path, text in files.items()},
        )

    @staticmethod
    def read(root: Path) -> Source:
        return Source.of({path.relative_to(root).as_posix(): path.read_text("utf-8") for path in root.rglob("*.py")})

    def imports(self) -> Iterator[Import]:
        for module, tree in self.trees.items():
            yield from self._imports_of(module, tree, for_types=False)

    def _imports_of(self, module: str, node: ast.AST, *, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, alias.name, child.lineno, for_types)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}:{child.lineno}: imports are absolute"
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield Import(module, whole if whole in self.trees else str(child.module), child.lineno, for_types)
            else:
                typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from self._imports_of(module, child, for_types=for_types or typing)


def _module(path: str) -> str:
    parts = ["engine", *path.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _is_ours(name: str) -> bool:
    return name == "engine" or name.startswith("engine.")


def _between_rooms(source: Source) -> Iterator[tuple[Import, str, str]]:
    for one in source.imports():
        if _is_ours(one.name) and _room(one.module) != _room(one.name):
            yield one, _room(one.module), _room(one.name)


# -- the rules --------------------------------------------------------------------------------------------------------


def rooms_without_a_floor(source: Source) -> list[str]:
    rooms = {_room(module) for module in source.trees}
    return [f"{room}: stands on no floor" for room in sorted(rooms - FLOORS.keys() - {APART})]


def upward_imports(source: Source) -> list[str]:
    return [
        f"{one.module}:{one.line}: {mine} (floor {FLOORS[mine]}) imports {theirs} (floor {FLOORS[theirs]})"
        for one, mine, theirs in _between_rooms(source)
        if APART not in (mine, theirs)
        if FLOORS[theirs] >= FLOORS[mine] and (mine, theirs) not in SIDE_BY_SIDE
    ]


def sandbox_entanglements(source: Source) -> list[str]:
    return [
        f"{one.module}:{one.line}: {mine} imports {theirs}"
        for one, mine, theirs in _between_rooms(source)
        if (mine == APART and theirs not in THE_SANDBOX_MAY_KNOW)
        or (theirs == APART and mine not in MAY_KNOW_THE_SANDBOX)
    ]


def adapters_known_to_others(source: Source) -> list[str]:
    return [
        f"{one.module}:{one.line}: only assembly knows both sides, {mine} imports {one.name}"
        for one, mine, theirs in _between_rooms(source)
        if theirs == "adapters" and mine not in MAY_KNOW_ADAPTERS
        if (mine, ".".join(one.name.split(".")[:3])) not in ADAPTERS_KNOWN_ELSEWHERE
    ]


def adapters_that_know_each_other(source: Source) -> list[str]:
    mine_and_theirs = ((one, one.module.split(".")[2:3], one.name.split(".")[2:3]) for one in source.imports())
    return [
        f"{one.module}:{one.line}: imports another adapter, {one.name}"
        for one, mine, theirs in mine_and_theirs
        if _room(one.module) == "adapters" and _is_ours(one.name) and _room(one.name) == "adapters" and mine != theirs
    ]


def impurities(source: Source) -> list[str]:
    pure = {module: tree for module, tree in source.trees.items() if _room(module) in PURE}
    found = [
        f"{one.module}:{one.line}: imports {one.name}"
        for one in source.imports()
        if one.module in pure and one.name.split(".")[0] in IMPURE_MODULES
    ]
    for module, tree in pure.items():
        found += [f"{module}:{call.lineno}: calls {name}" for call, name in _calls(tree) if name in IMPURE_CALLS]
        found += [f"{module}:{line}: uses the global random source" for line in _global_randomness(tree, set())]
    return found


def _calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            name = ast.unparse(node.func)
            yield node, name
            if name.count(".") > 1:
                yield node, ".".join(name.split(".")[-2:])  # datetime.datetime.now


def _global_randomness(node: ast.AST, shadowed: set[str]) -> Iterator[int]:
    """Lines that touch anything of the module `random` but the type Random; parameters of that name hide it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        arguments = node.args
        names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        # Annotations of the parameters mean the module; the body means the parameter.
        for outside in [*(one.annotation for one in names), *arguments.defaults, *arguments.kw_defaults]:
            if outside is not None:
                yield from _global_randomness(outside, shadowed)
        shadowed = shadowed | {one.arg for one in names}
        body = node.body if isinstance(node.body, list) else [node.body]
        for inside in body:
            yield from _global_randomness(inside, shadowed)
        return
    if isinstance(node, ast.ImportFrom) and node.module == "random" and [a.name for a in node.names] != ["Random"]:
        yield node.lineno
    if isinstance(node, ast.Attribute) and node.attr != "Random" and "random" not in shadowed:
        yield from [node.lineno] if ast.unparse(node.value) == "random" else []
    for child in ast.iter_child_nodes(node):
        yield from _global_randomness(child, shadowed)


def import_cycle(source: Source) -> list[str]:
    """One cycle of modules, if there is any. Imports for types only count too, unless they are named above."""
    graph: dict[str, set[str]] = {module: set() for module in source.trees}
    for one in source.imports():
        if one.name in graph and one.name != one.module and not (one.for_types and _is_listed(one)):
            graph[one.module].add(one.name)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def _is_listed(one: Import) -> bool:
    return (one.module, one.name) in ONLY_FOR_TYPES


def task_makers(source: Source) -> dict[str, int]:
    """module -> how many places of it start a task that no task group of anyio's owns."""
    found: dict[str, int] = {}
    for module, tree in source.trees.items():
        places = {call for call, name in _calls(tree) if name.split(".")[-1] in TASK_MAKERS}
        if places and _room(module) != APART:
            found[module] = len(places)
    return found


def long_files(source: Source) -> list[str]:
    return [
        f"{path}: {lines} lines, at most {LONGER.get(path, MOST_LINES)}"
        for path, lines in source.lengths.items()
        if lines > LONGER.get(path, MOST_LINES)
    ]


RULES = [
    rooms_without_a_floor,
    upward_imports,
    sandbox_entanglements,
    adapters_known_to_others,
    adapters_that_know_each_other,
    impurities,
    import_cycle,
    long_files,
]


@pytest.fixture(scope="module")
def engine() -> Source:
    return Source.read(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_engine_keeps_its_floors(engine: Source, rule: object) -> None:
    assert rule(engine) == []  # type: ignore[operator]


def test_only_the_engine_makes_a_task(engine: Source) -> None:
    assert task_makers(engine) == MAKES_TASKS


def test_no_exception_outlives_its_reason(engine: Source) -> None:
    """A list of exceptions that nobody shortens allows more every year."""
    for_types = {(one.module, one.name) for one in engine.imports() if one.for_types}
    assert for_types >= ONLY_FOR_TYPES
    assert {path for path, lines in engine.lengths.items() if lines > MOST_LINES} == LONGER.keys()
    used = {(mine, ".".join(one.name.split(".")[:3])) for one, mine, _ in _between_rooms(engine)}
    assert used >= ADAPTERS_KNOWN_ELSEWHERE


# -- each rule can fail -----------------------------------------------------------------------------------------------


def made_up(**files: str) -> Source:
    """`core__fold="…"` is engine/core/fold.py."""
    paths = {name: name if name in FLOORS else name.replace("__", "/") for name in files}
    return Source.of({f"{paths[name]}.py": dedent(text) for name, text in files.items()})


@pytest.mark.parametrize(
    ("rule", "package"),
    [
        (rooms_without_a_floor, made_up(helpers__strings="")),
        (upward_imports, made_up(core__fold="from engine.dispatcher.books import Books", dispatcher__books="")),
        (upward_imports, made_up(core__fold="import engine.assembly.build")),
        (upward_imports, made_up(ports="def late():\n    from engine.core import fold", core__fold="")),
        (upward_imports, made_up(model="from engine.errors import EngineError", errors="")),
        (upward_imports, made_up(bench__load="from engine import Engine")),
        (sandbox_entanglements, made_up(sandbox__server="from engine.ports import Clock", ports="")),
        (sandbox_entanglements, made_up(assembly__build="from engine.sandbox import server", sandbox__server="")),
        (adapters_known_to_others, made_up(pipeline__commit="from engine.adapters.limiter import Bucket")),
        (adapters_known_to_others, made_up(service__admin="from engine.adapters.oauth import Token")),
        (adapters_that_know_each_other, made_up(adapters__oauth="from engine.adapters.sessions import open_session")),
        (adapters_that_know_each_other, made_up(adapters__sqlite__state="import engine.adapters.kafka.log")),
        (impurities, made_up(core__window="import time")),
        (impurities, made_up(profiles__fields="from os import path")),
        (impurities, made_up(profiles__fields="import typing\nif typing.TYPE_CHECKING:\n    import socket")),
        (impurities, made_up(core__backoff="import random\ndef wait() -> float:\n    return random.uniform(0, 1)")),
        (impurities, made_up(core__backoff="from random import uniform")),
        (impurities, made_up(core__runs="import datetime\nnow = datetime.datetime.now()")),
        (impurities, made_up(profiles__csv="def read(name):\n    return open(name)")),
        (import_cycle, made_up(core__a="from engine.core import b", core__b="from engine.core import a")),
        (
            import_cycle,
            made_up(
                cli__a="from engine.cli.b import x",
                cli__b="from engine.cli.c import x",
                cli__c="def f():\n    from engine.cli.a import x",
            ),
        ),
        (
            import_cycle,
            made_up(
                core__a="import engine.core.b",
                core__b="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import engine.core.a",
            ),
        ),
        (long_files, made_up(core__fold="\n" * (MOST_LINES + 1))),
        (long_files, made_up(ports="\n" * (LONGER["ports.py"] + 1))),
    ],
)
def test_a_package_that_breaks_the_rule_is_seen(rule: object, package: Source) -> None:
    assert len(rule(package)) == 1  # type: ignore[operator]


def test_a_package_that_keeps_the_rules_is_left_alone() -> None:
    package = made_up(
        __main__="from engine.cli import sandbox",
        model="",
        core__backoff="import random\ndef wait(random: random.Random) -> float:\n    return random.uniform(0, 1)",
        core__fold="from engine.model import Event\nfrom engine.core.backoff import wait",
        adapters__sqlite__state="from engine.adapters.sqlite.worker import Worker",
        adapters__sqlite__worker="import sqlite3",
        assembly__engine="from engine.adapters.sqlite.state import State",
        sandbox__server="from engine.model import Event",
        cli__sandbox="from engine.sandbox import server",
    )
    assert [problem for rule in RULES for problem in rule(package)] == []


def test_every_way_to_make_a_task_is_counted() -> None:
    package = made_up(
        core__a="import asyncio\nasyncio.create_task(f())\nasyncio.ensure_future(f())",
        pipeline__b="def run(loop):\n    loop.create_task(f())",
        pipeline__c="def run(tasks):\n    tasks.start_soon(f)",
    )
    assert task_makers(package) == {"engine.core.a": 2, "engine.pipeline.b": 1}


# -- the tests themselves  --------------------


def test_no_two_files_of_tests_have_one_name() -> None:
    """They are imported by their names: of two, the one that is found first serves for both."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py")
    assert [name for name, times in names.items() if times > 1] == []
