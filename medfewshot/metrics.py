"""Overlap and surface metrics of one structure: ``(prediction (*S) bool, reference (*S) bool, spacing_mm) -> float``.

``*S`` is ``(X, Y)`` or ``(X, Y, Z)``; ``spacing_mm`` has one positive entry per axis. Every function raises
``InputError`` for masks that differ in shape, are not 2D or 3D, or hold fractions, and for a spacing that does not fit.

Empty masks, the same policy everywhere (``evaluation`` counts each kind in a column of its own):

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

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from medfewshot.errors import InputError
from medfewshot.structures import foreground_box

DEFAULT_TOLERANCE_MM = 2.0
"""Surface Dice forgives deviations up to this, about the slice thickness of a good CT; state it beside every value."""

# A tree query costs about five times as much per surface voxel as the distance transform per voxel of the box
# (measured), so the transform pays off only for surfaces that fill their box, as noise does. Organs are far below this.
_DENSE_SURFACE = 0.2


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from every surface voxel of one mask to the nearest surface voxel of the other.

    ``prediction_to_reference_mm (P,)`` and ``reference_to_prediction_mm (R,)`` are float32: a distance that equals the
    tolerance on paper, such as 3 x 0.7 = 2.1, then does so here too. They are inf where the other mask is empty.
    """

    prediction_to_reference_mm: np.ndarray
    reference_to_prediction_mm: np.ndarray

    @property
    def defined(self) -> bool:
        """True where both masks have a surface."""
        return self.prediction_to_reference_mm.size > 0 and self.reference_to_prediction_mm.size > 0

    @property
    def hd95_mm(self) -> float:
        """The larger of the two directed 95th percentiles (linear interpolation); NaN where a mask is empty."""
        if not self.defined:
            return float("nan")
        directed = (self.prediction_to_reference_mm, self.reference_to_prediction_mm)
        return max(_percentile(distances, 0.95) for distances in directed)

    @property
    def average_mm(self) -> float:
        """Mean of both directed sets pooled, so that the larger surface weighs more; NaN where a mask is empty."""
        return float(self._pooled().mean(dtype=np.float64)) if self.defined else float("nan")

    def surface_dice(self, tolerance_mm: float = DEFAULT_TOLERANCE_MM) -> float:
        """Share of the voxels of both surfaces within ``tolerance_mm`` of the other; NaN where both are empty."""
        if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
            raise InputError(f"the surface Dice tolerance must be a finite number of mm >= 0, got {tolerance_mm}")
        pooled = self._pooled()
        return float((pooled <= np.float32(tolerance_mm)).mean()) if pooled.size else float("nan")

    def _pooled(self) -> np.ndarray:
        return np.concatenate([self.prediction_to_reference_mm, self.reference_to_prediction_mm])


def dice(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """``2 |P and R| / (|P| + |R|)`` (Dice 1945): 0 for a miss or a false alarm, NaN where both masks are empty."""
    prediction, reference, _ = check_masks(prediction, reference, spacing_mm)
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 2.0 * np.count_nonzero(prediction & reference) / total if total else float("nan")


def hd95_mm(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """95th percentile Hausdorff distance in mm, symmetric; NaN where either mask is empty.

    Source: Huttenlocher et al. 1993; ``monai.metrics.compute_hausdorff_distance(percentile=95)``.
    """
    return surface_distances(prediction, reference, spacing_mm).hd95_mm


def average_surface_distance_mm(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Average symmetric surface distance in mm, over both directed sets pooled; NaN where either mask is empty.

    Source: Heimann et al. 2009 (ASSD); ``monai.metrics.compute_average_surface_distance(symmetric=True)``.
    """
    return surface_distances(prediction, reference, spacing_mm).average_mm


def surface_dice(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> float:
    """Normalised surface Dice at ``tolerance_mm``, in numbers of surface voxels: 0 for a miss or a false alarm.

    Source: Nikolov et al. 2018 (arXiv:1809.04430) in the voxel-count form of Seidlitz et al. 2022 (arXiv:2111.05408);
    ``monai.metrics.compute_surface_dice(use_subvoxels=False)``.
    """
    return surface_distances(prediction, reference, spacing_mm).surface_dice(tolerance_mm)


def relative_volume_difference(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """``(|P| - |R|) / |R|``: -1 for a miss, NaN where the reference is empty."""
    prediction, reference, _ = check_masks(prediction, reference, spacing_mm)
    size = np.count_nonzero(reference)
    return (np.count_nonzero(prediction) - size) / size if size else float("nan")


def volume_ml(mask: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Volume of ``mask (X, Y, Z)`` in millilitres. A 2D mask has an area and no volume: NaN."""
    mask, _, spacing = check_masks(mask, mask, spacing_mm)
    return np.count_nonzero(mask) * float(spacing.prod()) / 1000.0 if mask.ndim == 3 else float("nan")


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, Sequence[float]], float]] = {
    "dice": dice,
    "hd95_mm": hd95_mm,
    "asd_mm": average_surface_distance_mm,
    "surface_dice": surface_dice,
    "rvd": relative_volume_difference,
}
"""Column name -> metric. A new metric is one function and one line here; ``evaluation`` adds its column by itself."""


def surface_distances(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Both directed sets of surface distances, computed once for all the metrics that need them."""
    prediction, reference, spacing = check_masks(prediction, reference, spacing_mm)
    box = foreground_box(prediction | reference)
    if box is None:
        nothing = np.zeros(0, np.float32)
        return SurfaceDistances(nothing, nothing)
    predicted, true = surface(prediction[box]), surface(reference[box])
    return SurfaceDistances(_distances(predicted, true, spacing), _distances(true, predicted, spacing))


def surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of ``mask (*S)`` bool with a face neighbour outside it: ``mask ^ binary_erosion(mask)``, but faster."""
    padded = np.pad(mask, 1)
    interior = mask.copy()
    for axis, size in enumerate(mask.shape):
        for start in (0, 2):
            window = [slice(1, 1 + n) for n in mask.shape]
            window[axis] = slice(start, start + size)
            interior &= padded[tuple(window)]
    return mask & ~interior


def check_masks(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both masks as bool and the spacing ``(D,)`` as float64, or ``InputError`` where they do not fit together."""
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        raise InputError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    if reference.ndim not in (2, 3):
        raise InputError(f"metrics are defined for 2D and 3D masks, got shape {reference.shape}")
    spacing = check_spacing(spacing_mm, reference.ndim)
    return _as_bool(prediction, "prediction"), _as_bool(reference, "reference"), spacing


def check_spacing(spacing_mm: Sequence[float], spatial_dims: int) -> np.ndarray:
    """The spacing ``(D,)`` as float64; ``InputError`` unless it is ``spatial_dims`` positive finite numbers of mm."""
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (spatial_dims,):
        raise InputError(f"spacing_mm must have {spatial_dims} entries for a {spatial_dims}D mask, got {spacing_mm}")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"spacing_mm must be positive and finite, got {spacing_mm}")
    return spacing


def _as_bool(mask: np.ndarray, name: str) -> np.ndarray:
    if mask.dtype.kind not in "bui":
        raise InputError(f"the {name} mask has dtype {mask.dtype}: threshold it to bool first")
    return mask.astype(bool, copy=False)


def _percentile(values: np.ndarray, share: float) -> float:
    """Quantile of ``values (N,)`` float32, N > 0, linear between neighbours, its rank as ``torch.quantile`` rounds it.

    In float32 the rank is off by thousandths of a place for 50 000 values. That is harmless, but where neighbours lie a
    slice apart an exact rank differs from MONAI in the third decimal, and one case would have two HD95s.
    """
    rank = np.float32(share) * np.float32(values.size - 1)
    lower = int(rank)
    upper = min(lower + 1, values.size - 1)
    ordered = np.partition(values, (lower, upper)).astype(np.float64)
    return float(ordered[lower] + (float(rank) - lower) * (ordered[upper] - ordered[lower]))


def _distances(origin: np.ndarray, target: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Exact distance in mm of each origin voxel ``(N,)`` float32 to the nearest target voxel, inf if there is none."""
    count = np.count_nonzero(origin)
    if count == 0 or not target.any():
        return np.full(count, np.inf, np.float32)
    if count > _DENSE_SURFACE * origin.size:
        return ndimage.distance_transform_edt(~target, sampling=spacing)[origin].astype(np.float32)
    distances = np.zeros(count, np.float32)
    apart = ~target[origin]  # where the surfaces coincide the distance is 0 without a search
    if apart.any():
        # Each tree answers one batch of queries: a plain one is built in half the time and is no slower to search.
        tree = cKDTree(np.argwhere(target) * spacing, leafsize=32, balanced_tree=False, compact_nodes=False)
        distances[apart] = tree.query(np.argwhere(origin & ~target) * spacing)[0]
    return distances
