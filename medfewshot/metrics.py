"""Metrics that compare the predicted mask of one structure with its reference; one row of ``METRICS`` each.

Empty masks have the same policy everywhere (``evaluation`` counts each kind in a column of its own):

====================  ==================  ===================  ====================
reference             prediction          Dice, surface Dice   HD95, ASD
====================  ==================  ===================  ====================
present               present             as defined           as defined
present               empty (missed)      0                    NaN (undefined)
empty                 present (alarm)     0                    NaN (undefined)
empty                 empty (absent)      NaN (not counted)    NaN (undefined)
====================  ==================  ===================  ====================

A surface is the set of mask voxels with a face neighbour outside the mask; outside the image counts as outside the
mask, so a structure cut by the image border has a surface there. Distances run between voxel centres. These are the
definitions of MONAI 1.6 ``monai.metrics`` (without subvoxels), and the values agree with it to 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from medfewshot import structures
from medfewshot.errors import InputError
from medfewshot.structures import Box, boxes

DEFAULT_TOLERANCE_MM = 2.0
"""Tolerance of the surface Dice, about the slice thickness of a good CT; state it beside every value."""

# Above this share of surface voxels in the box, a distance transform is faster than a tree query; organs are below it.
DENSE_SURFACE = 0.2


class MaskPair:
    """Predicted and reference mask of one structure, with the measurements that several metrics share.

    Args:
        prediction: Label map ``(*S)``, or a bool mask.
        reference: Label map ``(*S)``, or a bool mask.
        spacing_mm: ``(D,)``, positive.
        value: Label value of the structure.
        box: Box around the structure in both maps, if it is known.
        tolerance_mm: Tolerance of the surface Dice.
    """

    def __init__(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing_mm: Sequence[float],
        *,
        value: int = 1,
        box: Box | None = None,
        tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    ) -> None:
        self._maps, self._value, self._box = (prediction, reference), value, box
        self.spacing_mm, self.tolerance_mm = spacing_mm, tolerance_mm

    @cached_property
    def prediction(self) -> np.ndarray:
        """The whole predicted mask ``(*S)``, for metrics that depend on the field of view, such as a specificity."""
        return self._maps[0] == self._value

    @cached_property
    def reference(self) -> np.ndarray:
        """The whole reference mask ``(*S)``."""
        return self._maps[1] == self._value

    @cached_property
    def inside(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and reference within their common box; the whole masks if both are empty."""
        box = self._box or boxes(self.prediction | self.reference).get(1, ())
        return self._maps[0][box] == self._value, self._maps[1][box] == self._value

    @cached_property
    def distances_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """From every surface voxel of the prediction to the nearest of the reference, and back, in mm."""
        predicted, true = (surface(mask) for mask in self.inside)
        return nearest_mm(predicted, true, self.spacing_mm), nearest_mm(true, predicted, self.spacing_mm)

    @property
    def both_present(self) -> bool:
        """Whether neither mask is empty, so that distances between their surfaces are defined."""
        return all(distances.size for distances in self.distances_mm)


@dataclass(frozen=True)
class Metric:
    """One metric: a row of :data:`METRICS`. Tables, CSV files, summaries and reports make their columns from it.

    Attributes:
        name: Column in ``scores.csv``; the summary's column is ``<name>_mean``.
        title: Heading in tables for people.
        function: ``MaskPair`` -> value; NaN if the metric is undefined.
        meaning: One sentence for ``summary.json``; ``{tolerance_mm}`` is replaced.
        unit: ``"mm"``, or "" for a plain number.
        needs_distances: Whether the value depends on the voxel size, so that it means nothing if that is unknown.
        better: Whether higher or lower values are better, or those near zero.
        headline: Whether short tables (terminal, report, benchmark) show it.
        digits: Decimals in tables.
    """

    name: str
    title: str
    function: Callable[[MaskPair], float]
    meaning: str
    unit: Literal["", "mm"] = ""
    needs_distances: bool = False
    better: Literal["higher", "lower", "zero"] = "higher"
    headline: bool = False
    digits: int = 3

    def __call__(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing_mm: Sequence[float],
        *,
        tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    ) -> float:
        """Compute the metric of two masks ``(*S)`` of bool or integers (all but 0 is the structure), 2D or 3D.

        Raises:
            InputError: The masks differ in shape, are not 2D or 3D or hold fractions, or the spacing does not fit.
        """
        predicted, true = (m.astype(bool) for m in check_label_maps(prediction, reference, spacing_mm))
        return self.function(MaskPair(predicted, true, spacing_mm, tolerance_mm=tolerance_mm))


def dice(pair: MaskPair) -> float:
    """Return the Dice coefficient; see :func:`medfewshot.structures.dice`."""
    return structures.dice(*pair.inside)


def hd95_mm(pair: MaskPair) -> float:
    """Return the 95th percentile Hausdorff distance: the larger of the two directed percentiles.

    References:
        Huttenlocher et al. 1993; ``monai.metrics.compute_hausdorff_distance(percentile=95)``.
    """
    return max(percentile(distances, 0.95) for distances in pair.distances_mm) if pair.both_present else float("nan")


def average_surface_distance_mm(pair: MaskPair) -> float:
    """Return the average symmetric surface distance: both directed sets pooled, so the larger surface weighs more.

    References:
        Heimann et al. 2009 (ASSD); ``monai.metrics.compute_average_surface_distance(symmetric=True)``.
    """
    pooled = np.concatenate(pair.distances_mm)
    return float(pooled.mean(dtype=np.float64)) if pair.both_present else float("nan")


def surface_dice(pair: MaskPair) -> float:
    """Return the share of the voxels of both surfaces within the tolerance of the other surface.

    References:
        Nikolov et al. 2018 (arXiv:1809.04430) in the voxel-count form of Seidlitz et al. 2022 (arXiv:2111.05408);
        ``monai.metrics.compute_surface_dice(use_subvoxels=False)``.
    """
    tolerance, pooled = pair.tolerance_mm, np.concatenate(pair.distances_mm)
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"the surface Dice tolerance must be a finite number of mm >= 0, got {tolerance}")
    return float((pooled <= np.float32(tolerance)).mean()) if pooled.size else float("nan")


def relative_volume_difference(pair: MaskPair) -> float:
    """Return ``(|P| - |R|) / |R|``: -1 for a miss, NaN if the reference is empty."""
    predicted, true = (np.count_nonzero(mask) for mask in pair.inside)
    return (predicted - true) / true if true else float("nan")


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", dice, "2 overlap / (prediction + reference)", headline=True),
        Metric(
            "hd95_mm", "HD95", hd95_mm, "the larger of the two directed 95th percentiles of the surface distances",
            unit="mm", needs_distances=True, better="lower", headline=True, digits=1,
        ),
        Metric(
            "asd_mm", "ASD", average_surface_distance_mm,
            "average symmetric surface distance, both directed sets pooled",
            unit="mm", needs_distances=True, better="lower", digits=1,
        ),
        Metric(
            "surface_dice", "surface Dice", surface_dice,
            "share of surface voxels within {tolerance_mm:g} mm of the other surface",
            needs_distances=True, headline=True,
        ),
        Metric(
            "rvd", "volume difference", relative_volume_difference,
            "(prediction - reference) / reference volume, where the reference has the structure", better="zero",
        ),
    )
}  # fmt: skip
"""Column name -> metric. To add one, write a function and a row; every table gets its column."""
HEADLINES = [metric for metric in METRICS.values() if metric.headline]
"""The metrics of short tables, Dice first."""


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of ``mask (*S)`` with a face neighbour outside it."""
    return mask ^ ndimage.binary_erosion(mask)


def nearest_mm(
    origin: np.ndarray, target: np.ndarray, spacing_mm: Sequence[float], *, dense: float = DENSE_SURFACE
) -> np.ndarray:
    """Compute the exact distance from every voxel of one surface to the nearest voxel of another.

    Args:
        origin: Bool mask of N surface voxels.
        target: Bool mask of the same shape.
        spacing_mm: ``(D,)``.
        dense: Share of surface voxels above which the distance transform is used, not the search tree.

    Returns:
        ``(N,)`` in mm; inf if ``target`` is empty. It is float32, so that a distance that equals the tolerance on
        paper, such as 3 x 0.7 = 2.1, does so here too.
    """
    count = np.count_nonzero(origin)
    if count == 0 or not target.any():
        return np.full(count, np.inf, np.float32)
    if count > dense * origin.size:
        return ndimage.distance_transform_edt(~target, sampling=spacing_mm)[origin].astype(np.float32)
    distances = np.zeros(count, np.float32)
    apart = ~target[origin]  # where the surfaces coincide the distance is 0 without a search
    if apart.any():
        # Each tree answers one batch of queries: a plain one is built in half the time and is no slower to search.
        spacing = np.asarray(spacing_mm, dtype=np.float64)
        tree = cKDTree(np.argwhere(target) * spacing, leafsize=32, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(np.argwhere(origin & ~target) * spacing)[0]
    return distances


def check_label_maps(prediction: Any, reference: Any, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return two label maps ``(*S)`` as arrays, or raise InputError if they or the spacing do not fit together."""
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        raise InputError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    if reference.ndim not in (2, 3):
        raise InputError(f"metrics are defined in 2D and 3D, got shape {reference.shape}")
    for name, labels in (("prediction", prediction), ("reference", reference)):
        if labels.dtype.kind not in "bui":
            raise InputError(f"the {name} has dtype {labels.dtype}", "give integers with 0 as background, or a mask")
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (reference.ndim,):
        raise InputError(f"spacing_mm must have {reference.ndim} entries in {reference.ndim}D, got {spacing_mm}")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"spacing_mm must be positive and finite, got {spacing_mm}")
    return prediction, reference


def percentile(values: np.ndarray, share: float) -> float:
    """Return a quantile of ``values (N,)`` float32, N > 0, linear between neighbours, as ``torch.quantile`` rounds it.

    In float32 the rank is off by thousandths of a place for 50 000 values. That is harmless, but if neighbours lie a
    slice apart an exact rank differs from MONAI in the third decimal, and one case would have two HD95s.
    """
    rank = np.float32(share) * np.float32(values.size - 1)
    lower = int(rank)
    upper = min(lower + 1, values.size - 1)
    ordered = np.partition(values, (lower, upper)).astype(np.float64)
    return float(ordered[lower] + (float(rank) - lower) * (ordered[upper] - ordered[lower]))
