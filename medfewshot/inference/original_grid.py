"""Turn slabs of probabilities into labels on the original grid, with mean probability and predicted Dice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medfewshot.inference.windows import MemoryLimits, Slab
from medfewshot.planning import AxisMap, Planned, axis_weights, sample_axis
from medfewshot.quality import predicted_dice
from medfewshot.settings import InferenceSettings
from medfewshot.structures import boxes, keep_largest
from medfewshot.types import Plan

FOREGROUND_FLOOR = 0.02
"""Nothing is interpolated if no structure reaches this probability."""


class OriginalGridWriter:
    """Interpolates slabs of probabilities to the original grid and stores labels and the requested maps.

    Attributes:
        labels: ``(*S)`` class indices.
        probabilities: ``(N + 1, *S)`` float16, or None.
        uncertainty: ``(*S)`` float32, or None.
    """

    def __init__(self, planned: Planned, plan: Plan, settings: InferenceSettings, limits: MemoryLimits) -> None:
        self.planned, self.plan, self.settings, self.limits = planned, plan, settings, limits
        shape = planned.original_shape
        self._original_sizes = [shape[axis_map.original_axis] for axis_map in planned.maps]
        self.labels = np.zeros(shape, dtype=np.uint8 if plan.classes <= 256 else np.uint16)
        self.probabilities = None
        if settings.probabilities:
            self.probabilities = np.zeros((plan.classes, *shape), dtype=np.float16)
            self.probabilities[0] = 1
        self.uncertainty = np.zeros(shape, dtype=np.float32) if settings.uncertainty else None
        # Float64, so that cutting into slabs does not change the four decimals that are returned.
        self._sums, self._counts, self._totals = (np.zeros(plan.classes) for _ in range(3))

    def write(self, probabilities: Tensor, slab: Slab) -> None:
        """Write the original voxels whose planned coordinate falls in ``[slab.start, slab.stop)``."""
        self._add_totals(probabilities, slab)
        start, stop = _original_range(self.planned.maps[slab.axis], slab, self._original_sizes[slab.axis])
        if stop <= start:
            return
        box = self._foreground_box(probabilities, slab)
        if box is None:
            return
        per_index = self.plan.classes * int(np.prod([b - a for axis, (a, b) in enumerate(box) if axis != slab.axis]))
        step = max(1, self.limits.original_values // max(1, per_index))
        for first in range(start, stop, step):
            ranges = list(box)
            ranges[slab.axis] = (first, min(stop, first + step))
            self._write_box(probabilities, slab, ranges)

    def _add_totals(self, probabilities: Tensor, slab: Slab) -> None:
        """Add up each class over all original voxels of the slab, without interpolating them."""
        sizes = self.planned.image.shape[1:]
        weights = [
            torch.from_numpy(axis_weights(axis_map, original_size, size))
            for axis_map, original_size, size in zip(self.planned.maps, self._original_sizes, sizes, strict=True)
        ]
        for index in range(slab.start, slab.stop):
            values = probabilities.select(slab.axis + 1, index - slab.low).double()
            for axis in reversed([axis for axis in range(len(sizes)) if axis != slab.axis]):
                values = values @ weights[axis]
            self._totals += (values * weights[slab.axis][index]).numpy()

    def _foreground_box(self, probabilities: Tensor, slab: Slab) -> list[tuple[int, int]] | None:
        """Return the original range per planned axis that can contain foreground; everything if maps are requested."""
        if self.settings.probabilities or self.settings.uncertainty:
            return [(0, size) for size in self._original_sizes]
        found = boxes((probabilities[0] < 1 - FOREGROUND_FLOOR).numpy()).get(1)
        if found is None:
            return None
        box = []
        for axis, (axis_map, size, side) in enumerate(zip(self.planned.maps, self._original_sizes, found, strict=True)):
            edges = np.array([side.start - 1, side.stop]) + (slab.low if axis == slab.axis else 0)
            low, high = sorted((edges - axis_map.offset) / axis_map.step)
            box.append((max(0, int(np.floor(low))), min(size, int(np.ceil(high)) + 1)))
        return box

    def _write_box(self, probabilities: Tensor, slab: Slab, ranges: Sequence[tuple[int, int]]) -> None:
        values = probabilities
        # The slab axis first, because it drops most values.
        axes = [slab.axis, *[axis for axis in range(values.ndim - 1) if axis != slab.axis]]
        for axis in axes:
            at = self.planned.maps[axis].coordinates(*ranges[axis]) - (slab.low if axis == slab.axis else 0)
            values = sample_axis(values, at, axis + 1)
        back = np.argsort([axis_map.original_axis for axis_map in self.planned.maps]).tolist()
        values = values.permute(0, *[axis + 1 for axis in back])
        where = tuple(slice(*ranges[axis]) for axis in back)
        best, index = values.max(0)
        chosen = index.numpy().astype(self.labels.dtype)
        self.labels[where] = chosen
        self._counts += np.bincount(chosen.ravel(), minlength=self.plan.classes)
        self._sums += np.bincount(chosen.ravel(), best.numpy().ravel(), self.plan.classes)
        if self.probabilities is not None:
            self.probabilities[(slice(None), *where)] = values.numpy().astype(np.float16)
        if self.uncertainty is not None:
            entropy = -torch.special.xlogy(values, values).sum(0) / float(np.log(self.plan.classes))
            self.uncertainty[where] = entropy.clamp(0, 1).numpy()

    def finish(self) -> tuple[np.ndarray, dict[int, int]]:
        """Remove stray components if asked to, and return the result.

        Returns:
            Labels ``(*S)`` with the file's own values, and label value -> voxels.
        """
        if self.settings.keep_largest:
            keep_largest(self.labels, [self.plan.label_values.index(value) + 1 for value in self.plan.keep_largest])
        counts = np.bincount(self.labels.ravel(), minlength=self.plan.classes)[1:].tolist()
        table = np.array([0, *self.plan.label_values])
        smallest = next(dtype for dtype in (np.uint8, np.uint16, np.int32) if table.max() <= np.iinfo(dtype).max)
        return table.astype(smallest)[self.labels], dict(zip(self.plan.label_values, counts, strict=True))

    def confidence(self) -> dict[int, float]:
        """Return label value -> mean probability of the voxels with this label."""
        return {
            value: round(float(self._sums[index] / self._counts[index]), 4)
            for index, value in enumerate(self.plan.label_values, start=1)
            if self._counts[index]
        }

    def predicted_dice(self, calibration: float | None) -> dict[int, float]:
        """Return label value -> predicted Dice, see :func:`medfewshot.quality.predicted_dice`."""
        sums = zip(self._sums[1:], self._counts[1:], self._totals[1:], strict=True)
        found = [predicted_dice(*one, calibration) for one in sums]
        return {value: round(d, 4) for value, d in zip(self.plan.label_values, found, strict=True) if d is not None}


def _original_range(axis_map: AxisMap, slab: Slab, size: int) -> tuple[int, int]:
    """Return the range of original indices in the slab.

    The first and last slab include what is beyond the planned grid.
    """
    at = axis_map.coordinates(0, size)
    where = np.flatnonzero(((at >= slab.start) | (slab.start == 0)) & ((at < slab.stop) | slab.last))
    return (int(where[0]), int(where[-1]) + 1) if len(where) else (0, 0)
