"""Convert a plan to plain JSON data and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medfewshot.io.geometry import SPACING_MM
from medfewshot.types import Plan

MAX_CHANNELS = 64
MAX_PATCH_VOXELS = 100_000_000
MAX_LABELS = 10_000

_PLAN = TypeAdapter(Plan)


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Return plain JSON data; keys are strings, so labels become ``{"205": "myocardium"}``."""
    by_value = {"labels": plan.labels, "ceilings": plan.ceilings}
    return asdict(plan) | {key: {str(value): x for value, x in found.items()} for key, found in by_value.items()}


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """Build a plan from plain data and check it, because a saved segmenter may come from an untrusted source.

    Raises:
        ValueError: A field is missing, of the wrong kind, or out of range.
    """
    try:
        plan = _PLAN.validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))} of the plan: {first['msg']}") from None
    dims, axes = plan.spatial_dims, np.array(plan.axes)
    rules = {
        "spatial_dims": dims in (2, 3),
        "channels": 1 <= plan.channels <= MAX_CHANNELS and len(plan.normalization) == plan.channels,
        "spacing_mm": len(plan.spacing_mm) == dims
        and all(SPACING_MM[0] <= length <= SPACING_MM[1] for length in plan.spacing_mm),
        "patch_size": len(plan.patch_size) == dims
        and min(plan.patch_size) >= 1
        and math.prod(plan.patch_size) <= MAX_PATCH_VOXELS,
        "axes": axes.shape == (3, 3) and np.allclose(axes.T @ axes, np.eye(3), rtol=0, atol=0.01),
        "keep_largest": set(plan.keep_largest) <= set(plan.labels),
        "ceilings": set(plan.ceilings) <= set(plan.labels) and all(0 <= dice <= 1 for dice in plan.ceilings.values()),
        "labels": 1 <= len(plan.labels) <= MAX_LABELS and all(0 < value < 2**31 for value in plan.labels),
    }
    wrong = [name for name, right in rules.items() if not right]
    if wrong:
        raise ValueError(f"{wrong[0]} of the plan is out of range")
    return plan
