"""syslog-ng, a log daemon in C: lines over TCP in (it has no HTTP source), batches of 100 by HTTP out.

Its reliable disk buffer writes every message before it is sent, without an fsync; it neither parses nor merges, and
its sender hears nothing back.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.client import STORE_PATH
from benchmarks.peers import install
from benchmarks.peers.ingress import daemon, free_port
from benchmarks.systems import Contestant, Place, System

PACKAGES = (
    "syslog-ng-core",
    "syslog-ng-mod-http",
    "libivykis0",
    "libnet1",
    "libcurl4",
    "libpcre3",
    "libwrap0",
    "libnsl2",
    "libtirpc3",
)

CONFIG = """\
@version: 3.38
options {{ stats-freq(0); log-msg-size(65536); }};
source s {{ network(ip("127.0.0.1") port({port}) transport("tcp") flags(no-parse) max-connections(64)
  log-iw-size(100000) log-fetch-limit(1000)); }};
destination d {{ http(url("{url}") method("POST")
  headers("Content-Type: application/json", "Authorization: Bearer bench") body("${{MESSAGE}}")
  body-prefix("[") body-suffix("]") delimiter(",") batch-lines(100) batch-timeout(20)
  workers(4) persist-name("sink") log-fifo-size(200000)
  {buffer}); }};
log {{ source(s); destination(d); flags(flow-control); }};
"""
BUFFER = 'disk-buffer(reliable(yes) disk-buf-size(1073741824) mem-buf-size(67108864) dir("{home}"))'


def contestants() -> list[Contestant]:
    return [_contestant("syslog-ng, disk buffer", BUFFER), _contestant("syslog-ng, memory", "")]


def _contestant(name: str, buffer: str) -> Contestant:
    @contextmanager
    def start(place: Place) -> Iterator[System]:
        program, environment = install.debian("syslog-ng", "usr/sbin/syslog-ng", *PACKAGES)
        port, home = free_port(), place.directory
        config = CONFIG.format(port=port, url=place.sink + STORE_PATH, buffer=buffer.format(home=home))
        (home / "syslog-ng.conf").write_text(config)
        command = [program, "--foreground", "--no-caps", "--stderr", "--cfgfile", str(home / "syslog-ng.conf")]
        command += [
            "--persist-file",
            str(home / "persist"),
            "--control",
            str(home / "ctl"),
            "--pidfile",
            str(home / "pid"),
        ]
        if environment:
            command += ["--module-path", install.modules("syslog-ng")]
        log = home / "syslog-ng.log"
        with daemon(command, log, port, place.cores.system, environment) as process:
            yield _system(name, port, process)

    return Contestant(name, start)


def _system(name: str, port: int, process: subprocess.Popen[bytes]) -> System:
    return System(name=name, url=f"http://127.0.0.1:{port}", pids=[process.pid], lines=True)
