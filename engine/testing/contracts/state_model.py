"""Long random sequences of transitions, beside a model of what has to be known after each."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from engine.core.codec import newer_entry
from engine.history import HOUR_SECONDS, RunFilter
from engine.model import NOTHING, Held, HeldKind, LedgerEntry
from engine.ports import State, Transition
from engine.testing.contracts.harness import key_of, promise
from engine.testing.contracts.state_data import NOW, consumer_of, letter, verdict, waiting
from engine.testing.contracts.state_data import change as change_of

if TYPE_CHECKING:
    from engine.testing.contracts.state import StateTrial

NAMES = [f"p{number}" for number in range(12)]


class Model:
    """What one consumer's part of the state file has to say."""

    def __init__(self) -> None:
        self.entries: dict[bytes, LedgerEntry] = {}
        self.waiting: dict[bytes, Held] = {}
        self.letters: list[Held] = []
        self.settled: dict[bytes, int] = {}
        self.counts: dict[str, int] = {}
        self.runs: dict[int, dict[str, int]] = {}
        self.watermark = 0

    def apply(self, change: Transition) -> None:
        for key, through in change.forget:
            self.entries.pop(key, None)
            self.waiting.pop(key, None)
            self.letters = [one for one in self.letters if one.profile.key != key]
            self._settle(key, through)
        for entry in change.verdicts:
            self.entries[entry.key] = newer_entry(self.entries.get(entry.key), entry)
            self._settle(entry.key, entry.settled_through)
        for held in change.hold:
            self._hold(held)
        for key, through in change.drop:
            if key in self.waiting and self.waiting[key].profile.last <= through:
                del self.waiting[key]
        for name, events in change.counts.items():
            self.counts[name] = self.counts.get(name, 0) + events
            run = self.runs.setdefault(int(change.at // HOUR_SECONDS), {})
            run[name] = run.get(name, 0) + events
        self.watermark = self.watermark if change.watermark is None else change.watermark

    def _hold(self, held: Held) -> None:
        if held.kind == HeldKind.WAITING:
            self.waiting[held.profile.key] = held
        else:
            self.letters.append(held)
        self._settle(held.profile.key, held.profile.last)

    def _settle(self, key: bytes, through: int) -> None:
        self.settled[key] = max(self.settled.get(key, NOTHING), through)

    def accounted(self) -> dict[bytes, int]:
        return {key: through for key, through in self.settled.items() if through >= self.watermark}


def transition(random: random.Random, consumer: str, offset: int, watermark: int) -> Transition:
    """A little of everything, around the offset `offset`; no key twice, as the engine does it."""
    names = random.sample(NAMES, 6)
    counts = {random.choice(["delivered", "suppressed"]): random.randint(1, 5)}
    change = Transition(consumer, counts=counts, fates=counts, at=offset * HOUR_SECONDS / 40)
    change.verdicts = [
        verdict(name, offset - random.randint(0, 9), random.choice([NOTHING, offset]), digest=b"%d" % offset)
        for name in names[: random.randint(0, 3)]
    ]
    if random.random() < 0.3:
        change.verdicts.append(change_of(names[5], random.choice(["", f"a{offset}"]), at=NOW + offset))
    change.hold = [waiting(names[3], offset, events=random.randint(1, 4))] if random.random() < 0.5 else []
    if random.random() < 0.3:
        change.hold.append(letter(names[4], offset))
    if random.random() < 0.4:
        change.drop = [(key_of(names[5]), offset - random.randint(0, 20))]
    if random.random() < 0.1:
        change.forget = [(key_of(random.choice(NAMES)), offset)]
    if random.random() < 0.5:
        change.watermark = random.randint(watermark, max(watermark, offset - 5))
    return change


async def compare(state: State, name: str, model: Model) -> None:
    found = await state.keys(name, [key_of(one) for one in NAMES])
    assert {key: one.entry for key, one in found.items() if one.entry is not None} == model.entries
    held = {key: one.held.profile for key, one in found.items() if one.held is not None}
    assert held == {key: one.profile for key, one in model.waiting.items()}
    assert await state.accounted(name) == model.accounted()
    books = await consumer_of(state, name)
    assert (books.counts, books.watermark) == (model.counts, model.watermark)
    assert {run.hour: run.counts for run in await state.runs(RunFilter(consumer=name), 100)} == model.runs
    assert (books.held_profiles, books.letters) == (len(model.waiting), len(model.letters))
    assert books.held_events == sum(one.profile.events for one in model.waiting.values())


class Sequences:
    @promise
    async def test_any_sequence_of_transitions_ends_as_the_model_says(self, trial: StateTrial) -> None:
        seed = random.Random(20_240_229)
        state = await trial.open("plain", "listing")
        models = {"plain": Model(), "listing": Model()}
        for offset in range(1, 400):
            some = [name for name in models if seed.random() < 0.7]
            changes = [transition(seed, name, offset, models[name].watermark) for name in some]
            await state.settle(changes)
            for change in changes:
                models[change.consumer].apply(change)
            if seed.random() < 0.05:
                await state.prune(0.0)
            if seed.random() < 0.03:
                state = await trial.reopen(state)
            if seed.random() < 0.3:
                name = seed.choice(list(models))
                await compare(state, name, models[name])
        for name, model in models.items():
            await compare(state, name, model)
