"""`sandbox`: the stand-in for RainFocus."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from engine.cli.options import Json


class RetryAfter(StrEnum):
    SECONDS = "seconds"
    DATE = "date"
    NONE = "none"


class Encoding(StrEnum):
    SINGLE = "single"
    ARRAY = "array"
    BOTH = "both"


Host = Annotated[
    str | None,
    typer.Option(
        help="Address to listen on. Default: 127.0.0.1; on another one everybody there can read what is stored."
    ),
]
Port = Annotated[int | None, typer.Option(min=0, max=65_535, help="Port; 0: any free one. Default: 8484.")]
ClientId = Annotated[str | None, typer.Option(help="OAuth client id. Default: sandbox.")]
ClientSecret = Annotated[str | None, typer.Option(help="OAuth client secret. Default: sandbox.")]
OrgIds = Annotated[list[str] | None, typer.Option("--org-id", help="Take only this org id; may be repeated.")]
EventCodes = Annotated[list[str] | None, typer.Option("--event-code", help="Take only this code; may be repeated.")]
ApiProfile = Annotated[str | None, typer.Option(help="Ask for this API profile id.")]
TokenSeconds = Annotated[int | None, typer.Option(help="Lifetime of a token. Default: 3600.")]
Rate = Annotated[float | None, typer.Option("--requests-per-second", help="Rate limit of the store. Default: none.")]
Burst = Annotated[int | None, typer.Option(help="Requests that the limit lets through at once.")]
RetryAfterOption = Annotated[RetryAfter | None, typer.Option(help="What a 429 carries. Default: seconds.")]
Latency = Annotated[float | None, typer.Option("--latency-ms", help="Wait before each store request is judged.")]
EncodingOption = Annotated[Encoding | None, typer.Option(help="Bodies that are taken. Default: both.")]
ArrayResults = Annotated[
    bool | None,
    typer.Option("--array-results/--no-array-results", help="One result a record, or one bad record refuses its list."),
]
Seed = Annotated[int | None, typer.Option(help="Makes tokens, ids and faults repeatable.")]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", metavar="KEY=VALUE,...", help="As kind=status,status=503,probability=0.2; may be repeated."
    ),
]
FaultsFile = Annotated[str | None, typer.Option(metavar="PATH", help="TOML or JSON file with faults.")]
LogSize = Annotated[int | None, typer.Option(help="Requests kept in the API log. Default: 10000.")]
ArrivalsSize = Annotated[int | None, typer.Option(help="Arrival times kept for the measured rate. Default: 1000000.")]
PushUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Push changes there, as RainFocus's source connector. Default: no.")
]
PushKey = Annotated[str | None, typer.Option(envvar="SANDBOX_PUSH_KEY", help="Bearer token for that. Default: none.")]
PushWrites = Annotated[
    bool | None,
    typer.Option("--push-writes/--no-push-writes", help="Push what the API wrote too. Default: only edits."),
]
AttendeesFile = Annotated[
    str | None, typer.Option(metavar="PATH", help="Write all attendees there as NDJSON when it stops.")
]


def sandbox(
    host: Host = None,
    port: Port = None,
    client_id: ClientId = None,
    client_secret: ClientSecret = None,
    org_ids: OrgIds = None,
    event_codes: EventCodes = None,
    api_profile: ApiProfile = None,
    token_seconds: TokenSeconds = None,
    requests_per_second: Rate = None,
    burst: Burst = None,
    retry_after: RetryAfterOption = None,
    latency_ms: Latency = None,
    encoding: EncodingOption = None,
    array_results: ArrayResults = None,
    seed: Seed = None,
    faults: Faults = None,
    faults_file: FaultsFile = None,
    log_size: LogSize = None,
    arrivals_size: ArrivalsSize = None,
    push_url: PushUrl = None,
    push_key: PushKey = None,
    push_writes: PushWrites = None,
    attendees_file: AttendeesFile = None,
    json: Json = False,
) -> None:
    """Run a stand-in for RainFocus: token endpoint, attendee store, API log and faults on demand.

    Config of environment "sandbox" sends there by itself. It holds everything in memory.

    Example:

        rainfocus-engine sandbox --requests-per-second 50 --fault kind=status,status=503,probability=0.2
    """
    given = {name: value for name, value in locals().items() if value is not None and name != "json"}
    _run(given, json)


def _run(given: dict[str, Any], json: bool) -> None:
    from engine.cli.serve import run
    from engine.sandbox import serve
    from engine.sandbox.server import announce_json, announce_line

    run(serve(_settings(given), announce=announce_json if json else announce_line))


def _settings(given: dict[str, Any]) -> Any:
    """What was not given keeps the default of the sandbox. To name a host is to mean it. Raises BadParameter."""
    from engine.sandbox import Settings
    from engine.sandbox.faults import parse_flag

    try:
        parsed = {"faults": [parse_flag(it) for it in given["faults"]]} if given.get("faults") else {}
        lists = {name: value for name, value in given.items() if value != []}
        settings = Settings(allow_remote="host" in given, **(lists | parsed))
        settings.all_faults()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return settings
