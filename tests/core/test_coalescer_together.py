"""The events of one append are taken in together as they would be one by one."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from slots import KEYS, merge

from engine.core.coalescer import Coalescer
from engine.model import Event, Kind, Lane

PEOPLE = [*KEYS, *(bytes([n]) * 32 for n in range(100, 130))]
FOLLOWER = object()
EVENTS = st.lists(
    st.builds(
        Event,
        key=st.sampled_from(PEOPLE),
        content=st.sampled_from([b'{"n":1}', b'{"name":"longer"}']),
        traits=st.just(1),
        timestamp=st.sampled_from([None, None, 5.0]),
        kind=st.sampled_from([Kind.PROFILE] * 20 + [Kind.FORGET]),
    ),
    max_size=12,
)
APPENDS = st.lists(st.tuples(EVENTS, st.sampled_from(Lane), st.integers(0, 4), st.booleans()), min_size=1, max_size=6)


def seen(coalescer: Coalescer) -> object:
    """All there is to see without changing anything."""
    return (
        (coalescer.events, coalescer.bytes, [coalescer.ready_in(lane) for lane in Lane]),
        [coalescer.find(key) for key in PEOPLE],
        [coalescer.head(lane) for lane in Lane],
        list(coalescer._lowest.pairs()),
    )


def singly(coalescer: Coalescer, events: Sequence[Event], first: int, lane: Lane, certain: bool) -> int:
    taken = 0
    for event in events:
        if event.kind != Kind.PROFILE:
            break
        coalescer.add(event, first + taken, lane, float(first), certain=certain, still_seconds=2.0, tracker=FOLLOWER)
        taken += 1
    return taken


@given(APPENDS)
def test_one_append_or_its_events_one_by_one(appends: list[tuple[list[Event], Lane, int, bool]]) -> None:
    together, apart, first = Coalescer(merge), Coalescer(merge), 0
    for events, lane, leased, certain in appends:
        given_ = {"certain": certain, "still_seconds": 2.0, "tracker": FOLLOWER}
        taken = together.add_all(events, first, lane, float(first), **given_)  # type: ignore[arg-type]
        assert taken == singly(apart, events, first, lane, certain)
        first += len(events)
        assert seen(together) == seen(apart)
        out = [one.lease_oldest(lane, leased, 1_000) for one in (together, apart)]
        assert out[0] == out[1]
        for one, profiles in zip((together, apart), out, strict=True):
            one.settle_all(profiles[:2])
        assert together.watermark(first) == apart.watermark(first)
        assert seen(together) == seen(apart)
