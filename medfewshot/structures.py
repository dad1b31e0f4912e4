"""Measurements of label maps: boxes, voxel counts, sizes, connected components, and the Dice of two masks.

Every room measures label maps with this module, so that two rooms never disagree about one structure. Voxels are
connected if they touch at a face, an edge or a corner: 26 neighbours in 3D, 8 in 2D.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medfewshot.errors import InputError
from medfewshot.types import IGNORED, Volume

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[slice, ...]
"""The smallest box around a structure: one slice per array axis."""

TINY_VOXELS = 27
"""A structure of this size (a cube of 3 voxels) or less can vanish in resampling."""

ONE_PIECE = 0.95
"""A structure is in one piece if its largest connected component has this share of it."""

# find_objects makes a list as long as the largest value; larger values are renumbered first.
_LARGEST_DIRECT_VALUE = 65535


@dataclass(frozen=True)
class Structure:
    """One structure of a label map. Each measurement is computed once, when it is first used.

    Attributes:
        value: Label value.
        box: Location of the structure in the label map.
        labels: The part of the label map inside ``box``, a view.
    """

    value: int
    box: Box
    labels: np.ndarray

    @cached_property
    def mask(self) -> np.ndarray:
        """Bool, in the shape of the box."""
        return np.asarray(self.labels == self.value)

    @cached_property
    def voxels(self) -> int:
        """Number of voxels."""
        return int(np.count_nonzero(self.mask))

    @property
    def extent(self) -> tuple[int, ...]:
        """Voxels along each edge of the box."""
        return self.mask.shape

    @cached_property
    def centroid(self) -> np.ndarray:
        """Mean voxel index in the whole label map, ``(D,)`` float64."""
        axes = range(self.mask.ndim)
        profiles = [np.count_nonzero(self.mask, axis=tuple(a for a in axes if a != axis)) for axis in axes]
        means = [float(profile @ np.arange(len(profile))) / self.voxels for profile in profiles]
        return np.array([side.start + mean for side, mean in zip(self.box, means, strict=True)])

    def centroid_mm(self, affine: np.ndarray) -> tuple[float, float, float]:
        """Return the centroid in RAS mm; ``affine`` is ``(4, 4)``, voxel index -> RAS mm."""
        x, y, z = affine[:3, : self.mask.ndim] @ self.centroid + affine[:3, 3]
        return float(x), float(y), float(z)

    @cached_property
    def components(self) -> np.ndarray:
        """Component of each voxel of the box: 0 outside the structure, then 1, 2, ..."""
        return np.asarray(ndimage.label(self.mask, np.ones((3,) * self.mask.ndim))[0])

    @cached_property
    def component_voxels(self) -> np.ndarray:
        """Voxels of components 1, 2, ..., in that order."""
        return np.bincount(self.components.ravel())[1:]

    @property
    def in_one_piece(self) -> bool:
        """Whether the largest component is almost the whole structure."""
        return bool(self.component_voxels.max() >= ONE_PIECE * self.voxels)


def structures(labels: np.ndarray) -> dict[int, Structure]:
    """Return each structure of a label map by its value, in ascending order; 0 is background.

    Args:
        labels: ``(*S)`` integers or booleans, or whole numbers stored as floats.

    Raises:
        InputError: A value is not a whole number.
    """
    labels = _whole_numbers(labels)
    return {value: Structure(value, box, labels[box]) for value, box in boxes(labels).items()}


def boxes(labels: np.ndarray) -> dict[int, Box]:
    """Return the box of each non-zero value of ``labels (*S)`` in ascending order, in one pass over the array.

    ``boxes(mask).get(1)`` is the box around a bool mask, None for an empty one.
    """
    labels = _whole_numbers(labels)
    if labels.size == 0:
        return {}
    if labels.min() < 0:  # not annotated: no structure
        labels = np.maximum(labels, 0)
    if labels.max() <= _LARGEST_DIRECT_VALUE:
        return {value: box for value, box in enumerate(ndimage.find_objects(labels), 1) if box is not None}
    values, renumbered = np.unique(labels, return_inverse=True)
    found = ndimage.find_objects(renumbered.reshape(labels.shape) + 1)
    return {int(value): box for value, box in zip(values, found, strict=True) if value != 0}


def mark_ignored(label: Volume, value: int | None) -> Volume:
    """Return ``label (1, *S)`` with :data:`~medfewshot.types.IGNORED` in place of ``value``; None changes nothing."""
    if value is None:
        return label
    data = label.data.astype(np.promote_types(label.data.dtype, np.int16))
    data[label.data == value] = IGNORED
    return replace(label, data=data, names={v: name for v, name in label.names.items() if v != value})


def keep_largest(labels: np.ndarray, values: Iterable[int]) -> None:
    """Set all but the largest component of each structure in ``values`` to background, in place.

    Args:
        labels: ``(*S)`` integers.
        values: Label values; those that do not occur are ignored.
    """
    found = structures(labels)
    for structure in (found[value] for value in values if value in found):
        sizes = structure.component_voxels
        if len(sizes) > 1:
            structure.labels[structure.mask & (structure.components != 1 + sizes.argmax())] = 0


def voxel_size(affine: np.ndarray, spatial_dims: int) -> float:
    """Return the volume of a voxel in mm³ (3D), or the area of a pixel in mm² (2D).

    Args:
        affine: ``(4, 4)``, voxel index -> RAS mm. Its axes may be oblique or sheared.
        spatial_dims: 2 or 3.
    """
    edges = np.asarray(affine, dtype=np.float64)[:3, :spatial_dims]
    return float(np.sqrt(np.linalg.det(edges.T @ edges)))


def dice(first: np.ndarray | Tensor, second: np.ndarray | Tensor) -> float:
    """Return the Dice coefficient ``2 |A and B| / (|A| + |B|)`` of two bool masks of one shape and device.

    Returns:
        0 if one mask is empty, NaN if both are.

    References:
        Dice 1945, "Measures of the amount of ecologic association between species".
    """
    total = _count(first) + _count(second)
    return 2 * _count(first & second) / total if total else float("nan")


def renumber(*arrays: np.ndarray) -> tuple[tuple[int, ...], tuple[np.ndarray, ...]]:
    """Renumber label maps with small consecutive ranks, which are quick to count and can index a table.

    Args:
        *arrays: Label maps of any integers, booleans, or whole numbers stored as floats.

    Returns:
        The values that occur in any array, 0 first and then ascending; and each array with every value replaced by
        its position among them, as uint8 if that is large enough.
    """
    found = [structures(array) for array in arrays]
    values = (0, *sorted({value for one in found for value in one}))
    ranks = tuple(np.zeros(array.shape, np.uint8 if len(values) <= 256 else np.uint32) for array in arrays)
    for one, renumbered in zip(found, ranks, strict=True):
        for value, structure in one.items():
            renumbered[structure.box][structure.mask] = values.index(value)
    return values, ranks


def union_box(first: Box | None, second: Box | None) -> Box | None:
    """Return the smallest box around two boxes; None stands for no voxels at all."""
    if first is None or second is None:
        return first or second
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def _whole_numbers(labels: np.ndarray) -> np.ndarray:
    if labels.dtype == bool:
        return labels.view(np.uint8)
    if labels.dtype.kind in "iu":
        return labels
    rounded = np.rint(labels)
    if not np.array_equal(rounded, labels):
        raise InputError("label values must be whole numbers")
    return rounded.astype(np.int64)


def _count(mask: np.ndarray | Tensor) -> int:
    return int(np.count_nonzero(mask)) if isinstance(mask, np.ndarray) else int(mask.count_nonzero())
