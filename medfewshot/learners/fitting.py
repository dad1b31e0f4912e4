"""A start and a support: does one fit the other, and with which strides?"""

from __future__ import annotations

from typing import Any

from torch import nn

from medfewshot.backbones import UNet, choose_strides
from medfewshot.errors import InputError
from medfewshot.learners.patches import window_of
from medfewshot.types import Support


def check_kind(backbone: Any, support: Support, name: str) -> None:
    """Raises InputError where ``backbone`` was made for images of another kind than the supports. ``name``: learner."""
    made = backbone.config["dims"], backbone.config["in_channels"]
    given = support.spatial_dims, support.images[0].shape[0]
    if made != given:
        raise InputError(
            f"learner {name}: its weights are for {made[0]}D images of {made[1]} channel(s), the supports are "
            f"{given[0]}D with {given[1]}; choose other weights or leave them out"
        )


def fit_strides(backbone: nn.Module, support: Support) -> None:
    """Give an agnostic backbone, in place, the strides that its plan would choose; any other stays as it is."""
    if not isinstance(backbone, UNet) or not backbone.agnostic or backbone.config["classes"]:
        return
    spacing = support.spacing_mm or (1.0,) * support.spatial_dims
    strides = choose_strides(window_of(support), spacing, len(backbone.config["strides"]))
    if strides != backbone.config["strides"]:
        backbone.set_strides(strides)
