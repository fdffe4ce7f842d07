"""One place a key: merges the events of one attendee until they are handed over, and knows the watermark.

Rules everything here keeps:

1. A key has at most one profile waiting and at most one leased. While one is leased the other waits behind it.
2. Waiting profiles leave oldest first; the place is the one that the oldest event merged in has earned.
3. The watermark is the lowest offset of any profile that is neither settled nor held.

No clock, no I/O, no await: the caller decides when, and does what is decided here. What moves a key::

    absent  --add-->        waiting  --lease-->  leased  --settle-->  absent (or waiting, if events came meanwhile)
    leased  --give_back-->  waiting, or parked (waiting, but not before a time), folded under what came meanwhile
    parked  --wake-->       waiting
    waiting --hold, unload--> on disk (a WAITING held profile)  --load-->  waiting
    any     --forget-->     leased by a marker, until the caller has erased what is stored and settles it
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from engine.core.fold import (
    EMPTY,
    Merge,
    add_event,
    empty_into,
    events_of,
    fold_held,
    fold_under,
    profile_of,
    profiles_of,
)
from engine.core.queues import LaneQueue, Offsets
from engine.core.receipts import follow, listed
from engine.model import NOTHING, Event, Held, Kind, Lane, Profile

PROFILE_OVERHEAD_BYTES = 500
"""What a waiting profile costs beside its content, measured with a million of them on CPython 3.11."""

LOOKED_AT = 64
"""How many of the oldest profiles that came back are compared for a probe."""

LANES = tuple(Lane)  # iterating over the enum itself costs ten times as much


class Coalescer:
    """The slots of one destination. `merge` joins two contents (see `fold.Merge`)."""

    def __init__(self, merge: Merge) -> None:
        self._merge = merge
        self._waiting: dict[bytes, Profile] = {}
        self._leased: dict[bytes, Profile] = {}
        self._queues = tuple(LaneQueue() for _ in Lane)
        self._parked: list[tuple[float, int, Profile]] = []
        self._parked_keys: set[bytes] = set()
        self._holding: dict[bytes, tuple[int, int]] = {}  # key -> (last offset copied, first one merged in since)
        self._forgetting: dict[bytes, Profile] = {}  # markers that wait for a lease to end
        self._lowest = Offsets(self._waiting, self._leased, self._forgetting)
        self._due_markers: deque[Profile] = deque()
        self._serial = count()
        self.events = 0  # in waiting and leased profiles
        self.bytes = 0  # of waiting profiles, overhead included

    def __len__(self) -> int:
        return len(self._waiting) + len(self._leased)

    def __repr__(self) -> str:
        parked = len(self._parked_keys)
        return f"<Coalescer [waiting {len(self._waiting)}, parked {parked} of them | leased {len(self._leased)}]>"

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def leased(self) -> int:
        return len(self._leased)

    @property
    def forgets_due(self) -> int:
        """Of the leased ones: markers that wait for what is stored of their keys to be erased."""
        return len(self._due_markers)

    @property
    def ready(self) -> int:
        """Profiles that may be leased now."""
        live, replay, backfill = self._queues
        return live.ready + replay.ready + backfill.ready

    @property
    def content_bytes(self) -> int:
        """Of waiting profiles, without what it costs to keep them."""
        return self.bytes - len(self._waiting) * PROFILE_OVERHEAD_BYTES

    def ready_in(self, lane: Lane) -> int:
        return self._queues[lane].ready

    def oldest_ready_at(self) -> float | None:
        """When the oldest profile that may go was accepted."""
        oldest: float | None = None
        for lane in LANES:
            if self._queues[lane].ready:
                head = self.head(lane)
                if head is not None and (oldest is None or head.oldest_at < oldest):
                    oldest = head.oldest_at
        return oldest

    def only_ready_lane(self) -> Lane | None:
        """The one lane that has profiles ready; None when there are several, or none."""
        ready = [lane for lane in LANES if self._queues[lane].ready]
        return ready[0] if len(ready) == 1 else None

    def find(self, key: bytes) -> tuple[Profile | None, Profile | None]:
        """The key's (waiting, leased) profile."""
        return self._waiting.get(key), self._leased.get(key)

    def leased_profiles(self) -> Iterable[Profile]:
        return self._leased.values()

    # -- events in ------------------------------------------------------------------------------------------------

    def add(self, event: Event, offset: int, lane: Lane, accepted_at: float, **more: Any) -> None:
        """Take in one profile event; see `add_all`."""
        self.add_all((event,), offset, lane, accepted_at, kind=event.kind, **more)

    def add_all(
        self,
        events: Sequence[Event],
        first: int,
        lane: Lane,
        accepted_at: float,
        kind: int = Kind.PROFILE,
        *,
        certain: bool = True,
        still_seconds: float = 0.0,
        tracker: object = None,
    ) -> int:
        """Take in the events of one append, the first one at the offset `first`, up to the first of another kind than
        `kind`; how many that are. Offsets only grow. `certain` is False for what recovery reads."""
        waiting, leased, queue = self._waiting, self._leased, self._queues[lane]
        keys = [event.key for event in events]
        if len(keys) > 1 and self._are_new(keys) and [event.kind for event in events].count(kind) == len(keys):
            profiles = profiles_of(events, first, lane, accepted_at, certain, still_seconds, tracker)
            self._enter_all(keys, profiles, first, queue)
            return len(keys)
        offset, entered, size = first, 0, 0
        for event in events:
            if event.kind != kind:
                break
            key = event.key
            if key in waiting:
                self._merge_in(waiting[key], event, offset, lane, certain=certain, tracker=tracker)
                offset += 1
                continue
            profile = profile_of(event, offset, lane, accepted_at, certain, still_seconds, tracker)
            waiting[key] = profile
            self._lowest.note(offset, key)
            if key not in leased:
                queue.fresh.append(profile)
                queue.ready += 1
            entered += 1
            size += len(event.content)
            offset += 1
        self.events += offset - first
        self.bytes += size + entered * PROFILE_OVERHEAD_BYTES
        return offset - first

    def _are_new(self, keys: Sequence[bytes]) -> bool:
        """Are they of different attendees, of whom nothing is here?"""
        free = self._waiting.keys().isdisjoint(keys) and self._leased.keys().isdisjoint(keys)
        return free and len(set(keys)) == len(keys)

    def _enter_all(self, keys: Sequence[bytes], profiles: Sequence[Profile], first: int, queue: LaneQueue) -> None:
        """As `_enter`, for profiles of one event each, of attendees of whom nothing is here."""
        self._waiting.update(zip(keys, profiles, strict=True))
        self._lowest.note_all(range(first, first + len(keys)), keys)
        queue.fresh.extend(profiles)
        queue.ready += len(profiles)
        self.events += len(profiles)
        self.bytes += sum([len(profile.content) for profile in profiles]) + len(profiles) * PROFILE_OVERHEAD_BYTES

    def _merge_in(
        self, profile: Profile, event: Event, offset: int, lane: Lane, *, certain: bool, tracker: object
    ) -> None:
        self.bytes -= len(profile.content)
        if tracker is not None or profile.receipts is not None:
            following = listed(profile.receipts, profile.last)
            profile.receipts = following if tracker is None else follow(following or None, tracker, offset)
        add_event(profile, event, offset, self._merge)
        self.bytes += len(profile.content)
        profile.certain = profile.certain and certain
        self._touched(profile, offset, lane)

    def add_replay(
        self, event: Event, offset: int, accepted_at: float, *, certain: bool = True, tracker: object = None
    ) -> None:
        """Take in a dead letter handed in again. It stays apart until hand-over, where it is folded in as older than
        every event above its `through`, or found overtaken."""
        part = Profile(
            event.key, event.content, event.traits, Lane.REPLAY, NOTHING, event.through, offset, 1, accepted_at
        )
        part.audiences, part.letter, part.certain = event.audiences, event.letter, certain
        part.consents = event.consents
        part.receipts = tracker
        profile = self._waiting.get(event.key)
        if profile is None:
            profile = Profile(event.key, EMPTY, 0, Lane.REPLAY, offset, NOTHING, offset, 0, accepted_at)
            self._enter(profile, offset)
        else:
            if profile.receipts is not None:
                profile.receipts = listed(profile.receipts, profile.last)
            profile.last = offset
            self._touched(profile, offset, Lane.REPLAY)
        profile.under = [*(profile.under or ()), part]
        self.events += 1

    def forget(self, key: bytes, offset: int, accepted_at: float) -> None:
        """Take in a forget: a marker takes the key's lease, after an attempt that is under way, so that nothing of the
        key leaves before the caller has erased what is stored of it and calls `settle`.

        What was waiting goes into the marker, without its content, and gets its outcome with it: an outcome of newer
        events must not become durable before that of older ones. `next_marker` tells which markers are due.
        """
        marker = Profile(key, EMPTY, 0, Lane.LIVE, offset, NOTHING, offset, 0, accepted_at)
        waiting = self._waiting.get(key)
        if waiting is not None:
            self._take_out(waiting)
            empty_into(marker, waiting, waiting.last)
        self._lowest.note(offset, key)
        leased = self._leased.get(key)
        if leased is None:
            self._leased[key] = marker
            self._due_markers.append(marker)
            return
        marker.held_through = max(marker.held_through, leased.held_through)
        earlier = self._forgetting.get(key)
        if earlier is not None:
            empty_into(marker, earlier, earlier.through)
        self._forgetting[key] = marker

    @property
    def forgets_waiting(self) -> bool:
        """Did forgets come for keys that are leased?"""
        return bool(self._forgetting)

    def is_forgotten(self, key: bytes) -> bool:
        """The lease of this key must end for good: a forget came while it was out."""
        return key in self._forgetting

    def next_marker(self, is_erased: Callable[[bytes, int], bool] = lambda key, offset: True) -> Profile | None:
        """A forget that is due: nothing of its key is under way, and the journal holds nothing of it any more."""
        for place, marker in enumerate(self._due_markers):
            if is_erased(marker.key, marker.last):
                del self._due_markers[place]
                return marker
        return None

    # -- hand-over ------------------------------------------------------------------------------------------------

    def head(self, lane: Lane, *, fresh_first: bool = False) -> Profile | None:
        """The oldest profile of the lane that may be leased; it stays where it is. `fresh_first`: of those that never
        were leased, if there are any."""
        queue = self._queues[lane]
        fresh, returned = queue.fresh, queue.returned
        while fresh and not self._may_go(fresh[0], lane):
            fresh.popleft()
        while returned and not self._may_go(returned[0][2], lane):
            heapq.heappop(returned)
        if not fresh:
            return returned[0][2] if returned else None
        if returned and returned[0][0] <= fresh[0].oldest_at and not fresh_first:
            return returned[0][2]
        return fresh[0]

    def lease(self, profile: Profile) -> None:
        """Take a profile that `head` has just named into a batch."""
        assert profile.key not in self._leased, "a key is never leased twice"
        queue = self._queues[profile.lane]
        if queue.fresh and queue.fresh[0] is profile:
            queue.fresh.popleft()
        else:
            heapq.heappop(queue.returned)
        self._take_out(profile)
        self._leased[profile.key] = profile

    def lease_oldest(self, lane: Lane, most: int, most_bytes: int, *, fresh_first: bool = False) -> list[Profile]:
        """Take the oldest profiles of a lane into a batch: at most `most`, and `most_bytes` of content unless it is one
        profile alone. Does what `head` and `lease` do one by one, in one go for profiles that never came back."""
        queue, waiting, leased = self._queues[lane], self._waiting, self._leased
        fresh, taken, size, parked = queue.fresh, list[Profile](), 0, self._parked_keys
        while fresh and (fresh_first or not queue.returned) and len(taken) < most:
            profile = fresh[0]
            key = profile.key
            if waiting.get(key) is profile and key not in leased and profile.lane == lane and key not in parked:
                size += len(profile.content)
                if size > most_bytes and taken:
                    size -= len(profile.content)
                    break
                taken.append(profile)
                del waiting[key]
                leased[key] = profile
            fresh.popleft()
        queue.ready -= len(taken)
        self.bytes -= size + len(taken) * PROFILE_OVERHEAD_BYTES
        while len(taken) < most and not (fresh_first and taken) and (head := self.head(lane)) is not None:
            size += len(head.content)
            if taken and size > most_bytes:
                break
            self.lease(head)
            taken.append(head)
        return taken

    def lease_least_tried(self) -> list[Profile]:
        """Take the one profile that failed least, [] when none may go: the newest of those that never were leased, as
        it has least in common with what was; else the best of the oldest that came back."""
        fresh = next((queue.fresh for lane, queue in zip(LANES, self._queues, strict=True) if self._newest(lane)), None)
        profile = fresh.pop() if fresh else self._least_tried_of_returned()
        if profile is None:
            return []
        self._take_out(profile)
        self._leased[profile.key] = profile
        return [profile]

    def take_out(self, profile: Profile) -> None:
        """A waiting profile gets its outcome without being handed over."""
        assert profile.key not in self._leased, "an outcome of newer events must not come before that of older ones"
        self._take_out(profile)
        self.events -= events_of(profile)

    def gained(self, events: int) -> None:
        """A leased profile took in what was held on disk (or, negative, lost a replay that was overtaken)."""
        self.events += events

    def settle(self, key: bytes) -> Profile:
        """The lease is over for good: its events have an outcome. What waited behind may go now."""
        profile = self._leased.pop(key)
        if self._holding:
            self._holding.pop(key, None)
        self.events -= events_of(profile)
        marker = self._forgetting.pop(key, None)
        if marker is not None:
            self._leased[key] = marker
            self._due_markers.append(marker)
        else:
            behind = self._waiting.get(key)
            if behind is not None:
                self._return(behind)
        return profile

    def settle_all(self, profiles: Sequence[Profile]) -> None:
        """As `settle`, for the profiles of one batch."""
        leased, keys = self._leased, [profile.key for profile in profiles]
        if self._holding or self._forgetting or not self._waiting.keys().isdisjoint(keys):
            for key in keys:
                self.settle(key)
            return
        for key in keys:
            del leased[key]
        self.events -= sum([profile.events for profile in profiles])
        self.events -= sum([events_of(one) - one.events for one in profiles if one.under or one.passed])

    def give_back(self, key: bytes, not_before: float | None = None) -> Profile:
        """The lease ends without an outcome: wait again, folded under what came meanwhile, not before a time."""
        assert key not in self._forgetting, "a forgotten profile is settled, not given back"
        profile = self._leased.pop(key)
        newer = self._waiting.get(key)
        if newer is None:
            self._waiting[key] = profile
            self.bytes += len(profile.content) + PROFILE_OVERHEAD_BYTES
        else:
            self._join(newer, profile)
            profile = newer
        if not_before is None:
            self._return(profile)
        else:
            self._parked_keys.add(key)
            heapq.heappush(self._parked, (not_before, next(self._serial), profile))
        return profile

    def wake(self, now: float) -> None:
        """Make parked profiles whose time has come leasable."""
        while self._parked and self._parked[0][0] <= now:
            _, _, profile = heapq.heappop(self._parked)
            if self._is_parked(profile):
                self._parked_keys.discard(profile.key)
                self._return(profile)

    def wakes_at(self) -> float | None:
        """When the next parked profile may go."""
        while self._parked and not self._is_parked(self._parked[0][2]):
            heapq.heappop(self._parked)
        return self._parked[0][0] if self._parked else None

    # -- watermark and held profiles ------------------------------------------------------------------------------

    def watermark(self, position: int) -> int:
        """Every offset below it is settled or held. `position`: the first offset that was not read yet."""
        self._lowest.sweep(len(self), self._holding)
        lowest = self._lowest.first()
        return position if lowest is None else lowest

    def stragglers(self, below: int, limit: int) -> list[Profile]:
        """The waiting profiles that keep the watermark below `below`; [] when they are more than `limit`, since then
        it is the backlog itself that keeps it."""
        found: list[Profile] = []
        for offset, key in self._lowest.pairs():
            if offset >= below:
                return found
            profile = self._waiting.get(key)
            if (
                profile is not None
                and profile.lowest == offset
                and key not in self._holding
                and key not in self._leased
            ):
                found.append(profile)
                if len(found) > limit:
                    return []
        return found

    def evictable(self, limit: int) -> list[Profile]:
        """Backfill profiles that would leave last, at most `limit`, for the caller to hold and unload."""
        found: list[Profile] = []
        queue = self._queues[Lane.BACKFILL]
        queue.sweep(lambda profile: self._may_go(profile, Lane.BACKFILL))
        for profile in reversed(queue.fresh):
            if len(found) == limit:
                break
            if self._may_go(profile, Lane.BACKFILL) and profile.key not in self._holding:
                found.append(profile)
        return found

    @property
    def copies_under_way(self) -> int:
        """How many waiting profiles are on their way to the state file."""
        return len(self._holding)

    def may_be_held(self, profile: Profile) -> bool:
        """Is this profile (still) waiting, with nothing of its key under way to the wire or to the disk?"""
        key = profile.key
        return self._waiting.get(key) is profile and key not in self._leased and key not in self._holding

    def absorb(self, profile: Profile, held: Held) -> int:
        """Fold what is held on disk of its key under a waiting profile; the events gained."""
        place = (profile.lane, profile.oldest_at)
        self.bytes -= len(profile.content)
        gained = fold_held(profile, held, self._merge)
        self.bytes += len(profile.content)
        self.events += gained
        if place != (profile.lane, profile.oldest_at) and profile.key not in self._parked_keys:
            self._queues[place[0]].ready -= 1
            self._return(profile)
        return gained

    def holding(self, profile: Profile) -> None:
        """A copy of this waiting profile is on its way to the state file; `held` tells when it is there."""
        assert self._waiting.get(profile.key) is profile
        self._holding[profile.key] = (profile.last, NOTHING)
        profile.held_through = profile.last

    def held(self, key: bytes, last: int) -> None:
        """The copy that was taken at `last` is durable: it holds the watermark back no longer."""
        copied, since = self._holding.get(key, (NOTHING, NOTHING))
        if copied != last:
            return
        del self._holding[key]
        for profile in (self._waiting.get(key), self._leased.get(key)):
            if profile is not None and NOTHING < profile.lowest <= last:
                profile.lowest = since

    def unload(self, key: bytes, last: int) -> Profile | None:
        """Drop a waiting backfill profile whose durable copy is complete, and return it; None if it has to stay."""
        profile = self._waiting.get(key)
        if profile is None or profile.lowest != NOTHING or profile.last != last:
            return None
        if not self._may_go(profile, Lane.BACKFILL):
            return None
        self._take_out(profile)
        self.events -= events_of(profile)
        return profile

    def load(self, profile: Profile) -> bool:
        """Take a profile from disk back in. False when its key is here: hand-over will fold the two."""
        if profile.key in self._waiting or profile.key in self._leased:
            return False
        profile.lowest, profile.held_through = NOTHING, profile.last
        self._waiting[profile.key] = profile
        self.events += events_of(profile)
        self.bytes += len(profile.content) + PROFILE_OVERHEAD_BYTES
        self._return(profile)
        return True

    # -- inside ---------------------------------------------------------------------------------------------------

    def _enter(self, profile: Profile, offset: int) -> None:
        """A new waiting profile: the watermark's business now, and leasable unless its key is out."""
        self._waiting[profile.key] = profile
        self.bytes += len(profile.content) + PROFILE_OVERHEAD_BYTES
        self._lowest.note(offset, profile.key)
        if profile.key not in self._leased:
            queue = self._queues[profile.lane]
            queue.fresh.append(profile)
            queue.ready += 1

    def _touched(self, profile: Profile, offset: int, lane: Lane) -> None:
        """An event was merged into a waiting profile: what of it is held already, and in which lane is it now?"""
        key = profile.key
        leased = key in self._leased
        if profile.lowest == NOTHING:
            profile.lowest = offset
            self._lowest.note(offset, key)
        elif not leased and key in self._holding and self._holding[key][1] == NOTHING:
            self._holding[key] = (self._holding[key][0], offset)
            self._lowest.note(offset, key)
        if lane < profile.lane:
            if leased or key in self._parked_keys:
                profile.lane = lane
            else:
                self._queues[profile.lane].ready -= 1
                profile.lane = lane
                self._return(profile)

    def _join(self, newer: Profile, older: Profile) -> None:
        """Fold the profile whose lease ended under the one that waited behind it."""
        key = newer.key
        if key in self._holding and self._holding[key][1] == NOTHING:
            self._holding[key] = (self._holding[key][0], newer.lowest)
        self.bytes -= len(newer.content)
        fold_under(newer, older, self._merge)
        self.bytes += len(newer.content)
        if older.lowest != NOTHING:  # what was leased is older than all that waited behind it
            newer.lowest = older.lowest

    def _return(self, profile: Profile) -> None:
        queue = self._queues[profile.lane]
        queue.ready += 1
        heapq.heappush(queue.returned, (profile.oldest_at, next(self._serial), profile))

    def _newest(self, lane: Lane) -> Profile | None:
        """The last of those that never were leased."""
        fresh = self._queues[lane].fresh
        while fresh and not self._may_go(fresh[-1], lane):
            fresh.pop()
        return fresh[-1] if fresh else None

    def _least_tried_of_returned(self) -> Profile | None:
        best: Profile | None = None
        for lane, queue in zip(LANES, self._queues, strict=True):
            oldest = [heapq.heappop(queue.returned) for _ in range(min(LOOKED_AT, len(queue.returned)))]
            oldest = [entry for entry in oldest if self._may_go(entry[2], lane)]
            for entry in oldest:
                heapq.heappush(queue.returned, entry)
                best = entry[2] if best is None or entry[2].tries < best.tries else best
        return best

    def _take_out(self, profile: Profile) -> None:
        key = profile.key
        if key in self._parked_keys:
            self._parked_keys.discard(key)
        elif key not in self._leased:
            self._queues[profile.lane].ready -= 1
        del self._waiting[key]
        self.bytes -= len(profile.content) + PROFILE_OVERHEAD_BYTES

    def _may_go(self, profile: Profile, lane: Lane) -> bool:
        key = profile.key
        return (
            profile.lane == lane
            and self._waiting.get(key) is profile
            and key not in self._leased
            and key not in self._parked_keys
        )

    def _is_parked(self, profile: Profile) -> bool:
        return profile.key in self._parked_keys and self._waiting.get(profile.key) is profile
