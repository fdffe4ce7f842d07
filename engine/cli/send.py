"""`send`: hand the records of files to an engine."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from engine.cli import output
from engine.cli.options import DEFAULT_KEY_VARIABLE, ConfigPath, Json, KeyVariable
from engine.cli.reach import Target, ingress_url
from engine.cli.send_read import STDIN, Chunk, Format, format_of, opened
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.cli.client import Client
    from engine.cli.send_show import Lines
    from engine.cli.send_state import Answer, Prefix, ProgressFile, RejectsFile, Tally

MAX_CHUNK_BYTES = 4 * 1024 * 1024


class Lane(StrEnum):
    LIVE = "live"
    BACKFILL = "backfill"


Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="JSON, NDJSON or CSV files; - is stdin.")]
Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", help="The engine. Default: the ingress of the configuration.")
]
FormatOption = Annotated[Format | None, typer.Option("--format", help="Default: by the file's name.")]
BatchSize = Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Records a request.")]
Concurrency = Annotated[int, typer.Option("--concurrency", min=1, max=64, metavar="N", help="Requests at once.")]
SourceName = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="Name of their source in the configuration.")
]
LaneOption = Annotated[Lane | None, typer.Option("--lane", help="backfill yields to live. Default: the source's.")]
Wait = Annotated[
    float, typer.Option("--wait", min=0.0, metavar="SECONDS", help="Wait until the events have their outcome.")
]
Rejects = Annotated[
    Path | None,
    typer.Option("--rejects", metavar="PATH", help="Where refused records are listed. [FILE.rejects.ndjson]"),
]
State = Annotated[
    Path | None, typer.Option("--state", metavar="PATH", help="Where progress is kept. [FILE.progress; none for stdin]")
]
AllowRejects = Annotated[bool, typer.Option("--allow-rejects", help="Exit 0 although records were refused.")]
Patience = Annotated[
    float, typer.Option("--patience", min=0.0, metavar="SECONDS", help="Give up after so long without any success.")
]


class Plan(msgspec.Struct, frozen=True):
    """The options of one send."""

    target: Target
    format: Format | None
    batch: int
    concurrency: int
    source: str | None
    lane: str | None
    wait_seconds: float
    rejects: Path | None
    state: Path | None
    patience_seconds: float

    @property
    def query(self) -> dict[str, str]:
        given = {"source": self.source, "lane": self.lane}
        return {name: value for name, value in given.items() if value}


def send(
    files: Files,
    format: FormatOption = None,
    batch: BatchSize = 500,
    concurrency: Concurrency = 4,
    source: SourceName = None,
    lane: LaneOption = None,
    wait: Wait = 0.0,
    rejects: Rejects = None,
    state: State = None,
    allow_rejects: AllowRejects = False,
    patience: Patience = 300.0,
    config: ConfigPath = None,
    url: Url = None,
    key_env: KeyVariable = DEFAULT_KEY_VARIABLE,
    json: Json = False,
) -> None:
    """Send the records of files. NDJSON and CSV are read as they go, JSON as a whole.

    Goes at the pace that the engine asks for (429, 503). Records of one person stay in the file's order.
    A run that was cut off is taken up again by the same command: FILE.progress says how many records are
    acknowledged, and goes when all are. After a kill a few records may be sent twice, none is left out.
    Refused records are listed with number, line, field and reason in FILE.rejects.ndjson.
    Exit 1 when a record was refused (0 with --allow-rejects) or, with --wait, when events are still pending.

    Example:

        rainfocus-engine send attendees.csv --lane backfill --wait 60
    """
    if len(files) > 1 and state:
        raise typer.BadParameter("works for one file only", param_hint="--state")
    plan = Plan(Target(config, url, key_env), format, batch, concurrency, source, lane, wait, rejects, state, patience)
    report = asyncio.run(transfer(plan, files))
    if json:
        output.print_json(report)
    else:
        from engine.cli.send_show import show_summary

        show_summary(report)
    if not _well(report, allow_rejects):
        raise typer.Exit(1)


def _well(report: dict[str, Any], allow_rejects: bool) -> bool:
    pending = (report.get("settled") or {}).get("pending", 0)
    if pending:
        output.fail("some events had no outcome in time; they go on their way all the same")
    return not pending and (allow_rejects or not report["rejected"])


async def transfer(plan: Plan, files: list[str]) -> dict[str, Any]:
    from engine.cli.send_wait import settled

    begun = time.monotonic()
    tallies = []
    async with client_of(plan.target) as client:
        for index, file in enumerate(files):
            tallies.append(await _send_file(plan, client, file, again=plan.rejects is not None and index > 0))
        seconds = time.monotonic() - begun
        receipts = [receipt for tally in tallies for receipt in tally.receipts]
        outcome = await settled(client, receipts, plan.wait_seconds) if plan.wait_seconds else None
    accepted = sum(tally.accepted for tally in tallies)
    return {
        "accepted": accepted,
        "rejected": sum(tally.rejected.total() for tally in tallies),
        "seconds": round(seconds, 3),
        "events_per_second": round(accepted / seconds, 1) if seconds else 0.0,
        "settled": outcome,
        "files": [tally.report() for tally in tallies],
    }


def client_of(target: Target) -> Client:
    """Where records go: --url, else the ingress of the configuration."""
    from engine.cli.client import Client

    if target.url:
        return Client(target.url, target.key, key_variable=target.key_variable)
    config = target.config()
    url = ingress_url(config)
    if not url:
        raise EngineError("the configuration lets the system choose the port: name the engine with --url")
    return Client(url, target.key, key_variable=target.key_variable, certificate=config.ingress.tls_cert)


async def _send_file(plan: Plan, client: Client, file: str, *, again: bool) -> Tally:
    from engine.cli.send_show import progress
    from engine.cli.send_state import Prefix, ProgressFile, RejectsFile, Tally

    format = format_of(file, plan.format)
    state = ProgressFile(_state_path(plan, file), file, _identity(plan, client, format))
    prefix = Prefix(state.read())
    rejects = RejectsFile(_rejects_path(plan, file), file, again or prefix.records > 0)
    tally = Tally(file, already=prefix.records)
    with opened(file, format) as source, progress(tally, source.size) as view:
        if prefix.records:
            output.note(f"{file}: {prefix.records:,} records were sent by an earlier run; going on behind them")
        chunks = source.chunks(plan.batch, MAX_CHUNK_BYTES, prefix.records)
        await _post(plan, client, chunks, Books(tally, prefix, state, rejects, view))
    state.remove()
    tally.rejects_file = str(rejects.path) if rejects.written else ""
    return tally


async def _post(plan: Plan, client: Client, chunks: Any, books: Books) -> None:
    from engine.cli.send_post import Poster, post_all

    poster = Poster(
        client.session, client.url, plan.query, patience_seconds=plan.patience_seconds, on_wait=books.view.waiting
    )
    try:
        await post_all(chunks, poster.post, plan.concurrency, books.done)
    except BaseException:
        if books.state.path is not None:
            records = f"{books.prefix.records:,} records are acknowledged"
            output.note(f"{books.tally.file}: {records}; the same command goes on behind them")
        raise


class Books:
    """What is written down when a chunk is acknowledged: first its refused records, then the progress."""

    def __init__(self, tally: Tally, prefix: Prefix, state: ProgressFile, rejects: RejectsFile, view: Lines) -> None:
        self.tally, self.prefix, self.state, self.rejects, self.view = tally, prefix, state, rejects, view

    def done(self, chunk: Chunk, answer: Answer) -> None:
        self.rejects.add(answer.refused)
        self.tally.add(answer)
        if self.prefix.add(chunk):
            self.state.write(self.prefix.records)
        self.tally.position = self.prefix.position
        self.view.update()


def _identity(plan: Plan, client: Client, format: Format) -> str:
    return "\n".join((client.url, plan.source or "", plan.lane or "", format))


def _state_path(plan: Plan, file: str) -> Path | None:
    if plan.state or file == STDIN:
        return plan.state
    return Path(f"{file}.progress")


def _rejects_path(plan: Plan, file: str) -> Path:
    return plan.rejects or Path("stdin.rejects.ndjson" if file == STDIN else f"{file}.rejects.ndjson")
