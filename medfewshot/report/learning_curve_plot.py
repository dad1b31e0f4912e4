"""A plot of a learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfewshot.evaluation import NEXT, LearningCurve
from medfewshot.io import atomic_path
from medfewshot.report.dice_plot import BLUE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STRUCTURES = 8
LEAST_SPAN = 0.1
"""Of the axis of the Dice: a smaller one makes chance look like a change."""
_COLOURS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f", "#a3a500")


def save_learning_curve_plot(path: Path, curve: LearningCurve) -> None:
    """Draw the mean Dice with its 95 % interval, each structure, and the expected value with five more labelled scans.

    Args:
        path: The file to write, a PNG.
        curve: A curve with at least one point. Of many structures, the eight lowest are drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot(xlabel="labelled scans", ylabel="Dice on other scans")
    structures = {point.structure for point in curve.points} - {curve.overall[0].structure}
    if len(structures) > 1:
        last = {point.structure: point.dice for point in curve.points}
        lowest = sorted(structures, key=last.__getitem__)[:MOST_STRUCTURES]
        for name, colour in zip(lowest, cycle(_COLOURS), strict=False):
            own = [point for point in curve.points if point.structure == name]
            axes.plot([p.shots for p in own], [p.dice for p in own], color=colour, linewidth=1, label=name, zorder=2)
    shots, dice = ([*values] for values in zip(*((point.shots, point.dice) for point in curve.overall), strict=True))
    _interval(axes, curve)
    axes.plot(shots, dice, color=BLUE, marker="o", linewidth=2, label="all structures", zorder=4)
    gain, low, high = curve.gain
    if np.isfinite(gain) and curve.rises:  # as the sentence about it says
        along = np.linspace(shots[0], curve.labelled + NEXT, 100)
        fitted = curve.expected(along)
        axes.plot(along, fitted, color=INK, linewidth=1, linestyle="dotted", label="fitted power law", zorder=1)
        axes.errorbar(
            along[-1], fitted[-1], yerr=[[max(0, gain - low)], [max(0, high - gain)]], color=INK, marker="D",
            markerfacecolor="white", capsize=3, linestyle="none", label=f"expected with {NEXT} more", zorder=3,
        )  # fmt: skip
        axes.set_xticks([*shots, curve.labelled + NEXT])
    else:
        axes.set_xticks(shots)
    low, high = axes.get_ylim()
    room = max(0.0, LEAST_SPAN - (high - low)) / 2
    axes.set_ylim(low - room, high + room)
    axes.grid(axis="y", color="#e3e6e8", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    for text in legend.get_texts():
        text.set_parse_math(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _interval(axes: Axes, curve: LearningCurve) -> None:
    known: Sequence[tuple[int, float, float]] = [
        (p.shots, p.ci_low, p.ci_high) for p in curve.overall if np.isfinite(p.ci_low)
    ]
    if known:
        shots, low, high = zip(*known, strict=True)
        axes.fill_between(shots, low, high, color=BLUE, alpha=0.15, linewidth=0, label="95 % interval", zorder=1)
