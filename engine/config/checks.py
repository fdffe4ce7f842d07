"""The relations between keys of config.toml. A relation of a key that is wrong by itself is left out by the reader."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

from engine.config.access import check_access
from engine.config.checks_alerts import check_alerts
from engine.config.checks_governance import check_governance
from engine.config.checks_outward import check_account, check_destination
from engine.config.forward import RAINFOCUS, check_forward
from engine.config.problems import Reader, is_loopback
from engine.config.runs import check_runs
from engine.config.tables import Tables


def check(config: Tables, reader: Reader) -> None:
    _check_names(config, reader)
    _check_listeners(config, reader)
    if config.journal.kind == "kafka":
        reader.report("journal.kind", 'the Kafka journal is not part of this version; use "sqlite"')
    check_runs(config.runs, reader)
    for index, source in enumerate(config.sources):
        if source.name == RAINFOCUS:
            what = "is the source that stands for RainFocus itself (POST /v1/sources/rainfocus); choose another name"
            reader.report(f"source[{index}].name", what)
        if source.phone_e164 and find_spec("phonenumbers") is None:
            what = "needs the package phonenumberslite; pip install 'rainfocus-engine[phone]'"
            reader.report(f"source[{index}].phone_e164", what)
    reached = (*config.destinations, *config.forwards)
    check_access(config.ingress.keys, config.ingress.clients, config.sources, reached, reader)
    for index, account in enumerate(config.accounts):
        check_account(account, f"account[{index}]", reader)
    for index, destination in enumerate(config.destinations):
        check_destination(destination, f"destination[{index}]", config, reader)
    for index, forward in enumerate(config.forwards):
        check_forward(forward, f"forward[{index}]", config.engine.drain_timeout_seconds, reader)
    check_governance(config, reader)
    check_alerts(config, reader)


def _check_names(config: Tables, reader: Reader) -> None:
    listed: dict[str, tuple[Any, ...]] = {"source": config.sources, "account": config.accounts}
    listed |= {"destination": config.destinations, "forward": config.forwards}
    listed |= {"alert": config.alerts, "notify": config.notify}
    named = {key: [(f"{key}[{i}].name", table.name) for i, table in enumerate(them)] for key, them in listed.items()}
    named["destination"] += named.pop("forward")  # both are told apart by name where they are shown
    for places in named.values():
        for (one, name), (other, same) in combinations(places, 2):
            if name == same:
                what = f"{name!r} is the name of {one.removesuffix('.name')} already; give each a name of its own"
                reader.report(other, what, [one])


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
