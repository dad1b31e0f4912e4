"""Planning: derive the plan from a support set, and resample volumes to its grid and back."""

from medfewshot.planning.ceiling import ceilings
from medfewshot.planning.grid import (
    AxisMap,
    Planned,
    axis_weights,
    check_like_support,
    in_plan_dims,
    labels_to_plan,
    make_support,
    planned_order,
    sample_axis,
    to_original,
    to_plan,
)
from medfewshot.planning.labels import name_with_value, named_labels
from medfewshot.planning.normalise import normalise
from medfewshot.planning.plan import make_plan
from medfewshot.planning.serialise import plan_from_dict, plan_to_dict
from medfewshot.planning.voxel_for_voxel import voxel_for_voxel

__all__ = [
    "AxisMap", "Planned", "axis_weights", "ceilings", "in_plan_dims", "check_like_support",
    "name_with_value", "named_labels", "make_plan", "make_support", "labels_to_plan", "normalise", "plan_from_dict",
    "plan_to_dict", "planned_order", "sample_axis", "to_original", "to_plan", "voxel_for_voxel",
]  # fmt: skip
