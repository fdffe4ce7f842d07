"""The nouns of the engine: what an event, a profile, a batch and a verdict are.

Plain data without behaviour. Two conventions hold everywhere:

* A *key* is 32 bytes: SHA-256 of the trimmed, lower-cased e-mail address. It is the only identity that logs,
  metrics, the ledger and URLs know.
* *Content* is one JSON object as bytes, target field -> value, UTF-8, no insignificant white space, with the plain
  address under ``email`` where it is known. Bytes are what a million waiting profiles can afford, and what most
  records leave as: they are decoded again only to be merged, renamed or judged.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import Any

import msgspec

NOTHING = -1
"""An offset below every offset: nothing confirmed, nothing held."""


class Lane(IntEnum):
    """The order of what is buffered; a key sits in its best (lowest) lane."""

    LIVE = 0
    REPLAY = 1
    BACKFILL = 2


class Kind(IntEnum):
    """What an event in the journal asks for."""

    PROFILE = 0
    FORGET = 1  # erase this key everywhere
    REPLAY = 2  # a dead letter handed in again, for `Event.destination` only
    CHANGE = 3  # RainFocus says that something has changed there: nobody writes it back


class Trait(IntFlag):
    """What is known of a content without decoding it."""

    NONE = 0
    EMAIL = 1  # holds a plain address
    FOREIGN_STATE = 2  # holds a `state` outside US and CA, so `state_policy` has to be applied
    ERASED = 4  # was emptied in the journal: its key was forgotten at a later offset
    LOST = 8  # stands for an event that a damaged journal could not give back; whose it was is not known
    ENTITY = 64  # the key stands for a RainFocus id (of a session, say) and not for an address: no ledger knows it


class Membership(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One profile's standing in one audience. `qualified_at` is epoch seconds (AEP's lastQualificationTime)."""

    realized: bool
    qualified_at: float
    name: str = ""  # the audience's, where the producer gave it


class Consent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was said under one consent path, as XDM writes it ("y", "n", "p", "u", "LI", …). `at`: the event's time in
    epoch seconds, only for sources with order = "timestamp"."""

    value: str
    at: float | None = None


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One profile change as a producer sent it, validated and normalised. Audience ids are ``namespace/id``; consents
    are those that some destination asks for, by path (``marketing.email``)."""

    key: bytes
    content: bytes
    traits: int = 0
    audiences: dict[str, Membership] | None = None
    timestamp: float | None = None  # epoch seconds; kept only for sources with order = "timestamp"
    kind: int = Kind.PROFILE
    destination: str = ""  # REPLAY only
    through: int = NOTHING  # REPLAY only: the last offset merged into the dead letter
    letter: int = 0  # REPLAY only: the dead letter's id
    attendee_id: str = ""  # CHANGE only: RainFocus's id of the attendee, if it was named
    consents: dict[str, Consent] | None = None


class Append(msgspec.Struct):
    """The events of one request or one `submit`: they enter the journal together or not at all.

    `first` is the journal's to give: event i of the append has the offset ``first + i``. `packed`: the events as
    `codec.pack_events` makes them, where somebody has done that already; a journal that stores them so takes it as is.
    """

    events: list[Event]
    source: str = "default"
    lane: Lane = Lane.LIVE
    accepted_at: float = 0.0  # epoch seconds
    first: int = NOTHING
    packed: bytes = b""


class Profile(msgspec.Struct, gc=False):
    """The merged, not yet delivered state of one attendee, for one destination. Nothing in it leads back to it, so the
    garbage collector need not walk over a million of them."""

    key: bytes
    content: bytes
    traits: int
    lane: Lane
    lowest: int  # first offset merged in that is not durably held; NOTHING when all of it is
    through: int  # last offset whose content is merged in (for a replay: the dead letter's)
    last: int  # last offset accounted for here (for a replay: the replay event's own)
    events: int  # events merged in, this one's outcome included
    oldest_at: float  # epoch seconds the oldest event merged in was accepted
    audiences: dict[str, Membership] | None = None
    stamps: dict[str, float] | None = None  # field -> event time; only for sources with order = "timestamp"
    certain: bool = (
        True  # False: the destination may hold some of this, or what the ledger does not know: no suppression
    )
    still_seconds: float = 0.0  # how long its destination had stood still when the oldest event came: not aged
    consents: dict[str, Consent] | None = None
    receipts: Any = None  # who may ask for its events, see `receipts.listed`
    attempts: int = 0  # answered attempts that count against it
    tries: int = 0  # all attempts, for the dead letter
    first_tried_at: float = 0.0
    held_through: int = NOTHING  # a durable copy of everything up to here exists in the state file
    letter: int = 0  # a replay's dead letter
    under: list[Profile] | None = None  # replays: folded in as older at hand-over, unless overtaken by then
    passed: list[Profile] | None = None  # replays found overtaken: they end excluded, together with the rest
    standing: dict[str, Membership] | None = None  # leased: what settled events said of other audiences


class Outcome(StrEnum):
    """What became of an event at one destination. Final."""

    DELIVERED = "delivered"
    SUPPRESSED = "suppressed"
    SUPERSEDED = "superseded"
    EXCLUDED = "excluded"
    DEAD_LETTERED = "dead_lettered"
    EXPIRED = "expired"


class VerdictKind(StrEnum):
    """What we do about a reply, for one profile."""

    OK = "ok"
    RETRY = "retry"  # the destination's fault: try again
    REJECT = "reject"  # the record's fault: dead letter
    AUTH = "auth"  # the token was refused: discard it, try again
    CONFIG = "config"  # no record can pass before a person acts: open the destination's breaker
    SPLIT = "split"  # one of the batch is at fault, not known which: send halves
    UNKNOWN = "unknown"  # the request may have been carried out: hold, then try again


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """`reason` is a short stable code (``http_503``, ``response_code_103``, ``timeout``), never data of a person."""

    kind: VerdictKind
    reason: str = ""
    excerpt: str = ""  # what the destination said, shortened, addresses masked
    attendee_id: str = ""


class Batch(msgspec.Struct):
    """The profiles taken under one permit, and `records[i]`, the encoded body of `profiles[i]`."""

    profiles: list[Profile]
    records: list[bytes]


class Reply(msgspec.Struct, frozen=True):
    """What one attempt brought: one verdict a profile, in the order of the batch."""

    verdicts: list[Verdict]
    status: int = 0  # HTTP status; 0 when none came
    retry_after_seconds: float | None = None  # the destination asked for silence
    throttled: bool = False  # 429 or 503: the concurrency window shrinks
    destination_fault: bool = False  # connection, DNS, TLS, time-out, 429, 5xx: counts towards the breaker


class LedgerEntry(msgspec.Struct, array_like=True, gc=False):
    """The last outcome of one key at one destination.

    `settled_through`: every event of the key at or below it has an outcome or is held. `confirmed_through`: the
    destination confirmed everything up to it, or may have it from an attempt that ended otherwise: nothing older is
    replayed over it. `digest` is empty unless the destination is
    certain to hold exactly that content. `outcome` is "" where nothing was settled: the destination itself has said
    that it was changed there. Of what was known before, such an entry takes away the digest and nothing else.
    `consents`: the last ones stated in any settled event, packed (`codec.pack_consents`); `audiences`: the newest
    standing in each that any has told, packed likewise. An entry that states none keeps what is known.
    """

    key: bytes
    outcome: str
    reason: str
    settled_through: int
    confirmed_through: int = NOTHING
    digest: bytes = b""
    at: float = 0.0  # epoch seconds
    attendee_id: str = ""
    consents: bytes = b""
    audiences: bytes = b""


class HeldKind(StrEnum):
    """Why a profile is kept in the state file."""

    WAITING = "waiting"  # a straggler or overflow: it is still to be delivered
    DEAD = "dead_lettered"
    EXPIRED = "expired"


class LetterState(StrEnum):
    """What became of a dead letter; the outcome of its events stays what it was."""

    KEPT = "kept"
    REPLAYED = "replayed"
    OVERTAKEN = "overtaken"
    PURGED = "purged"


class Held(msgspec.Struct):
    """A profile kept durably outside the journal. `profile.through` is the last offset merged into it."""

    kind: HeldKind
    profile: Profile
    at: float = 0.0  # epoch seconds: when it was held
    reason: str = ""
    excerpt: str = ""
    state: LetterState = LetterState.KEPT
    id: int = 0  # given by the state file


class Rejection(msgspec.Struct, frozen=True):
    """A record that was refused, or a field of it that was dropped: where and why, never the value."""

    index: int
    field: str
    reason: str


class NoticeEvent(StrEnum):
    """What there is to tell of an alert."""

    RAISED = "raised"
    REPEATED = "repeated"  # it still is
    RESOLVED = "resolved"
    TEST = "test"


class Notice(msgspec.Struct, array_like=True):
    """One thing to tell about an alert. It names destinations and figures, and never holds data of a person."""

    id: str  # the same however often it is told
    event: str
    at: float  # epoch seconds
    alert: str
    when: str
    destination: str  # "" for what is about the whole engine
    since: float  # epoch seconds: when the condition began to hold
    figure: float
    threshold: float
    unit: str  # "share", "seconds", "bytes", "letters"; "" for what is so or not so
    summary: str
    advice: str
    page: str  # of the documentation
    targets: list[str]  # which are still to be told
