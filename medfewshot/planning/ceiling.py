"""The ceiling of a plan: the best Dice that its grid allows, measured on the labelled scans themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medfewshot.planning.grid import axis_maps, labels_to_plan, to_original
from medfewshot.structures import dice, structures
from medfewshot.types import Plan, Volume

MARGIN = 3
"""Voxels around a structure, in planned voxels, that are compared with it."""


def ceilings(labels: Sequence[Volume], plan: Plan, values: Sequence[int] | None = None) -> dict[int, float]:
    """Measure how much of each structure survives the plan's grid.

    Each label is brought to the grid and back, as a perfect prediction would be. No segmenter of this plan can score
    more in general.

    Args:
        labels: Label maps ``(1, *S)`` of the support set.
        plan: Its plan.
        values: Only these structures. Default: all of the plan.

    Returns:
        Label value -> mean Dice over the labels that contain the structure.
    """
    found: dict[int, list[float]] = {value: [] for value in values or plan.label_values}
    for label in labels:
        for value, structure in structures(label.data[0]).items():
            if value in found:
                found[value].append(_there_and_back(_crop(label, structure.box, plan), value, plan))
    return {value: float(np.mean(scores)) for value, scores in found.items() if scores}


def _there_and_back(label: Volume, value: int, plan: Plan) -> float:
    alone = replace(plan, labels={value: plan.labels[value]}, keep_largest=())
    planned = (labels_to_plan(label, alone) == 1).float()
    restored = to_original(planned[None], axis_maps(label, alone), label.spatial_shape)[0].numpy() > 0.5
    return dice(restored & (label.data[0] >= 0), label.data[0] == value)  # negative: not annotated


def _crop(label: Volume, box: Sequence[slice], plan: Plan) -> Volume:
    """Cut the label down to a structure and a margin, so that small structures of large scans take little time."""
    margin = np.ceil(MARGIN * max(plan.spacing_mm) / np.array(label.spacing_mm)).astype(int)
    box = tuple(
        slice(max(0, part.start - m), min(size, part.stop + m))
        for part, m, size in zip(box, margin, label.spatial_shape, strict=True)
    )
    start = np.zeros(3)
    start[: len(box)] = [part.start for part in box]
    affine = label.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return replace(label, data=label.data[(slice(None), *box)], affine=affine)
