"""The ports: what the engine asks of storage and of a destination. These docstrings are the contract.

Every implementation passes the battery of the same name in `engine.testing`. All coroutines run on the engine's
event loop; an implementation that blocks does so in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from engine.errors import Overloaded
from engine.history import History, HistoryControl
from engine.model import NOTHING, Append, Batch, Held, HeldKind, LedgerEntry, LetterState, Notice, Profile, Reply


class Clock(Protocol):
    """Time, handed in. `monotonic` for durations, `time` (epoch seconds) for what is stored or shown."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class JournalTail(msgspec.Struct, frozen=True):
    """What `Journal.open` found: offsets in [first, next) are stored."""

    id: str  # random, made with the journal; a receipt carries it
    first: int
    next: int
    discarded_frames: int = 0  # unfinished commits after a crash, thrown away; none of them was acknowledged


class JournalSize(msgspec.Struct, frozen=True):
    bytes: int  # live pages plus WAL
    max_bytes: int
    disk_free_bytes: int


class Journal(Protocol):
    """The durable list of accepted events. Offsets only grow and have no gaps; the first one ever is 0."""

    async def open(self) -> JournalTail:
        """Check the tail and be ready to append. Called once, before everything else.

        Raises DataDirectoryError when the file is damaged or of a newer version.
        """

    async def append(self, appends: Sequence[Append], /) -> int:
        """Write all of them in one commit, in order, and return the first offset once they are on disk.

        Event i of the first append gets the returned offset + i, the next append follows without a gap. Called by
        one caller at a time (the commit stage). When cancelled, the commit may still become durable.
        Raises NoSpace when nothing was written and a later call may pass (`type` "journal-full" or "disk-full"),
        StorageFailed when the file can no longer be trusted: every later call raises it too.
        """

    async def read(self, start: int, events: int, /) -> list[Append]:
        """Stored appends from the offset `start` on, about `events` events of them (at least one append if there is
        one). An append that begins before `start` is returned cut, with `first` = `start`. Past the end: [].
        May run beside `append`. Raises StorageFailed when a row does not match its checksum."""

    def release(self, below: int, /) -> None:
        """Offsets below `below` will never be read again; their space is reclaimed in the background, in slices
        that do not hold up a waiting commit. Never blocks; a lower value than before is ignored."""

    def size(self) -> JournalSize:
        """What is used and what is left, as of the last commit or reclaim. Never blocks."""

    async def probe(self) -> None:
        """Would an append find space now? Raises NoSpace with the reason if not."""

    async def erase(self, below: Mapping[bytes, int], /) -> int:
        """Empty every event of each key whose content is from below its offset, for good: overwritten on disk, gone
        from the WAL, marked with `Trait.ERASED`. That is an event below it, and a replay, wherever it stands, of what
        was merged (`Event.through`) below it. Offsets stay taken. Beside running appends; returns how many appends
        were rewritten.
        Raises NoSpace (try again later) or StorageFailed."""

    async def backup(self, path: Path, /) -> None:
        """Write a consistent copy to `path`, beside running appends. Raises DataDirectoryError when it cannot be
        written there, NoSpace when there is no room; the journal itself is not harmed."""

    async def close(self) -> None:
        """Finish what runs, checkpoint, close. Idempotent."""


class ConsumerState(msgspec.Struct):
    """What the state file knows of one consumer. Offsets below `watermark` are settled or held."""

    name: str
    identity: str  # (environment, URL, org id, event code): another identity is another consumer
    start: int  # first offset that concerns it
    watermark: int
    read_to: int  # it has read nothing at or above this
    clean: bool  # the last stop settled every attempt
    paused: bool = False
    not_addressed: int = 0  # offsets in [start, watermark) that were not for it (source, control, others' replays)
    counts: dict[str, int] = msgspec.field(default_factory=dict)  # "delivered", "excluded:no_email", … in events
    held_events: int = 0  # events in WAITING held profiles
    held_profiles: int = 0
    letters: int = 0  # dead letters kept (DEAD and EXPIRED)
    settled_through: int = NOTHING  # the highest offset at or above the watermark that is settled or held


class Transition(msgspec.Struct):
    """One consumer's part of a settling transaction. Every field is applied, or none.

    `verdicts`: new last outcome by key, in order. An entry replaces outcome, reason, digest, time and attendee id (an
    empty id keeps the old one); both offsets only grow. One without an outcome (the destination reports a change) keeps
    outcome, reason and time, and takes the digest away. `hold`: a WAITING one replaces the key's earlier WAITING one;
    DEAD and EXPIRED ones are added. The key of a held profile counts as settled through `profile.last` for `accounted`.
    `drop`: (key, through): the key's WAITING profile is deleted if its `profile.last` <= through.
    `letters`: (id, new state). `forget`: (key, offset): delete the key's ledger entry, held profiles and dead
    letters, but remember it as settled through `offset` for `accounted`. `accounted`: (key, offset): settled through
    `offset`, without a trace in the ledger. `counts`: increments, also of the run of the hour of `at`. `fates` and
    `audiences` (by audience): what the run says beside them, see `history.Run`; in events.
    `watermark`, `read_to`, `not_addressed`, `clean`, `paused`: new values, None leaves them.
    """

    consumer: str
    verdicts: list[LedgerEntry] = msgspec.field(default_factory=list)
    hold: list[Held] = msgspec.field(default_factory=list)
    drop: list[tuple[bytes, int]] = msgspec.field(default_factory=list)
    letters: list[tuple[int, LetterState]] = msgspec.field(default_factory=list)
    forget: list[tuple[bytes, int]] = msgspec.field(default_factory=list)
    accounted: list[tuple[bytes, int]] = msgspec.field(default_factory=list)
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    fates: dict[str, int] = msgspec.field(default_factory=dict)
    audiences: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    at: float = 0.0  # epoch seconds: when it is written
    watermark: int | None = None
    read_to: int | None = None
    not_addressed: int | None = None
    clean: bool | None = None
    paused: bool | None = None


class KeyState(msgspec.Struct):
    """What is stored of one key for one consumer: the ledger entry, if any, and the WAITING held profile, if any."""

    entry: LedgerEntry | None = None
    held: Held | None = None


class Inspection(msgspec.Struct):
    """Of one consumer, for an audit: the highest offsets that stand in any row (NOTHING: none), and as sentences what
    cannot be read or contradicts itself."""

    settled_through: int = NOTHING
    confirmed_through: int = NOTHING
    problems: list[str] = msgspec.field(default_factory=list)


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters: every condition that is set has to hold. Times are epoch seconds."""

    consumer: str | None = None
    ids: tuple[int, ...] | None = None
    kind: HeldKind | None = None  # DEAD or EXPIRED; None: both
    reason: str | None = None
    key: bytes | None = None
    state: LetterState | None = LetterState.KEPT
    since: float | None = None
    until: float | None = None


class State(History, Protocol):
    """Ledger, held profiles, counts, watermarks and pauses, in one file of their own.

    Reads see every transaction whose `settle` has returned. Deletes nothing that recovery needs: what `accounted`
    returns is kept until the watermark has passed it, whatever the retention limits say.
    """

    async def open(self) -> None:
        """Raises DataDirectoryError when the file is damaged or of a newer version."""

    async def consumers(self) -> list[ConsumerState]: ...

    async def add_consumer(self, state: ConsumerState, /) -> None:
        """A name that exists is replaced with an empty ledger (its letters stay); durable on return."""

    async def rename_consumer(self, old: str, new: str, /) -> None:
        """Move everything that is stored of it, beside letters that a removed one of the new name has left."""

    async def remove_consumer(self, name: str, /) -> None:
        """Delete everything that is stored of it but its dead letters: they stay under its name until they are purged,
        too old, or of somebody whom any consumer's `forget` names."""

    async def settle(self, transitions: Sequence[Transition], pauses: dict[str, float] | None = None, /) -> None:
        """Apply all of it in one transaction; durable on return. `pauses`: account -> epoch seconds until which
        nothing may be sent; merged into what is stored. One caller at a time.
        Raises NoSpace (nothing applied; try again later) or StorageFailed (fail-stop)."""

    async def pauses(self) -> dict[str, float]: ...

    async def accounted(self, consumer: str, /) -> dict[bytes, int]:
        """key -> offset through which its events are settled or held, for every key settled or held at or above the
        durable watermark. Recovery drops exactly these events."""

    def keeps_verdicts(self, consumer: str, /) -> bool:
        """Does `keys` tell of its verdicts later? Else recovery alone needs to know what is settled: `accounted` of a
        transition says as much as `verdicts`. Once True it stays so while dead letters of the consumer are known."""

    async def keys(self, consumer: str, keys: Sequence[bytes], /) -> dict[bytes, KeyState]:
        """What is stored of these keys; a key of which nothing is stored is missing from the answer."""

    async def held(self, consumer: str, limit: int, /, after: int = 0) -> list[Held]:
        """WAITING held profiles with id > `after`, ascending by id, at most `limit`."""

    async def letters(self, which: LetterFilter, limit: int, /, after: int = 0) -> list[tuple[str, Held]]:
        """(consumer, dead letter) with id > `after`, ascending by id, at most `limit`."""

    async def count_letters(self, which: LetterFilter, /) -> int: ...

    async def purge_letters(self, which: LetterFilter, /) -> int:
        """Empty these letters of their content and set them PURGED; returns how many."""

    async def inspect(self) -> dict[str, Inspection]:
        """What there is to say of every consumer's rows, by name, and under "" what belongs to none. Reads everything:
        takes seconds with millions of keys, and holds up nobody but other questions."""

    async def alerts(self) -> dict[tuple[str, str], bytes]:
        """What `keep_alerts` was given last, by (name of the alert, destination); "" for the whole engine."""

    async def keep_alerts(self, rows: Mapping[tuple[str, str], bytes | None], /) -> None:
        """Replace these rows, None deletes one; all or none, durable on return. Beside settling. Raises as `settle`."""

    async def prune(self, now: float, /) -> None:
        """Enforce the retention limits (ledger days and keys, dead letter days), in slices. `now`: epoch seconds."""

    async def scrub(self) -> None:
        """Leave no trace on disk of what was deleted before (forgets). Raises NoSpace (later) or StorageFailed."""

    async def backup(self, path: Path, /) -> None:
        """Write a consistent copy to `path`, beside running transactions. Raises as `Journal.backup` does."""

    async def close(self) -> None:
        """Finish what runs, fold, checkpoint, close. Idempotent."""


class Permit(Protocol):
    """The right to send one request now. `token` is the bearer token to send it with ("" where none is needed)."""

    @property
    def token(self) -> str: ...

    async def use(self) -> None:
        """To be awaited once, directly before the first byte of the request is handed to the socket, with the
        connection already open: this is the moment the rate limit is kept at. A permit older than 20 ms is void and
        a new one is waited for. Raises PermitVoid when nothing may be sent now: let it through, nothing was sent."""


class Destination(Protocol):
    """Where profiles go."""

    @property
    def fingerprint(self) -> bytes:
        """Covers all that shapes a record beside the profile: mapping, event code, URL. Part of every digest."""

    @property
    def profiles_per_request(self) -> int:
        """How many profiles one request may carry; 1 for an API that takes one at a time."""

    def encode(self, profile: Profile, /) -> bytes:
        """The record as it would be sent. Pure and repeatable: equal content gives equal bytes."""

    async def open(self) -> None:
        """Called once, inside the running loop, before the first `send`."""

    async def send(self, batch: Batch, permit: Permit, /) -> Reply:
        """Make one attempt; never retry inside. Awaits `permit.use()` before the first byte. Many may run at once.

        Raises nothing but PermitVoid and cancellation: every failure is a Reply. Returns only once the connection is
        free for the next request or closed. When cancelled the connection is closed first, and the attempt counts as
        unknown.
        """

    async def close(self) -> None: ...


@runtime_checkable
class EncodesTogether(Protocol):
    """What a Destination may have beside `encode`, where many records cost less together."""

    def encode_all(self, profiles: Sequence[Profile], /) -> list[bytes]:
        """`encode` of each, in their order. Whatever it raises has them encoded one by one."""


class TokenSource(Protocol):
    """The one shared token of an account."""

    def current(self) -> str:
        """The token if it is valid now, else ""."""

    async def valid(self) -> str:
        """Wait until there is a valid token and return it. However many wait, one refresh runs."""

    def discard(self, token: str, /) -> None:
        """The destination refused this token. Another token than the current one is ignored."""

    @property
    def trouble(self) -> str:
        """Why there is no token, as a short reason; "" while all is well."""

    async def run(self) -> None:
        """The refresher, run in the engine's task group until cancelled: refreshes on demand and ahead of expiry while
        tokens are being used, backs off by itself, and starts nothing during a Retry-After pause."""

    async def close(self) -> None: ...


class Bucket(Protocol):
    """The token bucket of one account; asked by its one arbiter only."""

    async def take(self) -> None:
        """Wait for room and take one permit. Starts empty: no burst before `burst` permits have been earned."""


class Told(msgspec.Struct, frozen=True):
    """What came of telling one notice. `result`: "ok", or a short reason ("http_503", "timeout"), without a secret.
    `gone`: the other side wants no more of them."""

    result: str
    retry_after_seconds: float | None = None
    gone: bool = False


class Notifier(Protocol):
    """One `[[notify]]`: where alerts are told."""

    @property
    def where(self) -> str:
        """A host or a kind, for people; never the path or a secret."""

    async def tell(self, notice: Notice, /) -> Told:
        """One attempt, never a second inside, within a time limit of its own. Raises nothing but cancellation, which
        it obeys at once. The same notice may come again: whoever is told knows it by its id."""


class Intake(Protocol):
    """What an ingress hands events to. The engine implements it."""

    def refusal(self) -> Overloaded | None:
        """Why nothing can be accepted now (journal full, disk full, draining, too much waiting to be written), or None.
        Cheap: asked before a body is read."""

    def hand_in(self, append: Append, told: Callable[[str | Exception], None], /, *, owner: str = "") -> None:
        """Make the append, which has events, durable. `told` is called once, after this has returned: with the id of
        its receipt when it is, or with Overloaded (nothing was written) or Stopped. `owner` is the name of the key that
        sent it.

        Takes the append over. What is known at once is raised, and `told` is not called."""

    def receipt(self, id: str, /, *, owner: str = "") -> dict[str, object] | None:
        """{"id", "state": "pending"|"settled", "destinations": {name: {"pending": n, "delivered": n, …}} | None}; None
        for an unreadable id, another owner's, or another journal's."""

    async def settled(self, id: str, timeout_seconds: float, /, *, owner: str = "") -> bool:
        """Wait until every event of the receipt has its outcome everywhere; False when the time is over first, or
        when it cannot be followed any more and is not settled yet. Raises Stopped when the engine ends first."""


class Control(HistoryControl, Protocol):
    """What the admin API, the dashboard and the command line ask of an engine. The engine implements it.

    Answers are JSON-ready dictionaries; keys are shown as 64 hex digits, times as epoch seconds. Unknown destination
    names raise KeyError. No answer holds a secret; only `letters(with_content=True)` holds data of a person.
    """

    def readiness(self) -> list[str]:
        """Why the engine is not ready, as stable short reasons ("recovering", "draining", "journal-full", …); [] when
        ready."""

    def status(self) -> dict[str, object]:
        """Journal, buffer, destinations, accounts: sizes, rates, states."""

    def destinations(self) -> list[dict[str, object]]:
        """One entry a destination: "name", "account", "environment", "url", "state" ("active", "paused", "open"),
        "reason", "counts" {accepted, delivered, suppressed, superseded, excluded, dead_lettered, expired, pending},
        "excluded" {reason: n}, "waiting", "leased", "held", "oldest_pending_seconds", "config" (no secrets), …"""

    async def test_destination(self, name: str, /, *, store_email: str | None = None) -> dict[str, object]:
        """Resolve, connect, fetch a token; with `store_email` also write that attendee. Pays from the bucket.
        {"ok": bool, "steps": [{"step", "ok", "detail", "seconds"}]}"""

    async def pause(self, name: str, /) -> None: ...

    async def resume(self, name: str, /) -> None: ...

    async def lookup(self, key: bytes, /) -> dict[str, object]:
        """{"key", "destinations": {name: {"state": "waiting"|"leased"|"held"|"settled"|"unknown", "outcome", "reason",
        "at", "attendee_id", "confirmed_through", "pending_events", "dead_letters", "consents" {path: value}}}}"""

    async def forget(self, key: bytes, /) -> dict[str, object]:
        """Journal a control event that erases the key everywhere; durable on return. {"key", "offset"}"""

    async def traces(
        self, key: bytes, texts: Sequence[str], /, *, offset: int = NOTHING, wait_seconds: float = 0.0
    ) -> dict[str, object]:
        """Search every file of the data directory for these texts, once the forget of this key at `offset` has been
        carried out: at most `wait_seconds` are waited for that. {"key", "done", "waiting_for": [destination], "ok",
        "found": n | None, "files": [{"file", "bytes", "found", "rows", "problem"}]}; no answer quotes a text."""

    async def letters(
        self, which: LetterFilter, limit: int, /, *, after: int = 0, with_content: bool = False
    ) -> dict[str, object]:
        """{"letters": [{"id", "destination", "key", "kind", "reason", "excerpt", "attempts", "events",
        "first_tried_at", "at", "state", "content"?}], "next": id | None, "total": n}"""

    async def replay(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        """{"matched": n, "replayed": n}"""

    async def purge(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        """{"matched": n, "purged": n}"""

    async def audit(self) -> dict[str, object]:
        """The conservation sums, recomputed from storage: {"ok": bool, "destinations": {name: {"accepted", …,
        "pending", "residual"}}, "problems": [text]}"""

    def alerts(self) -> dict[str, object]:
        """{"alerts": [{"alert", "when", "destination", "state", "since", "figure", "threshold", "summary", …}], what is
        raised first, "targets": [{"name", "kind", "where", "waiting", "last_result", "last_at"}]}"""

    async def test_notification(self, target: str, /) -> dict[str, object]:
        """Tell one target that this is a test, once. {"target", "ok", "result", "seconds"}. Raises KeyError."""

    async def backup(self, directory: Path, /) -> dict[str, object]:
        """Copy journal and state there, beside running work. {"files": [name], "bytes": n}"""

    def metrics(self) -> bytes:
        """Prometheus text format."""


__all__ = [
    "NOTHING",
    "Bucket",
    "Clock",
    "ConsumerState",
    "Control",
    "Destination",
    "Inspection",
    "Intake",
    "Journal",
    "JournalSize",
    "JournalTail",
    "KeyState",
    "LetterFilter",
    "Notifier",
    "Permit",
    "State",
    "TokenSource",
    "Told",
    "Transition",
]
