"""Predict probabilities of a planned image slab by slab, with sliding windows or the whole volume at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medfewshot.errors import InputError
from medfewshot.learners.base import Segmenter
from medfewshot.types import MAX_WHOLE_VALUES, Plan, UncertainStructure


@dataclass(frozen=True)
class MemoryLimits:
    """Maximum numbers of probabilities (classes x voxels) in memory; the first two do not change any result.

    Attributes:
        slab_values: On the planned grid per slab: 480 MB in float32, plus the windows around them.
        original_values: On the original grid, while labels are written.
        whole_values: On the planned grid, for segmenters that need the whole volume.
    """

    slab_values: int = 120_000_000
    original_values: int = 60_000_000
    whole_values: int = MAX_WHOLE_VALUES


@dataclass(frozen=True)
class Slab:
    """Part of a planned volume along its longest axis.

    Attributes:
        axis: The axis that is cut.
        start: First planned index whose original voxels are written.
        stop: One more than the last one.
        low: First planned index that is read.
        high: One more than the last one.
        last: Whether it is the last slab.
    """

    axis: int
    start: int
    stop: int
    low: int
    high: int
    last: bool


def cut_slabs(
    shape: Sequence[int], plan: Plan, segmenter: Segmenter, *, overlap: float, limits: MemoryLimits
) -> Iterator[Slab]:
    """Cut the planned volume along its longest axis; a segmenter that needs the whole field of view gets one slab.

    A slab reads every window of the uncut volume that reaches into it, and no other: the result does not depend on
    where the cuts are.
    """
    axis = int(np.argmax(shape))
    length = shape[axis]
    count = 1 if segmenter.whole_volume else -(-int(np.prod(shape)) * plan.classes // limits.slab_values)
    thickness = -(-length // count)
    window = min(length, plan.patch_size[axis])
    interval = max(1, int(window * (1 - overlap)))
    windows = [*range(0, length - window, interval), length - window]  # where MONAI's sliding window starts them
    for start in range(0, length, thickness):
        stop = min(length, start + thickness)
        # Interpolation between stop - 1 and stop reads stop too.
        reached = [first for first in windows if first <= stop and first + window > start]
        yield Slab(axis, start, stop, reached[0], reached[-1] + window, stop == length)


@torch.no_grad()
def predict_slab(
    image: Tensor, plan: Plan, segmenter: Segmenter, slab: Slab, *, overlap: float
) -> tuple[Tensor, Sequence[UncertainStructure]]:
    """Return the probabilities ``(N + 1, *P)`` of the part of ``image (C, *P)`` that is read, and what is in doubt.

    Returns:
        Float32 on the CPU; and the class indices in doubt with the reasons.

    Raises:
        InputError: The segmenter has another number of classes than the plan.
        RuntimeError: The segmenter returned NaN or infinite values.
    """
    from monai.inferers import sliding_window_inference

    part = image.narrow(slab.axis + 1, slab.low, slab.high - slab.low)[None]
    uncertain: Sequence[UncertainStructure] = ()
    if segmenter.whole_volume:
        logits, uncertain = segmenter.examine(part, overlap=overlap)
    else:
        # The scan stays on the CPU, which has more memory; a segmenter on a GPU gets windows and returns logits.
        logits = sliding_window_inference(
            part, plan.patch_size, 1, lambda window: segmenter(window).to(window.device), overlap=overlap,
            mode="gaussian", padding_mode="replicate", device=torch.device("cpu"),
        )  # fmt: skip
    assert isinstance(logits, Tensor)
    if logits.shape[1] != plan.classes:
        raise InputError(f"the network has {logits.shape[1]} classes and the plan {plan.classes}, background included")
    # In place, because memory may not hold a second array of this size. Whole-volume logits are copied, because they
    # may still belong to the segmenter.
    values = logits[0].to("cpu", torch.float32, copy=segmenter.whole_volume)
    values -= values.amax(0, keepdim=True)
    values.exp_()
    total = values.sum(0, keepdim=True)
    if not torch.isfinite(total).all():
        raise RuntimeError("the segmenter gave NaN or infinite values; adapt again with another seed")
    return values.div_(total), uncertain


def fit_memory(segmenter: Segmenter, image: Tensor, plan: Plan, limits: MemoryLimits) -> tuple[Segmenter, list[str]]:
    """Return the segmenter, or its windowed part and a warning if the volume is too large to be held as a whole."""
    part = segmenter.windowed
    if part is None or image[0].numel() * plan.classes <= limits.whole_values:
        return segmenter, []
    problem = "the volume is too large to be matched to the supports in memory: segmented by the network alone"
    return part, [f"{problem}; adapt with a coarser grid (spacing_mm) to use the supports too"]


def copy_to_cpu(segmenter: Segmenter) -> Segmenter:
    """Return a copy on the CPU, which has more memory. Smaller windows would need less but change the result."""
    if segmenter.device.type == "cpu":
        raise RuntimeError("out of memory, and there is no larger device to go to; crop or downsample the volume")
    if segmenter.device.type == "cuda":
        torch.cuda.empty_cache()
    return segmenter.copy_to(torch.device("cpu"))
