"""Strip plots: every case a dot that leads to it, the median a line. ``page.html`` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 640, 34, 150, 16, 8, 36


@dataclass(frozen=True)
class Dot:
    """The value of one case; ``anchor`` is the element of the page that describes the case."""

    value: float
    name: str
    anchor: str


@dataclass(frozen=True)
class Row:
    """The dots of one structure as ``(x, y, dot)`` and their median as ``(x, value)``, around the height ``y``."""

    name: str
    y: float
    dots: list[tuple[float, float, Dot]]
    median: tuple[float, float] | None


@dataclass(frozen=True)
class StripPlot:
    """Everything in pixels, from the upper left corner. ``ticks``: ``(x, text)``; ``axis``: what is measured."""

    axis: str
    height: int
    ticks: list[tuple[float, str]]
    rows: list[Row]


def strip_plot(
    rows: Sequence[tuple[str, Sequence[Dot]]], axis: str, *, low: float | None = None, high: float | None = None
) -> StripPlot | None:
    """Place the dots of each structure; None without a finite value.

    Args:
        rows: (structure, dots).
        axis: what is measured, with its unit.
        low: where the axis begins at the latest; by default at the smallest value.
        high: where the axis ends at the earliest; by default at the largest value.
    """
    values = [dot.value for _, dots in rows for dot in dots if math.isfinite(dot.value)]
    if not values:
        return None
    ticks = _ticks(min(values) if low is None else low, max(values) if high is None else high)

    def x(value: float) -> float:
        return round(float(np.interp(value, (ticks[0], ticks[-1]), (LEFT, WIDTH - RIGHT))), 1)

    placed = []
    for number, (name, dots) in enumerate(rows):
        y = TOP + ROW * number + ROW / 2
        finite = [dot for dot in dots if math.isfinite(dot.value)]
        # Dots of equal value lie side by side, in every run alike.
        spread = [(x(dot.value), y + ((i * 7) % 5 - 2) * 3, dot) for i, dot in enumerate(finite)]
        middle = median(dot.value for dot in finite) if finite else None
        placed.append(Row(name, y, spread, None if middle is None else (x(middle), middle)))
    return StripPlot(axis, TOP + ROW * len(rows) + BOTTOM, [(x(tick), f"{tick:g}") for tick in ticks], placed)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``."""
    from matplotlib.ticker import MaxNLocator

    return [
        float(tick) for tick in MaxNLocator(5, steps=(1, 2, 5, 10)).tick_values(low, high if high > low else low + 1)
    ]
