"""Measurements of each structure in a segmented volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medfewshot.inference import Segmentation
from medfewshot.report import structure_statistics
from medfewshot.types import Volume

SIZES = {"ml": "volume_ml", "mm²": "area_mm2", "voxels": "voxels", "pixels": "voxels"}
"""Unit -> column of the size of a structure."""


def unit_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the unit of the sizes in these rows; ml if there is no row."""
    counted = "voxels" if any(row.get("centroid_voxel_z") is not None for row in rows) else "pixels"
    units = ("ml", "mm²", counted)
    return next((unit for unit in units if any(row.get(SIZES[unit]) is not None for row in rows)), "ml")


def measure(volume: Volume, segmentation: Segmentation, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return one row per structure: sizes, gray values, place, expected Dice and what to review."""
    rows = measure_labels(volume, segmentation.labels, names)
    for row in rows:
        row["predicted_dice"] = segmentation.predicted_dice.get(row["label"])
        row["review"] = segmentation.review.get(row["label"], "")
        row["flags"] = "; ".join(segmentation.flags)
    return rows


def measure_labels(volume: Volume, labels: np.ndarray, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return sizes, gray values and place of each structure of ``labels (*S)``."""
    rows = structure_statistics(volume.data, labels, volume.affine, names)
    if volume.has_spacing:
        return rows
    # A photograph knows no millimetres: only what is counted in pixels is true.
    return [
        {key: None if key.endswith(("_mm", "_mm2", "_ml")) else value for key, value in row.items()} for row in rows
    ]
