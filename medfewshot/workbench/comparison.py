"""One example against another: what that predicts in its scan, and a picture of the slice where they differ most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medfewshot.datasets import IGNORE_VALUE, Dataset
from medfewshot.errors import InputError
from medfewshot.intensities import robust_window
from medfewshot.report.preview import card_jpeg
from medfewshot.structures import dice
from medfewshot.types import Volume
from medfewshot.workbench.check import checks
from medfewshot.workbench.learn import WITHOUT_WEIGHTS
from medfewshot.workbench.project import Project
from medfewshot.workflow import LabelledScans, adapt, read_supports


@dataclass(frozen=True)
class Comparison:
    """What another example predicts for one.

    Attributes:
        other: Name of the case that predicts.
        picture: A JPEG of one slice: the prediction in colours, the mask as a dashed white line.
        axis: File axis of the slice.
        index: Of the slice along ``axis``.
        dice: Mean over structures, in the annotated voxels.
    """

    other: str
    picture: bytes
    axis: int
    index: int
    dice: float


def by_registration(scans: LabelledScans, image: Volume) -> np.ndarray:
    """Labels ``(*S)`` of an image by registration of labelled scans."""
    return adapt(scans, WITHOUT_WEIGHTS, compare=False).segment(image).labels


def compare_example(
    project: Project, name: str, *, predict: Callable[[LabelledScans, Volume], np.ndarray] = by_registration
) -> Comparison:
    """Predict an example from the other one that agrees best with all; each more would cost seconds.

    Raises:
        InputError: The case is no example, there is no other example, or a scan cannot be read.
    """
    names = {one.value: one.name for one in project.structures}
    cases = {case.case_id: case for case in project.examples()}
    if name not in cases:
        raise InputError(f"{name}: is no labelled example", "draw in it first")
    agreement = {row["case"]: row["dice"] or 0 for row in checks(project)}
    others = [case for case in reversed(cases) if case != name]
    if not others:
        raise InputError("there is no other labelled example to compare with", "label a second scan")
    other = max(others, key=lambda case: agreement.get(case, 0))
    scans, own = (
        read_supports(Dataset(name, None, names, (cases[chosen],), ignore=IGNORE_VALUE)) for chosen in (other, name)
    )
    image, mask = own.images[0], own.labels[0].data[0]
    found = predict(scans, image)
    known = mask >= 0
    axis, index = worst_slice((found != mask) & known, image.affine, project.facts(name).axis)
    there = [slice(None)] * mask.ndim
    if mask.ndim == 3:
        there[axis] = slice(index, index + 1)
    values = [0, *names]
    predicted, drawn = (np.searchsorted(sorted(values), array[tuple(there)]) for array in (found, np.maximum(mask, 0)))
    window = robust_window(image.data[0])
    picture = card_jpeg(image.data[0][tuple(there)], [(predicted, drawn)], image.affine, window=window)
    scores = [dice((found == value) & known, mask == value) for value in names]
    return Comparison(other, picture, axis, index, float(np.nanmean(scores)))


def worst_slice(wrong: np.ndarray, affine: np.ndarray, axis: int | None) -> tuple[int, int]:
    """Find the slice with the most wrong voxels.

    Args:
        wrong: ``(*S)`` bool.
        affine: ``(4, 4)``, voxel -> RAS mm.
        axis: Of the slices; None for that with the coarsest voxels, the last one if they are cubes.

    Returns:
        Axis and index; ``(2, 0)`` for a 2D image.
    """
    if wrong.ndim == 2:
        return 2, 0
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axis = 2 - int(np.argmax(np.round(spacing, 3)[::-1])) if axis is None else axis
    count = wrong.sum(axis=tuple(one for one in range(3) if one != axis))
    return axis, int(count.argmax())
