"""From a support to a plan, and from a volume to the plan's grid and exactly back."""

from medfewshot.planning.grid import AxisMap, Planned, axis_maps, native_labels_to_plan, sample_axis, to_plan
from medfewshot.planning.label_names import label_values
from medfewshot.planning.make import PlanOptions, labelled, make_plan
from medfewshot.planning.serialise import plan_from_dict, plan_to_dict

__all__ = [
    "AxisMap",
    "PlanOptions",
    "Planned",
    "axis_maps",
    "label_values",
    "labelled",
    "make_plan",
    "native_labels_to_plan",
    "plan_from_dict",
    "plan_to_dict",
    "sample_axis",
    "to_plan",
]
