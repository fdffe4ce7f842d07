"""`check`: is the configuration right, and what follows from it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import output
from engine.cli.options import ConfigPath, Json, StoreEmail
from engine.errors import ConfigError, DataDirectoryError, EngineError

if TYPE_CHECKING:
    from engine.assembly.outlook import Outlook
    from engine.config import Config

Connect = Annotated[
    bool, typer.Option("--connect", help="Also resolve, connect and fetch a token for every destination.")
]


Sample = Annotated[
    Path | None,
    typer.Option("--sample", metavar="FILE", help="Show what the records of this JSON, NDJSON or CSV file become."),
]
SourceName = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="The [[source]] of the sample. Default: the first.")
]


def check(
    config: ConfigPath = None,
    connect: Connect = False,
    store: StoreEmail = None,
    sample: Sample = None,
    source: SourceName = None,
    json: Json = False,
) -> None:
    """Name every problem of the configuration at once, and show where events would go.

    With --connect every destination is resolved, connected and asked for a token; nothing is written there. Only
    --store writes, and only the attendee that you name. Exit 78 for a wrong configuration or one that does not fit the
    data directory, 1 for a failed connection.

    With a data directory it also says which destinations would be new, changed or orphaned at the next start.

    With --sample nothing is sent at all: every record of the file is mapped and judged, and shown beside what would
    leave for each destination. This prints the values of the file, e-mail addresses too, since it is your file and
    your terminal. Exit 1 if a record is rejected.

    Example:

        rainfocus-engine check --connect

        rainfocus-engine check --sample examples/aep_http_api.json --source aep
    """
    if store and not connect:
        raise typer.BadParameter("needs --connect", param_hint="--store")
    if sample and connect:
        raise typer.BadParameter("sends nothing; leave out --connect", param_hint="--sample")
    if source and not sample:
        raise typer.BadParameter("needs --sample", param_hint="--source")
    from engine.config import Config, locate

    path = locate(config)
    try:
        loaded = Config.load(path)
    except ConfigError as error:
        if json:
            output.print_json({"ok": False, "file": str(path), "problems": error.problems})
        raise
    if sample:
        from engine.cli.check_sample import check_sample

        if not check_sample(loaded, sample, source, json):
            raise typer.Exit(1)
        return
    report = _report(loaded)
    if connect:
        report["connections"] = asyncio.run(connections(loaded, [it.name for it in loaded.destinations], store))
        report["ok"] = report["ok"] and all(it["ok"] for it in report["connections"].values())
    output.print_json(report) if json else _show(report)
    if not report["ok"]:
        raise typer.Exit(78 if report["problems"] else 1)


async def connections(config: Config, names: list[str], store_email: str | None) -> dict[str, dict[str, Any]]:
    """Test destinations one after the other, without an engine. name -> {"ok", "steps"}."""
    from engine.assembly.outward import try_connection

    chosen = [it for it in config.destinations if it.name in names]
    if store_email:
        await _no_engine(config)
        output.note(
            f"Writing the attendee you named to {', '.join(it.resolved_url(config.account_of(it)) for it in chosen)}."
        )
    return {it.name: await try_connection(config.account_of(it), it, store_email=store_email or None) for it in chosen}


async def _no_engine(config: Config) -> None:
    """A running engine has the bucket that such a request pays from."""
    from engine.cli.reach import admin_url, listening

    url = admin_url(config)
    if url and await listening(url):
        raise EngineError(f"an engine runs at {url}: use `destinations test NAME --store EMAIL`, which keeps its rate")


def _report(config: Config) -> dict[str, Any]:
    from engine.assembly.outlook import outlook
    from engine.cli.reach import admin_url, ingress_url

    found, unreadable = None, []
    try:
        found = outlook(config)
    except DataDirectoryError as error:
        unreadable.append(f"{error}: `rainfocus-engine journal check` says more")
    return {
        "ok": not found or not found.problems,
        "problems": found.problems if found else [],
        "file": str(config.path),
        "data_dir": str(config.data_dir),
        "urls": {"ingress": ingress_url(config) or None, "admin": admin_url(config) or None},
        "destinations": [_destination(config, it.name) for it in config.destinations],
        "notify": [_target(config, it.name) for it in config.notify],
        "forwards": [{"name": it.name, "url": it.url} for it in config.forwards],
        "next_start": _next_start(found) if found else None,
        "warnings": [*warnings_of(config), *unreadable],
        "notes": found.notes if found else notes_of(config),
        "config": config.describe(),
    }


def _next_start(found: Outlook) -> dict[str, list[str]]:
    return {"kept": found.kept, "new": found.new, "changed": found.changed, "orphaned": found.orphaned}


def _destination(config: Config, name: str) -> dict[str, Any]:
    destination = next(it for it in config.destinations if it.name == name)
    account = config.account_of(destination)
    return {
        "name": name,
        "account": account.name,
        "environment": account.environment,
        "url": destination.resolved_url(account),
        "token_url": account.token_url_resolved(),
        "event_code": destination.event_code,
        "dry_run": destination.dry_run,
    }


def _target(config: Config, name: str) -> dict[str, Any]:
    """Nothing is sent there: `alerts test` does, of a running engine."""
    target = next(it for it in config.notify if it.name == name)
    alerts = [it.name for it in config.alerts if name in it.to] + (["the built-in ones"] if target.built_in else [])
    return {"name": name, "kind": target.kind, "alerts": alerts}


def warnings_of(config: Config) -> list[str]:
    """What is allowed, and worth a second look."""
    from engine.config import is_loopback

    found = []
    listeners = {"ingress": (config.ingress.host, bool(config.ingress.tls_cert))}
    if config.admin:
        listeners["admin"] = (config.admin.host, False)
    for name, (host, encrypted) in listeners.items():
        if not encrypted and not is_loopback(host):
            found.append(f"{name}.host: {host} is open to other machines in plain text; put TLS in front of it")
    cores = len(os.sched_getaffinity(0))
    if config.ingress.workers > cores:
        found.append(f"ingress.workers: {config.ingress.workers} for {cores} cores; more cost and gain nothing")
    if config.journal.kind == "memory":
        found.append("journal.kind: a memory journal loses every accepted event with the process")
    if config.journal.on_full == "expire":
        found.append("journal.on_full: a full journal expires the oldest backlog of the slowest destination")
    if not config.ledger.enabled:
        found.append("ledger.enabled: without a ledger there is no suppression and no `status EMAIL`")
    found += _governance_warnings(config)
    told = {name for it in config.alerts for name in it.to} | {it.name for it in config.notify if it.built_in}
    found += [f"notify {it.name}: no alert goes there" for it in config.notify if it.name not in told]
    found += [f"destination {it.name}: dry_run is on, so nothing is sent" for it in config.destinations if it.dry_run]
    return [*found, *_small_shares(config)]


def _small_shares(config: Config) -> list[str]:
    """Destinations and forwards share the buffer evenly; a batch that is larger than a share never fills."""
    many = len(config.destinations) + len(config.forwards)
    return [
        f"destination {it.name}: batch.{limit} is {getattr(it.batch, limit)}, and its share of the buffer "
        f"{getattr(config.buffer, limit) // many} (buffer.{limit}, shared by {many})"
        for it in config.destinations
        for limit in ("max_profiles", "max_bytes")
        if getattr(it.batch, limit) > getattr(config.buffer, limit) // many
    ]


def _governance_warnings(config: Config) -> list[str]:
    found = []
    for it in config.destinations:
        if it.consent and not config.ledger.enabled:
            found.append(
                f"destination {it.name}: without a ledger consents are not remembered, so each event has to state them"
            )
        if config.governance.in_force() and not it.marketing_actions:
            found.append(f"destination {it.name}: names no marketing_actions, so no policy can concern it")
    return found


def notes_of(config: Config) -> list[str]:
    """What a new destination will get."""
    meaning = {"now": "only events that come from then on", "oldest": "everything that is still in the journal"}
    begins = [
        f"destination {it.name}: starts at {it.start_at!r} ({meaning[it.start_at]}) when it is new, and begins anew "
        "whenever its name, environment, URL, org id or event code changes"
        for it in config.destinations
    ]
    return begins + [
        f"forward {it.name}: starts at {it.start_at!r} ({meaning[it.start_at]}) when it is new, and begins anew "
        "whenever its name or URL changes"
        for it in config.forwards
    ]


def _show(report: dict[str, Any]) -> None:
    output.say(f"{report['file']}: {'ok' if not report['problems'] else 'does not fit the data directory'}")
    output.say(f"data_dir  {report['data_dir']}")
    for name, url in report["urls"].items():
        output.say(f"{name:<9} {url or 'a port that the system chooses'}")
    rows = [
        (it["name"], it["environment"], it["event_code"], it["url"], it["token_url"]) for it in report["destinations"]
    ]
    output.console().print(output.table(("destination", "environment", "event", "url", "token url"), rows))
    for forward in report["forwards"]:
        output.say(f"forward {forward['name']} -> {forward['url']}")
    for change, names in (report["next_start"] or {}).items():
        if names:
            output.say(f"at the next start {change}: {', '.join(names)}")
    for problem in report["problems"]:
        output.say(f"problem: {problem}")
    for target in report["notify"]:
        to_tell = ", ".join(target["alerts"]) or "nothing"
        output.say(f"notify {target['name']}: by {target['kind']}, of {to_tell}; not tried, `alerts test` does")
    for warning in report["warnings"]:
        output.say(f"warning: {warning}")
    for remark in report["notes"]:
        output.say(f"note: {remark}")
    for name, result in report.get("connections", {}).items():
        show_steps(name, result)


def show_steps(name: str, result: dict[str, Any]) -> None:
    """The steps of a connection test, one line each."""
    output.say(f"{name}: {'ok' if result['ok'] else 'FAILED'}")
    for step in result.get("steps", []):
        mark = "ok" if step["ok"] else "FAILED"
        output.say(f"  {mark:<6} {step['step']}: {output.text(step.get('detail'))} ({step.get('seconds', 0.0):.3f} s)")
