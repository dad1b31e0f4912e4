"""Segment one volume: plan, predict and restore."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from medfewshot.inference.original_grid import OriginalGridWriter
from medfewshot.inference.tracking import LabelTracker
from medfewshot.inference.windows import MemoryLimits, copy_to_cpu, cut_slabs, fit_memory, predict_slab
from medfewshot.learners.base import Segmenter
from medfewshot.planning import name_with_value, to_plan
from medfewshot.quality import reasons_to_review
from medfewshot.settings import InferenceSettings
from medfewshot.types import Plan, Progress, UncertainStructure, Volume


@dataclass(frozen=True)
class Segmentation:
    """Result of :func:`segment_volume`.

    Attributes:
        labels: ``(*S)`` on the original grid, with the file's own label values.
        probabilities: ``(N + 1, *S)`` float16, background first, if asked for.
        uncertainty: ``(*S)`` float32 in [0, 1], if asked for: entropy of the class probabilities over its maximum.
        confidence: Label value -> mean probability of the voxels with that label, before ``keep_largest``.
        predicted_dice: Label value -> expected Dice; see :func:`medfewshot.quality.predicted_dice`.
        voxels: Label value -> number of voxels, 0 if the structure was not found.
        flags: Reasons to look closely: differences between the volume or its structures and the supports.
        doubted: Label values of found structures that the segmenter doubts.
        review: Label value of each structure to review -> one reason in at most six words.
        seconds: Stage -> seconds.
        warnings: One line each.
    """

    labels: np.ndarray
    probabilities: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    confidence: dict[int, float] = field(default_factory=dict)
    predicted_dice: dict[int, float] = field(default_factory=dict)
    voxels: dict[int, int] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    doubted: tuple[int, ...] = ()
    review: dict[int, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def segment_volume(
    volume: Volume,
    plan: Plan,
    segmenter: Segmenter,
    settings: InferenceSettings | None = None,
    *,
    progress: Progress | None = None,
    limits: MemoryLimits | None = None,
    tracker: LabelTracker | None = None,
) -> Segmentation:
    """Segment one image.

    Args:
        volume: Image ``(C, *S)``; for a 2D plan, also a volume of one slice.
        plan: Plan of the support.
        segmenter: Adapted to that support.
        settings: What to return.
        progress: Receives one event per slab; may cancel.
        limits: How much memory to use.
        tracker: Labels of another frame of the same film, which vote here too. They then replace the votes of the
            supports, if the segmenter has a part without them.

    Returns:
        Labels on the original grid, the requested maps, and what is known about them.

    Raises:
        InputError: The volume has other axes or channels than the support.
        RuntimeError: The segmenter returned NaN, or no device has enough memory.
    """
    settings, progress, limits = settings or InferenceSettings(), progress or Progress(), limits or MemoryLimits()
    begun = time.perf_counter()
    planned = to_plan(volume, plan)
    writer = OriginalGridWriter(planned, plan, settings, limits)
    planning_seconds = time.perf_counter() - begun
    segmenter = segmenter if tracker is None else segmenter.windowed or segmenter
    segmenter, warnings = fit_memory(segmenter, planned.image, plan, limits)
    predicting = 0.0
    uncertain: Sequence[UncertainStructure] = ()
    slabs = list(cut_slabs(planned.image.shape[1:], plan, segmenter, overlap=settings.overlap, limits=limits))
    for number, slab in enumerate(slabs):
        started = time.perf_counter()
        try:
            probabilities, uncertain = predict_slab(planned.image, plan, segmenter, slab, overlap=settings.overlap)
        except torch.OutOfMemoryError:
            segmenter = copy_to_cpu(segmenter)
            warnings.append("the device ran out of memory: segmented on the CPU; the result is as good, only slower")
            probabilities, uncertain = predict_slab(planned.image, plan, segmenter, slab, overlap=settings.overlap)
        if tracker is not None and len(slabs) == 1:
            probabilities = tracker.fuse(planned.image, probabilities)
        predicting += time.perf_counter() - started
        writer.write(probabilities, slab)
        progress.update(number + 1, len(slabs), volume.name)
    if tracker is not None and len(slabs) > 1:
        warnings.append("the frames are too large in memory for the labels of other frames to help")
    labels, voxels = writer.finish()
    seconds = {
        "plan": round(planning_seconds, 3),
        "predict": round(predicting, 3),
        "restore": round(time.perf_counter() - begun - planning_seconds - predicting, 3),
    }
    names = {value: name_with_value(name, value) for value, name in plan.labels.items()}
    warnings += [
        f"{names[value]} was not found; check whether the scan shows it" for value, count in voxels.items() if not count
    ]
    reasons = {plan.label_values[index - 1]: reason for index, reason in uncertain}
    unsure = {value: reason for value, reason in reasons.items() if voxels[value]}
    predicted = writer.predicted_dice(segmenter.calibration)
    shape = volume.slice_of or volume.spatial_shape
    return Segmentation(
        labels=labels.reshape(shape),
        probabilities=None if writer.probabilities is None else writer.probabilities.reshape(-1, *shape),
        uncertainty=None if writer.uncertainty is None else writer.uncertainty.reshape(shape),
        confidence=writer.confidence(), predicted_dice=predicted, voxels=voxels, doubted=tuple(unsure),
        flags=tuple(f"{names[value]} is {reason}" for value, reason in unsure.items()),
        review=reasons_to_review(voxels, predicted, unsure), seconds=seconds, warnings=tuple(warnings),
    )  # fmt: skip
