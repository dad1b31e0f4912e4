"""Dice of every scan by structure: one panel per dataset, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfewshot.benchmark.plots import save_panels, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = dict[str, dict[str, dict[str, list[float]]]]
"""Dataset -> learner -> structure -> Dice of every scan."""
ROOM = 0.7
"""Of the distance between two structures, for all learners together."""


def save_oracle_plot(points: Points, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``: small marks for scans, a large one for their mean; none without points."""
    learners = list(dict.fromkeys(name for of_learner in points.values() for name in of_learner))
    panels = {dataset: partial(_draw, points=found, learners=learners) for dataset, found in points.items()}
    return save_panels(panels, "structure", stem)


def _draw(axes: Axes, points: Mapping[str, Mapping[str, Sequence[float]]], learners: Sequence[str]) -> None:
    structures = list(dict.fromkeys(name for found in points.values() for name in found))
    for name, found in points.items():
        index = learners.index(name)
        style = style_of(index)
        offset = ROOM * ((index + 0.5) / len(learners) - 0.5)
        for structure, values in found.items():
            place = structures.index(structure) + offset
            axes.scatter([place] * len(values), values, s=10, color=style["color"], marker=style["marker"], alpha=0.35,
                         linewidths=0)  # fmt: skip
            axes.plot([place], [np.mean(values)], linestyle="none", markersize=7, label=name, **style)
    axes.set_xticks(range(len(structures)), structures, rotation=20, ha="right")
    axes.set_ylim(0, 1)
