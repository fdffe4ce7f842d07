"""Alerts by e-mail and chat: through the library apprise, to a real SMTP server on this machine."""

from __future__ import annotations

import asyncio
import email
import logging
import socket
import threading
from collections.abc import AsyncIterator
from email.message import Message
from typing import Any

import pytest

pytest.importorskip("apprise")
from aiosmtpd.smtp import SMTP
from test_alert_webhook import SENDER, notice

from engine.adapters.chat import AppriseNotifier, text_of
from engine.errors import ConfigError
from engine.model import NoticeEvent
from engine.ports import Told

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's own plugins


class Mailbox:
    """An aiosmtpd handler that keeps what comes."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(email.message_from_bytes(envelope.content))
        return "250 taken"


@pytest.fixture
async def mailbox() -> AsyncIterator[tuple[Mailbox, str]]:
    box = Mailbox()
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(box), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield box, f"mailto://127.0.0.1:{port}?from=engine@example.com&to=oncall@example.com&mode=insecure"
    server.close()
    await server.wait_closed()


def notifier(urls: str, *, seconds: float = 20.0) -> AppriseNotifier:
    return AppriseNotifier(lambda: urls, sender=SENDER, timeout_seconds=seconds)


async def test_an_e_mail_says_what_since_when_and_what_to_do(
    mailbox: tuple[Mailbox, str], caplog: pytest.LogCaptureFixture
) -> None:
    box, url = mailbox
    with caplog.at_level(logging.DEBUG):
        assert await notifier(url).tell(notice()) == Told("ok")
    (mail,) = box.mails
    text = mail.as_string()
    assert mail["To"] == "oncall@example.com"
    assert "[raised] late (demo)" in str(email.header.make_header(email.header.decode_header(mail["Subject"])))
    body = "".join(
        part.get_payload(decode=True).decode() for part in mail.walk() if part.get_content_maintype() == "text"
    )
    assert "events take 950 s; the threshold is 900 s." in body, text
    assert "What to do: look at it." in body
    assert "docs/alerts.md#delivery-delay" in body
    ours = [it.getMessage() for it in caplog.records if not it.name.startswith("mail.")]  # mail: the server's
    assert not [line for line in ours if "oncall@example.com" in line], "what apprise logs holds recipients"


async def test_several_urls_are_all_told(mailbox: tuple[Mailbox, str]) -> None:
    box, url = mailbox
    assert await notifier(f"{url}\n{url.replace('oncall', 'chief')}").tell(notice()) == Told("ok")
    assert {mail["To"] for mail in box.mails} == {"oncall@example.com", "chief@example.com"}


@pytest.mark.parametrize(
    ("urls", "result"), [("no-such-scheme://x", "url_unusable"), ("mailto://127.0.0.1:1?from=a@b.example", "failed")]
)
async def test_what_does_not_work_has_a_name(urls: str, result: str) -> None:
    assert await notifier(urls).tell(notice()) == Told(result)


async def test_urls_that_cannot_be_had_are_said_so() -> None:
    def gone() -> str:
        raise ConfigError(["the file is gone"])

    one = AppriseNotifier(gone, sender=SENDER, timeout_seconds=1.0)
    assert await one.tell(notice()) == Told("secret_unreadable")
    assert one.where == "?"


async def test_a_server_that_never_answers_is_left_alone_and_never_asked_twice_at_a_time() -> None:
    """Its thread is a daemon: neither a drain nor the end of the process waits for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = notifier(f"mailto://127.0.0.1:{silent.getsockname()[1]}?from=a@b.example&mode=insecure", seconds=1.0)
        assert await one.tell(notice()) == Told("timeout")
        assert await one.tell(notice()) == Told("busy")
        (thread,) = [it for it in threading.enumerate() if it.name == "rainfocus-engine apprise"]
        assert thread.daemon
        connection, _ = silent.accept()
        connection.close()
    await asyncio.to_thread(thread.join, 20)


async def test_it_is_cancelled_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one = notifier(f"mailto://127.0.0.1:{silent.getsockname()[1]}?from=a@b.example&mode=insecure", seconds=60.0)
        task = asyncio.create_task(one.tell(notice()))
        connection, _ = await asyncio.to_thread(silent.accept)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        connection.close()
    assert one._thread is not None
    await asyncio.to_thread(one._thread.join, 20)


def test_where_shows_the_kind_and_no_secret() -> None:
    assert notifier("mailto://user:secret@mail.example slack://token/x").where == "mailto, slack"
    assert "secret" not in repr(notifier("mailto://user:secret@mail.example"))


def test_an_alert_of_the_whole_engine_names_no_destination() -> None:
    title, _ = text_of(notice(destination="", event=NoticeEvent.RESOLVED), SENDER)
    assert title == "[resolved] late"
