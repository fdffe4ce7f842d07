"""The documentation says nothing that is not so, as far as a program can tell."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import typer.main

from engine import Config
from engine.adapters.http_ingress import TYPES
from engine.assembly.service import Service
from engine.cli.app import app
from engine.core.alert_figures import KINDS
from engine.core.alert_texts import page_of
from engine.sandbox import Sandbox, Settings, create_app, running_sandbox
from engine.sandbox.faults import parse_document
from engine.service.openapi import document
from engine.testing.destination import FakeDestination

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
PROGRAM = "rainfocus-engine"
ENGINE_URL, SANDBOX_URL = "http://127.0.0.1:8080", "http://127.0.0.1:8484"


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


# -- links ------------------------------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    return [it for it in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in it]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    rooms = ("profiles", "core", "adapters", "dispatcher", "pipeline", "service", "assembly", "cli")
    for path in re.findall(r"`((?:tests|examples|engine|docs)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(rf"`((?:{'|'.join(rooms)})/[\w./-]*)`", text):
        assert (ROOT / "engine" / path).exists(), path


# -- blocks -----------------------------------------------------------------------------------------------------------


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@every_page
def test_every_toml_block_is_understood(page: Path, tmp_path: Path) -> None:
    for block in fenced(page, "toml"):
        if "[[faults]]" in block:
            assert parse_document(block.encode(), toml=True)
            continue
        secrets = tmp_path / "secret"
        secrets.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        tables = tomllib.loads(re.sub(r'(_file = )"[^"]*"', rf'\g<1>"{secrets}"', block))
        Config.from_dict(tables, base=tmp_path)


@every_page
def test_every_python_block_is_python(page: Path) -> None:
    for block in fenced(page, "python"):
        compile(block, named(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def test_the_tests_in_the_documentation_pass(tmp_path: Path) -> None:
    blocks = [block for block in fenced(ROOT / "docs" / "library.md", "python") if "def test_" in block]
    assert len(blocks) == 2
    for number, block in enumerate(blocks):
        (tmp_path / f"test_of_the_page_{number}.py").write_text(block)
    # By name, as the plugin is loaded by itself only where the package is installed.
    fixtures = "rainfocus_config, rainfocus_destination, rainfocus_engine"
    (tmp_path / "conftest.py").write_text(f"from engine.testing.plugin import {fixtures}")
    options = "-q -p no:cacheprovider -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function -W error"
    command = f"{sys.executable} -m pytest {options} ."
    code, said = await bash(command, tmp_path, PYTHONPATH=str(ROOT), PYTEST_ADDOPTS="")
    assert code == 0, said
    assert "2 passed" in said


# -- commands ---------------------------------------------------------------------------------------------------------


def in_code(page: Path) -> Iterator[str]:
    """Lines of code blocks, continued ones joined, and what stands between backticks."""
    text = page.read_text()
    blocks = [*re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL), *re.findall(r"^ {4}.*$", text, re.M)]
    yield from re.sub(r"\\\n\s*", " ", "\n".join(blocks)).splitlines()
    yield from (" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text))


def commands(page: Path) -> list[list[str]]:
    """The arguments of every call of our program."""
    parts = (part for line in in_code(page) for part in re.split(r"\s(?:&&|\||&|>)(?:\s|$)", line.strip()))
    ours = (part for part in parts if re.match(rf"(?:ExecStart=)?(?:\S*/)?{PROGRAM}\s", part))
    return [words[1:] for part in ours if "…" not in part and len(words := shlex.split(part, comments=True)) > 1]


@every_page
def test_every_command_line_exists_as_it_is_written(page: Path) -> None:
    root = typer.main.get_command(app)
    for arguments in commands(page):
        command, rest = root, list(arguments)
        with root.make_context(PROGRAM, list(arguments), resilient_parsing=True) as context:
            while hasattr(command, "get_command") and rest:
                name = rest.pop(0)
                found = command.get_command(context, name)
                assert found is not None, arguments
                command = found
        command.make_context(PROGRAM, rest)  # raises for an option that does not exist, and for a missing argument


def test_commands_are_found_at_all() -> None:
    everything = [" ".join(arguments) for page in PAGES for arguments in commands(page)]
    assert len(everything) > 25
    assert "destinations rename OLD NEW" in everything


# -- HTTP -------------------------------------------------------------------------------------------------------------


class Call(msgspec.Struct, frozen=True):
    method: str
    path: str


def calls(page: Path) -> list[Call]:
    """What the curl lines of a page ask the engine for, and whatever else looks like METHOD /path."""
    found = []
    for line in in_code(page):
        if "curl " in line and ENGINE_URL in line:
            words = shlex.split(line[line.index("curl ") :], comments=True)
            url = next(it for it in words if it.startswith(ENGINE_URL))
            method = words[words.index("-X") + 1] if "-X" in words else ("POST" if POSTS & set(words) else "GET")
            found.append(Call(method, url.removeprefix(ENGINE_URL).partition("?")[0] or "/"))
        named = re.findall(r"\b(GET|POST|PUT|DELETE) (/[\w/{}.-]*)", line)
        found += [Call(method, path.removeprefix("/ingest")) for method, path in named]
    return found


POSTS = {"-d", "--data-binary", "--data"}


def is_known(call: Call) -> bool:
    if call.path.startswith("/_sandbox"):
        return True  # looked at below
    return any(
        re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), call.path) and call.method.lower() in operations
        for path, operations in document()["paths"].items()
    )


@every_page
def test_every_http_call_of_the_engine_is_in_the_openapi_document(page: Path) -> None:
    unknown = [call for call in calls(page) if not is_known(call)]
    assert unknown == []


def test_every_http_call_of_the_engine_is_documented() -> None:
    page = ROOT / "docs" / "http-api.md"
    said = calls(page)
    for path, operations in document()["paths"].items():
        shape = re.sub(r"{\w+}", "[^/]+", path)
        for method in operations:
            shown = any(call.method.lower() == method and re.fullmatch(shape, call.path) for call in said)
            assert shown or path.startswith("/assets/") or f"`{path}`" in page.read_text(), (method, path)


def test_every_http_call_of_the_sandbox_exists() -> None:
    page = ROOT / "docs" / "sandbox.md"
    routes = {
        (route.method, route.resource.canonical) for route in create_app(Settings()).router.routes() if route.resource
    }
    paths = {path for _, path in routes}
    text = page.read_text()
    for path in re.findall(r"`?(/_sandbox/[a-z-]+)", text):
        assert path in paths, path
    for path in paths:
        if path.startswith("/_sandbox/") and not path.endswith((".js", ".css")):
            assert path.partition("/{")[0] in text, path


def test_the_problem_types_are_all_documented_with_their_status() -> None:
    page = (ROOT / "docs" / "http-api.md").read_text()
    rows = re.findall(r"^\| (`[^|]+`) \| (\d{3}) \|", page, re.MULTILINE)
    said = {name: int(status) for names, status in rows for name in re.findall(r"`([\w-]+)`", names)}
    assert said == {name: status for name, (status, _) in TYPES.items()}


# -- metrics ----------------------------------------------------------------------------------------------------------


async def test_every_metric_that_is_named_exists_and_every_one_is_documented(tmp_path: Path) -> None:
    from engine import Engine

    async with Engine(Config.from_dict({}, base=tmp_path), destinations={"demo": FakeDestination()}) as engine:
        lines = engine.metrics.render().decode().splitlines()
    exist = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    text = (ROOT / "docs" / "operations.md").read_text()
    named = {re.sub(r"_(?:bucket|count|sum)$", "", it) for it in re.findall(r"\bengine_[a-z_]+\b", text)}
    assert named == exist


async def test_the_rules_for_prometheus_are_about_metrics_that_exist(tmp_path: Path) -> None:
    from engine import Engine

    async with Engine(Config.from_dict({}, base=tmp_path), destinations={"demo": FakeDestination()}) as engine:
        lines = engine.metrics.render().decode().splitlines()
    exist = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    text = (ROOT / "examples" / "alerts.rules.yml").read_text()
    named = {re.sub(r"_bucket$", "", it) for it in re.findall(r"\bengine_[a-z_]+\b", text)}
    assert named <= exist
    pages = re.findall(r"runbook: \"(.+?)\"", text)
    assert len(pages) > 8
    for page in pages:
        path, _, anchor = page.partition("#")
        assert not anchor or anchor in anchors(ROOT / path), page


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
async def test_the_rules_for_prometheus_are_rules() -> None:
    code, said = await bash(f"promtool check rules {ROOT / 'examples' / 'alerts.rules.yml'}", ROOT)
    assert code == 0, said


def test_every_alert_has_a_place_in_the_documentation() -> None:
    assert {page_of(when).partition("#")[2] for when in [*KINDS, "test"]} <= anchors(ROOT / "docs" / "alerts.md")


# -- the examples, run ------------------------------------------------------------------------------------------------


def script(page: Path, base: str) -> list[str]:
    """The indented commands of a page, in order: calls of the server and what prepares them."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [it for it in lines if it.startswith(("KEY=", "gzip ")) or (it.startswith("curl ") and base in it)]


async def bash(commands: str, folder: Path, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", commands),
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, out.decode()


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs curl and bash")
async def test_the_curl_examples_of_the_http_api_work_as_they_are_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    async with running_sandbox(Settings(port=0)) as sandbox, Service(_config(sandbox, tmp_path)) as service:
        code, answer = await bash(_first_receipt(service.urls["ingress"]), tmp_path)
        receipt = msgspec.json.decode(answer)["receipt"]
        prelude = ""
        ran = 0
        for line in script(ROOT / "docs" / "http-api.md", ENGINE_URL):
            if line.startswith(("KEY=", "gzip ")):
                prelude += line + "\n"
                continue
            line = line.replace(ENGINE_URL, service.urls["ingress"]).replace("/backups/today", str(tmp_path / "copy"))
            line = re.sub(r"/receipts/\w+", f"/receipts/{receipt}", line)
            code, answer = await bash(prelude + line.replace("curl ", "curl -sS --fail-with-body ", 1), tmp_path)
            assert code == 0, (line, answer)
            prelude = "" if "gzip" in prelude else prelude
            ran += 1
    assert ran > 20


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs curl and bash")
async def test_the_curl_examples_of_the_sandbox_work_as_they_are_written(tmp_path: Path) -> None:
    async with running_sandbox(Settings(port=0)) as sandbox:
        token = ""
        for line in script(ROOT / "docs" / "sandbox.md", SANDBOX_URL):
            call = line.replace(SANDBOX_URL, sandbox.url).replace("curl ", "curl -sS --fail-with-body ", 1)
            code, answer = await bash(f"TOKEN={token}\n{call}", tmp_path)
            assert code == 0, (line, answer)
            token = msgspec.json.decode(answer).get("access_token", token)
        assert [attendee.email for attendee in sandbox.store] == ["lea.martin@example.com"]


def _config(sandbox: Sandbox, folder: Path) -> Config:
    account = {"base_url": sandbox.url, "rate": {"requests_per_second": 500.0, "burst": 10}}
    return Config.from_dict({"ingress": {"port": 0}, "account": [account]}, base=folder)


def _first_receipt(url: str) -> str:
    event = '{"email": "first@example.com"}'
    return f"curl -sS {url}/v1/profiles -H 'Content-Type: application/json' -d '{event}'"
