"""`check`, `keys new` and `sandbox`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from engine import Config, Engine
from engine.cli.check import warnings_of
from engine.testing.destination import FakeDestination

Run = Callable[..., Result]
SHA = "0" * 64


def test_a_right_configuration_shows_where_events_would_go(run: Run, config_file: Callable[..., Path]) -> None:
    config_file("[[destination]]\nname='x'\nevent_code='e1'\nstart_at='oldest'\ndry_run=true\n", port=8080)
    report = json.loads(run("check", "--json").stdout)
    assert report["ok"] is True
    assert report["urls"] == {"ingress": "http://127.0.0.1:8080", "admin": "http://127.0.0.1:8080"}
    assert report["destinations"][0]["url"] == "http://127.0.0.1:8484/api/demo/v3/attendee/store"
    assert "dry_run" in report["warnings"][0]
    assert "'oldest'" in report["notes"][0]
    text = run("check").stdout
    assert all(it in text for it in ("http://127.0.0.1:8080", "warning: ", "note: "))


def test_forwards_are_shown_with_where_they_go(run: Run, config_file: Callable[..., Path]) -> None:
    config_file(f"[[forward]]\nname='hook'\nurl='https://hook.example/x'\nsecret='{'A' * 32}'\n")
    report = json.loads(run("check", "--json").stdout)
    assert report["forwards"] == [{"name": "hook", "url": "https://hook.example/x"}]
    assert "A" * 32 not in json.dumps(report)
    assert any(note.startswith("forward hook: starts at 'now'") for note in report["notes"])
    assert "hook -> https://hook.example/x" in run("check").stdout


def test_a_wrong_one_lists_all_problems_in_json_too(run: Run, config_file: Callable[..., Path]) -> None:
    config_file("prot = 3\n[log]\nlevel = 'loud'\n")
    result = run("check", "--json")
    assert result.exit_code == 78
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert len(report["problems"]) == 2


def test_a_listener_in_plain_text_is_warned_of(run: Run, config_file: Callable[..., Path]) -> None:
    config_file(f"host = '0.0.0.0'\n[[ingress.keys]]\nname = 'a'\nsha256 = '{SHA}'\n", port=8080)
    report = json.loads(run("check", "--json").stdout)
    assert "plain text" in report["warnings"][0]
    assert report["urls"]["ingress"] == "http://127.0.0.1:8080"
    assert SHA not in json.dumps(report)


def test_a_batch_that_is_larger_than_a_share_of_the_buffer_is_warned_of(
    run: Run, config_file: Callable[..., Path]
) -> None:
    two = "[[destination]]\nname='x'\nevent_code='a'\n[[destination]]\nname='y'\nevent_code='b'\n"
    config_file(f"[buffer]\nmax_profiles = 200\n{two}")
    assert json.loads(run("check", "--json").stdout)["warnings"] == []
    config_file(f"[buffer]\nmax_profiles = 199\n{two}")
    warnings = json.loads(run("check", "--json").stdout)["warnings"]
    assert len(warnings) == 2
    assert "batch.max_profiles is 100, and its share of the buffer 99" in warnings[0]


def connection_test(ok: bool, asked: list[Any]) -> Callable[..., Any]:
    async def try_connection(account: Any, destination: Any, **options: Any) -> dict[str, Any]:
        asked.append((account.name, destination.name, options))
        return {"ok": ok, "steps": [{"step": "resolve", "ok": ok, "detail": "127.0.0.1", "seconds": 0.001}]}

    return try_connection


@pytest.mark.parametrize("ok", [True, False])
def test_connecting_tests_every_destination(
    run: Run, config_file: Callable[..., Path], fake_module: Callable[..., None], ok: bool
) -> None:
    asked: list[Any] = []
    fake_module("engine.assembly.outward", try_connection=connection_test(ok, asked))
    config_file("[[destination]]\nname='x'\n[[destination]]\nname='y'\n")
    result = run("check", "--connect", "--json")
    assert result.exit_code == (0 if ok else 1)
    report = json.loads(result.stdout)
    assert report["ok"] is ok
    assert set(report["connections"]) == {"x", "y"}
    assert asked == [("demo", name, {"store_email": None}) for name in ("x", "y")]
    assert "resolve" in run("check", "--connect").stdout


def test_only_store_writes_and_it_says_where(
    run: Run, config_file: Callable[..., Path], fake_module: Callable[..., None]
) -> None:
    asked: list[Any] = []
    fake_module("engine.assembly.outward", try_connection=connection_test(True, asked))
    config_file()
    assert run("check", "--store", "lea@example.com").exit_code == 2
    result = run("check", "--connect", "--store", "lea@example.com")
    assert asked == [("demo", "demo", {"store_email": "lea@example.com"})]
    assert "Writing the attendee" in result.stderr
    assert "lea@" not in result.output


def test_a_new_key_is_shown_once_with_its_block(run: Run, fake_module: Callable[..., None]) -> None:
    block = f'[[ingress.keys]]\nname = "aep"\nsha256 = "{SHA}"\n'
    fake_module("engine.adapters.api_keys", new_key=lambda name: ("rfe_secret", block))
    result = run("keys", "new", "aep")
    assert block.strip() in result.stdout
    assert result.stdout.count("rfe_secret") == 1
    assert json.loads(run("keys", "new", "aep", "--json").stdout) == {"name": "aep", "key": "rfe_secret", "toml": block}


def test_a_new_client_is_shown_once_with_its_block(run: Run, fake_module: Callable[..., None]) -> None:
    block = f'[[ingress.clients]]\nname = "aep"\nclient_id = "aep"\nsha256 = "{SHA}"\n'
    fake_module("engine.adapters.api_keys", new_client=lambda name: ("rfs_secret", block))
    result = run("keys", "new", "aep", "--client")
    assert block.strip() in result.stdout
    assert result.stdout.count("rfs_secret") == 1
    assert "/oauth/token" in result.stderr
    assert json.loads(run("keys", "new", "aep", "--client", "--json").stdout) == {
        "name": "aep",
        "client_id": "aep",
        "client_secret": "rfs_secret",
        "toml": block,
    }


@pytest.mark.parametrize("name", ["", "a b", "-x", 'x"'])
def test_a_key_needs_a_name_that_config_takes(run: Run, name: str) -> None:
    assert run("keys", "new", "--", name).exit_code == 2


def test_the_sandbox_gets_what_was_given_and_nothing_else(
    run: Run, fake_module: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []

    class Settings:
        def __init__(self, **given: Any) -> None:
            if given.get("burst", 0) < 0:
                raise ValueError("burst must be between 0 and 1e9")
            self.given = given

        def all_faults(self) -> None:
            pass

    async def serve(settings: Settings, *, announce: object) -> None:
        served.append((settings.given, announce))

    fake_module("engine.sandbox", Settings=Settings, serve=serve)
    fake_module("engine.sandbox.faults", parse_flag=lambda text: {"flag": text})
    fake_module("engine.sandbox.server", announce_json="json", announce_line="line")
    options = ["--port", "0", "--retry-after", "date", "--no-array-results", "--fault", "kind=drip", "--org-id", "a"]
    assert run("sandbox", *options).exit_code == 0
    assert run("sandbox", "--host", "0.0.0.0", "--json").exit_code == 0
    assert run("sandbox", "--burst", "-1").exit_code == 2
    assert served == [
        (
            {
                **{"port": 0, "retry_after": "date", "array_results": False, "org_ids": ["a"], "allow_remote": False},
                "faults": [{"flag": "kind=drip"}],
            },
            "line",
        ),
        ({"host": "0.0.0.0", "allow_remote": True}, "json"),
    ]


def test_every_setting_of_the_sandbox_is_an_option() -> None:
    import inspect

    from engine.cli.sandbox import sandbox

    settings = pytest.importorskip("engine.sandbox.settings")
    fields = set(settings.Settings.__struct_fields__) - {"allow_remote"}
    assert fields == set(inspect.signature(sandbox).parameters) - {"json"}


# -- what the next start would mean -----------------------------------------------------------------------------------


def lived(path: Path) -> None:
    """An engine has run with this configuration."""

    async def life() -> None:
        config = Config.load(path)
        async with Engine(config, destinations={it.name: FakeDestination() for it in config.destinations}):
            pass

    asyncio.run(life())


def test_with_a_data_directory_it_says_who_would_be_new_changed_or_orphaned(
    run: Run, config_file: Callable[..., Path]
) -> None:
    events = "[[destination]]\nname='{}'\nevent_code='{}'\n"
    config_file()
    assert json.loads(run("check", "--json").stdout)["next_start"] is None
    lived(config_file(events.format("kept", "a") + events.format("moved", "b")))
    config_file(events.format("kept", "a") + events.format("moved", "elsewhere") + events.format("late", "c"))
    report = json.loads(run("check", "--json").stdout)
    assert report["ok"] is True
    assert report["next_start"] == {"kept": ["kept"], "new": ["late"], "changed": ["moved"], "orphaned": []}
    assert len(report["notes"]) == 2
    text = run("check").stdout
    assert "at the next start new: late" in text
    assert "'moved' points somewhere else now" in " ".join(text.split())


def test_an_orphan_is_a_problem_before_the_start_and_not_only_at_it(run: Run, config_file: Callable[..., Path]) -> None:
    lived(config_file("[[destination]]\nname='old'\nevent_code='a'\n"))
    config_file("[[destination]]\nname='new'\nevent_code='a'\n")
    result = run("check", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (78, False)
    assert report["next_start"]["orphaned"] == ["old"]
    assert "destinations rename old NEW" in report["problems"][0]
    assert run("check").exit_code == 78


def test_a_data_directory_that_cannot_be_read_is_a_warning(run: Run, config_file: Callable[..., Path]) -> None:
    path = config_file("[[destination]]\nname='old'\nevent_code='a'\n")
    lived(path)
    (Config.load(path).data_dir / "state.db").write_bytes(b"something else altogether" * 100)
    result = run("check", "--json")
    assert result.exit_code == 0
    assert any("cannot be read" in warning for warning in json.loads(result.stdout)["warnings"])


def test_more_workers_than_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    said = {
        workers: [
            it for it in warnings_of(Config.from_dict({"ingress": {"workers": workers}})) if "ingress.workers" in it
        ]
        for workers in (1, 2, 3)
    }
    assert said == {1: [], 2: [], 3: ["ingress.workers: 3 for 2 cores; more cost and gain nothing"]}
