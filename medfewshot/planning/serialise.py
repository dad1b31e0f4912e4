"""A plan as plain JSON data, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medfewshot.types import Normalization, Plan

MOST_CHANNELS = 64
LEAST_SPACING_MM = 1e-5
"""Microscopes have microns and less."""
MOST_PATCH_VOXELS = 100_000_000
MOST_LABELS = 10_000


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return plain JSON data; keys are strings, so labels become ``{"205": "myocardium"}``."""
    data = asdict(plan)
    data["labels"] = {str(value): name for value, name in plan.labels.items()}
    return data


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """Build a plan from plain data and check it: a saved segmenter may come from a stranger.

    Raises:
        KeyError, TypeError, ValueError: A field is missing, of the wrong kind, or out of range.
    """
    plan = Plan(
        spatial_dims=int(data["spatial_dims"]),
        channels=int(data["channels"]),
        axes=tuple((float(a), float(b), float(c)) for a, b, c in data["axes"]),
        spacing_mm=tuple(float(v) for v in data["spacing_mm"]),
        patch_size=tuple(int(v) for v in data["patch_size"]),
        normalization=tuple(Normalization(**entry) for entry in data["normalization"]),
        labels={int(value): str(name) for value, name in data["labels"].items()},
        keep_largest=tuple(int(v) for v in data["keep_largest"]),
        median_shape=tuple(int(v) for v in data["median_shape"]),
        notes=tuple(str(note) for note in data["notes"]),
    )
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    dims = plan.spatial_dims
    lengths = [*plan.spacing_mm, *(number for row in plan.axes for number in row)]
    rules = {
        "spatial_dims": dims in (2, 3),
        "channels": 1 <= plan.channels <= MOST_CHANNELS and len(plan.normalization) == plan.channels,
        "spacing_mm": len(plan.spacing_mm) == dims
        and all(LEAST_SPACING_MM <= length <= 1000 for length in plan.spacing_mm),
        "patch_size": len(plan.patch_size) == dims
        and min(plan.patch_size) >= 1
        and math.prod(plan.patch_size) <= MOST_PATCH_VOXELS,
        "axes": all(map(math.isfinite, lengths)) and _at_right_angles(plan.axes),
        "keep_largest": set(plan.keep_largest) <= set(plan.labels),
        "labels": 1 <= len(plan.labels) <= MOST_LABELS and all(0 < value < 2**31 for value in plan.labels),
    }
    wrong = [name for name, right in rules.items() if not right]
    if wrong:
        raise ValueError(f"{wrong[0]} of the plan is out of range")


def _at_right_angles(axes: Sequence[Sequence[float]]) -> bool:
    columns = list(zip(*axes, strict=True))
    return len(columns) == 3 and all(
        abs(sum(a * b for a, b in zip(columns[i], columns[j], strict=True)) - (i == j)) < 0.01
        for i in range(3)
        for j in range(3)
    )
