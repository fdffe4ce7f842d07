"""Small plots as inline SVG: lines over a logarithmic axis, and bars that grow with their column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import msgspec

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 34
COLOURS = 6
"""How many classes ``s0`` to ``s5`` the style sheet has."""


class Line(msgspec.Struct, frozen=True):
    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False


def lines(series: Sequence[Line], x_labels: Sequence[tuple[float, str]], unit: str, *, log_x: bool = False) -> str:
    """All values are positive. The vertical axis is logarithmic, in whole decades."""
    values = [y for line in series for _, y in line.points if y > 0]
    if not values:
        return ""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    plot = _Plot([x for x, _ in x_labels], low, max(high, low + 1), log_x)
    body = [*plot.grid(unit), *plot.x_axis(x_labels), *(plot.line(it) for it in series)]
    label = escape(", ".join(it.name for it in series))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(body)}</svg>'


class _Plot:
    def __init__(self, xs: Sequence[float], low: int, high: int, log_x: bool) -> None:
        self._low, self._high, self._log_x = low, high, log_x
        self._first, self._last = self._scaled(min(xs)), self._scaled(max(xs))

    def _scaled(self, x: float) -> float:
        return math.log10(x) if self._log_x else x

    def x(self, value: float) -> float:
        width = WIDTH - LEFT - RIGHT - 24
        share = (self._scaled(value) - self._first) / (self._last - self._first) if self._last > self._first else 0.5
        return LEFT + 12 + share * width

    def y(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def grid(self, unit: str) -> list[str]:
        found = []
        for power in range(self._low, self._high + 1):
            y = self.y(10.0**power)
            found.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            found.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
        found.append(f'<text class="unit" x="{LEFT - 5}" y="{HEIGHT - 8}" text-anchor="end">{escape(unit)}</text>')
        return found

    def x_axis(self, labels: Sequence[tuple[float, str]]) -> list[str]:
        y = HEIGHT - BOTTOM + 16
        return [f'<text x="{self.x(x):.1f}" y="{y}" text-anchor="middle">{escape(text)}</text>' for x, text in labels]

    def line(self, line: Line) -> str:
        points = [(self.x(x), self.y(y)) for x, y in line.points if y > 0]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        kind = f"s{line.colour % COLOURS}" + (" dashed" if line.dashed else "")
        dots = "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in points)
        return f'<g><title>{escape(line.name)}</title><polyline class="{kind}" points="{joined}"/>{dots}</g>'


def bar(value: float, most: float, low: float, high: float, colour: int) -> str:
    """As wide as its place allows; a thin line from the lowest to the highest."""
    width, start, end = (100 * min(1.0, it / most) for it in (value, low, high))
    return (
        '<svg class="bar" width="100%" height="16" aria-hidden="true">'
        f'<rect class="s{colour % COLOURS}" width="{width:.2f}%" height="16" rx="2"/>'
        f'<line class="spread" x1="{start:.2f}%" x2="{end:.2f}%" y1="8" y2="8"/></svg>'
    )
