"""The relations of accounts and destinations: what leaves, where to, and as whom."""

from __future__ import annotations

from collections.abc import Iterable
from string import Formatter

from engine.config.problems import Reader, did_you_mean, is_loopback, split_url
from engine.config.relations import check_rate, check_reference, check_retry, check_secret
from engine.config.tables import HOSTS, AccountConfig, DestinationConfig, Tables
from engine.model import VerdictKind

TARGET_FIELDS = (
    *("email", "firstname", "lastname", "companyname", "jobtitle", "phone"),
    *("address1", "address2", "city", "state", "zip", "countryid"),
)
CLIENT_ID = ("client_id", "client_id_env", "client_id_file")
CLIENT_SECRET = ("client_secret", "client_secret_env", "client_secret_file")


def check_account(account: AccountConfig, key: str, reader: Reader) -> None:
    for places, read in ((CLIENT_ID, account.client_id_value), (CLIENT_SECRET, account.client_secret_value)):
        check_secret(account, key, places, read, reader)
    _check_required(account, key, reader)
    for name in ("base_url", "token_url"):
        if (url := getattr(account, name)) and (what := _url_fault(account, name, url)):
            reader.report(f"{key}.{name}", what, [f"{key}.environment"])
    check_rate(account.rate, key, reader)


def _check_required(account: AccountConfig, key: str, reader: Reader) -> None:
    """Beside real people nothing is taken from the sandbox's defaults."""
    required: dict[str, tuple[str, ...]] = {"client_id": CLIENT_ID, "org_id": ("org_id",), "token_url": ("token_url",)}
    for name, places in required.items():
        given = any(f"{key}.{it}" in reader.given and getattr(account, it) for it in places)
        if not account.sandbox and not given:
            what = f"is required in environment {account.environment!r}; RainFocus gives it with the API profile"
            reader.report(f"{key}.{name}", what, [f"{key}.environment"])


def _url_fault(account: AccountConfig, name: str, url: str) -> str:
    """What is wrong with a URL of this account, or "". A secret is sent there, so the host has to be the right one."""
    try:
        parts = split_url(url)
    except ValueError as error:
        return f"{error}; the host alone follows from the environment if base_url is left out"
    host = (parts.hostname or "").rstrip(".")
    rainfocus = f".{host}".endswith(".rainfocus.com")
    if parts.fragment or (parts.query and name == "base_url"):
        return "must end with the path; leave out what follows '?' or '#'"
    if account.sandbox:
        return "is RainFocus itself; set environment to the real one, a sandbox account stays away from it" * rainfocus
    if parts.scheme != "https" or is_loopback(host):
        return 'must be https and on another machine; only environment = "sandbox" may do without'
    if other := [stage for stage, it in HOSTS.items() if it == host and stage != account.stage]:
        return f"is the host of environment {other[0]!r}; correct it or the environment ({account.environment!r})"
    if name == "token_url" and not rainfocus and not account.base_url:
        return "is not a host of rainfocus.com; correct it, or set base_url too if a gateway stands in for RainFocus"
    return ""


def check_destination(destination: DestinationConfig, key: str, config: Tables, reader: Reader) -> None:
    check_reference(destination.account, f"{key}.account", "account", config.accounts, reader)
    for index, name in enumerate(destination.sources):
        check_reference(name.removeprefix("*"), f"{key}.sources[{index}]", "source", config.sources, reader)
    for name in ("sources", "audiences", "fields"):
        if "*" in (listed := getattr(destination, name)) and len(listed) > 1:
            reader.report(f"{key}.{name}", "'*' means all; leave the others out, or the '*'")
    account = next((it for it in config.accounts if it.name == destination.account), None)
    if account and not account.sandbox and f"{key}.event_code" not in reader.given:
        what = f"is required in environment {account.environment!r}; it is the code of the RainFocus event"
        reader.report(f"{key}.event_code", what, [f"{key}.account"])
    if what := _template_fault(destination.url_template):
        reader.report(f"{key}.url_template", what)
    if destination.response_codes.get("0", VerdictKind.OK) != VerdictKind.OK:
        reader.report(f"{key}.response_codes.0", "is RainFocus's success and always 'ok'; leave it out")
    _check_limits(destination, key, config, reader)
    _check_fields(destination, key, config, reader)


def _template_fault(template: str) -> str:
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        return "has a brace without its partner; write {base}, {org_id} or {event_code}"
    named = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
    if any(it not in [("base", "", None), ("org_id", "", None), ("event_code", "", None)] for it in named):
        return "may hold {base}, {org_id} and {event_code} and no other braces"
    if not template.startswith("{base}/") or template.count("{base}") > 1:
        return "must begin with {base}/ and hold it once; base_url of the account decides the host"
    if any(it <= " " or it in "#\\" for it in template):
        return "must not contain spaces, '#' or backslashes"
    return ""


def _check_limits(destination: DestinationConfig, key: str, config: Tables, reader: Reader) -> None:
    batch = destination.batch
    for name in ("max_profiles", "max_bytes"):
        if getattr(batch, name) > (room := getattr(config.buffer, name)):
            what = f"{getattr(batch, name)} is more than buffer.{name} ({room}); no batch would fill, so raise that"
            reader.report(f"{key}.batch.{name}", what, [f"buffer.{name}"])
    check_retry(destination.retry, key, config.engine.drain_timeout_seconds, reader)


def _check_fields(destination: DestinationConfig, key: str, config: Tables, reader: Reader) -> None:
    """Field names that exist, and no two values that would leave under one name."""
    flag = destination.exits.partition("flag:")[2]
    if flag in TARGET_FIELDS:
        reader.report(f"{key}.exits", f"would overwrite the field {flag!r}; name a field of its own")
        return
    fields = dict.fromkeys((*TARGET_FIELDS, *(target for source in config.sources for target in source.mapping)))
    known = dict.fromkeys((*fields, "foreignstate", *filter(None, [flag])))
    about = [f"{key}.exits", *(f"source[{index}].mapping" for index in range(len(config.sources)))]
    named = [(f"{key}.fields[{index}]", it) for index, it in enumerate(destination.fields) if it != "*"]
    for path, name in [*named, *((f"{key}.rename.{it}", it) for it in destination.rename)]:
        if name not in known:
            advice = did_you_mean(name, known) or f"there are {', '.join(known)}"
            reader.report(path, f"there is no target field {name!r}; {advice}", about)
    chosen = fields if "*" in destination.fields else dict.fromkeys(("email", *destination.fields))
    foreign = ["foreignstate"] if destination.state_policy == "foreignstate" and "state" in chosen else []
    _check_sent_names(destination, key, dict.fromkeys((*chosen, *foreign, *filter(None, [flag]))), reader)


def _check_sent_names(destination: DestinationConfig, key: str, leaving: Iterable[str], reader: Reader) -> None:
    sent = {} if destination.event_in == "query" else {destination.event_param: "event_param"}
    for name in leaving:
        target = destination.rename.get(name, name)
        if target in sent:
            what = f"{sent[target]} and {name} would both leave as {target!r}; give each a name of its own"
            place = f"{key}.rename.{name}" if name in destination.rename else f"{key}.rename"
            reader.report(place, what, [f"{key}.{it}" for it in ("fields", "event_param", "event_in", "state_policy")])
        sent.setdefault(target, name)
