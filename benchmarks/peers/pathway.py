"""Pathway, a stream engine with an HTTP source and an HTTP sink: ``python -m benchmarks.peers.pathway PORT URL``.

Its sink sends a POST a row; it neither batches nor keeps anything on disk here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.client import STORE_PATH
from benchmarks.peers import install
from benchmarks.peers.ingress import daemon, free_port
from benchmarks.processes import ROOT
from benchmarks.systems import Contestant, Place, System

FIELDS = (
    *("email", "firstname", "lastname", "companyname", "jobtitle", "phone", "address1", "address2"),
    *("city", "state", "zip", "countryid"),
)


def contestant() -> Contestant:
    return Contestant("Pathway", _start)


@contextmanager
def _start(place: Place) -> Iterator[System]:
    python, port = install.python_with("pathway", "msgspec", "aiohttp", "aiolimiter", "orjson"), free_port()
    command = [python, "-m", "benchmarks.peers.pathway", str(port), place.sink + STORE_PATH]
    environment = {"PYTHONPATH": str(ROOT), "PATHWAY_MONITORING_SERVER": "", "NO_PROXY": "127.0.0.1"}
    with daemon(command, place.directory / "pathway.log", port, place.cores.system, environment) as process:
        yield System(name="Pathway", url=f"http://127.0.0.1:{port}", pids=[process.pid])


def main() -> None:
    import pathway as pw

    port, url = int(sys.argv[1]), sys.argv[2]
    schema = pw.schema_from_types(**dict.fromkeys(FIELDS, str))
    rows, answer = pw.io.http.rest_connector(
        host="127.0.0.1",
        port=port,
        route="/v1/profiles",
        schema=schema,
        methods=("POST",),
        autocommit_duration_ms=20,
        delete_completed_queries=False,
    )
    answer(rows.select(query_id=rows.id, result=pw.this.email))
    pw.io.http.write(rows, url, method="POST", format="json", headers={"Content-Type": "application/json"})
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
