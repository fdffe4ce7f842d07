"""`top`: the running engine, live."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable, Url
from engine.cli.reach import Api, Target, reach
from engine.cli.status import account_table, summary
from engine.errors import EngineError

if TYPE_CHECKING:
    from rich.console import RenderableType

Once = Annotated[bool, typer.Option("--once", help="Show it once and end.")]
Interval = Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Time between two looks.")]
HEADERS = (
    *("destination", "state", "accepted/s", "delivered/s", "settled/s", "pending", "waiting", "leased", "held"),
    *("dead letters", "oldest s", "empty in"),
)
SETTLED = ("delivered", "suppressed", "superseded", "excluded", "dead_lettered", "expired")


def top(
    once: Once = False,
    interval: Interval = 1.0,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Watch a running engine: rates, backlog and state of every destination. Ctrl-C ends it.

    With --json one line an interval. In a pipe the view is printed anew each time.

    Example:

        rainfocus-engine top --url https://engine.example.com
    """
    asyncio.run(_top(Target(config, url, key_env), once, interval, json))


async def _top(target: Target, once: bool, interval: float, json: bool) -> None:
    async with reach(target, files=False) as api:
        if json or once or not sys.stdout.isatty():
            await _print(api, once, interval, json)
        else:
            await _live(api, interval)


async def _print(api: Api, once: bool, interval: float, json: bool) -> None:
    view = View()
    while True:
        answer = await api.status()
        if json:
            output.print_json(answer, lines=True)
        else:
            output.console().print(view.render(answer, time.monotonic()))
            sys.stdout.flush()
        if once:
            return
        await asyncio.sleep(interval)


async def _live(api: Api, interval: float) -> None:
    from rich.live import Live

    view = View()
    with Live(console=output.console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                live.update(view.render(await api.status(), time.monotonic()), refresh=True)
            except EngineError as error:  # it may be restarting: keep looking
                live.update(f"{error}; trying again", refresh=True)
            await asyncio.sleep(interval)


class View:
    """What is shown, with rates from the difference between two answers."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, dict[str, int]]] = {}

    def render(self, answer: dict[str, Any], now: float) -> RenderableType:
        """`now`: monotonic seconds."""
        from rich.console import Group
        from rich.text import Text

        rows = [self._row(it, now) for it in answer.get("destinations", [])]
        lines = "\n".join(summary(answer))
        return Group(Text(lines), account_table(answer.get("accounts", [])), output.table(HEADERS, rows))

    def _row(self, destination: dict[str, Any], now: float) -> tuple[object, ...]:
        counts = destination.get("counts", {})
        accepted, delivered, settled = self._rates(str(destination.get("name")), counts, now)
        reason = destination.get("reason")
        state = f"{destination.get('state')} ({reason})" if reason else destination.get("state")
        return (
            *(destination.get("name"), state, accepted, delivered, settled, counts.get("pending", 0)),
            *(destination.get("waiting", 0), destination.get("leased", 0), destination.get("held", 0)),
            *(destination.get("dead_letters", 0), float(destination.get("oldest_pending_seconds") or 0.0)),
            empty_in(counts.get("pending", 0), accepted, settled),
        )

    def _rates(self, name: str, counts: dict[str, int], now: float) -> tuple[float | None, float | None, float | None]:
        """Events per second since the last answer: accepted, delivered, settled; None for the first."""
        before = self._before.get(name)
        self._before[name] = (now, counts)
        if before is None or now <= before[0]:
            return None, None, None
        seconds, earlier = now - before[0], before[1]
        grown = {it: max(0, counts.get(it, 0) - earlier.get(it, 0)) / seconds for it in ("accepted", *SETTLED)}
        return grown["accepted"], grown["delivered"], sum(grown[it] for it in SETTLED)


def empty_in(pending: int, accepted: float | None, settled: float | None) -> str:
    """How long the backlog will last at these rates."""
    if not pending:
        return "now"
    if accepted is None or settled is None:
        return output.EMPTY
    return f"{pending / (settled - accepted):,.0f}s" if settled > accepted else "growing"
