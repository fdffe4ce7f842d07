"""All peers that can take a shape, as contestants."""

from __future__ import annotations

from benchmarks.peers import batcher, pathway, syslog_ng
from benchmarks.shapes import Shape
from benchmarks.systems import Contestant


def contestants(shape: Shape) -> list[Contestant]:
    """Pathway's source takes one event a request; to syslog-ng, which takes lines, requests mean nothing."""
    found = [batcher.contestant(kind) for kind in batcher.KINDS]
    if shape.sizes == (1,):
        found.append(pathway.contestant())
    return [*found, *syslog_ng.contestants()] if shape.sizes == (100,) else found
