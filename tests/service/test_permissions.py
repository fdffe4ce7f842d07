"""Who may do what, asked of a whole service over real HTTP: every scope at every address, and those who are limited."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine import Config
from engine.adapters.http_ingress import REASONS, Denials
from engine.assembly.service import Service
from engine.config import effective
from engine.config.access import NEEDED
from engine.errors import ConfigError
from engine.metrics import Metrics
from engine.ports import Control
from engine.sandbox import Settings, running_sandbox
from engine.service.narrowed import Narrowed
from engine.service.openapi import SCOPES
from engine.service.operations import ADMIN, INGRESS, Operation

OPERATIONS = {it.id: it for it in (*INGRESS, *ADMIN)}
OPEN = {"livez", "readyz", "issue_token", "openapi", "dashboard", "dashboard_script", "dashboard_style"}
"""What needs no scope: it shows nothing, or decides for itself."""

LEA = "lea@example.com"
KEY = hashlib.sha256(LEA.encode()).hexdigest()
BODIES: dict[str, dict[str, Any]] = {"lookup_profile": {"email": LEA}, "post_profiles": {"email": LEA}}
RATE = {"requests_per_second": 1_000.0, "burst": 20}
RETRY = {"base_ms": 1, "cap_ms": 5, "timeout_seconds": 5.0, "unknown_hold_seconds": 0.0}


def caller(name: str, scopes: Any, **more: Any) -> dict[str, Any]:
    """Its secret is "key-of-NAME"."""
    return {"name": name, "sha256": hashlib.sha256(f"key-of-{name}".encode()).hexdigest(), "scopes": [*scopes]} | more


class Place:
    def __init__(self, service: Service, http: aiohttp.ClientSession) -> None:
        self.service, self._http = service, http

    async def ask(self, name: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer key-of-{name}"} if name else {}
        url = self.service.urls["ingress"] + path
        async with self._http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None) if "json" in answer.content_type else None

    async def call(self, name: str, operation: Operation) -> int:
        path = operation.path.replace("{key}", KEY).replace("{name}", "demo").replace("{id}", "unreadable")
        return (await self.ask(name, operation.method, path, BODIES.get(operation.id)))[0]


@asynccontextmanager
async def serving(folder: Path, callers: list[dict[str, Any]], **tables: Any) -> AsyncIterator[Place]:
    tables = {"journal": {"kind": "memory"}, "ingress": {"port": 0, "keys": callers}, **tables}
    async with Service(Config.from_dict(tables, base=folder)) as service, aiohttp.ClientSession() as http:
        yield Place(service, http)


# -- every scope at every address -------------------------------------------------------------------------------------


def test_every_operation_names_its_scope_or_is_listed_as_open() -> None:
    assert {id for id, it in OPERATIONS.items() if not it.scope} == OPEN
    assert {it.scope for it in OPERATIONS.values() if it.scope} <= {*SCOPES}


def test_whoever_is_limited_may_ask_only_what_knows_how_to_narrow() -> None:
    """The view of a limited caller offers the whole of what these operations use, and nothing beside it."""
    wide = {it.id for it in OPERATIONS.values() if it.scope and not it.narrows}
    assert wide >= {"forget_profile", "get_audit", "make_backup", "get_metrics"}
    offered = {name for name in vars(Narrowed) if not name.startswith("_")} - {"only", "hides"}
    assert offered < {name for name in dir(Control) if not name.startswith("_")}


def allowed_to(held: set[str]) -> set[str]:
    return {id for id, it in OPERATIONS.items() if {*filter(None, [it.scope, it.also])} <= effective(held)}


async def test_every_scope_opens_exactly_its_addresses(tmp_path: Path) -> None:
    """All of them over HTTP, one scope at a time; then those that need another one beside them, with it."""
    sets: list[set[str]] = [{scope} for scope in SCOPES if scope not in NEEDED]
    sets += [{it.scope, it.also} for it in OPERATIONS.values() if it.also]
    sets += [{scope, beside} for scope, others in NEEDED.items() for beside in sorted(others)]
    callers = [caller(f"c{number}", held) for number, held in enumerate(sets)]
    async with serving(tmp_path, callers) as place:
        for number, held in enumerate(sets):
            statuses = {id: await place.call(f"c{number}", it) for id, it in OPERATIONS.items()}
            opened = {id for id, status in statuses.items() if status != 403 and id != "issue_token"}
            assert opened == allowed_to(held) - {"issue_token"}, held
            assert 401 not in {status for id, status in statuses.items() if id != "issue_token"}
        strangers = {id for id, it in OPERATIONS.items() if await place.call("", it) not in (401, 415)}
        assert strangers == OPEN - {"issue_token"}
        impostors = {id for id, it in OPERATIONS.items() if await place.call("nobody", it) not in (401, 415)}
        assert impostors == OPEN - {"issue_token"}


def test_what_the_scopes_mean_together() -> None:
    """The table of docs/permissions.md."""
    assert effective(["destinations:manage"]) == {"destinations:manage", "destinations:view"}
    assert effective(["destinations:activate"]) == frozenset()
    for beside in ("destinations:view", "destinations:manage"):
        assert "destinations:activate" in effective(["destinations:activate", beside])
    for scope in {*SCOPES} - {"destinations:manage", "destinations:activate"}:
        assert effective([scope]) == {scope}


# -- limited to some destinations -------------------------------------------------------------------------------------

LIMITED = [
    caller("boss", SCOPES),
    caller(
        "ours",
        {*SCOPES} - {"profiles:erase"},
        source="crm",
        destinations=["ours"],
    ),
    caller("two", ["destinations:view", "destinations:activate"], destinations=["ours", "third"]),
]


@asynccontextmanager
async def limited(folder: Path) -> AsyncIterator[Place]:
    """Three destinations, two accounts; events of the source `crm` go to the first one only."""
    async with running_sandbox(Settings(port=0)) as sandbox:
        tables = {
            "source": [{"name": "web"}, {"name": "crm"}],
            "account": [{"name": name, "base_url": sandbox.url, "rate": RATE} for name in ("one", "two")],
            "destination": [
                {"name": "ours", "account": "one", "retry": RETRY},
                {"name": "theirs", "account": "two", "sources": ["web"], "retry": RETRY},
                {"name": "third", "account": "one", "sources": ["web"], "retry": RETRY},
            ],
        }
        async with serving(folder, LIMITED, **tables) as place:
            yield place


async def test_a_limited_caller_sees_its_destinations_and_no_other(tmp_path: Path) -> None:
    async with limited(tmp_path) as place:
        _, everything = await place.ask("boss", "GET", "/v1/destinations")
        assert [it["name"] for it in everything["destinations"]] == ["ours", "third", "theirs"], "account by account"
        _, listed = await place.ask("ours", "GET", "/v1/destinations")
        assert [it["name"] for it in listed["destinations"]] == ["ours"]
        _, status = await place.ask("ours", "GET", "/v1/status")
        assert [it["name"] for it in status["destinations"]] == ["ours"]
        assert [it["name"] for it in status["accounts"]] == ["one"]
        assert "theirs" not in str(status)
        _, found = await place.ask("ours", "POST", "/v1/profiles/lookup", {"email": LEA})
        assert {*found["destinations"]} == {"ours"}
        _, runs = await place.ask("ours", "GET", "/v1/runs")
        assert {it["destination"] for it in runs["runs"]} <= {"ours"}
        for path in ("/v1/runs", "/v1/outcomes"):
            assert (await place.ask("ours", "GET", f"{path}?destination=theirs"))[0] == 404


async def test_a_limited_caller_acts_on_its_destinations_and_no_other(tmp_path: Path) -> None:
    async with limited(tmp_path) as place:
        for order in ("pause", "resume", "test"):
            assert (await place.ask("ours", "POST", f"/v1/destinations/ours/{order}"))[0] == 200
            hidden = await place.ask("ours", "POST", f"/v1/destinations/theirs/{order}")
            missing = await place.ask("ours", "POST", f"/v1/destinations/nowhere/{order}")
            assert hidden == missing, "whether there is such a destination is not told"
            assert hidden[0] == 404
        _, state = await place.ask("boss", "GET", "/v1/destinations/theirs")
        assert state["state"] == "active"
        denied = place.service.engine.metrics.denied
        assert denied == {"destination": 3}


async def test_what_concerns_every_destination_is_refused_to_a_limited_caller(tmp_path: Path) -> None:
    async with limited(tmp_path) as place:
        for method, path in (("GET", "/v1/audit"), ("GET", "/metrics"), ("POST", "/v1/backup")):
            status, problem = await place.ask("ours", method, path)
            assert status == 403, path
            assert problem["type"] == "forbidden"
            assert "limited" in problem["detail"]


async def test_dead_letters_are_those_of_the_limited_callers_destination(tmp_path: Path) -> None:
    async with limited(tmp_path) as place:
        control = place.service.engine.control
        asked: list[Any] = []

        async def letters(which: Any, *more: Any, **also: Any) -> dict[str, object]:
            asked.append(which.consumer)
            return {"letters": [], "next": None, "total": 0}

        async def orders(which: Any, **also: Any) -> dict[str, object]:
            asked.append(which.consumer)
            return {"matched": 0, "replayed": 0, "purged": 0}

        control.letters, control.replay, control.purge = letters, orders, orders  # type: ignore[assignment]
        calls = (("GET", ""), ("POST", "/replay"), ("DELETE", ""))
        for method, path in calls:
            assert (await place.ask("ours", method, f"/v1/dead-letters{path}?ids=1"))[0] == 200
            assert (await place.ask("ours", method, f"/v1/dead-letters{path}?destination=theirs"))[0] == 404
            assert (await place.ask("two", method, f"/v1/dead-letters{path}"))[0] == 400
            assert (await place.ask("two", method, f"/v1/dead-letters{path}?destination=third"))[0] == 200
            assert (await place.ask("boss", method, f"/v1/dead-letters{path}"))[0] == 200
        assert asked == ["ours", "third", None] * len(calls)


async def test_what_a_limited_caller_hands_in_reaches_its_destinations_only(tmp_path: Path) -> None:
    async with limited(tmp_path) as place:
        status, answer = await place.ask("ours", "POST", "/v1/profiles", {"email": LEA})
        assert status == 202
        assert (await place.ask("ours", "POST", "/v1/profiles?source=web", {"email": LEA}))[0] == 403
        await place.service.engine.metrics.complete()
        assert place.service.engine.metrics.denied == {"source": 1}
        await place.service.engine.intake.settled(answer["receipt"], 20.0, owner="ours")
        _, receipt = await place.ask("ours", "GET", f"/v1/receipts/{answer['receipt']}")
        assert {name: it["delivered"] for name, it in receipt["destinations"].items()} == {"ours": 1}
        _, all_of_them = await place.ask("boss", "GET", "/v1/destinations")
        accepted = {it["name"]: it["counts"]["accepted"] for it in all_of_them["destinations"]}
        assert accepted == {"ours": 1, "theirs": 0, "third": 0}


# -- what is said of denials ------------------------------------------------------------------------------------------


@pytest.mark.skipif("ENGINE_WORKERS" in os.environ, reason="an ingress worker logs by itself")
async def test_a_denied_call_is_counted_and_logged_with_who_and_what_and_never_with_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine.access")
    async with serving(tmp_path, [caller("aep", ["profiles:write"])]) as place:
        await place.ask("aep", "DELETE", f"/v1/profiles/{KEY}")
        await place.ask("mallory", "POST", "/v1/profiles", {"email": LEA})
        await place.ask("", "GET", "/metrics")
        text = place.service.engine.metrics.render().decode()
    said = [
        {name: vars(it).get(name) for name in ("reason", "caller", "operation", "scope", "peer")}
        for it in caplog.records
        if it.name == "engine.access"
    ]
    here = {"peer": "127.0.0.1"}
    assert said == [
        {"reason": "scope", "caller": "aep", "operation": "forget_profile", "scope": "profiles:erase", **here},
        {"reason": "unknown_key", "caller": None, "operation": "post_profiles", "scope": None, **here},
        {"reason": "no_key", "caller": None, "operation": "get_metrics", "scope": None, **here},
    ]
    for reason in ("scope", "unknown_key", "no_key"):
        assert f'engine_requests_denied_total{{reason="{reason}"}} 1.0' in text
    hidden = ("key-of-", LEA, KEY)
    assert not [it for it in hidden for record in caplog.records if it in str(vars(record))]


async def test_a_probe_without_a_key_is_no_denial(tmp_path: Path) -> None:
    async with serving(tmp_path, [caller("aep", ["profiles:write"])]) as place:
        status, body = await place.ask("", "GET", "/readyz")
        assert (status, body) == (200, {"ready": True})
        assert place.service.engine.metrics.denied == {}


def test_a_flood_of_denials_is_counted_whole_and_logged_in_part(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    metrics = Metrics()
    denials = Denials(metrics, clock=lambda: now)
    for _ in range(1_000):
        denials.note("unknown_key", "post_profiles", "192.0.2.1")
    assert len(caplog.records) == 20
    denials.note("scope", "get_audit", "192.0.2.2", caller="ops", scope="destinations:view")
    assert len(caplog.records) == 21, "a flood of one kind hides no other"
    now = 3.0
    denials.note("unknown_key", "post_profiles", "192.0.2.1")
    denials.note("unknown_key", "post_profiles", "192.0.2.1")
    assert len(caplog.records) == 22
    assert vars(caplog.records[-1])["denied_unlogged"] == 980
    assert metrics.denied == {"unknown_key": 1_002, "scope": 1}


def test_the_reasons_are_bounded_and_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text()
    table = page[page.index("| reason | answer |") :]
    assert [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] == [*REASONS]


def test_every_scope_is_documented_beside_aeps_permission() -> None:
    page = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text()
    table = page[page.index("| AEP permission |") : page.index("## Limited")]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert {row[2].strip().strip("`") for row in rows} == {*SCOPES}


# -- taken over while it runs -----------------------------------------------------------------------------------------


async def test_limits_that_count_on_a_restart_are_refused_before_it(tmp_path: Path) -> None:
    """The file sends `crm` to one destination only, but what runs still sends it to both."""

    def tables(sources: list[str], **limits: Any) -> dict[str, Any]:
        return {
            "journal": {"kind": "memory"},
            "ingress": {"port": 0, "keys": [caller("crm", ["profiles:write"], source="crm", **limits)]},
            "source": [{"name": "web"}, {"name": "crm"}],
            "destination": [{"name": "ours"}, {"name": "theirs", "sources": sources}],
        }

    async with Service(Config.from_dict(tables(["*"]), base=tmp_path)) as service:
        narrowed = Config.from_dict(tables(["web"], destinations=["ours"]), base=tmp_path)
        with pytest.raises(ConfigError, match="until the next start its events also go to theirs"):
            service.reload(narrowed)
    async with Service(narrowed) as service:
        assert service.reload(narrowed) == []


async def test_clients_may_come_with_a_reload_and_a_bad_signing_key_changes_nothing(tmp_path: Path) -> None:
    def tables(*clients: dict[str, Any]) -> Config:
        ingress = {"port": 0, "keys": [caller("aep", ["profiles:write"])], "clients": [*clients]}
        return Config.from_dict({"ingress": ingress}, base=tmp_path)

    async with Service(tables()) as service, aiohttp.ClientSession() as http:
        file = tmp_path / "var" / "token.key"
        assert not file.exists()
        file.write_bytes(b"short")
        file.chmod(0o600)
        with pytest.raises(ConfigError, match=r"token\.key: is damaged"):
            service.reload(tables(caller("new", ["profiles:write"])))
        form = {"grant_type": "client_credentials", "client_id": "new", "client_secret": "key-of-new"}
        url = f"{service.urls['ingress']}/oauth/token"
        async with http.post(url, data=form) as answer:
            assert answer.status == 401
        file.unlink()
        assert service.reload(tables(caller("new", ["profiles:write"]))) == []
        async with http.post(url, data=form) as answer:
            assert answer.status == 200
    assert file.stat().st_mode & 0o777 == 0o600
