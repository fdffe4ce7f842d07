"""Tokens of OAuth clients: what they allow, how they end, and that nobody can make one."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import stat
import string
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.adapters.api_keys import Grant, Key, Keys, new_client, read_signing_key
from engine.adapters.memory_journal import MemoryJournal
from engine.config import Config, IngressClientConfig, IngressKeyConfig
from engine.errors import DataDirectoryError
from engine.testing import VirtualClock, run_virtual
from engine.testing.destination import FakeDestination

SIGNING = b"\x07" * 32
SECRET, OTHER = "secret-of-the-client", "another-secret-of-it"


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def client(name: str = "aep", secret: str = SECRET, **more: Any) -> IngressClientConfig:
    return IngressClientConfig(**({"name": name, "sha256": sha256(secret)} | more))


class HandClock:
    """Moves when it is told to."""

    now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """Callers on a clock of their own."""

    def __init__(self, *clients: IngressClientConfig, signing: bytes = SIGNING) -> None:
        self.clock = HandClock()
        self.keys = Keys((), clients or (client(),), time=self.clock, clock=self.clock, signing_key=lambda: signing)

    def grant(self, client_id: str = "aep", secret: str = SECRET, *scopes: str) -> Grant:
        return self.keys.grant(client_id, (secret,), frozenset(scopes) or None)

    def token(self, *scopes: str, secret: str = SECRET) -> str:
        grant = self.grant("aep", secret, *scopes)
        assert grant.token, grant
        return grant.token

    def caller(self, token: str) -> Key | None:
        return self.keys.authenticate(f"Bearer {token}", None)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds


# -- what a token allows ----------------------------------------------------------------------------------------------


def test_a_token_is_its_client() -> None:
    bench = Bench(client(source="crm", destinations=("a",), max_events_per_second=5, scopes=("profiles:write",)))
    expected = Key("aep", frozenset({"profiles:write"}), "crm", 5, frozenset({"a"}))
    assert bench.caller(bench.token()) == expected
    assert bench.keys.take("aep", 5) == 0
    assert bench.keys.take("aep", 1) > 0


def test_a_token_says_no_more_than_it_must() -> None:
    """It is sent around: neither secret nor client id nor hash can be read from it."""
    bench = Bench(client(client_id="the-id"))
    token = bench.grant("the-id").token
    assert len(token) < 200
    assert not [it for it in (SECRET, sha256(SECRET), "the-id") if it in token]


def test_scopes_can_be_narrowed_and_never_widened() -> None:
    bench = Bench(client(scopes=("profiles:write", "profiles:view", "destinations:view")))
    grant = bench.grant("aep", SECRET, "profiles:view", "profiles:write")
    assert grant.scopes == ("profiles:write", "profiles:view")
    narrowed = bench.caller(grant.token)
    assert narrowed is not None
    assert narrowed.scopes == {"profiles:write", "profiles:view"}
    refused = bench.grant("aep", SECRET, "profiles:write", "profiles:erase")
    assert (refused.error, refused.token) == ("invalid_scope", "")


def test_a_token_that_is_narrowed_to_activate_may_do_nothing() -> None:
    bench = Bench(client(scopes=("destinations:manage", "destinations:activate")))
    whole = bench.caller(bench.token())
    assert whole is not None
    assert whole.scopes == {"destinations:view", "destinations:manage", "destinations:activate"}
    narrowed = bench.caller(bench.token("destinations:activate"))
    assert narrowed is not None
    assert narrowed.scopes == frozenset()


def test_a_scope_that_the_client_loses_is_lost_to_its_tokens_at_once_and_a_new_one_is_not_gained() -> None:
    bench = Bench(client(scopes=("profiles:write", "profiles:view")))
    token = bench.token()
    bench.keys.replace((), [client(scopes=("profiles:view", "profiles:erase"), source="web")])
    caller = bench.caller(token)
    assert caller is not None
    assert (caller.scopes, caller.source) == ({"profiles:view"}, "web")


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token_seconds", "grace"), [(86_400, 60.0), (3_600, 60.0), (100, 10.0)])
def test_a_token_ends_after_its_time_and_a_short_grace(token_seconds: int, grace: float) -> None:
    bench = Bench(client(token_seconds=token_seconds))
    grant = bench.grant()
    assert grant.seconds == token_seconds
    bench.later(token_seconds + grace - 2)
    assert bench.caller(grant.token) is not None
    assert not bench.keys.expired(f"Bearer {grant.token}")
    bench.later(2)
    assert bench.caller(grant.token) is None
    assert bench.keys.expired(f"Bearer {grant.token}")
    assert bench.caller(bench.token()) is not None


def test_a_token_survives_a_restart_and_a_reload_with_the_same_signing_key() -> None:
    token = Bench().token()
    restarted = Bench()
    assert restarted.caller(token) is not None
    restarted.keys.replace((), [client(), client("new", OTHER)])
    assert restarted.caller(token) is not None
    assert Bench(signing=b"\x08" * 32).caller(token) is None


def test_without_a_kept_signing_key_a_reload_still_ends_no_token() -> None:
    keys = Keys((), [client()])
    token = keys.grant("aep", (SECRET,), None).token
    keys.replace((), [client(), client("new", OTHER)])
    assert keys.authenticate(f"Bearer {token}", None) is not None


@pytest.mark.parametrize(
    "after",
    [
        [],
        [client(secret=OTHER)],
        [client(client_id="renamed")],
        [client("another")],
    ],
    ids=["removed", "another secret", "another id", "another name"],
)
def test_a_client_that_is_removed_or_changed_takes_its_tokens_along(after: list[IngressClientConfig]) -> None:
    bench = Bench()
    token = bench.token()
    bench.keys.replace((), after)
    assert bench.caller(token) is None
    assert not bench.keys.expired(f"Bearer {token}")
    bench.keys.replace((), [client()])
    assert bench.caller(token) is not None


def test_two_secrets_overlap_and_each_ends_with_its_own_tokens() -> None:
    bench = Bench()
    old = bench.token()
    bench.keys.replace((), [client(secret=OTHER, previous_sha256=sha256(SECRET))])
    late, new = bench.token(), bench.token(secret=OTHER)
    assert all(bench.caller(it) is not None for it in (old, late, new))
    bench.keys.replace((), [client(secret=OTHER)])
    assert [bench.caller(it) is not None for it in (old, late, new)] == [False, False, True]
    assert bench.grant().error == "invalid_client"


def test_a_key_overlaps_too_and_both_are_one_caller() -> None:
    config = IngressKeyConfig(name="crm", sha256=sha256("new"), previous_sha256=sha256("old"), max_events_per_second=1)
    keys = Keys([config], clock=lambda: 0.0)
    old, new = keys.authenticate(None, "old"), keys.authenticate("Bearer new", None)
    assert old == new
    assert old is not None
    assert keys.take("crm", 1) == 0
    assert keys.take("crm", 1) > 0


def test_a_secret_file_counts_anew_at_a_reload(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    config = Config.from_dict({"ingress": {"clients": [{"name": "aep", "secret_file": "secret"}]}}, base=tmp_path)
    bench = Bench(*config.ingress.clients)
    token = bench.token()
    file.write_text(OTHER)
    assert bench.caller(token) is not None
    bench.keys.replace((), config.ingress.clients)
    assert bench.caller(token) is None
    assert bench.caller(bench.token(secret=OTHER)) is not None


# -- nobody else makes one --------------------------------------------------------------------------------------------


def tampered(token: str) -> Iterator[str]:
    alphabet = string.ascii_letters + string.digits + "-_.=~"
    for place, byte in enumerate(token):
        yield from (token[:place] + other + token[place + 1 :] for other in alphabet if other != byte)
        yield token[:place] + token[place + 1 :]
        yield token[:place] + "A" + token[place:]
    yield from (token[:length] for length in range(len(token)))
    yield from (token + more for more in ("=", ".", "A", token, "\u00e9"))


def test_a_token_with_any_byte_changed_is_none() -> None:
    """Not even in the bits that an encoding ignores: every token has one spelling."""
    bench = Bench()
    token = bench.token()
    found = [it for it in tampered(token) if bench.caller(it) is not None]
    assert found == []
    assert not any(bench.keys.expired(f"Bearer {it}") for it in tampered(token))
    assert bench.caller(token) is not None


def test_the_claims_of_one_token_do_not_go_with_the_signature_of_another() -> None:
    bench = Bench(client(scopes=("profiles:write", "profiles:erase")), client("other", OTHER))
    small, large = bench.token("profiles:write"), bench.token()
    theirs = bench.grant("other", OTHER).token
    pieces = [it.partition(".") for it in (small, large, theirs)]
    mixed = [f"{one[0]}.{other[2]}" for one in pieces for other in pieces if one is not other]
    assert [bench.caller(it) for it in mixed] == [None] * 6


@pytest.mark.parametrize("token", ["rft_", "rft_.", "rft_AAAA.AAAA", "rft_" + "A" * 8_000 + ".x", "rft_\udcff.\udcff"])
def test_what_only_looks_like_a_token_is_refused_without_an_error(token: str) -> None:
    assert Bench().caller(token) is None


def test_a_key_may_begin_as_tokens_do() -> None:
    keys = Keys([IngressKeyConfig(name="odd", sha256=sha256("rft_mine"))], [client()])
    found = keys.authenticate(None, "rft_mine")
    assert found is not None
    assert found.name == "odd"


# -- guessing ---------------------------------------------------------------------------------------------------------


def test_an_unknown_client_is_compared_with_as_much_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        counted.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr("engine.adapters.api_keys.clients.hmac.compare_digest", counting)
    bench = Bench(client(), client("two", OTHER, previous_sha256=sha256("before")))
    seen = []
    for client_id, secret in (("aep", "wrong"), ("two", "wrong"), ("nobody", "wrong"), ("aep", SECRET), ("two", OTHER)):
        counted.clear()
        bench.grant(client_id, secret)
        seen.append(list(counted))
    assert seen == [[(32, 32)] * 2] * 5


def test_too_many_wrong_secrets_are_told_to_wait_and_a_right_one_is_still_taken() -> None:
    bench = Bench(client(), client("two", OTHER))
    waits = [bench.grant(secret="wrong").retry_after_seconds for _ in range(12)]
    assert waits[:10] == [0.0] * 10
    assert waits[10:] == pytest.approx([6.0, 6.0])
    assert bench.grant().token
    assert bench.grant("two", "wrong").retry_after_seconds == 0.0
    bench.later(6.0)
    assert [bench.grant(secret="wrong").retry_after_seconds == 0.0 for _ in range(2)] == [True, False]


def test_guesses_cost_no_memory() -> None:
    """However many ids are made up, and whatever clients come and go."""
    bench = Bench()
    for number in range(2_000):
        assert bench.grant(f"made-up-{number}", "wrong").error == "invalid_client"
    assert len(bench.keys._clients._wrong) == 256


def test_an_id_that_is_not_known_is_told_to_wait_like_one_that_is() -> None:
    """Or else whoever has used up the patience with made-up ids could tell which are real."""
    bench = Bench()
    for client_id in ("aep", "nobody"):
        waits = [bench.grant(client_id, "wrong").retry_after_seconds > 0 for _ in range(12)]
        assert waits == [False] * 10 + [True] * 2


def test_an_empty_secret_opens_nothing() -> None:
    assert Bench().grant(secret="").error == "invalid_client"


# -- a fresh client, and the key that signs ---------------------------------------------------------------------------


def test_a_new_client_goes_into_the_configuration_as_printed() -> None:
    secret, block = new_client("aep")
    assert secret not in block
    assert secret.startswith("rfs_")
    clients = Config.from_dict(tomllib.loads(block)).ingress.clients
    assert Bench(*clients).grant("aep", secret).scopes == ("profiles:write",)


def test_the_signing_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "token.key"
    umask = os.umask(0)
    try:
        key = read_signing_key(file)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (len(key), read_signing_key(file)) == (32, key)
    assert [it.name for it in tmp_path.iterdir()] == ["token.key"]
    assert read_signing_key(tmp_path / "other.key") != key


def test_of_two_that_make_the_signing_key_at_once_both_get_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, link = tmp_path / "token.key", os.link

    def too_late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        first.append(read_signing_key(file))
        link(source, target)

    first: list[bytes] = []
    monkeypatch.setattr(os, "link", too_late)
    assert [read_signing_key(file)] == first
    assert [it.name for it in tmp_path.iterdir()] == ["token.key"]


@pytest.mark.parametrize(
    ("content", "mode"), [(b"x" * 31, 0o600), (b"x" * 33, 0o600), (b"", 0o600), (b"x" * 32, 0o644)]
)
def test_a_signing_key_that_is_damaged_or_open_to_others_is_refused_with_what_to_do(
    tmp_path: Path, content: bytes, mode: int
) -> None:
    file = tmp_path / "token.key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(DataDirectoryError, match="remove it, then every client fetches a new token"):
        read_signing_key(file)


def test_a_signing_key_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="No such file or directory"):
        read_signing_key(tmp_path / "missing" / "token.key")


def test_an_engine_gives_tokens_by_its_own_clock(tmp_path: Path) -> None:
    async def scene() -> None:
        tables = {"ingress": {"clients": [{"name": "aep", "sha256": sha256(SECRET), "token_seconds": 600}]}}
        config, clock = Config.from_dict(tables, base=tmp_path), VirtualClock()
        async with Engine(
            config, destinations={"demo": FakeDestination()}, journal=MemoryJournal(), clock=clock
        ) as engine:
            keys = engine.keys()
            authorization = f"Bearer {keys.grant('aep', (SECRET,), None).token}"
            await asyncio.sleep(600 + 58)
            assert keys.authenticate(authorization, None) is not None
            await asyncio.sleep(2)
            assert keys.authenticate(authorization, None) is None
            assert keys.expired(authorization)
        assert not (tmp_path / "var").exists(), "with a journal of its own it keeps no key either"

    run_virtual(scene)
