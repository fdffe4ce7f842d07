"""The `Control` port: what the admin API, the dashboard and the command line ask of a running engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from engine.assembly.audit import audit_running
from engine.assembly.erasure import prove
from engine.assembly.past import PastControl
from engine.core.codec import unpack_consents
from engine.core.codes import code_of
from engine.core.person import summary
from engine.dispatcher import Account, Consumer
from engine.model import NOTHING, Append, Event, Held, Kind, Lane, LedgerEntry, LetterState, Profile
from engine.ports import LetterFilter

if TYPE_CHECKING:
    from engine.assembly.build import Parts

REPLAY_AT_ONCE = 500


class EngineControl(PastControl):
    """See `ports.Control`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._consumers = {consumer.name: consumer for consumer in parts.consumers}

    # -- state ----------------------------------------------------------------------------------------------------

    def readiness(self) -> list[str]:
        pipeline = self._parts.pipeline
        reasons: list[str] = []
        if pipeline.commit.closed is not None:
            reasons.append("draining")
        else:
            refusal = pipeline.commit.refusal()
            reasons += [refusal.type] if refusal is not None else []
            blocked = pipeline.settler.no_space
            reasons += [f"state-{blocked.type}"] if blocked is not None else []
            reasons += ["no-progress"] if pipeline.watchdog.stalled() else []
        return reasons

    def status(self) -> dict[str, object]:
        parts = self._parts
        size = parts.journal.size()
        return {
            "version": parts.version,
            "ready": not self.readiness(),
            "reasons": self.readiness(),
            "notes": self.notes(),
            "recovering": parts.pipeline.recovering,
            "journal": {
                "bytes": size.bytes,
                "max_bytes": size.max_bytes,
                "disk_free_bytes": size.disk_free_bytes,
                "next": parts.pipeline.commit.next_offset,
                "discarded_frames": parts.discarded_frames,
            },
            "settled_per_second": parts.pipeline.drain_rate.current(parts.clock.monotonic()),
            "alerts": self._parts.alerting.active(),
            "accounts": [_account(account) for account in parts.accounts],
            "destinations": self.destinations(),
        }

    def notes(self) -> list[str]:
        """What there is to say about this start: new destinations, frames that were thrown away."""
        parts = self._parts
        frames = parts.discarded_frames
        found = [f"{frames} unfinished journal frames of the last process were discarded"] if frames else []
        return [*parts.notes, *found]

    def destinations(self) -> list[dict[str, object]]:
        return [self._describe(consumer) for consumer in self._parts.consumers]

    def _describe(self, consumer: Consumer) -> dict[str, object]:
        parts, following = self._parts, self._parts.pipeline.commit.next_offset
        sums = consumer.books.sums()
        accepted = consumer.accepted(following)
        pending = accepted - sum(sums.values()) if consumer.recovering else consumer.pending(following)
        reasons = {
            name.partition(":")[2]: events
            for name, events in consumer.books.counts.items()
            if name.startswith("excluded:")
        }
        oldest = consumer.oldest_pending_at()
        return {
            "name": consumer.name,
            "account": consumer.account.name,
            **parts.described[consumer.name],
            "state": _state(consumer),
            "reason": _reason(consumer) or ("no-progress" if parts.pipeline.watchdog.stalled(consumer.name) else ""),
            "counts": {"accepted": accepted, **sums, "pending": pending},
            "excluded": reasons,
            "residual": consumer.residual(following),
            "recovering": consumer.recovering,
            "waiting": consumer.coalescer.waiting,
            "leased": consumer.coalescer.leased,
            "held": consumer.books.held_profiles,
            "dead_letters": consumer.books.letters,
            "watermark": consumer.watermark,
            "oldest_pending_seconds": 0.0 if oldest is None else max(0.0, parts.clock.time() - oldest),
        }

    # -- orders ---------------------------------------------------------------------------------------------------

    async def test_destination(self, name: str, /, *, store_email: str | None = None) -> dict[str, object]:
        return await self._parts.testers[name](store_email)

    async def pause(self, name: str, /) -> None:
        self._consumers[name].set_paused(True)
        await self._parts.pipeline.settler.flush()

    async def resume(self, name: str, /) -> None:
        self._consumers[name].set_paused(False)
        await self._parts.pipeline.settler.flush()

    async def lookup(self, key: bytes, /) -> dict[str, object]:
        return {
            "key": key.hex(),
            "destinations": {consumer.name: await self._lookup(consumer, key) for consumer in self._parts.consumers},
        }

    async def _lookup(self, consumer: Consumer, key: bytes) -> dict[str, object]:
        stored = (await consumer.books.look_up(self._parts.state, [key])).get(key)
        entry, held = (stored.entry, stored.held) if stored is not None else (None, None)
        waiting, leased = consumer.coalescer.find(key)
        letters = await self._parts.state.count_letters(LetterFilter(consumer=consumer.name, key=key))
        settled = entry is not None and bool(entry.outcome)  # else RainFocus alone has told us of them
        state = (
            "leased" if leased else "waiting" if waiting else "held" if held else "settled" if settled else "unknown"
        )
        pending = sum(profile.events for profile in (waiting, leased) if profile is not None)
        outcome, reason = (entry.outcome, entry.reason) if entry and settled else (None, None)
        return {
            "state": state,
            "summary": summary(state, outcome, reason, letters, consumer.trouble()),
            "outcome": outcome,
            "reason": reason,
            "code": code_of(reason),
            "at": entry.at if entry else None,
            "attendee_id": entry.attendee_id if entry else None,
            "confirmed_through": entry.confirmed_through if entry and settled else None,
            "pending_events": pending or (held.profile.events if held else 0),
            "dead_letters": letters,
            "consents": _stated(entry),
        }

    async def forget(self, key: bytes, /) -> dict[str, object]:
        event = Event(key, b"{}", kind=Kind.FORGET)
        offset = await self._parts.pipeline.commit.submit(Append([event], source=""))
        return {"key": key.hex(), "offset": offset}

    async def traces(
        self, key: bytes, texts: Sequence[str], /, *, offset: int = NOTHING, wait_seconds: float = 0.0
    ) -> dict[str, object]:
        return await prove(self._parts.pipeline, self._parts.directory, key, texts, offset, wait_seconds)

    # -- dead letters ---------------------------------------------------------------------------------------------

    async def letters(
        self, which: LetterFilter, limit: int, /, *, after: int = 0, with_content: bool = False
    ) -> dict[str, object]:
        found = await self._parts.state.letters(which, limit, after=after)
        shown = []
        for name, held in found:
            profile = held.profile
            letter: dict[str, object] = {
                "id": held.id,
                "destination": name,
                "key": profile.key.hex(),
                "kind": held.kind,
                "reason": held.reason,
                "code": code_of(held.reason),
                "excerpt": held.excerpt,
                "attempts": profile.tries,
                "events": profile.events,
                "first_tried_at": profile.first_tried_at,
                "at": held.at,
                "state": held.state,
            }
            if with_content:
                letter["content"] = msgspec.json.decode(profile.content)
            shown.append(letter)
        total = await self._parts.state.count_letters(which)
        return {"letters": shown, "next": found[-1][1].id if len(found) == limit else None, "total": total}

    async def replay(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        """Each letter re-enters as a newly accepted event for its destination, in lane replay. A letter is marked in
        the transaction after its event is durable: a crash between the two replays it twice, and never loses it."""
        settler = self._parts.pipeline.settler
        matched = await self._parts.state.count_letters(which)
        replayed, after = 0, 0
        await settler.flush()
        while not dry_run:
            # No forget is carried out between the look at a letter and its event: what it erases includes that.
            async with settler.at_rest():
                found = await self._parts.state.letters(which, REPLAY_AT_ONCE, after=after)
                replayed += await self._replay(found)
            if not found:
                break
            after = found[-1][1].id
            await settler.flush()
        return {"matched": matched, "replayed": replayed}

    async def _replay(self, found: Sequence[tuple[str, Held]]) -> int:
        letters = [(self._consumers[name], held) for name, held in found if name in self._consumers]
        usable = [(one, held) for one, held in letters if not one.is_forgotten(held.profile.key, held.profile.through)]
        if not usable:
            return 0
        events = [_replay_event(one.name, held.id, held.profile) for one, held in usable]
        await self._parts.pipeline.commit.submit(Append(events, source="", lane=Lane.REPLAY))
        for one, held in usable:
            one.erase_if_forgotten(held.profile.key, held.profile.through)  # the forget was read meanwhile
            one.books.open.letters.append((held.id, LetterState.REPLAYED))
            one.books.letters -= 1
        return len(usable)

    async def purge(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        matched = await self._parts.state.count_letters(which)
        purged = 0 if dry_run else await self._parts.state.purge_letters(which)
        await self._parts.pipeline.settler.recount_letters()
        return {"matched": matched, "purged": purged}

    # -- books ----------------------------------------------------------------------------------------------------

    async def audit(self) -> dict[str, object]:
        return await audit_running(self._parts)

    def alerts(self) -> dict[str, object]:
        return self._parts.alerting.report()

    async def test_notification(self, target: str, /) -> dict[str, object]:
        return await self._parts.alerting.test(target)

    async def backup(self, directory: Path, /) -> dict[str, object]:
        """No settling meanwhile, and the journal last: whatever the state copy counts as pending is in the journal
        copy, and the journal copy goes further than any offset the state copy knows."""
        await anyio.Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._parts.pipeline.settler.flush()
        async with self._parts.pipeline.settler.at_rest():
            await self._parts.state.backup(directory / "state.db")
            await self._parts.journal.backup(directory / self._parts.journal_file)
        files: Sequence[Path] = [directory / self._parts.journal_file, directory / "state.db"]
        return {"files": [file.name for file in files], "bytes": sum(file.stat().st_size for file in files)}

    def metrics(self) -> bytes:
        return self._parts.metrics.render()


def _stated(entry: LedgerEntry | None) -> dict[str, str]:
    consents = unpack_consents(entry.consents) if entry is not None else None
    return {path: consent.value for path, consent in (consents or {}).items()}


def _replay_event(name: str, letter: int, profile: Profile) -> Event:
    return Event(
        profile.key,
        profile.content,
        profile.traits,
        profile.audiences,
        kind=Kind.REPLAY,
        destination=name,
        through=profile.through,
        letter=letter,
        consents=profile.consents,
    )


def _state(consumer: Consumer) -> str:
    if consumer.paused:
        return "paused"
    tokens = consumer.account.tokens
    trouble = consumer.account.breaker.state != "closed" or (tokens is not None and bool(tokens.trouble))
    return "open" if trouble or consumer.breaker.state != "closed" else "active"


def _reason(consumer: Consumer) -> str:
    tokens = consumer.account.tokens
    if tokens is not None and tokens.trouble:
        return f"token: {tokens.trouble}"
    return "" if consumer.paused else consumer.trouble()


def _account(account: Account) -> dict[str, object]:
    return {
        "name": account.name,
        "in_flight": account.in_flight,
        "concurrency_limit": account.window.limit,
        "breaker": account.breaker.state,
        "paused_seconds": round(account.pause_seconds(), 3),
        "token_trouble": account.tokens.trouble if account.tokens is not None else "",
    }
