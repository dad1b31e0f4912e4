"""A plan as plain JSON data, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from medfewshot.types import Normalization, Plan


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """Only numbers, strings, lists and dicts; JSON keys are strings, so labels become ``{"205": "myocardium"}``."""
    data = asdict(plan)
    data["labels"] = {str(value): name for value, name in plan.labels.items()}
    return data


def plan_from_dict(data: Mapping[str, Any]) -> Plan:
    """Raises KeyError, TypeError or ValueError where a field is missing or of the wrong kind."""
    return Plan(
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
