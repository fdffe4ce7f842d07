"""What is judged of a whole batch at once is what is judged of each of its profiles, to the last entry in the books."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage import Stage

from engine.adapters.rainfocus import RainFocusDestination
from engine.config import Config
from engine.core.consent import Rule
from engine.core.handover import Policy
from engine.dispatcher import Consumer, attempts, together
from engine.dispatcher.books import Books
from engine.metrics import Metrics
from engine.model import (
    NOTHING,
    Append,
    Batch,
    Consent,
    Event,
    Lane,
    LedgerEntry,
    Membership,
    Outcome,
    Profile,
    Reply,
    Trait,
    Verdict,
    VerdictKind,
)
from engine.ports import ConsumerState, KeyState
from engine.profiles.identity import key_of
from engine.profiles.mapping import Mapper

NOW = 1_790_000_000.0
BAD = b"cannot be encoded"


class Clock:
    """The same time for both."""

    def monotonic(self) -> float:
        return 100.0

    def time(self) -> float:
        return NOW


class Picky(Mapper):
    """Has no record for some."""

    def encode(self, content: bytes, traits: int, flag: bool | None) -> bytes:
        if BAD in content:
            raise ValueError("not this one")
        return super().encode(content, traits, flag)

    def encode_all(self, contents: Sequence[bytes], traits: Sequence[int]) -> list[bytes]:
        if [True for content in contents if BAD in content]:
            raise ValueError("one of them")
        return super().encode_all(contents, traits)


class NoTransport:
    """Nothing is sent here."""

    def route(self, *given: object, **named: object) -> None:
        """Leads nowhere."""


class Person(msgspec.Struct):
    """What there is to know of one profile before it is handed over."""

    traits: int
    audiences: dict[str, Membership] | None
    consents: dict[str, Consent] | None
    synthetic: bool
    bad: bool
    aged: bool
    entry: str  # what the ledger has of it: "", "same", "other" or "uncertain"
    replay: bool
    forgotten: bool
    changed: bool


STANDING = st.none() | st.dictionaries(
    st.sampled_from(["ns/a", "ns/b"]), st.builds(Membership, st.booleans(), st.just(NOW)), max_size=2
)
CONSENTS = st.none() | st.dictionaries(st.just("marketing.email"), st.builds(Consent, st.sampled_from(["y", "n"])))
USUAL = st.builds(
    Person,
    traits=st.just(int(Trait.EMAIL)),
    audiences=STANDING,
    consents=st.none(),
    entry=st.sampled_from(["", "", "", "same"]),
    **dict.fromkeys(("synthetic", "bad", "aged", "replay", "forgotten", "changed"), st.just(False)),
)
ANY = st.builds(
    Person,
    traits=st.sampled_from([*Trait.__members__.values(), Trait.EMAIL | Trait.FOREIGN_STATE, Trait.EMAIL]).map(int),
    audiences=STANDING,
    consents=CONSENTS,
    entry=st.sampled_from(["", "same", "other", "uncertain"]),
    **dict.fromkeys(
        ("synthetic", "bad", "aged", "replay", "forgotten", "changed"), st.sampled_from([False, False, False, True])
    ),
)
USUAL_POLICY = st.fixed_dictionaries({"exits": st.sampled_from(["ignore", "store", "flag:vip"])})
ANY_POLICY = st.fixed_dictionaries(
    {
        "exits": st.sampled_from(["ignore", "store", "flag:vip"]),
        "audiences": st.sampled_from([None, frozenset({"ns/a"})]),
        "refuse_synthetic": st.booleans(),
        "needs_email": st.booleans(),
        "consents": st.sampled_from([(), (Rule("marketing.email"),)]),
    }
)
LIMITS = st.fixed_dictionaries(
    {"dry_run": st.sampled_from([False, False, True]), "max_age_seconds": st.sampled_from([0.0, 50.0])}
)


def consumer_of(policy: Policy, mapping: dict[str, Any], limits: dict[str, Any]) -> Consumer:
    config = Config.from_dict({"account": [{"name": "a"}], "destination": [{"name": "d", "event_code": "e27"}]})
    settings: dict[str, Any] = {"fields": ["*"], "rename": {}, "state_policy": "drop", "apply_transformation": False}
    destination = RainFocusDestination(
        config.destinations[0],
        config.accounts[0],
        mapper=Picky(**(settings | {"flag_field": "vip", "event_param": "code", "event_code": "e27"} | mapping)),
        policy=policy,
        transport=NoTransport(),  # type: ignore[arg-type]
        clock=Clock(),
        random=random.Random(1),
    )
    stage = Stage()
    stage.clock = Clock()  # type: ignore[assignment]
    stage.destination("d", destination, handover=policy, **limits)
    stage.accounts = {"a": stage._make_account(stage._accounts[0], {})}
    consumer = stage._make_consumer(stage._destinations[0], ConsumerState("d", "here", 0, 0, 0, clean=True))
    consumer.recovering = False
    consumer.dirty = lambda: None
    return consumer


def take_in(consumer: Consumer, people: list[Person]) -> tuple[list[Profile], dict[bytes, KeyState]]:
    """All of them leased, and what is stored of them."""
    for offset, person in enumerate(people):
        consumer.take(append_of(person, offset), None)
    profiles = consumer.coalescer.lease_oldest(Lane.LIVE, 100, 1 << 30)
    known: dict[bytes, KeyState] = {}
    for offset, person in enumerate(people):
        key = key_at(offset)
        leased = consumer.coalescer.find(key)[1]
        if leased is not None and person.replay:
            leased.under = [replay_of(key)]
            consumer.coalescer.gained(1)
        if person.forgotten:
            consumer.coalescer.forget(key, 100 + offset, NOW)
        if person.changed:
            consumer.changes.leased.add(key)
        if leased is not None and person.entry:
            leased.certain = person.entry != "uncertain"
            known[key] = KeyState(entry_of(consumer, leased, person))
    return profiles, known


def key_at(place: int) -> bytes:
    return key_of(f"p{place}@example.com")


def append_of(person: Person, offset: int) -> Append:
    domain = b"bench.invalid" if person.synthetic else b"example.com"
    name = BAD if person.bad else b"Anna"
    content = b'{"email":"p%d@%s","firstname":"%s","state":"Nord","countryid":"FR"}' % (offset, domain, name)
    event = Event(key_at(offset), content, person.traits, person.audiences, consents=person.consents)
    return Append([event], accepted_at=NOW - (60.0 if person.aged else 1.0), first=offset)


def replay_of(key: bytes) -> Profile:
    part = Profile(key, b'{"email":"old@example.com","city":"Lille"}', 1, Lane.REPLAY, NOTHING, 0, 200, 1, NOW)
    part.letter = 0
    return part


def entry_of(consumer: Consumer, profile: Profile, person: Person) -> LedgerEntry:
    digest = b"another digest.."
    if person.entry != "other" and not person.bad:
        (digest,) = together.digests_of(consumer, [consumer.destination.encode(profile)])
    return LedgerEntry(profile.key, "delivered", "", 0, 0, digest, NOW - 5.0)


def judged(consumer: Consumer, people: list[Person]) -> object:
    profiles, known = take_in(consumer, people)
    batch = attempts._sift(consumer, list(profiles), known)
    transition, books, coalescer = consumer.books.open, consumer.books, consumer.coalescer
    return (
        [(profile, record) for profile, record in zip(batch.profiles, batch.records, strict=True)],
        transition,
        (books.counts, books.letters),
        (coalescer.events, coalescer.bytes, coalescer.ready, list(coalescer.leased_profiles())),
        consumer.changes.leased,
    )


def both_ways(people: list[Person], policy: dict[str, Any], mapping: dict[str, Any], limits: dict[str, Any]) -> None:
    at_once, one_by_one = (consumer_of(Policy(**policy), mapping, limits) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "records_of", lambda consumer, profiles: None)
        expected = judged(one_by_one, people)
    assert judged(at_once, people) == expected


MAPPING = st.sampled_from(
    [{}, {"fields": ["email"]}, {"rename": {"firstname": "given"}}, {"apply_transformation": True}]
)


@given(st.lists(USUAL, min_size=1, max_size=8), USUAL_POLICY, MAPPING)
def test_a_usual_batch_is_judged_as_each_of_it_is(
    people: list[Person], policy: dict[str, Any], mapping: dict[str, Any]
) -> None:
    both_ways(people, policy, mapping, {})


@given(st.lists(USUAL, max_size=5), ANY, st.lists(USUAL, max_size=5), USUAL_POLICY, LIMITS)
def test_one_odd_profile_in_a_usual_batch(
    before: list[Person], odd: Person, behind: list[Person], policy: dict[str, Any], limits: dict[str, Any]
) -> None:
    both_ways([*before, odd, *behind], policy, {}, limits)


@given(st.lists(ANY, min_size=1, max_size=8), ANY_POLICY, MAPPING, LIMITS)
def test_an_odd_batch_is_judged_as_each_of_it_is(
    people: list[Person], policy: dict[str, Any], mapping: dict[str, Any], limits: dict[str, Any]
) -> None:
    both_ways(people, policy, mapping, limits)


def person(**odd: Any) -> Person:
    usual = {"traits": int(Trait.EMAIL), "audiences": None, "consents": None, "entry": ""}
    flags = dict.fromkeys(("synthetic", "bad", "aged", "replay", "forgotten", "changed"), False)
    return Person(**(usual | flags | odd))


LEFT, STAYS = {"ns/a": Membership(False, NOW)}, {"ns/a": Membership(True, NOW)}
ODD: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "synthetic": ({"synthetic": True}, {}, {}),
    "no address": ({"traits": 0}, {}, {}),
    "erased": ({"traits": int(Trait.EMAIL | Trait.ERASED)}, {}, {}),
    "lost": ({"traits": int(Trait.EMAIL | Trait.LOST)}, {}, {}),
    "exited": ({"audiences": LEFT}, {}, {}),
    "not in the audience": ({}, {"audiences": frozenset({"ns/a"})}, {}),
    "no consent": ({}, {"consents": (Rule("marketing.email"),)}, {}),
    "forgotten": ({"forgotten": True}, {}, {}),
    "a replay beside it": ({"replay": True}, {}, {}),
    "too old": ({"aged": True}, {}, {"max_age_seconds": 50.0}),
    "dry run": ({}, {}, {"dry_run": True}),
    "cannot be encoded": ({"bad": True}, {}, {}),
}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_is_odd_about_one_is_seen(odd: str) -> None:
    about, policy, limits = ODD[odd]
    people = [person(audiences=STAYS), person(**about), person(audiences=STAYS)]
    both_ways(people, policy, {}, limits)
    consumer = consumer_of(Policy(**policy), {}, limits)
    assert together.records_of(consumer, take_in(consumer, people)[0]) is None


def test_a_change_of_one_that_is_leased_is_kept_in_mind() -> None:
    both_ways([person(), person(changed=True, entry="same"), person()], {}, {}, {})


@pytest.mark.parametrize("entry", ["", "same"])
def test_the_short_way_is_taken(entry: str) -> None:
    """Where it never was, all that is said here of it would be said of nothing."""
    consumer = consumer_of(Policy(), {}, {})
    people = [person(), person(entry=entry)]
    profiles, known = take_in(consumer, people)
    usual = [profile for profile in profiles if profile.key not in known]
    assert together.records_of(consumer, usual) == [consumer.destination.encode(profile) for profile in usual]


# -- what was delivered -----------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.tuples(st.integers(1, 3), STANDING, st.sampled_from([NOTHING, NOTHING, 4]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=6,
)


class Follower:
    """Somebody who asks."""


def delivered_profiles(pieces: Any, follower: Follower) -> list[Profile]:
    profiles = []
    for place, (events, audiences, held_through, passed, followed) in enumerate(pieces):
        profile = Profile(key_at(place), b"{}", 1, Lane.LIVE, place, place, place, events, NOW, audiences)
        profile.held_through = held_through
        profile.passed = [replay_of(profile.key)] if passed else None
        profile.receipts = [(follower, place, events)] if followed and events > 1 else follower if followed else None
        profiles.append(profile)
    return profiles


def books_of(keeps: bool, letters: int) -> Books:
    state = ConsumerState("d", "here", 0, 0, 0, clean=True, letters=letters)
    books = Books(state, Metrics().destination("d"))
    books.keeps_verdicts = lambda: keeps
    return books


@given(PIECES, st.booleans(), st.sampled_from([0, 0, 1]))
def test_a_delivered_batch_is_written_down_as_each_of_it_would_be(pieces: Any, keeps: bool, letters: int) -> None:
    together_, singly, follower = books_of(keeps, letters), books_of(True, letters), Follower()
    profiles = delivered_profiles(pieces, follower)
    together_.deliver_all(profiles, [b""] * len(profiles), [""] * len(profiles), NOW)
    for profile in delivered_profiles(pieces, follower):
        singly.settle(profile, Outcome.DELIVERED, at=NOW, confirmed=True)
    ours, theirs = together_.open, singly.open
    for field in ("counts", "drop", "letters", "hold", "forget"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert sum(ours.fates.values()) == sum(theirs.fates.values())
    assert together_.take()[1] == singly.take()[1]
    odd = any(passed or held_through != NOTHING for _, _, held_through, passed, _ in pieces)
    if keeps or letters or odd:
        assert (ours.verdicts, ours.accounted) == (theirs.verdicts, [])
    else:
        assert ours.verdicts == []
        assert ours.accounted == [(entry.key, entry.settled_through) for entry in theirs.verdicts]


async def test_of_a_batch_with_one_bad_record_the_others_are_delivered() -> None:
    consumer = consumer_of(Policy(), {}, {})
    profiles, known = take_in(consumer, [person(), person(bad=True), person()])
    batch = attempts._sift(consumer, profiles, known)
    verdicts = [Verdict(VerdictKind.OK)] * 2
    await attempts._conclude(consumer, Batch(batch.profiles, batch.records), Reply(verdicts), [VerdictKind.OK] * 2)
    assert consumer.books.counts == {"delivered": 2, "dead_lettered:encoding_ValueError": 1}


def test_a_change_that_was_read_meanwhile_takes_the_digest() -> None:
    consumer = consumer_of(Policy(), {}, {})
    profiles, _ = take_in(consumer, [person(), person(changed=True), person()])
    digests = attempts._certain(consumer, profiles, [b"a", b"b", b"c"])
    assert [bool(digest) for digest in digests] == [True, False, True]
