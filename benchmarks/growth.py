"""How cost grows with size: the exponent of a power law through what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """The slope of log(cost) over log(size), by least squares: 1 is linear. None for fewer than two sizes."""
    points = [
        (math.log(size), math.log(cost)) for size, cost in zip(sizes, costs, strict=True) if size > 0 and cost > 0
    ]
    if len({x for x, _ in points}) < 2:
        return None
    return slope([x for x, _ in points], [y for _, y in points])


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the straight line through the points, by least squares."""
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread
