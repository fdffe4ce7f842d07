"""The configuration: what it gives, what it refuses, and how it says so."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rich.pretty
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import SANDBOX_SECRET, AccountConfig, Config, Table, locate
from engine.config.problems import default_of, keys_of, line_numbers, masked, table_in
from engine.errors import ConfigError

ROOT = Path(__file__).parent.parent
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PROD: dict[str, Any] = {
    "name": "prod",
    "environment": "prod",
    "org_id": "acme",
    "client_id": "id-1",
    "client_secret": "s3cret-value",
    "token_url": "https://events.rainfocus.com/oidc/token",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """The machine's own environment decides nothing here."""
    monkeypatch.delenv("RAINFOCUS_CLIENT_SECRET", raising=False)
    monkeypatch.delenv("RAINFOCUS_ENGINE_CONFIG", raising=False)


def problems_of(tables: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(tables)
    return caught.value.problems


def problems_in(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(tmp_path / "config.toml")
    return [it.removeprefix(f"{tmp_path}/") for it in caught.value.problems]


def prod(account: dict[str, Any] | None = None, **destination: Any) -> dict[str, Any]:
    return {"account": [PROD | (account or {})], "destination": [{"event_code": "acme27"} | destination]}


def sections(struct: type[Table], header: str = "") -> dict[str, dict[str, Any]]:
    """Header -> {key: field} of every table of the configuration."""
    found = {header: keys_of(struct)} if header else {}
    for key, field in keys_of(struct).items():
        if inner := table_in(field.type):
            found |= sections(inner, f"{header}.{key}" if header else key)
    return found


SECTIONS = sections(Config)


# What it gives


def test_nothing_configured_gives_one_source_one_sandbox_account_and_one_destination():
    config = Config.from_dict({})
    assert [it.name for it in (*config.sources, *config.accounts, *config.destinations)] == ["default", "demo", "demo"]
    assert config.account_of(config.destinations[0]).environment == "sandbox"


def test_every_key_of_every_table_has_a_default():
    for keys in SECTIONS.values():
        assert all(default_of(field) is not msgspec.NODEFAULT for field in keys.values())


def test_the_example_file_holds_exactly_the_defaults():
    example = msgspec.structs.replace(Config.load(ROOT / "config.toml"), path=None, base=Path())
    assert example == msgspec.structs.replace(Config.from_dict({}), base=Path())


def test_the_example_file_shows_every_key_even_if_commented_out():
    """Uncommented it is still TOML, and then every key stands under its own header."""
    tables = tomllib.loads(uncommented((ROOT / "config.toml").read_text()))
    assert set(line_keys(tables)) == {f"{header}.{key}" for header, keys in SECTIONS.items() for key in keys}


def uncommented(text: str) -> str:
    return re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE)


def plain(default: object) -> Any:
    return json.loads(msgspec.json.encode(default))


def line_keys(node: dict[str, Any], path: str = "") -> list[str]:
    """Key paths without indexes; what stands in a map (mapping, rename, response_codes) is no key."""
    paths: list[str] = []
    for key, child in node.items():
        header = f"{path}.{key}" if path else key
        paths += [header] if path else []
        inner = child[0] if isinstance(child, list) and child and isinstance(child[0], dict) else child
        paths += line_keys(inner, header) if header in SECTIONS else []
    return paths


def test_the_example_file_shows_the_default_of_commented_keys_too():
    tables = tomllib.loads(uncommented((ROOT / "config.toml").read_text()))
    for header, keys in SECTIONS.items():
        table: Any = tables
        for part in header.split("."):
            table = table[part][0] if isinstance(table[part], list) else table[part]
        for key, field in keys.items():
            if not table_in(field.type) and (header, key) != ("destination", "account"):
                assert table[key] == plain(default_of(field)), f"{header}.{key}"


def test_the_document_lists_exactly_the_keys_and_their_defaults():
    document = (ROOT / "docs/configuration.md").read_text()
    listed: dict[str, dict[str, str]] = {}
    for header, body in re.findall(r"^## `\[+([\w.]+)\]+`$(.*?)(?=^## |\Z)", document, re.MULTILINE | re.DOTALL):
        listed[header] = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*?) ?\|", body, re.MULTILINE))
    assert {header: set(keys) for header, keys in listed.items()} == {it: set(keys) for it, keys in SECTIONS.items()}
    for header, keys in listed.items():
        for key, shown in keys.items():
            if shown.startswith("`") and shown != "`{}`":
                default = plain(default_of(SECTIONS[header][key]))
                assert tomllib.loads(f"it = {shown.strip('`')}")["it"] == default, f"{header}.{key}"


def test_the_data_directory_is_relative_to_the_file_and_never_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/config.toml").write_text('[engine]\ndata_dir = "data"\n')
    monkeypatch.chdir(tmp_path)
    config = Config.load("etc/config.toml")
    monkeypatch.chdir("/")
    assert config.data_dir == tmp_path / "etc/data"
    assert config.path == tmp_path / "etc/config.toml"
    assert Config.from_dict({"engine": {"data_dir": tmp_path / "x"}}).data_dir == tmp_path / "x"


def test_the_file_is_the_option_else_the_variable_else_in_the_working_directory(monkeypatch):
    assert locate(None) == Path("config.toml")
    monkeypatch.setenv("RAINFOCUS_ENGINE_CONFIG", "/etc/engine.toml")
    assert locate(None) == Path("/etc/engine.toml")
    assert locate("mine.toml") == Path("mine.toml")


def test_a_destination_without_account_uses_the_first():
    config = Config.from_dict({"account": [{"name": "one"}, {"name": "two"}]})
    assert config.account_of(config.destinations[0]).name == "one"


def test_a_configuration_cannot_be_changed():
    with pytest.raises(AttributeError):
        Config.from_dict({}).engine.data_dir = "elsewhere"  # type: ignore[misc]


# URLs and identity


@pytest.mark.parametrize(
    ("environment", "base"),
    [
        ("sandbox", "http://127.0.0.1:8484"),
        ("prod", "https://events.rainfocus.com"),
        ("stg", "https://events-stg.rainfocus.com"),
        ("staging", "https://events-stg.rainfocus.com"),
        ("dev", "https://events-dev.rainfocus.com"),
    ],
)
def test_each_environment_has_its_host(environment, base):
    token_url = "" if environment == "sandbox" else f"{base}/oidc/token"
    config = Config.from_dict(prod({"environment": environment, "token_url": token_url}))
    assert config.destinations[0].resolved_url(config.accounts[0]) == f"{base}/api/acme/v3/attendee/store"
    assert config.accounts[0].token_url_resolved() == f"{base}/oidc/token"


def test_an_unknown_environment_is_an_error_and_never_becomes_a_host():
    (problem,) = problems_of(prod({"environment": "evil.example"}))
    assert "account[0].environment: 'evil.example' is not one of 'sandbox', 'prod'" in problem


@given(st.text(min_size=1))
@settings(max_examples=100, deadline=None)
def test_no_org_id_or_event_code_can_leave_its_place_in_the_url(text):
    """Accepted or refused, but host and number of path segments stay."""
    template = "{base}/api/{org_id}/{event_code}/store"
    tables = {
        "account": [{"org_id": text}],
        "destination": [{"event_code": text, "url_template": template}],
    }
    try:
        config = Config.from_dict(tables)
    except ConfigError:
        return
    url = config.destinations[0].resolved_url(config.accounts[0])
    assert url.startswith("http://127.0.0.1:8484/api/")
    assert url.count("/") == 6
    assert not set(url) & set("?#@\\ ")
    assert not {".", ".."} & set(url.split("/"))


def test_identity_changes_with_all_it_is_made_of_and_with_nothing_else():
    def identity(account: dict[str, Any] | None = None, **destination: Any) -> str:
        config = Config.from_dict(prod(account, **destination))
        return config.destinations[0].identity(config.accounts[0])

    stage = {"token_url": "https://events-stg.rainfocus.com/oidc/token"}
    assert identity() == identity({"client_id": "other"}, description="x", weight=3)
    assert identity(stage | {"environment": "stg"}) == identity(stage | {"environment": "staging"})
    others = [
        identity(stage | {"environment": "stg"}),
        identity({"org_id": "other"}),
        identity(event_code="other"),
        identity(url_template="{base}/api/{org_id}/v2/attendee/store"),
        identity({"base_url": "https://gateway.example"}),
    ]
    assert len({identity(), *others}) == 6


@pytest.mark.parametrize(
    "account",
    [
        {"base_url": "http://events.rainfocus.com"},
        {"base_url": "https://127.0.0.1"},
        {"base_url": "https://localhost:8484"},
        {"base_url": "https://events-stg.rainfocus.com"},
        {"base_url": "https://user:s3cret-value@gateway.example"},
        {"base_url": "https://events.rainfocus.com\\@gateway.example"},
        {"base_url": "https://gateway.example?x=1"},
        {"base_url": "gateway.example"},
        {"base_url": "ftp://gateway.example"},
        {"token_url": "https://gateway.example/token"},
        {"token_url": "https://rainfocus.com.gateway.example/token"},
        {"token_url": "http://events.rainfocus.com/oidc/token"},
        {"token_url": "https://events-dev.rainfocus.com/oidc/token"},
        {"token_url": ""},
        {"environment": "sandbox"},
    ],
    ids=str,
)
def test_a_secret_can_only_be_sent_to_the_host_it_is_for(account):
    (problem,) = problems_of(prod(account))
    assert next(iter(account)) in problem or "token_url" in problem
    assert "s3cret-value" not in problem


def test_an_explicit_base_url_lets_a_gateway_stand_in():
    gateway = {"base_url": "https://gateway.example/rf/", "token_url": "https://login.gateway.example/token"}
    config = Config.from_dict(prod(gateway))
    assert config.destinations[0].resolved_url(config.accounts[0]).startswith("https://gateway.example/rf/api/acme/")


@pytest.mark.parametrize(
    "template",
    [
        *("https://x.example/{org_id}", "{base}.x.example/", "{base}/{org}", "{base}/{org_id!r}", "{base}/{base}"),
        *("{base}/{", "{base}/{org_id.__class__}", "{base}/{}", "{base}/a b", "{base}/#x"),
    ],
)
def test_a_template_can_neither_name_a_host_nor_reach_anything_else(template):
    (problem,) = problems_of({"destination": [{"url_template": template}]})
    assert "destination[0].url_template" in problem


@pytest.mark.parametrize("missing", ["org_id", "client_id", "token_url"])
def test_outside_the_sandbox_nothing_is_taken_from_its_defaults(missing):
    tables = prod()
    tables["account"] = [{key: value for key, value in PROD.items() if key != missing}]
    (problem,) = problems_of(tables)
    assert f"account[0].{missing}: is required in environment 'prod'" in problem


def test_outside_the_sandbox_the_event_code_has_to_be_given():
    (problem,) = problems_of({"account": [PROD]})
    assert "destination[0].event_code: is required" in problem


# Secrets


def test_the_secret_comes_from_the_place_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("from-file\n")
    monkeypatch.setenv("MY_SECRET", "from-variable")
    without = {key: value for key, value in PROD.items() if key != "client_secret"}

    def secret(place: dict[str, str]) -> str:
        tables = prod() | {"account": [without | place]}
        return Config.from_dict(tables, base=tmp_path).accounts[0].client_secret_value()

    assert secret({"client_secret": "literal"}) == "literal"
    assert secret({"client_secret_env": "MY_SECRET"}) == "from-variable"
    assert secret({"client_secret_file": "secret"}) == "from-file"
    monkeypatch.setenv("RAINFOCUS_CLIENT_SECRET", "by-default")
    assert secret({}) == "by-default"
    assert secret({"client_secret_file": "secret"}) == "from-file"


def test_a_rotated_secret_file_is_read_anew_and_a_lost_one_is_named(tmp_path):
    file = tmp_path / "secret"
    file.write_text("one")
    place = {"client_secret": "", "client_secret_file": "secret"}
    account = Config.from_dict(prod(place), base=tmp_path).accounts[0]
    file.write_text("two")
    assert account.client_secret_value() == "two"
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        account.client_secret_value()


def test_a_client_id_may_come_from_a_variable_too(monkeypatch):
    monkeypatch.setenv("MY_ID", "id-2")
    tables = prod()
    tables["account"] = [{key: value for key, value in PROD.items() if key != "client_id"} | {"client_id_env": "MY_ID"}]
    assert Config.from_dict(tables).accounts[0].client_id_value() == "id-2"


def test_the_sandbox_needs_no_secret_but_takes_one(monkeypatch):
    account = Config.from_dict({}).accounts[0]
    assert (account.client_id_value(), account.client_secret_value()) == ("sandbox", SANDBOX_SECRET)
    monkeypatch.setenv("RAINFOCUS_CLIENT_SECRET", "mine")
    assert account.client_secret_value() == "mine"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"client_secret_env": "NOT_THERE"}, "NOT_THERE is not set"),
        ({"client_secret_env": "abcdef0123456789"}, "the environment variable named here is not set"),
        ({"client_secret_env": "s3cret-value"}, "must be the name of an environment variable"),
        ({"client_secret_file": "nowhere"}, "cannot be read"),
        ({"client_secret_env": ""}, "is not set, neither"),
        ({"client_secret": "s3cret-value", "client_secret_env": "NOT_THERE"}, "stands beside client_secret"),
    ],
)
def test_a_missing_or_misplaced_secret_is_a_problem_that_does_not_quote_it(place, said):
    tables = prod()
    tables["account"] = [{key: value for key, value in PROD.items() if key != "client_secret"} | place]
    (problem,) = problems_of(tables)
    assert said in problem
    assert "account[0].client_secret" in problem
    assert "s3cret-value" not in problem
    assert "abcdef" not in problem


def test_no_secret_stands_in_a_repr_or_in_what_is_shown():
    """Not even one that was put in place of a variable's name."""
    account = {"name": "x", "client_secret": "s3cret-value", "client_id": "id-in-secret"}
    key = {"sha256": hashlib.sha256(b"k").hexdigest()}
    config = Config.from_dict({"account": [account, {"client_secret_env": "abcdef"}], "ingress": {"keys": [key]}})
    shown = [repr(config), str(config), json.dumps(config.describe()), rich.pretty.pretty_repr(config)]
    for text in shown:
        assert not any(it in text for it in ("s3cret", "id-in-secret", "abcdef", key["sha256"]))
    assert "RAINFOCUS_CLIENT_SECRET" in repr(Config.from_dict({}))


def test_what_is_shown_are_the_effective_values_under_their_keys(tmp_path):
    shown = Config.from_dict(prod(), base=tmp_path).describe()
    assert set(shown) == set(keys_of(Config))
    assert shown["engine"]["data_dir"] == str(tmp_path / "var")
    assert shown["account"][0]["base_url"] == "https://events.rainfocus.com"
    assert shown["account"][0]["client_secret"] == "***"
    assert shown["destination"][0]["account"] == "prod"
    assert shown["destination"][0]["resolved_url"] == "https://events.rainfocus.com/api/acme/v3/attendee/store"


def test_an_ingress_key_is_known_by_its_hash_wherever_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("INGRESS_KEY", "k1")
    (tmp_path / "key").write_text("k2\n")
    digest = hashlib.sha256(b"k3").hexdigest()
    places = [{"secret_env": "INGRESS_KEY"}, {"secret_file": "key"}, {"sha256": digest.upper()}]
    keys = [{"name": f"n{index}"} | place for index, place in enumerate(places)]
    config = Config.from_dict({"ingress": {"keys": keys}}, base=tmp_path)
    assert [it.secret_sha256() for it in config.ingress.keys] == [
        hashlib.sha256(it).digest() for it in (b"k1", b"k2", b"k3")
    ]


def test_a_clients_secret_that_can_be_guessed_is_refused_and_not_quoted(tmp_path):
    (tmp_path / "short").write_text("s3cret-of-19-chars.")
    (tmp_path / "long").write_text("s3cret-of-20-chars..")
    tables = {"ingress": {"clients": [{"secret_file": "short"}]}}
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(tables, base=tmp_path)
    (problem,) = caught.value.problems
    assert "ingress.clients[0].secret_file: the secret has fewer than 20 characters" in problem
    assert "s3cret-of" not in problem
    tables["ingress"]["clients"][0]["secret_file"] = "long"
    assert Config.from_dict(tables, base=tmp_path).ingress.clients[0].id == "default"


# How problems look


def test_all_problems_are_reported_at_once_with_line_key_and_hint(tmp_path):
    """Unknown keys, wrong types and broken relations together, in the order of the file."""
    text = """\
lingerms = 3
[engine]
drain_timeout_seconds = 5
[journal]
kind = "memry"
[[source]]
[[source]]
[[destination]]
linger_ms = 3
sources = [
  "default",
  "nobody",
]
[destination.batch]
linger = 4
max_profiles = "many"
"""
    assert [it[: it.index(";")] for it in problems_in(tmp_path, text)] == [
        "config.toml:1: lingerms: unknown key",
        "config.toml:5: journal.kind: 'memry' is not one of 'sqlite', 'segments', 'memory', 'kafka'",
        "config.toml:7: source[1].name: 'default' is the name of source[0] already",
        "config.toml:8: destination[0].retry.timeout_seconds: 10 is not below engine.drain_timeout_seconds (5)",
        "config.toml:9: destination[0].linger_ms: unknown key",
        "config.toml:10: destination[0].sources[1]: there is no [[source]] named 'nobody'",
        "config.toml:15: destination[0].batch.linger: unknown key",
        "config.toml:16: destination[0].batch.max_profiles: expected a whole number, got a text",
    ]


TABLE_LISTS = {
    *("source", "account", "destination", "forward", "keys", "clients", "consent", "audience", "policy"),
    *("alert", "notify"),
}


@pytest.mark.parametrize(
    ("tables", "hint"),
    [
        ({"destination": [{"batch": {"linger": 4}}]}, "did you mean 'linger_ms'?"),
        ({"destination": [{"linger_ms": 4}]}, "'linger_ms' belongs in [destination.batch]."),
        ({"destinations": []}, "did you mean 'destination'?"),
        ({"log": {"zzz": 1}}, "the keys here are level, format."),
        ({"account": [{"environment": "production"}]}, "did you mean 'prod'?"),
        ({"source": {"name": "x"}}, "write [[source]] with two brackets."),
        ({"ingress": 3}, "expected a table, got a whole number"),
        ({"account": []}, "account: is empty"),
    ],
)
def test_a_hint_says_what_was_meant(tables, hint):
    (problem,) = problems_of(tables)
    assert hint in problem


@given(st.sampled_from(sorted(SECTIONS)), st.data())
@settings(max_examples=60, deadline=None)
def test_every_unknown_key_of_every_table_is_refused_by_its_full_path(header, data):
    name = data.draw(st.sampled_from(sorted(SECTIONS[header]))) + "x"
    path, tables = "", {}
    node: dict[str, Any] = tables
    for part in header.split("."):
        path = f"{path}.{part}" if path else part
        listed = path.rpartition(".")[2] in TABLE_LISTS
        needed: dict[str, Any] = {callers: {"sha256": "0" * 64} for callers in ("keys", "clients")}
        needed["forward"] = {"url": "https://a.example", "secret": "x" * 32}
        needed["notify"] = {"url": "https://a.example", "secret": WEBHOOK_SECRET}
        inner: dict[str, Any] = needed.get(part, {}).copy()
        node[part] = [inner] if listed else inner
        path, node = (f"{path}[0]" if listed else path), inner
    node[name] = 1
    (problem,) = problems_of(tables)
    assert problem.startswith(f"configuration: {path}.{name}: unknown key; did you mean ")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a = 1\nb = ", "config.toml:2:"),
        ("a = [1\n\n", "config.toml:1:"),
        ("[a]\n[a]\n", "config.toml:2:3: line 2, column 3:"),
    ],
)
def test_what_is_not_toml_is_reported_with_line_and_column(tmp_path, text, where):
    (problem,) = problems_in(tmp_path, text)
    assert problem.startswith(where)
    assert re.search(r"line \d+, column \d+: not TOML: ", problem)


def test_a_file_that_cannot_be_read_is_one_clear_problem(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    for name, said in (
        ("none.toml", "cannot be read (No such file"),
        ("latin.toml", "not UTF-8 at byte 5"),
        (".", "cannot"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            Config.load(tmp_path / name)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbf[log]\r\nlevel = 'debug'\r\n")
    assert Config.load(tmp_path / "config.toml").log.level == "debug"


def test_lines_are_not_misled_by_texts_lists_and_comments_of_several_lines():
    text = (
        'a = """\n[x]\nb = 1\n"""\n# c = 1\nd = [\n  ["e"],\n]\n[x]\nb = 1\n[[y]]\n[[y]]\nz.k = 1\n[y.w]\nv = {u = 1}\n'
    )
    lines = line_numbers(text)
    assert {key: lines.get(key) for key in ("a", "b", "c", "d", "x", "x.b")} == {
        **{"a": 1, "b": None, "c": None, "d": 6, "x": 9, "x.b": 10}
    }
    assert [lines[key] for key in ("y[0]", "y[1]", "y[1].z.k", "y[1].w.v.u")] == [11, 12, 13, 15]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(sorted({key for keys in SECTIONS.values() for key in keys}))
TABLE = st.dictionaries(KEYS, ANYTHING, max_size=5)
TABLES = st.dictionaries(
    st.sampled_from(sorted(keys_of(Config))), TABLE | st.lists(TABLE, max_size=2) | ANYTHING, max_size=5
)


@given(TABLES)
@settings(max_examples=100, deadline=None)
def test_whatever_it_is_given_it_answers_with_a_configuration_or_with_problems(tables):
    """No other exception, and every problem is a sentence."""
    problems: list[str] = []
    try:
        Config.from_dict(tables)
    except ConfigError as error:
        problems = error.problems
    assert all(it.startswith("configuration: ") and it.endswith((".", "?")) for it in problems)


# Relations


A, B = "a" * 64, "b" * 64


def with_key(**key: Any) -> dict[str, Any]:
    """Two destinations: `a` takes every source, `b` only the source `web`."""
    return {
        "ingress": {"keys": [{"sha256": A} | key]},
        "source": [{"name": "crm"}, {"name": "web"}],
        "destination": [{"name": "a"}, {"name": "b", "sources": ["web"]}],
    }


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"engine": {"drain_timeout_seconds": 10}}, "destination[0].retry.timeout_seconds"),
        ({"destination": [{"retry": {"timeout_seconds": 12}}]}, "destination[0].retry.timeout_seconds"),
        ({"destination": [{"retry": {"base_ms": 2, "cap_ms": 1}}]}, "destination[0].retry.base_ms"),
        ({"ingress": {"body_timeout_seconds": float("inf")}}, "ingress.body_timeout_seconds"),
        ({"ingress": {"answer_timeout_seconds": float("nan")}}, "ingress.answer_timeout_seconds"),
        ({"buffer": {"max_profiles": 99}}, "destination[0].batch.max_profiles"),
        ({"buffer": {"max_bytes": 1_048_575}}, "destination[0].batch.max_bytes"),
        ({"account": [{"rate": {"burst": 1}}]}, "account[0].rate.burst"),
        ({"account": [{"rate": {"requests_per_second": 301.0, "burst": 3}}]}, "account[0].rate.burst"),
        ({"account": [{"rate": {"requests_per_second": 0}}]}, "account[0].rate.requests_per_second"),
        ({"account": [{"name": "a"}, {"name": "a"}]}, "account[1].name"),
        ({"destination": [{"name": "d"}, {"name": "d"}]}, "destination[1].name"),
        ({"destination": [{"name": "a/b"}]}, "destination[0].name"),
        ({"destination": [{"name": "a\n"}]}, "destination[0].name"),
        ({"destination": [{"account": "nobody"}]}, "destination[0].account"),
        ({"destination": [{"sources": []}]}, "destination[0].sources"),
        ({"destination": [{"audiences": ["*", "a"]}]}, "destination[0].audiences"),
        ({"destination": [{"exits": "flag:"}]}, "destination[0].exits"),
        ({"destination": [{"exits": "flag:email"}]}, "destination[0].exits"),
        ({"destination": [{"fields": ["firstnam"]}]}, "destination[0].fields[0]"),
        ({"destination": [{"rename": {"firstnam": "x"}}]}, "destination[0].rename.firstnam"),
        ({"destination": [{"rename": {"firstname": "lastname"}}]}, "destination[0].rename"),
        ({"destination": [{"rename": {"city": "x", "zip": "x"}}]}, "destination[0].rename.zip"),
        ({"destination": [{"rename": {"city": "event"}}]}, "destination[0].rename.city"),
        ({"destination": [{"rename": {"city": "gone"}, "exits": "flag:gone"}]}, "destination[0].rename"),
        ({"destination": [{"response_codes": {"27": "maybe"}}]}, "destination[0].response_codes.27"),
        ({"destination": [{"response_codes": {"0": "reject"}}]}, "destination[0].response_codes.0"),
        ({"ingress": {"host": "0.0.0.0"}}, "ingress.host"),
        ({"admin": {"host": "::"}}, "admin.host"),
        ({"admin": {"port": 8080}}, "admin.port"),
        ({"ingress": {"port": 65_536}}, "ingress.port"),
        ({"ingress": {"tls_cert": __file__}}, "ingress.tls_key"),
        ({"ingress": {"tls_cert": "none.pem", "tls_key": __file__}}, "ingress.tls_cert"),
        ({"ingress": {"tls_client_ca": __file__}}, "ingress.tls_client_ca"),
        ({"ingress": {"keys": [{"name": "k"}]}}, "ingress.keys[0]"),
        ({"ingress": {"keys": [{"sha256": "plain"}]}}, "ingress.keys[0].sha256"),
        ({"ingress": {"keys": [{"sha256": "0" * 64, "source": "x"}]}}, "ingress.keys[0].source"),
        ({"ingress": {"keys": [{"sha256": "0" * 64, "scopes": []}]}}, "ingress.keys[0].scopes"),
        ({"ingress": {"keys": [{"sha256": "0" * 64, "secret_env": "X"}]}}, "ingress.keys[0].secret_env"),
        ({"ingress": {"keys": [{"sha256": "0" * 64, "name": it} for it in "ab"]}}, "ingress.keys[1]"),
        ({"ingress": {"keys": [{"sha256": A, "previous_sha256": A}]}}, "ingress.keys[0].previous_sha256"),
        ({"ingress": {"keys": [{"sha256": A}, {"name": "b", "sha256": B, "previous_sha256": A}]}}, "ingress.keys[1]"),
        ({"ingress": {"keys": [{"sha256": A}], "clients": [{"name": "b", "sha256": A}]}}, "ingress.clients[0]"),
        ({"ingress": {"keys": [{"sha256": A}], "clients": [{"sha256": B}]}}, "ingress.clients[0].name"),
        ({"ingress": {"clients": [{"name": "c"}]}}, "ingress.clients[0]"),
        ({"ingress": {"clients": [{"sha256": A, "client_id": "a:b"}]}}, "ingress.clients[0].client_id"),
        ({"ingress": {"clients": [{"sha256": A, "token_seconds": 0}]}}, "ingress.clients[0].token_seconds"),
        (
            {"ingress": {"clients": [{"sha256": A, "name": "a"}, {"sha256": B, "name": "b", "client_id": "a"}]}},
            "ingress.clients[1].client_id",
        ),
        (with_key(scopes=["destinations:activate"]), "ingress.keys[0].scopes"),
        (with_key(scopes=["destinations:activate", "profiles:view"]), "ingress.keys[0].scopes"),
        (with_key(destinations=["a", "*"], scopes=["profiles:view"]), "ingress.keys[0].destinations"),
        (with_key(destinations=["c"], scopes=["profiles:view"]), "ingress.keys[0].destinations[0]"),
        (with_key(destinations=["a"], scopes=["profiles:erase"]), "ingress.keys[0].scopes"),
        (with_key(destinations=["a"]), "ingress.keys[0].source"),
        (with_key(destinations=["a"], source="web"), "ingress.keys[0].destinations"),
        ({"journal": {"kind": "kafka"}}, "journal.kind"),
        ({"source": [{"format": "xdm"}]}, "source[0].format"),
        ({"journal": {"max_bytes": 1.5}}, "journal.max_bytes"),
        ({"buffer": {"max_profiles": True}}, "buffer.max_profiles"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_a_broken_relation_is_exactly_one_problem_of_that_key(tables, key):
    (problem,) = problems_of(tables)
    assert problem.startswith(f"configuration: {key}: ")


@pytest.mark.parametrize(
    "tables",
    [
        {"ingress": {"host": "0.0.0.0", "keys": [{"sha256": "0" * 64}]}, "admin": {"host": "::"}},
        {"ingress": {"host": "0.0.0.0", "clients": [{"sha256": "0" * 64}]}},
        with_key(destinations=["a"], source="crm"),
        with_key(destinations=["a", "b"], source="web"),
        with_key(destinations=["a"], scopes=["destinations:activate", "destinations:manage", "profiles:view"]),
        {"ingress": {"host": "localhost"}, "admin": {"host": "::1", "port": 0}},
        {"ingress": {"host": "127.0.0.2", "port": 0}},
        {"account": [{"rate": {"requests_per_second": 300, "burst": 3}}]},
        {"account": [{"base_url": "http://sandbox.internal:8484"}]},
        {"destination": [{"rename": {"firstname": "lastname", "lastname": "firstname"}}]},
        {"destination": [{"rename": {"firstname": "lastname"}, "fields": ["firstname"]}]},
        {"destination": [{"rename": {"city": "event"}, "event_in": "query"}]},
        {
            "source": [{"mapping": {"badge": "x.badge"}}],
            "destination": [{"fields": ["badge"], "rename": {"badge": "b"}}],
        },
        {"destination": [{"exits": "flag:gone", "rename": {"gone": "left"}}]},
        {"destination": [{"response_codes": {"27": "config", "0": "ok"}}]},
        {"destination": [{"encoding": "single", "batch": {"max_profiles": 100}}]},
    ],
    ids=str,
)
def test_what_only_looks_unusual_is_accepted(tables):
    assert Config.from_dict(tables)


def test_a_wrong_value_does_not_drag_relations_along_that_would_mislead():
    """The name of the account is unreadable, so nothing is said of destinations that refer to it."""
    (problem,) = problems_of({"account": [{"name": 5}], "destination": [{"account": "five"}]})
    assert "account[0].name" in problem


def test_every_public_table_is_masked_in_its_repr():
    """Whatever table has a secret, its type says so, and the mark is what masks it."""
    marked = {
        (header, key)
        for header, keys in SECTIONS.items()
        for key, it in keys.items()
        if masked(it.type, "a b") == "***"
    }
    secrets = ("sha256", "previous_sha256", "secret_env")
    expected = {(callers, it) for callers in ("ingress.keys", "ingress.clients") for it in secrets}
    expected |= {("forward", it) for it in ("secret", "secret_env")}
    expected |= {("account", it) for it in ("client_id", "client_id_env", "client_secret", "client_secret_env")}
    expected |= {("notify", it) for it in ("url", "url_env", "secret", "secret_env")}
    assert marked == expected
    assert "***" in repr(AccountConfig(client_secret="x"))


# -- alerts and who is told -------------------------------------------------------------------------------------------


def hook(**more: Any) -> dict[str, Any]:
    return {"notify": [{"url": "https://hooks.example.com/token", "secret": WEBHOOK_SECRET, **more}]}


@pytest.mark.parametrize(
    ("tables", "key", "hint"),
    [
        ({"alert": [{"to": ["oncall"]}]}, "alert[0].to[0]", "there is no [[notify]] named 'oncall'"),
        ({**hook(), "alert": [{"to": ["oncal"]}]}, "alert[0].to[0]", "did you mean 'oncall'?"),
        ({"alert": [{"destinations": ["dem"]}]}, "alert[0].destinations[0]", "did you mean 'demo'?"),
        ({"alert": [{"destinations": ["*", "demo"]}]}, "alert[0].destinations", "'*' means all"),
        ({"alert": [{"when": "breaker"}]}, "alert[0].when", "did you mean 'breaker-open'?"),
        ({"alert": [{"threshold": 2}]}, "alert[0].threshold", "0.01 is 1 %"),
        ({"alert": [{"when": "watchdog", "threshold": 1}]}, "alert[0].threshold", "for_seconds"),
        (
            {"alert": [{"when": "disk-filling", "destinations": ["demo"]}]},
            "alert[0].destinations",
            "about the whole engine",
        ),
        ({"alert": [{"name": "watchdog"}]}, "alert[0].name", "a built-in alert about watchdog"),
        ({"alert": [{"name": "journal-nearly-full"}]}, "alert[0].name", "a built-in alert about journal-filling"),
        ({"alert": [{}, {"when": "watchdog"}]}, "alert[1].name", "'skipped' is the name of alert[0] already"),
        ({"alert": [{"window_seconds": 1}]}, "alert[0].window_seconds", "3600"),
        (hook(url="http://hooks.example.com/"), "notify[0].url", "must be https"),
        (hook(url="hooks.example.com"), "notify[0].url", "must be a whole URL"),
        (hook(url=""), "notify[0].url_env", "is not set"),
        (hook(secret=""), "notify[0].secret_env", "is not set"),
        (hook(secret="whsec_c2hvcnQ="), "notify[0].secret", "base64 of 24 to 64 bytes"),
        (hook(secret="MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "notify[0].secret", "'whsec_'"),
        (hook(kind="apprise", secret=""), "notify[0].url", "name url_env or url_file"),
        (hook(url_env="HOOK"), "notify[0].url_env", "stands beside url"),
    ],
    ids=str,
)
def test_relations_of_alerts_are_checked_and_no_secret_is_quoted(tables, key, hint):
    (problem,) = problems_of(tables)
    assert problem.startswith(f"configuration: {key}: "), problem
    assert hint in problem
    assert not any(secret in problem for secret in ("MfKQ9r8", "c2hvcnQ", "/token"))


def test_a_target_of_apprise_without_the_extra_is_an_error(monkeypatch):
    monkeypatch.setattr("engine.config.checks_alerts.find_spec", lambda name: None)
    monkeypatch.setenv("URLS", "mailto://u:p@mail.example.com")
    (problem,) = problems_of({"notify": [{"kind": "apprise", "url_env": "URLS"}]})
    assert "pip install 'rainfocus-engine[alerts]'" in problem


@pytest.mark.parametrize(
    "tables",
    [
        hook(),
        hook(url="http://127.0.0.1:9/"),
        {"alert": [{"name": "watchdog", "when": "watchdog"}]},
        {"alert": [{"name": "it", "when": "dead-letters-growing", "threshold": 100}]},
        {**hook(name="a"), "alert": [{"to": ["a"], "destinations": ["demo"]}]},
    ],
    ids=str,
)
def test_alerts_that_make_sense_are_accepted(tables):
    assert Config.from_dict(tables)
