"""The shape of config.toml, its only reader, and the relations between its limits.

Attributes are named as the TOML keys are, except that `[[source]]`, `[[account]]` and `[[destination]]` are the tuples
`sources`, `accounts` and `destinations`. What each key means: docs/configuration.md.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta, field

from engine.config_problems import Reader, did_you_mean, is_loopback, keys_of, masked, parse, read_secret, split_url
from engine.errors import ConfigError
from engine.model import VerdictKind

HOSTS = {"prod": "events.rainfocus.com", "stg": "events-stg.rainfocus.com", "dev": "events-dev.rainfocus.com"}
SANDBOX_URL = "http://127.0.0.1:8484"
SANDBOX_SECRET = "sandbox"  # the fixed client id and secret that the sandbox server takes from everybody
TARGET_FIELDS = (
    *("email", "firstname", "lastname", "companyname", "jobtitle", "phone"),
    *("address1", "address2", "city", "state", "zip", "countryid"),
)
CLIENT_ID = ("client_id", "client_id_env", "client_id_file")
CLIENT_SECRET = ("client_secret", "client_secret_env", "client_secret_file")
KEY_SECRET = ("sha256", "secret_env", "secret_file")
PATH_VARIABLE = "RAINFOCUS_ENGINE_CONFIG"

Count = Annotated[int, Meta(ge=1, le=2**62)]
CountOrZero = Annotated[int, Meta(ge=0, le=2**62)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Seconds = Annotated[float, Meta(gt=0)]
SecondsOrZero = Annotated[float, Meta(ge=0)]
NAME = "a name of 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z", description=NAME)]
Reference = Annotated[str, Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?\Z", description=f"empty or {NAME}")]
Code = Annotated[
    str, Meta(pattern=r"^(?!\.{1,2}\Z)[^\s\x00-\x1f\x7f]+\Z", description="a text without spaces, not empty")
]
Token = Annotated[
    str, Meta(pattern=r"^[\x21-\x7e]*\Z", description="printable ASCII without spaces, it is sent in a header")
]
Text = Annotated[str, Meta(min_length=1)]
Texts = Annotated[tuple[Text, ...], Meta(min_length=1)]
File = Annotated[str, Meta(extra={"file": True})]
Secret = Annotated[str, Meta(extra={"secret": True})]
Variable = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?\Z",
        description="the name of an environment variable, not the secret itself",
        extra={"env": True},
    ),
]
Sha256 = Annotated[
    str,
    Meta(
        pattern=r"^([0-9A-Fa-f]{64})?\Z",
        description="64 hexadecimal digits, the SHA-256 of the key and never the key itself",
        extra={"secret": True},
    ),
]
Exits = Annotated[
    str, Meta(pattern=r"^(ignore|store|flag:[A-Za-z][A-Za-z0-9_]*)\Z", description="'ignore', 'store' or 'flag:FIELD'")
]
Scope = Literal[
    "profiles:write",
    "profiles:view",
    "profiles:erase",
    "destinations:view",
    "destinations:manage",
    "destinations:activate",
]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tables share: no secret ever stands in a repr."""

    not_keys: ClassVar[tuple[str, ...]] = ()

    def __rich_repr__(self) -> Any:
        for it in msgspec.structs.fields(type(self)):
            yield it.name, masked(it.type, getattr(self, it.name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


T = TypeVar("T", bound=Table)


class EngineConfig(Table, frozen=True, kw_only=True):
    data_dir: Text = "var"
    drain_timeout_seconds: Seconds = 12.0
    watchdog_seconds: SecondsOrZero = 60.0


class IngressKeyConfig(Table, frozen=True, kw_only=True):
    """One `[[ingress.keys]]`: exactly one of `sha256`, `secret_env` and `secret_file` is set."""

    name: Name = "default"
    sha256: Sha256 = ""
    secret_env: Variable = ""
    secret_file: File = ""
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = ("profiles:write",)
    source: Reference = ""
    max_events_per_second: CountOrZero = 0

    def secret_sha256(self) -> bytes:
        """SHA-256 of the key, 32 bytes. Raises ConfigError when it cannot be had now."""
        if self.sha256:
            return bytes.fromhex(self.sha256)
        return hashlib.sha256(read_secret("", self.secret_env, self.secret_file).encode()).digest()


class IngressConfig(Table, frozen=True, kw_only=True):
    host: Text = "127.0.0.1"
    port: Port = 8080
    max_connections: Count = 1_000
    max_body_bytes: Count = 16_777_216
    max_decompressed_bytes: Count = 67_108_864
    max_events: Count = 10_000
    body_timeout_seconds: Seconds = 10.0
    answer_timeout_seconds: Seconds = 2.0
    tls_cert: File = ""
    tls_key: File = ""
    tls_client_ca: File = ""
    keys: tuple[IngressKeyConfig, ...] = ()


class AdminConfig(Table, frozen=True, kw_only=True):
    host: Text = "127.0.0.1"
    port: Port = 8081


class JournalConfig(Table, frozen=True, kw_only=True):
    kind: Literal["sqlite", "memory", "kafka"] = "sqlite"
    max_bytes: Count = 10_737_418_240
    min_free_bytes: CountOrZero = 268_435_456
    on_full: Literal["refuse", "expire"] = "refuse"


class BufferConfig(Table, frozen=True, kw_only=True):
    max_profiles: Count = 1_000_000
    max_bytes: Count = 1_073_741_824


class LedgerConfig(Table, frozen=True, kw_only=True):
    enabled: bool = True
    retention_days: Count = 90
    max_keys: Count = 5_000_000


class DeadLettersConfig(Table, frozen=True, kw_only=True):
    retention_days: Count = 90
    max_count: Count = 1_000_000


class SourceConfig(Table, frozen=True, kw_only=True):
    name: Name = "default"
    format: Literal["auto", "profile", "aep"] = "auto"
    order: Literal["arrival", "timestamp"] = "arrival"
    lane: Literal["live", "backfill"] = "live"
    mapping: dict[str, Text] = {}


class RateConfig(Table, frozen=True, kw_only=True):
    requests_per_second: Seconds = 10.0
    burst: Count = 2
    max_concurrency: Count = 4
    adaptive: bool = True


class AccountConfig(Table, frozen=True, kw_only=True):
    """One `[[account]]`. Of the places of the client id, and of the secret, at most one is set."""

    name: Name = "demo"
    environment: Literal["sandbox", "prod", "stg", "staging", "dev"] = "sandbox"
    org_id: Code = "demo"
    client_id: Secret = "sandbox"
    client_id_env: Variable = ""
    client_id_file: File = ""
    client_secret: Secret = ""
    client_secret_env: Variable = "RAINFOCUS_CLIENT_SECRET"
    client_secret_file: File = ""
    token_url: str = ""
    token_auth: Literal["basic", "post"] = "basic"
    base_url: str = ""
    api_profile_id: Token = ""
    rate: RateConfig = RateConfig()

    @property
    def sandbox(self) -> bool:
        return self.environment == "sandbox"

    @property
    def stage(self) -> str:
        """The environment under its one name: "staging" is "stg"."""
        return "stg" if self.environment == "staging" else self.environment

    def client_id_value(self) -> str:
        """Raises ConfigError when it cannot be had now, without quoting it."""
        return self._credential(self.client_id, self.client_id_env, self.client_id_file)

    def client_secret_value(self) -> str:
        """Read anew with every call, so that a rotated file counts. Raises ConfigError when it cannot be had now."""
        return self._credential(self.client_secret, self.client_secret_env, self.client_secret_file)

    def _credential(self, literal: str, variable: str, file: str) -> str:
        try:
            return read_secret(literal, variable, file)
        except ConfigError:
            if self.sandbox and not file:
                return SANDBOX_SECRET
            raise

    def base_url_resolved(self) -> str:
        """Without a slash at the end."""
        default = SANDBOX_URL if self.sandbox else f"https://{HOSTS[self.stage]}"
        return (self.base_url or default).rstrip("/")

    def token_url_resolved(self) -> str:
        return self.token_url or (f"{self.base_url_resolved()}/oidc/token" if self.sandbox else "")


class BatchConfig(Table, frozen=True, kw_only=True):
    max_profiles: Count = 100
    max_bytes: Count = 1_048_576
    linger_ms: CountOrZero = 20


class RetryConfig(Table, frozen=True, kw_only=True):
    max_attempts: Count = 12
    max_age_seconds: SecondsOrZero = 0.0
    base_ms: Count = 500
    cap_ms: Count = 60_000
    timeout_seconds: Seconds = 10.0
    unknown_hold_seconds: SecondsOrZero = 2.0


class SuppressConfig(Table, frozen=True, kw_only=True):
    enabled: bool = True
    ttl_seconds: Seconds = 86_400.0


class DestinationConfig(Table, frozen=True, kw_only=True):
    name: Name = "demo"
    account: Reference = ""  # once loaded, the name of an account: the first one's if none was given
    description: str = ""
    event_code: Code = "demo27"
    weight: Count = 1
    sources: Texts = ("*",)
    audiences: Texts = ("*",)
    exits: Exits = "ignore"
    fields: Texts = ("*",)
    rename: dict[str, Text] = {}
    state_policy: Literal["drop", "pass", "foreignstate"] = "drop"
    apply_transformation: bool = False
    url_template: Text = "{base}/api/{org_id}/v3/attendee/store"
    event_param: Code = "event"
    event_in: Literal["body", "query", "both"] = "body"
    encoding: Literal["single", "array"] = "single"
    response_codes: dict[str, VerdictKind] = {}
    start_at: Literal["now", "oldest"] = "now"
    dry_run: bool = False
    batch: BatchConfig = BatchConfig()
    retry: RetryConfig = RetryConfig()
    suppress: SuppressConfig = SuppressConfig()

    def resolved_url(self, account: AccountConfig) -> str:
        """Where its requests go. What is put in is percent-encoded, so that it can name neither host nor path."""
        org_id, event_code = quote(account.org_id, safe=""), quote(self.event_code, safe="")
        return self.url_template.format(base=account.base_url_resolved(), org_id=org_id, event_code=event_code)

    def identity(self, account: AccountConfig) -> str:
        """What its consumer and ledger belong to beside its name: another identity is another consumer."""
        return json.dumps([account.stage, self.resolved_url(account), account.org_id, self.event_code])


class LogConfig(Table, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Config(Table, frozen=True, kw_only=True):
    """A whole configuration, checked. Made by `load` or `from_dict`, which check it; the constructor does not."""

    not_keys: ClassVar[tuple[str, ...]] = ("path", "base")

    engine: EngineConfig = EngineConfig()
    ingress: IngressConfig = IngressConfig()
    admin: AdminConfig | None = None
    journal: JournalConfig = JournalConfig()
    buffer: BufferConfig = BufferConfig()
    ledger: LedgerConfig = LedgerConfig()
    dead_letters: DeadLettersConfig = DeadLettersConfig()
    sources: tuple[SourceConfig, ...] = field(default=(SourceConfig(),), name="source")
    accounts: tuple[AccountConfig, ...] = field(default=(AccountConfig(),), name="account")
    destinations: tuple[DestinationConfig, ...] = field(default=(DestinationConfig(),), name="destination")
    log: LogConfig = LogConfig()
    path: Path | None = None
    base: Path = Path()  # absolute once loaded: relative names in the file start here, never in the working directory

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Config:
        """Raises ConfigError with every problem of the file."""
        file = Path(path)
        text = _read(file)
        return _checked(parse(text, str(file)), str(file), text, file.absolute().parent, file.absolute())

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], *, base: Path = Path()) -> Config:
        """The tables as TOML would give them; relative file names start at `base`. Raises ConfigError like `load`."""
        return _checked(mapping, "configuration", "", base.absolute(), None)

    @property
    def data_dir(self) -> Path:
        return self.base / self.engine.data_dir

    def account_of(self, destination: DestinationConfig) -> AccountConfig:
        """Raises KeyError for a destination that is not of this configuration."""
        return {it.name: it for it in self.accounts}[destination.account]

    def describe(self) -> dict[str, Any]:
        """The effective values under their TOML keys, secrets masked, with the URLs that follow from them."""
        shown: dict[str, Any] = _described(self)
        shown["engine"]["data_dir"] = str(self.data_dir)
        for account, table in zip(self.accounts, shown["account"], strict=True):
            table |= {"base_url": account.base_url_resolved(), "token_url": account.token_url_resolved()}
        for destination, table in zip(self.destinations, shown["destination"], strict=True):
            table["resolved_url"] = destination.resolved_url(self.account_of(destination))
        return shown


def locate(option: str | None) -> Path:
    """Where the configuration is: `--config`, else $RAINFOCUS_ENGINE_CONFIG, else ./config.toml."""
    return Path(option or os.environ.get(PATH_VARIABLE) or "config.toml")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8."]) from None
    except OSError as error:
        hint = f"name another with --config or ${PATH_VARIABLE}"
        raise ConfigError([f"{file}: cannot be read ({error.strerror}); {hint}."]) from None


def _described(value: Any) -> Any:
    if isinstance(value, Table):
        fields = keys_of(type(value)).items()
        return {key: _described(masked(it.type, getattr(value, it.name))) for key, it in fields}
    return [_described(it) for it in value] if isinstance(value, tuple) else value


def _checked(raw: Mapping[str, Any], file: str, text: str, base: Path, path: Path | None) -> Config:
    reader = Reader(Config, file, text, base)
    config = _completed(reader.table(Config, raw), reader)
    _check(config, reader)
    reader.finish()
    return msgspec.structs.replace(config, path=path, base=base)


def _completed(config: Config, reader: Reader) -> Config:
    """What a file may leave open is filled in: a destination's account, and of a secret's places only the named one."""
    for key, tables in (("source", config.sources), ("account", config.accounts), ("destination", config.destinations)):
        if not tables:
            reader.report(key, f"is empty; write at least one [[{key}]] or leave it out")
    keys = [_one_place(it, f"ingress.keys[{i}]", KEY_SECRET, reader) for i, it in enumerate(config.ingress.keys)]
    accounts = [_one_place(it, f"account[{i}]", CLIENT_ID, reader) for i, it in enumerate(config.accounts)]
    accounts = [_one_place(it, f"account[{i}]", CLIENT_SECRET, reader) for i, it in enumerate(accounts)]
    first = accounts[0].name if accounts else ""
    destinations = [msgspec.structs.replace(it, account=it.account or first) for it in config.destinations]
    ingress = msgspec.structs.replace(config.ingress, keys=tuple(keys))
    return msgspec.structs.replace(config, ingress=ingress, accounts=tuple(accounts), destinations=tuple(destinations))


def _one_place(table: T, key: str, places: tuple[str, ...], reader: Reader) -> T:
    named = [it for it in places if getattr(table, it) and f"{key}.{it}" in reader.given]
    for extra in named[1:]:
        reader.report(f"{key}.{extra}", f"stands beside {named[0]}; keep one of {', '.join(places)}")
    return msgspec.structs.replace(table, **{it: "" for it in places if named and it not in named})


def _check(config: Config, reader: Reader) -> None:
    """The relations between keys. A relation of a key that is wrong by itself is left out by the reader."""
    _check_names(config, reader)
    _check_listeners(config, reader)
    if config.journal.kind == "kafka":
        reader.report("journal.kind", 'the Kafka journal is not part of this version; use "sqlite"')
    for index, source in enumerate(config.sources):
        if source.format == "aep":
            reader.report(f"source[{index}].format", 'AEP\'s own shapes are not part of this version; use "auto"')
    for index, key in enumerate(config.ingress.keys):
        _check_key(key, f"ingress.keys[{index}]", config, reader)
    _check_keys_differ(config.ingress.keys, reader)
    for index, account in enumerate(config.accounts):
        _check_account(account, f"account[{index}]", reader)
    for index, destination in enumerate(config.destinations):
        _check_destination(destination, f"destination[{index}]", config, reader)


def _check_names(config: Config, reader: Reader) -> None:
    listed: dict[str, tuple[Any, ...]] = {"source": config.sources, "account": config.accounts}
    for key, tables in (listed | {"destination": config.destinations, "ingress.keys": config.ingress.keys}).items():
        for (i, one), (j, other) in combinations(enumerate(tables), 2):
            if one.name == other.name:
                what = f"{one.name!r} is the name of {key}[{i}] already; give each a name of its own"
                reader.report(f"{key}[{j}].name", what, [f"{key}[{i}].name"])


def _check_listeners(config: Config, reader: Reader) -> None:
    ingress, admin = config.ingress, config.admin
    for key, host in (("ingress.host", ingress.host), ("admin.host", admin.host if admin else "127.0.0.1")):
        if not ingress.keys and not is_loopback(host):
            hint = "make a key with `rainfocus-engine keys new NAME`, or use 127.0.0.1"
            reader.report(
                key, f"{host!r} is open to other machines and there are no ingress.keys; {hint}", ["ingress.keys"]
            )
    if admin and admin.port and (admin.host, admin.port) == (ingress.host, ingress.port):
        reader.report(
            "admin.port", f"{admin.port} is the ingress's port; choose another", ["ingress.port", "ingress.host"]
        )
    if bool(ingress.tls_cert) != bool(ingress.tls_key):
        absent = "tls_key" if ingress.tls_cert else "tls_cert"
        reader.report(f"ingress.{absent}", "is missing; tls_cert and tls_key only work together")
    if ingress.tls_client_ca and not ingress.tls_cert:
        reader.report("ingress.tls_client_ca", "needs TLS; set tls_cert and tls_key as well")
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        if (file := getattr(ingress, name)) and not Path(file).is_file():
            reader.report(
                f"ingress.{name}", f"there is no file {file}; relative names start at the configuration's folder"
            )


def _check_key(key: IngressKeyConfig, path: str, config: Config, reader: Reader) -> None:
    _check_reference(key.source, f"{path}.source", "source", config.sources, reader)
    if not any(getattr(key, it) for it in KEY_SECRET):
        reader.report(path, f"has no secret; set one of {', '.join(KEY_SECRET)}", [f"{path}.{it}" for it in KEY_SECRET])
        return
    _check_secret(key, path, KEY_SECRET, key.secret_sha256, reader)


def _check_keys_differ(keys: tuple[IngressKeyConfig, ...], reader: Reader) -> None:
    seen: dict[bytes, int] = {}
    for index, key in enumerate(keys):
        with suppress(ConfigError):  # one that cannot be had has been reported
            first = seen.setdefault(key.secret_sha256(), index)
            if first != index:
                hint = "make another with `rainfocus-engine keys new NAME`"
                reader.report(f"ingress.keys[{index}]", f"has the same secret as the key {keys[first].name!r}; {hint}")


def _check_secret(table: Table, path: str, places: tuple[str, ...], read: Callable[[], object], reader: Reader) -> None:
    try:
        read()
    except ConfigError as error:
        place = next((it for it in places if getattr(table, it)), places[1])
        reader.report(f"{path}.{place}", f"{error}; set it, or name another place with {places[1]} or {places[2]}")


def _check_reference(name: str, key: str, kind: str, tables: tuple[Any, ...], reader: Reader) -> None:
    names = [it.name for it in tables]
    if name and name not in names:
        advice = did_you_mean(name, names) or f"there are {', '.join(dict.fromkeys(names))}"
        about = [f"{kind}[{index}].name" for index in range(len(tables))]
        reader.report(key, f"there is no [[{kind}]] named {name!r}; {advice}", about)


def _check_account(account: AccountConfig, key: str, reader: Reader) -> None:
    for places, read in ((CLIENT_ID, account.client_id_value), (CLIENT_SECRET, account.client_secret_value)):
        _check_secret(account, key, places, read, reader)
    _check_required(account, key, reader)
    for name in ("base_url", "token_url"):
        if (url := getattr(account, name)) and (what := _url_fault(account, name, url)):
            reader.report(f"{key}.{name}", what, [f"{key}.environment"])
    burst, least = account.rate.burst, max(2, math.ceil(account.rate.requests_per_second / 100))
    if burst < least:
        what = f"{burst} is too small to keep the rate; it takes 2 or a hundredth of requests_per_second, here {least}"
        reader.report(f"{key}.rate.burst", what, [f"{key}.rate.requests_per_second"])


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


def _check_destination(destination: DestinationConfig, key: str, config: Config, reader: Reader) -> None:
    _check_reference(destination.account, f"{key}.account", "account", config.accounts, reader)
    for index, name in enumerate(destination.sources):
        _check_reference(name.removeprefix("*"), f"{key}.sources[{index}]", "source", config.sources, reader)
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


def _check_limits(destination: DestinationConfig, key: str, config: Config, reader: Reader) -> None:
    batch, retry = destination.batch, destination.retry
    for name in ("max_profiles", "max_bytes"):
        if getattr(batch, name) > (room := getattr(config.buffer, name)):
            what = f"{getattr(batch, name)} is more than buffer.{name} ({room}); no batch would fill, so raise that"
            reader.report(f"{key}.batch.{name}", what, [f"buffer.{name}"])
    if retry.base_ms > retry.cap_ms:
        what = f"{retry.base_ms} is more than cap_ms ({retry.cap_ms}); the first wait cannot be longer than the longest"
        reader.report(f"{key}.retry.base_ms", what, [f"{key}.retry.cap_ms"])
    if retry.timeout_seconds >= (drain := config.engine.drain_timeout_seconds):
        what = f"{retry.timeout_seconds:g} is not below engine.drain_timeout_seconds ({drain:g})"
        hint = "a stop would cut requests off, so raise that or lower this"
        reader.report(f"{key}.retry.timeout_seconds", f"{what}; {hint}", ["engine.drain_timeout_seconds"])


def _check_fields(destination: DestinationConfig, key: str, config: Config, reader: Reader) -> None:
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
