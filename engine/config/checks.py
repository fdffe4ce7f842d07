"""The relations between keys of config.toml. A relation of a key that is wrong by itself is left out by the reader."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

from engine.config.access import check_access
from engine.config.checks_alerts import check_alerts
from engine.config.checks_outward import check_account, check_destination
from engine.config.problems import Reader, is_loopback
from engine.config.tables import Tables


def check(config: Tables, reader: Reader) -> None:
    _check_names(config, reader)
    _check_listeners(config, reader)
    if config.journal.kind == "kafka":
        reader.report("journal.kind", 'the Kafka journal is not part of this version; use "sqlite"')
    for index, source in enumerate(config.sources):
        if source.format == "aep":
            reader.report(f"source[{index}].format", 'AEP\'s own shapes are not part of this version; use "auto"')
    check_access(config.ingress.keys, config.ingress.clients, config.sources, config.destinations, reader)
    for index, account in enumerate(config.accounts):
        check_account(account, f"account[{index}]", reader)
    for index, destination in enumerate(config.destinations):
        check_destination(destination, f"destination[{index}]", config, reader)
    check_alerts(config, reader)


def _check_names(config: Tables, reader: Reader) -> None:
    listed: dict[str, tuple[Any, ...]] = {"source": config.sources, "account": config.accounts}
    listed |= {"destination": config.destinations, "alert": config.alerts, "notify": config.notify}
    for key, tables in listed.items():
        for (i, one), (j, other) in combinations(enumerate(tables), 2):
            if one.name == other.name:
                what = f"{one.name!r} is the name of {key}[{i}] already; give each a name of its own"
                reader.report(f"{key}[{j}].name", what, [f"{key}[{i}].name"])


def _check_listeners(config: Tables, reader: Reader) -> None:
    ingress, admin = config.ingress, config.admin
    for key, host in (("ingress.host", ingress.host), ("admin.host", admin.host if admin else "127.0.0.1")):
        if not (ingress.keys or ingress.clients) and not is_loopback(host):
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
