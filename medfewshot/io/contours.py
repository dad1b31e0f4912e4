"""Closed contours of a 2D mask, and the pixels inside contours. Exact inverses of each other on one grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ON_EDGE = 1e-2
"""How far, in pixels, the centre of a pixel may lie from a contour to lie on it. Coordinates are rounded to less."""


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the contours of a mask, holes included, halfway between pixels inside and pixels outside.

    Args:
        mask: ``(X, Y)`` bool.

    Returns:
        Closed polygons ``(N, 2)`` in pixel indices. The first point is not repeated.
    """
    from contourpy import contour_generator

    # A border of zeros closes the contours. contourpy's x is the second axis of its array.
    padded = np.pad(mask, 1).astype(np.float32).T
    return [np.asarray(line)[:-1] - 1 for line in contour_generator(z=padded).lines(0.5)]


def filled(contours: Sequence[np.ndarray], shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
    """Return the pixels whose centre is inside the contours of one plane, or on one of them.

    A contour inside another is a hole, one inside the hole is an island, and so on. Contours side by side are pieces.

    Args:
        contours: Closed polygons ``(N, 2)`` in pixel indices.
        shape: ``(X, Y)`` of the result.

    Returns:
        The mask ``(X, Y)``, and whether contours crossed each other. Those are joined.
    """
    inside, edges = np.zeros(shape, bool), np.zeros(shape, bool)
    have_crossed = False
    areas = [abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) for x, y in (one.T for one in contours)]  # doubled
    earlier: list[np.ndarray] = []
    for index in np.argsort(areas)[::-1]:  # the outer one first
        contour = contours[index]
        if any(contour.shape == other.shape and np.allclose(contour, other) for other in earlier):
            continue  # the same contour twice is no hole
        earlier.append(contour)
        own, (x, y) = _inside(contour, shape), _on(contour, shape).T
        edges[x, y] = True
        common = own & inside
        if common.any() and not np.array_equal(common, own):
            have_crossed = True
            inside |= own
        else:
            inside ^= own
    return inside | edges, have_crossed


def _inside(contour: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return where the centre of a pixel is inside one polygon, by the even-odd rule: ``(X, Y)`` bool."""
    from matplotlib.path import Path as Polygon

    mask = np.zeros(shape, bool)
    low = np.maximum(np.floor(contour.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(contour.max(axis=0)).astype(int) + 1, shape)
    if len(contour) < 3 or (high <= low).any():
        return mask
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    points = np.indices(high - low).reshape(2, -1).T + low
    mask[box] = Polygon(contour).contains_points(points).reshape(high - low)
    return mask


def _on(contour: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Indices ``(N, 2)`` of the pixels whose centre lies on a polygon: some writers draw from centre to centre."""
    starts, steps = contour, np.roll(contour, -1, axis=0) - contour
    axis = np.abs(steps).argmax(axis=1)
    rows = np.arange(len(contour))
    start, step = starts[rows, axis], steps[rows, axis]
    low, high = np.minimum(start, start + step), np.maximum(start, start + step)
    # A pixel's centre on a line has a whole number along the line's longer axis, too.
    first = np.ceil(low - _ON_EDGE)
    counts = np.maximum(np.floor(high + _ON_EDGE) - first + 1, 0).astype(int)
    line = np.repeat(rows, counts)
    along = first[line] + np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(step[line] == 0, 0.0, (along - start[line]) / step[line])
    points = starts[line] + share[:, None] * steps[line]
    centres = np.rint(points)
    is_on = (np.abs(points - centres).max(axis=1, initial=0) <= _ON_EDGE) if len(points) else np.zeros(0, bool)
    within = ((centres >= 0) & (centres < shape)).all(axis=1)
    return centres[is_on & within].astype(int)
