"""Strip plots as SVG text: every case a dot that leads to it, the median a line; colours come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 640, 34, 150, 16, 8, 36


@dataclass(frozen=True)
class Dot:
    value: float
    name: str
    anchor: str


def strip_plot(rows: Sequence[tuple[str, Sequence[Dot]]], axis: str, low: float | None = None) -> Markup:
    """One row of dots per structure. ``axis``: what is measured, with its unit; ``low``: where the axis begins."""
    values = [dot.value for _, dots in rows for dot in dots if math.isfinite(dot.value)]
    if not values:
        return Markup("")
    first, last = min(values) if low is None else low, max(values)
    if axis.startswith("Dice"):
        first, last = min(0.0, first), 1.0
    last = last if last > first else first + 1
    ticks = _ticks(first, last)
    first, last = min(first, ticks[0]), max(last, ticks[-1])
    height = TOP + ROW * len(rows) + BOTTOM

    def x(value: float) -> float:
        return round(LEFT + (value - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)

    parts = [
        Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{} per structure">').format(
            WIDTH, height, axis
        )
    ]
    for tick in ticks:
        line = Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>')
        text = Markup('<text class="tick" x="{}" y="{}">{}</text>')
        parts.append(line.format(x(tick), TOP, height - BOTTOM))
        parts.append(text.format(x(tick), height - BOTTOM + 14, f"{tick:g}"))
    for number, (name, dots) in enumerate(rows):
        middle = TOP + ROW * number + ROW / 2
        parts.append(_row(name, [dot for dot in dots if math.isfinite(dot.value)], middle, x))
    parts.append(
        Markup('<text class="axis" x="{}" y="{}">{}</text></svg>').format((LEFT + WIDTH) // 2, height - 5, axis)
    )
    return Markup("").join(parts)


def _row(name: str, dots: Sequence[Dot], middle: float, x) -> Markup:
    short = name if len(name) <= 22 else name[:21] + "…"
    parts = [
        Markup('<text class="row" x="{}" y="{}">{}<title>{}</title></text>').format(LEFT - 10, middle + 4, short, name)
    ]
    for i, dot in enumerate(dots):
        shift = ((i * 7) % 5 - 2) * 3  # dots of equal value side by side, the same in every run
        parts.append(
            Markup('<a href="#{}"><circle class="dot" cx="{}" cy="{}" r="4"><title>{}</title></circle></a>').format(
                dot.anchor, x(dot.value), middle + shift, f"{dot.name}, {name}: {dot.value:.3g}"
            )
        )
    if dots:
        ordered = sorted(dot.value for dot in dots)
        median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        parts.append(
            Markup('<line class="median" x1="{0}" x2="{0}" y1="{1}" y2="{2}"><title>{3}</title></line>').format(
                x(median), middle - 12, middle + 12, escape(f"median {median:.3g}")
            )
        )
    return Markup("").join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from at most ``low`` to at least ``high``."""
    raw = (high - low) / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, last + 1)]
