"""What nothing can be faster than here: the disk, a bare POST, the pipeline alone; and the sum of the parts."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.peers.ingress import protocol
from benchmarks.processes import running
from benchmarks.result import Subject
from benchmarks.shapes import Shape
from benchmarks.targets import FLOORS
from benchmarks.variant import Variant

SIZES = (1, 10, 100)
BATCH = 100


async def floors(bench: Bench, variants: Sequence[Variant]) -> list[Subject]:
    """The same for all variants."""
    place = bench.place(FLOORS)
    arguments = ["-m", "benchmarks.parts", bench.sink.url, str(bench.options.seconds / 2)]
    with running(arguments, place.directory / "parts.log", cores=bench.cores.system) as process:
        found = {name: round(float(it), 3) for name, it in process.said.items()}
    for n in SIZES:
        found[f"ingress_{n}_cpu_us_per_event"] = await _ingress(bench, n)
        found[f"sum_of_parts_{n}_cpu_us_per_event"] = sum_of_parts(found, n)
    return [Subject(scenario=FLOORS, system="floors", figures=found)]


async def _ingress(bench: Bench, n: int) -> float:
    """Taking requests in by the leanest server there is in this language."""
    contestant = protocol()
    with contestant.start(bench.place(contestant.name)) as system:
        shape = Shape(sizes=(n,))
        await bench.warm_up(system, shape)
        phase = await bench.saturate(system, shape, bench.options.seconds / 2)
    return phase.cpu_us_per_event or 0.0


def sum_of_parts(found: dict[str, float], n: int) -> float:
    """In, decoded and merged and encoded, on disk, out in lists of 100."""
    parts = [found[f"{name}_{n}_cpu_us_per_event"] for name in ("ingress", "pipeline", "commit")]
    return round(sum(parts) + found["raw_post_of_100_cpu_us"] / BATCH, 3)
