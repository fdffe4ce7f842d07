"""Alerts by e-mail and chat, through the library apprise (the extra `alerts`)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from engine.errors import ConfigError
from engine.model import Notice, NoticeEvent
from engine.ports import Told

KINDS = {NoticeEvent.RESOLVED: "success", NoticeEvent.TEST: "info"}
"""How apprise calls what is told; everything else is a warning."""


class AppriseNotifier:
    """See `ports.Notifier`. `urls`: apprise's URLs, separated by white space, which hold secrets; asked anew every
    time, may raise ConfigError.

    apprise blocks, so each attempt has a thread of its own. One that is given up is left to its own end: it is a
    daemon, and neither the engine's drain nor the end of the process waits for it.
    """

    def __init__(self, urls: Callable[[], str], *, sender: dict[str, str], timeout_seconds: float) -> None:
        self._urls, self._sender, self._timeout_seconds = urls, sender, timeout_seconds
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<AppriseNotifier [{self.where}]>"

    @property
    def where(self) -> str:
        """The schemes: `mailto`, `slack`."""
        try:
            schemes = [url.partition("://")[0] for url in self._urls().split()]
        except ConfigError:
            return "?"
        return ", ".join(dict.fromkeys(it if it.isalnum() else "?" for it in schemes))

    async def tell(self, notice: Notice, /) -> Told:
        if self._thread is not None and self._thread.is_alive():
            return Told("busy")  # an attempt that was given up hangs still: no second one beside it
        try:
            urls = self._urls().split()
        except ConfigError:
            return Told("secret_unreadable")
        title, body = text_of(notice, self._sender)
        kind = KINDS.get(NoticeEvent(notice.event), "warning")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def work() -> None:
            result = _notify(urls, title, body, kind)
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(_answer, answer, result)

        self._thread = threading.Thread(target=work, name="rainfocus-engine apprise", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return Told(await answer)
        except TimeoutError:
            return Told("timeout")


def text_of(notice: Notice, sender: dict[str, str]) -> tuple[str, str]:
    """Title and body."""
    title = f"[{notice.event}] {notice.alert}" + (f" ({notice.destination})" if notice.destination else "")
    lines = [f"{notice.summary}.", "", f"What to do: {notice.advice}.", f"More: {notice.page}"]
    lines.append(f"Engine: {', '.join(sender.values())}")
    return title, "\n".join(lines)


def _notify(urls: list[str], title: str, body: str, kind: str) -> str:
    try:
        import apprise
    except ImportError:
        return "not_installed"
    _be_silent()
    try:
        notifier = apprise.Apprise()
        if not all(notifier.add(url) for url in urls):
            return "url_unusable"
        done = notifier.notify(body=body, title=title, notify_type=apprise.NotifyType(kind), body_format="text")
    except Exception:  # a plugin's own failure, whose text may hold anything
        return "failed"
    return "ok" if done else "failed"


def _be_silent() -> None:
    """What apprise logs holds recipients and may hold tokens."""
    logger = logging.getLogger("apprise")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def _answer(answer: asyncio.Future[str], result: str) -> None:
    if not answer.done():
        answer.set_result(result)


__all__ = ["AppriseNotifier", "text_of"]
