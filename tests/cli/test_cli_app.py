"""What holds for every command: help with an example, exit codes, one sentence for a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

from engine.cli import audit
from engine.cli.app import app
from engine.errors import DataDirectoryError

ROOT = Path(__file__).parents[2]


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))
    if not getattr(command, "commands", {}):
        yield path, command


COMMANDS = dict(leaves(typer.main.get_command(app)))


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False, **options
    )


def test_all_commands_of_the_contract_are_there() -> None:
    assert {" ".join(path) for path in COMMANDS} == {
        *(
            "demo",
            "serve",
            "check",
            "sandbox",
            "send",
            "status",
            "top",
            "runs",
            "export",
            "audit",
            "forget",
            "backup",
            "journal check",
            "bench",
            "keys new",
        ),
        *(f"alerts {it}" for it in ("list", "test")),
        *(f"destinations {it}" for it in ("list", "test", "pause", "resume", "remove", "rename")),
        *(f"dead-letters {it}" for it in ("list", "show", "replay", "purge")),
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_of_every_command_has_an_example_of_it(run: Callable[..., Result], path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    example = result.stdout.partition("Example:")[2]
    assert f"rainfocus-engine {' '.join(path)}" in " ".join(example.split()) or path == ("forget",)
    assert "rainfocus-engine" in example


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_speaks_json(path: tuple[str, ...]) -> None:
    assert "--json" in [option for it in COMMANDS[path].params for option in it.opts]


@pytest.mark.parametrize(
    "path", [it for it in COMMANDS if it not in (("sandbox",), ("demo",), ("keys", "new"))], ids=" ".join
)
def test_every_command_that_reads_the_configuration_takes_its_path(path: tuple[str, ...]) -> None:
    assert "--config" in [option for it in COMMANDS[path].params for option in it.opts]


def test_a_wrong_configuration_is_78_with_every_problem_on_stderr(
    run: Callable[..., Result], config_file: Callable[..., Path]
) -> None:
    config_file("prot = 3\n[log]\nlevel = 'loud'\n")
    for command in ("check", "serve", "audit"):
        result = run(command)
        assert result.exit_code == 78
        assert result.stdout == ""
        assert "prot" in result.stderr
        assert "log.level" in result.stderr
        assert all(line.startswith("error: ") for line in result.stderr.splitlines())


def test_a_missing_configuration_is_78_and_says_how_to_name_one(run: Callable[..., Result]) -> None:
    result = run("audit", "--config", "nowhere.toml")
    assert result.exit_code == 78
    assert "--config" in result.stderr


def test_the_configuration_comes_from_option_then_environment(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.toml").write_text("one = 1")
    (tmp_path / "two.toml").write_text("two = 2")
    monkeypatch.setenv("RAINFOCUS_ENGINE_CONFIG", "two.toml")
    assert "one.toml" in run("check", "--config", "one.toml").stderr
    assert "two.toml" in run("check").stderr


def test_usage_errors_are_2(run: Callable[..., Result]) -> None:
    assert run("chek").exit_code == 2
    assert run("send").exit_code == 2
    assert run("send", "x.csv", "--batch", "0").exit_code == 2
    assert run("dead-letters", "list", "--class", "odd").exit_code == 2


def failing(error: BaseException) -> Callable[..., Any]:
    async def fail(target: object) -> dict[str, Any]:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataDirectoryError("the folder belongs to process 7"), 1, "error: the folder belongs to process 7\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied\n"),
        (ExceptionGroup("several", [DataDirectoryError("one of them")]), 1, "error: one of them\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=["engine", "system", "group", "interrupt"],
)
def test_failures_are_one_sentence_and_a_code(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    monkeypatch.setattr(audit, "_audit", failing(error))
    result = run("audit")
    assert (result.exit_code, result.stderr, result.stdout) == (code, said, "")


def test_an_unforeseen_failure_shows_its_kind_only(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_audit", failing(ValueError("lea@example.com")))
    result = run("audit")
    assert result.exit_code == 1
    assert "ValueError" in result.stderr
    assert "lea@" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("by_option", [True, False])
def test_debug_shows_the_traceback(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, by_option: bool
) -> None:
    monkeypatch.setattr(audit, "_audit", failing(ValueError("odd")))
    monkeypatch.setenv("RAINFOCUS_ENGINE_DEBUG", "" if by_option else "1")
    result = run(*(["--debug"] if by_option else []), "audit")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


@pytest.mark.process
def test_help_needs_no_http_client_and_no_event_loop_extension() -> None:
    heavy = ("aiohttp", "uvloop", "engine.assembly", "engine.adapters", "rich.progress")
    code = f"import sys, engine.cli.app; print([it for it in {heavy} if it in sys.modules])"
    assert process("-c", code).stdout == "[]\n"


@pytest.mark.process
def test_the_module_runs_as_the_command_does() -> None:
    result = process("-m", "engine", "--help")
    assert result.returncode == 0
    assert "rainfocus-engine" in result.stdout


@pytest.mark.process
def test_a_pipe_gets_no_colours_and_whole_rows() -> None:
    result = process("-m", "engine", "check", "--config", "config.toml", env={**os.environ, "TERM": "xterm-256color"})
    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert "http://127.0.0.1:8484/api/demo/v3/attendee/store" in result.stdout


@pytest.mark.process
def test_a_closed_pipe_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "engine", "check", "--json", "--config", "config.toml"]
    result = subprocess.run(
        command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=50, check=False
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")
