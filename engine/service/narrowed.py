"""An engine as a caller sees it who is limited to some destinations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec

from engine.adapters.http_ingress import Caller, Problem
from engine.history import OutcomeFilter, RunFilter
from engine.ports import Control, LetterFilter

GENERAL = ("version", "ready", "reasons", "recovering", "journal", "settled_per_second")
"""Of the status, what is about no destination."""


class Narrowed:
    """Of a `Control` what such a caller may ask, each answer without the other destinations. What is not here is
    refused to it before: see `Operation.narrows`."""

    def __init__(self, control: Control, caller: Caller) -> None:
        self._control, self.caller = control, caller
        self._only = caller.destinations or frozenset()

    def hides(self, name: str) -> bool:
        """Whether there is such a destination, and the caller must not know."""
        return name not in self._only and any(it["name"] == name for it in self._control.destinations())

    def only(self, which: LetterFilter) -> LetterFilter:
        """The filter within what the caller sees. Raises Problem when it does not say which of several it means."""
        if which.consumer is not None:
            return which
        if len(self._only) > 1:
            names = ", ".join(sorted(self._only))
            raise Problem("bad-request", f"name one destination: this key is limited to {names}")
        return msgspec.structs.replace(which, consumer=next(iter(self._only)))

    # -- as `ports.Control` ---------------------------------------------------------------------------------------

    def destinations(self) -> list[dict[str, object]]:
        return [it for it in self._control.destinations() if it["name"] in self._only]

    def status(self) -> dict[str, object]:
        """Accounts are those of its destinations."""
        found, mine = self._control.status(), self.destinations()
        theirs = {it.get("account") for it in mine}
        accounts = [it for it in cast("list[dict[str, Any]]", found.get("accounts", [])) if it["name"] in theirs]
        general = {name: found[name] for name in GENERAL if name in found}
        return general | {"alerts": self._mine(found.get("alerts", [])), "accounts": accounts, "destinations": mine}

    def alerts(self) -> dict[str, object]:
        """Without those of the whole engine, which name destinations too, and without who is told."""
        return {"alerts": self._mine(self._control.alerts()["alerts"]), "targets": []}

    def _mine(self, alerts: object) -> list[dict[str, Any]]:
        return [it for it in cast("list[dict[str, Any]]", alerts) if it["destination"] in self._only]

    async def runs(self, which: RunFilter, limit: int, /, *, cursor: str = "", flow: bool = False) -> dict[str, object]:
        mine = msgspec.structs.replace(which, among=self._only)
        return await self._control.runs(mine, limit, cursor=cursor, flow=flow)

    def outcomes(self, which: OutcomeFilter, /) -> AsyncIterator[list[dict[str, object]]]:
        if which.consumer not in self._only:
            raise KeyError(which.consumer)
        return self._control.outcomes(which)

    async def lookup(self, key: bytes, /) -> dict[str, object]:
        found = await self._control.lookup(key)
        by_name = cast("dict[str, object]", found["destinations"])
        return found | {"destinations": {name: it for name, it in by_name.items() if name in self._only}}

    async def test_destination(self, name: str, /, *, store_email: str | None = None) -> dict[str, object]:
        return await self._control.test_destination(name, store_email=store_email)

    async def pause(self, name: str, /) -> None:
        await self._control.pause(name)

    async def resume(self, name: str, /) -> None:
        await self._control.resume(name)

    async def letters(
        self, which: LetterFilter, limit: int, /, *, after: int = 0, with_content: bool = False
    ) -> dict[str, object]:
        return await self._control.letters(self.only(which), limit, after=after, with_content=with_content)

    async def replay(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        return await self._control.replay(self.only(which), dry_run=dry_run)

    async def purge(self, which: LetterFilter, /, *, dry_run: bool = False) -> dict[str, object]:
        return await self._control.purge(self.only(which), dry_run=dry_run)
