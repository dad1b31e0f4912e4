"""Labelled volumes on the planned grid: the tensors that learners adapt to."""

from __future__ import annotations

from collections.abc import Sequence

from medfewshot.errors import InputError
from medfewshot.planning.grid import native_labels_to_plan, to_plan
from medfewshot.types import Plan, Support, Volume


def make_support(images: Sequence[Volume], labels: Sequence[Volume], plan: Plan) -> Support:
    """Bring every labelled volume to the planned grid.

    Args:
        images: K images ``(C, *S)``.
        labels: Their label maps ``(1, *S)``.
        plan: What the planned grid is.

    Raises:
        InputError: An image and its label are on different grids.
    """
    planned = [to_plan(image, plan).image for image in images]
    marked = [native_labels_to_plan(label, plan) for label in labels]
    for image, label, volume in zip(planned, marked, images, strict=True):
        if image.shape[1:] != label.shape:
            raise InputError(f"{volume.name}: the scan and its label do not fit, {image.shape[1:]} and {label.shape}")
    return Support(
        images=tuple(planned),
        labels=tuple(marked),
        classes=plan.classes,
        patch_size=plan.patch_size,
        spacing_mm=plan.spacing_mm,
    )
