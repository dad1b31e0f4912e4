"""Plots of the report: every scan a dot."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from medfewshot.metrics import HEADLINES
from medfewshot.report.page.content import Page, StructureRow
from medfewshot.report.page.table import CONFIDENCE, HEADINGS, size_heading

LEFT, WIDTH, ROW = 150, 474, 34
"""Where the axis begins, its length, and the height of a row, in pixels."""
MANY = 200
"""Dots of a row from which on those that lie almost on another one are not drawn."""
Values = Sequence[tuple[str, float]]
"""Case and its value."""


@dataclass(frozen=True)
class Dot:
    """A scan at ``(x, y)``, in pixels; ``behind`` scans are not drawn, because it would cover them."""

    case: str
    value: float
    x: float
    y: int
    behind: int


@dataclass(frozen=True)
class PlotRow:
    """The dots of one structure around the height ``y``, and their median with its place."""

    label: int
    y: int
    dots: tuple[Dot, ...]
    median: float
    median_x: float


@dataclass(frozen=True)
class StripPlot:
    """One measurement of every case.

    Attributes:
        title: Name of the measurement, with its unit.
        ticks: Places and values: round numbers from at most the smallest to at least the largest value.
        rows: One per structure.
    """

    title: str
    ticks: tuple[tuple[float, float], ...]
    rows: tuple[PlotRow, ...]

    @property
    def height(self) -> int:
        """In pixels."""
        return 26 + ROW * len(self.rows)


def plots_of(page: Page) -> list[StripPlot]:
    """Return a plot of each measurement that any case has."""

    def score(metric: str) -> Callable[[StructureRow], float | None]:
        return lambda row: row.scores.get(metric)

    plots = []
    for metric in HEADLINES:
        low = None if metric.better == "zero" else 0.0
        high = 1.0 if metric.better == "higher" else None
        plots.append(_plot(page, HEADINGS[metric.name], score(metric.name), low=low, high=high))
    plots.append(_plot(page, size_heading(page), lambda row: row.size or None, low=0.0))
    plots.append(_plot(page, CONFIDENCE, lambda row: row.predicted_dice, low=0.0, high=1.0))
    return [plot for plot in plots if plot is not None]


def _plot(
    page: Page, title: str, value_of: Callable[[StructureRow], float | None], *,
    low: float | None, high: float | None = None,
) -> StripPlot | None:  # fmt: skip
    """Collect the finite values; the axis runs from ``low`` to ``high``, by default the smallest and largest value."""
    from matplotlib.ticker import MaxNLocator

    measured: dict[int, list[tuple[str, float]]] = {label: [] for label in page.structures}
    for case in page.cases:
        for row in case.structures:
            value = value_of(row)
            if value is not None and math.isfinite(value) and row.label in measured:
                measured[row.label].append((case.name, value))
    values = [value for found in measured.values() for _, value in found]
    if not values:
        return None
    low = min(values) if low is None else low
    high = max(values) if high is None else high
    ticks = MaxNLocator(5, steps=(1, 2, 5, 10)).tick_values(low, high if high > low else low + 1)

    def place(value: float) -> float:
        return float(round(LEFT + (value - ticks[0]) * WIDTH / (ticks[-1] - ticks[0]), 1))

    rows = (_row(label, 25 + ROW * number, found, place) for number, (label, found) in enumerate(measured.items()))
    return StripPlot(title, tuple((place(tick), float(tick)) for tick in ticks), tuple(rows))


def _row(label: int, y: int, found: Values, place: Callable[[float], float]) -> PlotRow:
    """Place the dots of a structure: dots of equal value beside each other."""
    if not found:
        return PlotRow(label, y, (), math.nan, math.nan)
    wide = 3 if len(found) > MANY else 1
    cells: dict[tuple[int, int], list[tuple[str, float]]] = {}
    for number, (case, value) in enumerate(found):
        cells.setdefault((round(place(value) / wide), y + (number * 7 % 5 - 2) * 3), []).append((case, value))
    dots = (Dot(*here[0], place(here[0][1]), height, len(here) - 1) for (_, height), here in cells.items())
    middle = float(median(value for _, value in found))
    return PlotRow(label, y, tuple(dots), middle, place(middle))
