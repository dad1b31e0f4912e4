"""Planning: support set -> plan, and volumes to the plan's grid and back."""

from medfewshot.planning.grid import (
    AxisMap,
    Planned,
    axis_maps,
    axis_weights,
    check_like_support,
    native_labels_to_plan,
    planned_order,
    sample_axis,
    to_plan,
)
from medfewshot.planning.label_names import label_values
from medfewshot.planning.make import labelled, make_plan
from medfewshot.planning.normalise import normalise
from medfewshot.planning.serialise import plan_from_dict, plan_to_dict
from medfewshot.planning.support import make_support

__all__ = [
    "AxisMap",
    "Planned",
    "axis_maps",
    "axis_weights",
    "check_like_support",
    "label_values",
    "labelled",
    "make_plan",
    "make_support",
    "native_labels_to_plan",
    "normalise",
    "plan_from_dict",
    "plan_to_dict",
    "planned_order",
    "sample_axis",
    "to_plan",
]
