"""Drawing tools that need more than one slice: fill between slices, grow from marks, click to segment, Otsu.

All arrays are on the RAS axes of the page. Labels are uint8; :data:`OUTSIDE` marks background by hand.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from medfewshot.errors import InputError

OUTSIDE = 255
"""A mark of the user that says "no structure here". It guides :func:`grow` and is never saved."""
MOST_GROWN = 2_000_000
"""Voxels that :func:`grow` handles in a few seconds."""


def fill_between(labels: np.ndarray, *, value: int, plane: int) -> np.ndarray:
    """Fill a structure between the slices in which it is drawn, by interpolating signed distances.

    Args:
        labels: ``(X, Y, Z)`` uint8.
        value: The structure.
        plane: Axis across the slices.

    Returns:
        A copy with the structure filled in. Voxels of other structures stay.

    Raises:
        InputError: Fewer than two slices contain the structure.

    References:
        Raya and Udupa, Shape-based interpolation of multidimensional objects, IEEE TMI 1990.
    """
    from scipy.ndimage import distance_transform_edt

    def inside_mm(mask: np.ndarray) -> np.ndarray:
        return distance_transform_edt(mask) - distance_transform_edt(~mask)

    stack = np.moveaxis(labels, plane, 0)
    drawn = np.flatnonzero((stack == value).any(axis=(1, 2)))
    if len(drawn) < 2:
        raise InputError("fill between slices needs two drawn slices", "draw this structure in a second slice")
    filled = labels.copy()
    out = np.moveaxis(filled, plane, 0)
    distances = {int(index): inside_mm(stack[index] == value) for index in drawn}
    for first, last in pairwise(distances):
        for index in range(first + 1, last):
            share = (index - first) / (last - first)
            inside = (1 - share) * distances[first] + share * distances[last] > 0
            out[index][inside & (out[index] == 0)] = value
    return filled


def grow(image: np.ndarray, labels: np.ndarray, *, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Grow all marks until they meet: every voxel takes the mark that it reaches over the smallest intensity steps.

    Args:
        image: ``(X, Y, Z)``.
        labels: ``(X, Y, Z)`` uint8 with marks of at least two kinds; :data:`OUTSIDE` marks background.
        spacing_mm: Voxel edges.

    Returns:
        uint8 labels without :data:`OUTSIDE`.

    Raises:
        InputError: Only one kind of mark, or too large a region.

    References:
        Zhu et al., An effective interactive medical image segmentation method using fast GrowCut, MICCAI 2014 workshop
        on interactive medical image computing.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    if len(np.unique(labels[labels > 0])) < 2:
        raise InputError("growing needs marks inside and outside", "mark the background with the outside pen (key q)")
    if labels.size > MOST_GROWN:
        raise InputError(
            f"growing handles up to {MOST_GROWN} voxels and the marks span {labels.size}",
            "mark the background closer to the structure",
        )
    numbers = np.arange(labels.size).reshape(labels.shape)
    scale = float(np.percentile(image, 95) - np.percentile(image, 5)) or 1.0
    rows, columns, costs = [], [], []
    for axis, step in enumerate(spacing_mm):
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        rows.append(numbers[tuple(low)].ravel())
        columns.append(numbers[tuple(high)].ravel())
        jump = np.abs(np.diff(image.astype(np.float32), axis=axis)).ravel() / scale
        costs.append(jump + 1e-3 * step / min(spacing_mm))
    edges = coo_array(
        (np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), shape=(labels.size,) * 2
    )
    _, _, sources = dijkstra(
        edges.tocsr(), directed=False, indices=np.flatnonzero(labels), min_only=True, return_predecessors=True
    )
    grown = labels.ravel()[np.maximum(sources, 0)].reshape(labels.shape)
    return np.where(grown == OUTSIDE, 0, grown).astype(np.uint8)


def click(
    image: np.ndarray,
    seed: tuple[int, int, int],
    *,
    low: float,
    high: float,
    reach_mm: float,
    spacing_mm: tuple[float, float, float],
    plane: int | None = None,
) -> np.ndarray:
    """Find the connected voxels around a click whose intensity is between two thresholds.

    Args:
        image: ``(X, Y, Z)``.
        seed: The clicked voxel.
        low: Lowest intensity that belongs to the region.
        high: Highest intensity that belongs to the region.
        reach_mm: Largest distance from the click.
        spacing_mm: Voxel edges.
        plane: Stay in the slice across this axis; None grows in 3D.

    Returns:
        ``(X, Y, Z)`` bool.

    Raises:
        InputError: The clicked voxel itself is outside the thresholds.
    """
    from scipy.ndimage import label

    box = [
        slice(max(0, at - (n := 0 if axis == plane else int(reach_mm / step))), at + n + 1)
        for axis, (at, step) in enumerate(zip(seed, spacing_mm, strict=True))
    ]
    part = image[tuple(box)]
    grid = np.ogrid[tuple(slice(0, n) for n in part.shape)]
    offsets = [
        (axis + edge.start - at) * step for axis, edge, at, step in zip(grid, box, seed, spacing_mm, strict=True)
    ]
    inside = (part >= low) & (part <= high) & (sum(offset**2 for offset in offsets) <= reach_mm**2)
    at = tuple(position - edge.start for position, edge in zip(seed, box, strict=True))
    parts, _ = label(inside)
    if not parts[at]:
        raise InputError("the clicked voxel is outside the intensity range", "click a brighter or darker place")
    found = np.zeros(image.shape, bool)
    found[tuple(box)] = parts == parts[at]
    return found


def similar_range(image: np.ndarray, seed: tuple[int, int, int]) -> tuple[float, float]:
    """Estimate intensities like those around a click: median and 3 standard deviations of 5 x 5 x 5 voxels."""
    around = image[tuple(slice(max(0, at - 2), at + 3) for at in seed)].astype(np.float64)
    middle, spread = float(np.median(around)), 3 * float(around.std())
    return middle - spread, middle + spread


def otsu_threshold(image: np.ndarray) -> float:
    """Find the intensity that divides bright from dark best (Otsu)."""
    import SimpleITK as sitk

    thin = np.ascontiguousarray(image[tuple(slice(None, None, max(1, n // 128)) for n in image.shape)], np.float32)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(thin.reshape(-1, thin.shape[-1])))
    return float(otsu.GetThreshold())
