"""Planned volume -> sliding window -> labels on the native grid, in bounded memory.

Probabilities, not labels, are brought back to the native grid, and only then compared (the arg max of interpolated
probabilities keeps edges smooth and values whole). That happens slab by slab along the longest planned axis, so the
largest array that grows with the number of classes is one slab, whatever the size of the scan.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from medfewshot.learners.base import Segmenter
from medfewshot.native import InferenceOptions, NativeWriter, Slab
from medfewshot.planning import labelled, to_plan
from medfewshot.types import WHOLE_VALUES, Doubt, Plan, Progress, Volume

SLAB_VALUES = 120_000_000
"""Planned probabilities (classes x voxels) brought back at once: 480 MB in float32, and the windows around them."""


@dataclass(frozen=True)
class Segmentation:
    """Labels ``(*S)`` on the native grid with the file's own label values, and what was asked for besides."""

    labels: np.ndarray
    probabilities: np.ndarray | None = None
    """``(N + 1, *S)`` float16, background first."""
    uncertainty: np.ndarray | None = None
    """``(*S)`` float32 in [0, 1]: entropy of the class probabilities over its maximum, log(N + 1)."""
    confidence: dict[int, float] = field(default_factory=dict)
    """Label value -> mean probability of the voxels given that label, those that ``keep_largest`` drops among them."""
    predicted_dice: dict[int, float] = field(default_factory=dict)
    """Label value -> the Dice that the probabilities expect: see :func:`medfewshot.quality.predicted_dice`."""
    voxels: dict[int, int] = field(default_factory=dict)
    """Label value -> voxels of the result, 0 where a structure was not found."""
    flags: tuple[str, ...] = ()
    """What sets the volume or its structures apart from the supports: reasons to look closely."""
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def segment_volume(
    volume: Volume,
    plan: Plan,
    segmenter: Segmenter,
    options: InferenceOptions | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Segment one image ``(C, *S)``. Raises InputError where the volume is not of the support's kind."""
    options, progress = options or InferenceOptions(), progress or Progress()
    begun = time.perf_counter()
    planned = to_plan(volume, plan)
    writer = NativeWriter(planned, plan, options)
    planning_seconds = time.perf_counter() - begun
    segmenter, fallen_back = _fitting(segmenter, planned.image, plan)
    predicting = 0.0
    doubts: Sequence[Doubt] = ()
    slabs = list(_slabs(planned.image.shape[1:], plan, segmenter, options.overlap))
    for number, slab in enumerate(slabs):
        started = time.perf_counter()
        try:
            probabilities, doubts = _predict_slab(planned.image, plan, segmenter, slab, options.overlap)
        except torch.OutOfMemoryError:
            segmenter = _on_cpu(segmenter)
            fallen_back.append("the device ran out of memory: segmented on the CPU")
            probabilities, doubts = _predict_slab(planned.image, plan, segmenter, slab, options.overlap)
        predicting += time.perf_counter() - started
        writer.write(probabilities, slab)
        progress.update(number + 1, len(slabs), "segment")
    labels, warnings = writer.finish()
    seconds = {
        "plan": round(planning_seconds, 3),
        "predict": round(predicting, 3),
        "restore": round(time.perf_counter() - begun - planning_seconds - predicting, 3),
    }
    return Segmentation(
        labels=labels,
        probabilities=writer.probabilities,
        uncertainty=writer.uncertainty,
        confidence=writer.confidence(),
        predicted_dice=writer.predicted_dice(segmenter.calibration),
        voxels=writer.voxels,
        flags=_as_flags(doubts, plan, writer.voxels),
        seconds=seconds,
        warnings=(*fallen_back, *warnings),
    )


def _as_flags(doubts: Sequence[Doubt], plan: Plan, voxels: Mapping[int, int]) -> tuple[str, ...]:
    """Of structures that were found; those that were not have a warning of their own."""
    told = [(plan.label_values[index - 1], why) for index, why in doubts]
    return tuple(f"{labelled(plan.labels[value], value)} is {why}" for value, why in told if voxels[value])


def _slabs(shape: Sequence[int], plan: Plan, segmenter: Segmenter, overlap: float) -> Iterator[Slab]:
    """Cut the planned volume along its longest axis; a segmenter that needs the whole field of view gets one slab.

    A slab reads every window of the uncut volume that reaches into it, and no other: the result does not depend on
    where the cuts are.
    """
    axis = int(np.argmax(shape))
    length = shape[axis]
    voxels = int(np.prod(shape))
    count = -(-voxels * plan.classes // SLAB_VALUES)
    if segmenter.whole_volume:
        count = 1
    thickness = -(-length // count)
    window = min(length, plan.patch_size[axis])
    interval = max(1, int(window * (1 - overlap)))
    windows = [*range(0, length - window, interval), length - window]  # where MONAI's sliding window starts them
    for start in range(0, length, thickness):
        stop = min(length, start + thickness)
        # Interpolation between stop - 1 and stop reads stop too.
        reached = [first for first in windows if first <= stop and first + window > start]
        yield Slab(axis, start, stop, reached[0], reached[-1] + window, stop == length)


def _fitting(segmenter: Segmenter, image: Tensor, plan: Plan) -> tuple[Segmenter, list[str]]:
    """The segmenter, or the part of it that goes in windows where the volume is too large to be held as a whole."""
    part = segmenter.windowed
    if part is None or image[0].numel() * plan.classes <= WHOLE_VALUES:
        return segmenter, []
    told = "the volume is too large to be matched to the supports in memory: segmented by the network alone"
    return part, [f"{told}; a coarser grid (--spacing, when adapting) would do"]


def _on_cpu(segmenter: Segmenter) -> Segmenter:
    """The same segmenter where memory is larger. Smaller windows would need less, but see less and answer otherwise."""
    if segmenter.device.type == "cpu":
        raise RuntimeError("out of memory, and there is no larger device to go to; crop or downsample the volume")
    if segmenter.device.type == "cuda":
        torch.cuda.empty_cache()
    return segmenter.copy_to(torch.device("cpu"))


@torch.no_grad()
def _predict_slab(
    image: Tensor, plan: Plan, segmenter: Segmenter, slab: Slab, overlap: float
) -> tuple[Tensor, Sequence[Doubt]]:
    """Probabilities ``(N + 1, *P)`` of the slab that is read, float32 on the CPU, and what the segmenter doubts."""
    from monai.inferers import sliding_window_inference

    window = image.narrow(slab.axis + 1, slab.low, slab.high - slab.low)[None]
    doubts: Sequence[Doubt] = ()
    if segmenter.whole_volume:
        logits, doubts = segmenter.examine(window)
    else:
        # The scan stays where memory is larger; a segmenter on a GPU takes windows there and hands logits back.
        logits = sliding_window_inference(
            window, plan.patch_size, 1, lambda part: segmenter(part).to(part.device), overlap=overlap,
            mode="gaussian", padding_mode="replicate", device=torch.device("cpu"),
        )  # fmt: skip
    assert isinstance(logits, Tensor)
    # In place, class volume by class volume: a second array of this size is what memory could not spare. What a
    # segmenter itself handed over may still be its own.
    values = logits[0].to("cpu", torch.float32, copy=segmenter.whole_volume)
    values -= values.amax(0, keepdim=True)
    values.exp_()
    total = values.sum(0, keepdim=True)
    if not torch.isfinite(total).all():
        raise RuntimeError("the segmenter gave NaN or infinite values; adapt again with another seed")
    return values.div_(total), doubts
