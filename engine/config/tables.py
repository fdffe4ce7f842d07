"""The tables of config.toml, in the order of the file. What each key means: docs/configuration.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from msgspec import field

from engine.config.access import IngressClientConfig, IngressKeyConfig
from engine.config.alerts import AlertConfig, NotifyConfig
from engine.config.forward import ForwardConfig
from engine.config.governance import ConsentConfig, GovernanceConfig
from engine.config.kinds import (
    Code,
    Count,
    CountOrZero,
    Exits,
    File,
    Name,
    Port,
    Reference,
    Seconds,
    SecondsOrZero,
    Secret,
    Table,
    Text,
    Texts,
    Token,
    Variable,
)
from engine.config.problems import read_secret
from engine.config.runs import RunsConfig
from engine.config.sending import RateConfig as RateConfig
from engine.config.sending import RetryConfig as RetryConfig
from engine.errors import ConfigError
from engine.model import VerdictKind

HOSTS = {"prod": "events.rainfocus.com", "stg": "events-stg.rainfocus.com", "dev": "events-dev.rainfocus.com"}
SANDBOX_URL = "http://127.0.0.1:8484"
SANDBOX_SECRET = "sandbox"  # the fixed client id and secret that the sandbox server takes from everybody


class EngineConfig(Table, frozen=True, kw_only=True):
    data_dir: Text = "var"
    drain_timeout_seconds: Seconds = 12.0
    watchdog_seconds: SecondsOrZero = 60.0


class IngressConfig(Table, frozen=True, kw_only=True):
    host: Text = "127.0.0.1"
    port: Port = 8080
    front: Literal["aiohttp", "fast"] = "aiohttp"
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
    clients: tuple[IngressClientConfig, ...] = ()


class AdminConfig(Table, frozen=True, kw_only=True):
    host: Text = "127.0.0.1"
    port: Port = 8081


class JournalConfig(Table, frozen=True, kw_only=True):
    kind: Literal["sqlite", "segments", "memory", "kafka"] = "segments"
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
    phone_e164: bool = False
    mapping: dict[str, Any] = field(default_factory=dict)  # once loaded: target field -> path or MappingRule
    labels: dict[str, Texts] = field(default_factory=dict)


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
    transport: Literal["auto", "aiohttp", "raw"] = "auto"
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
    marketing_actions: tuple[Text, ...] = ()
    consent: tuple[ConsentConfig, ...] = ()
    fields: Texts = ("*",)
    rename: dict[str, Text] = field(default_factory=dict)
    state_policy: Literal["drop", "pass", "foreignstate"] = "drop"
    apply_transformation: bool = False
    url_template: Text = "{base}/api/{org_id}/v3/attendee/store"
    event_param: Code = "event"
    event_in: Literal["body", "query", "both"] = "body"
    encoding: Literal["single", "array"] = "single"
    response_codes: dict[str, VerdictKind] = field(default_factory=dict)
    require_attendee_id: bool = False
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


class Tables(Table, frozen=True, kw_only=True):
    """All of them. `base`: absolute once loaded; relative names in the file start there."""

    not_keys: ClassVar[tuple[str, ...]] = ("path", "base")

    engine: EngineConfig = EngineConfig()
    ingress: IngressConfig = IngressConfig()
    admin: AdminConfig | None = None
    journal: JournalConfig = JournalConfig()
    buffer: BufferConfig = BufferConfig()
    ledger: LedgerConfig = LedgerConfig()
    dead_letters: DeadLettersConfig = DeadLettersConfig()
    runs: RunsConfig = RunsConfig()
    sources: tuple[SourceConfig, ...] = field(default=(SourceConfig(),), name="source")
    accounts: tuple[AccountConfig, ...] = field(default=(AccountConfig(),), name="account")
    destinations: tuple[DestinationConfig, ...] = field(default=(DestinationConfig(),), name="destination")
    forwards: tuple[ForwardConfig, ...] = field(default=(), name="forward")
    governance: GovernanceConfig = GovernanceConfig()
    alerts: tuple[AlertConfig, ...] = field(default=(), name="alert")
    notify: tuple[NotifyConfig, ...] = ()
    log: LogConfig = LogConfig()
    path: Path | None = None
    base: Path = Path()

    @property
    def data_dir(self) -> Path:
        return self.base / self.engine.data_dir

    @property
    def consumer_names(self) -> set[str]:
        """Of destinations and forwards: what the data directory knows them by."""
        return {one.name for one in self.destinations} | {one.name for one in self.forwards}

    def account_of(self, destination: DestinationConfig) -> AccountConfig:
        """Raises KeyError for a destination that is not of this configuration."""
        return {it.name: it for it in self.accounts}[destination.account]
