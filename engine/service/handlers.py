"""The orders and questions of the admin API, each one call of the `Control` port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from engine.adapters.http_ingress import Access, Problem, head_of
from engine.metrics import CONTENT_TYPE, Metrics
from engine.model import LetterState
from engine.ports import Control, LetterFilter
from engine.service.asking import (
    LETTERS_AT_ONCE,
    LETTERS_AT_ONCE_MAX,
    Backup,
    Conditions,
    Lookup,
    Search,
    Test,
    TestNotification,
    body_as,
    key_from_path,
    key_of_email,
    no_body,
    valid_email,
)
from engine.service.narrowed import Narrowed
from engine.service.past import PastHandlers, Seen, destination


class Handlers(PastHandlers):
    """Named as the operations of the OpenAPI document. What they return is the JSON of the answer."""

    def __init__(self, control: Callable[[], Control], access: Access, metrics: Metrics | None) -> None:
        super().__init__(control, access)
        self._metrics = metrics

    # -- profiles -------------------------------------------------------------------------------------------------

    async def get_profile(self, request: web.Request) -> object:
        return await self._seen(request).lookup(key_from_path(request))

    async def lookup_profile(self, request: web.Request) -> object:
        return await self._seen(request).lookup(key_of_email((await body_as(request, Lookup)).email))

    async def forget_profile(self, request: web.Request) -> object:
        return await self._control().forget(key_from_path(request))

    async def find_traces(self, request: web.Request) -> object:
        asked = await body_as(request, Search)
        key, texts = key_of_email(asked.email), [asked.email, *asked.values]
        return await self._control().traces(key, texts, offset=asked.offset, wait_seconds=asked.wait_seconds)

    # -- destinations ---------------------------------------------------------------------------------------------

    async def list_destinations(self, request: web.Request) -> object:
        return {"destinations": self._seen(request).destinations()}

    async def get_destination(self, request: web.Request) -> object:
        control, name = self._named(request)
        return destination(control, name)

    async def test_destination(self, request: web.Request) -> object:
        control, name = self._named(request)
        email = (await body_as(request, Test)).store_email
        return await control.test_destination(name, store_email=None if email is None else valid_email(email))

    async def pause_destination(self, request: web.Request) -> object:
        control, name = self._named(request)
        await no_body(request)
        await control.pause(name)
        return destination(control, name)

    async def resume_destination(self, request: web.Request) -> object:
        control, name = self._named(request)
        await no_body(request)
        await control.resume(name)
        return destination(control, name)

    def _named(self, request: web.Request) -> tuple[Seen, str]:
        control, name = self._seen(request), request.match_info["name"]
        self._admit(control, name)
        return control, name

    # -- books ----------------------------------------------------------------------------------------------------

    async def get_status(self, request: web.Request) -> object:
        return self._seen(request).status()

    async def list_alerts(self, request: web.Request) -> object:
        return self._seen(request).alerts()

    async def test_notification(self, request: web.Request) -> object:
        target = (await body_as(request, TestNotification)).target
        try:
            return await self._control().test_notification(target)
        except KeyError:
            raise Problem("not-found", "there is no such target; GET /v1/alerts lists them") from None

    async def get_audit(self, request: web.Request) -> object:
        return await self._control().audit()

    async def make_backup(self, request: web.Request) -> object:
        directory = Path((await body_as(request, Backup)).directory)
        if not directory.is_absolute():
            raise Problem("bad-request", "directory must be an absolute path on the engine's machine")
        try:
            return await self._control().backup(directory)
        except OSError as error:
            raise Problem("bad-request", f"the directory cannot be written to: {error.strerror}") from None

    async def get_metrics(self, request: web.Request) -> object:
        """A stopped engine still shows its numbers, if they were handed in."""
        if self._metrics is not None:
            await self._metrics.complete()
        text = self._metrics.render() if self._metrics is not None else self._control().metrics()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    # -- dead letters ---------------------------------------------------------------------------------------------

    async def list_dead_letters(self, request: web.Request) -> object:
        conditions = await Conditions.of(request, "limit", "after", "content")
        limit = conditions.number("limit", LETTERS_AT_ONCE, 1, LETTERS_AT_ONCE_MAX)
        after = conditions.number("after", 0, 0, 2**62)
        with_content = conditions.flag("content")
        if with_content:
            self._access.require(head_of(request), "profiles:view")
        control = self._seen(request)
        return await control.letters(self._which(control, conditions), limit, after=after, with_content=with_content)

    async def replay_dead_letters(self, request: web.Request) -> object:
        conditions = await Conditions.of(request, "dry_run")
        control = self._seen(request)
        which = self._which(control, conditions)
        if which.state != LetterState.KEPT:
            raise Problem("bad-request", "only kept letters can be replayed; leave state out")
        return await control.replay(which, dry_run=conditions.flag("dry_run"))

    async def purge_dead_letters(self, request: web.Request) -> object:
        conditions = await Conditions.of(request, "dry_run")
        control = self._seen(request)
        return await control.purge(self._which(control, conditions), dry_run=conditions.flag("dry_run"))

    def _which(self, control: Seen, conditions: Conditions) -> LetterFilter:
        which = conditions.which()
        if which.consumer is not None:
            self._admit(control, which.consumer)
        return control.only(which) if isinstance(control, Narrowed) else which
