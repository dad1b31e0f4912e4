"""Implicit shapes in mm: every function returns a signed distance (exact or nearly so), negative inside.

``points`` is always ``(3, ...)`` RAS mm; the result has the trailing shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

Vector = Sequence[float] | np.ndarray


def _column(vector: Vector, ndim: int) -> np.ndarray:
    return np.asarray(vector, dtype=np.float32).reshape(-1, *[1] * (ndim - 1))


def rotation(degrees: Vector) -> np.ndarray:
    """``(3, 3)`` rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def ellipsoid(points: np.ndarray, centre: Vector, radii: Vector, tilt: Vector = (0, 0, 0)) -> np.ndarray:
    """Ellipsoid with semi-axes ``radii`` in mm, rotated by ``tilt`` degrees. Source: Quilez, bound of an ellipsoid."""
    offset = points - _column(centre, points.ndim)
    if any(tilt):
        offset = np.tensordot(rotation(tilt).T.astype(np.float32), offset, axes=1)
    scaled = offset / _column(radii, points.ndim)
    length = np.sqrt((scaled**2).sum(axis=0))
    gradient = np.sqrt(((scaled / _column(radii, points.ndim)) ** 2).sum(axis=0))
    return length * (length - 1) / np.maximum(gradient, 1e-6)


def tube(points: np.ndarray, path: Sequence[Vector], radius: float | Vector) -> np.ndarray:
    """Tube around a polyline; ``radius`` in mm, one for all or one per vertex."""
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float32), (len(path),))
    best = np.full(points.shape[1:], np.inf, dtype=np.float32)
    for start, end, r0, r1 in zip(path, path[1:], radii, radii[1:], strict=False):
        a, direction = _column(start, points.ndim), np.subtract(end, start).astype(np.float32)
        along = np.tensordot(direction / (direction @ direction), points - a, axes=1).clip(0, 1)
        offset = points - a - _column(direction, points.ndim) * along
        np.minimum(best, np.sqrt((offset**2).sum(axis=0)) - (r0 + (r1 - r0) * along), out=best)
    return best


def smooth_union(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Union whose seam is rounded over ``width`` mm. Source: Quilez, polynomial smooth minimum."""
    h = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - h * h * width / 4


def cells(points: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voronoi cells of ``seeds (n, 3)``: cell index, distance to its seed and to its border, each ``(...)``."""
    distance, index = map(np.asarray, cKDTree(seeds).query(points.reshape(3, -1).T, k=2))
    gap = (distance[:, 1] - distance[:, 0]) / 2
    shape = points.shape[1:]
    return index[:, 0].reshape(shape), distance[:, 0].reshape(shape), gap.reshape(shape)


def smooth_field(rng: np.random.Generator, shape: Sequence[int], knots: int, channels: int) -> np.ndarray:
    """Smooth random field ``(channels, *shape)``, unit variance: Gaussian bumps on a lattice of ``knots`` per axis."""
    values = rng.standard_normal((channels, knots, knots, knots)).astype(np.float32)
    for axis, size in enumerate(shape):
        where = np.linspace(0.5, knots - 1.5, size)[:, None]
        basis = np.exp(-0.5 * ((where - np.arange(knots)) / 0.7) ** 2)
        basis /= np.sqrt((basis**2).sum(axis=1, keepdims=True))
        values = np.moveaxis(np.tensordot(values, basis.astype(np.float32), axes=(axis + 1, 1)), -1, axis + 1)
    return values
