"""The setting ``quality``: what each level means for grid, steps and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quality = Literal["draft", "standard", "best"]


@dataclass(frozen=True)
class QualityLevel:
    """What one level stands for. Settings that the user gives win over it.

    Attributes:
        coarser: Multiplies the voxel size of the plan.
        planar_ceiling: The grid of 2D images is refined until every structure can reach this Dice on it; 0: never.
        volume_ceiling: The same for the grid of 3D scans.
        on_average: Whether in 3D the mean over structures must reach it, not every structure.
        steps: Multiplies the method's own number of training steps.
        seconds: Most seconds of adaptation; None: no limit.
        instant: Whether learner ``auto`` is the one for drafts: the network alone, without registration.
    """

    coarser: float = 1.0
    planar_ceiling: float = 0.0
    volume_ceiling: float = 0.0
    on_average: bool = False
    steps: float = 1.0
    seconds: float | None = None
    instant: bool = False


QUALITY_LEVELS: dict[str, QualityLevel] = {
    "draft": QualityLevel(coarser=1.7, steps=0.25, seconds=60.0, instant=True),
    "standard": QualityLevel(planar_ceiling=0.9, volume_ceiling=0.9, on_average=True, seconds=240.0),
    "best": QualityLevel(planar_ceiling=0.98, volume_ceiling=0.98, steps=4.0),
}
"""Levels in rising order (``lab/studies/grid_and_steps.py``)."""
