"""What `send` and `top` show while they run."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from engine.cli import output, top
from engine.cli.send_show import Bar, Lines
from engine.cli.send_state import Answer, Tally
from engine.errors import EngineError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_pipe_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    tally = Tally("a.csv")
    with Lines(tally, 1_000, lambda: now[0]) as lines:
        tally.add(Answer(accepted=1_000))
        now[0], tally.position = 4.9, 200
        lines.update()
        assert capsys.readouterr().err == ""
        now[0] = 10.0
        lines.update()
        assert capsys.readouterr().err == "a.csv: 1,000 records, 100/s, 40 s left\n"
        lines.update()
        lines.waiting("the journal is full", 0.2)
        assert capsys.readouterr().err == ""
        lines.waiting("the journal is full", 7.0)
        assert capsys.readouterr().err == "a.csv: waiting 7.0 s: the journal is full\n"


@pytest.mark.parametrize("size", [1_000, None])
def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    tally = Tally("[b]a[/b].csv", accepted=1_000, position=500)
    with Bar(tally, size) as bar:
        bar.update()
        bar.waiting("the journal is full", 7.0)
    assert "1,000 records" in terminal.getvalue()
    assert "the journal is full" in terminal.getvalue()
    assert "[b]a[/b].csv" in terminal.getvalue()


class Api:
    """Answers, fails once, answers, and is interrupted."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any] | BaseException] = [
            {"version": "0.1.0", "ready": True, "destinations": [{"name": "demo", "counts": {"accepted": 1}}]},
            EngineError("it does not answer"),
            {"version": "0.1.0", "ready": True, "destinations": [{"name": "demo", "counts": {"accepted": 2}}]},
            asyncio.CancelledError(),
        ]

    async def status(self) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def test_the_live_view_outlives_a_restart_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, api = Terminal(), Api()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(asyncio.CancelledError):
        await top._live(api, 0.0)  # type: ignore[arg-type]
    assert "demo" in terminal.getvalue()
    assert "trying again" in terminal.getvalue()


def test_no_colour_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    output.console(terminal).print("x", style="red")
    assert "\x1b[3" not in terminal.getvalue()


def test_text_of_others_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail("the answer was \x1b[2J")
    assert capsys.readouterr().err == "error: the answer was ?[2J\n"
    terminal = Terminal()
    output.console(terminal).print(output.table(("name",), [("\x1b[2Jevil\r\n",), ("[red]x[/red]",)]))
    assert "\x1b[2J" not in terminal.getvalue()
    assert "[red]x[/red]" in terminal.getvalue()
