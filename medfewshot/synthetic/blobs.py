"""Tiny volumes of spheres and boxes, made in a millisecond, whose sizes are known on paper."""

from __future__ import annotations

import numpy as np


def make_blob_volume(
    rng: np.random.Generator, shape: tuple[int, ...] = (24, 24, 24), labels: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """An image with ``labels`` separate structures, spheres (odd values) and boxes (even values), and its label map.

    The structures stand in a row along the first axis, jittered, so that they never touch. The noise has unit
    standard deviation and structure ``i`` is ``3 i`` brighter than the background.

    Args:
        shape: ``*S``, 2D or 3D. labels: number of structures; each needs about five voxels of the first axis.

    Returns:
        image ``(1, *S)`` float32, label ``(*S)`` int64 with values 0..labels.

    Raises:
        ValueError: the first axis has no room for that many structures.
    """
    slot = shape[0] / labels
    if slot < 5 or min(shape) < 5:
        raise ValueError(f"shape {shape} has no room for {labels} structures: give at least 5 voxels to each")
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    label = np.zeros(shape, dtype=np.int64)
    for value in range(1, labels + 1):
        radius = rng.uniform(0.6, 0.9) * min(slot - 1, *(n - 1 for n in shape)) / 2
        low = np.full(len(shape), radius)
        high = np.asarray(shape, dtype=float) - 1 - radius
        low[0], high[0] = slot * (value - 1) + radius, slot * value - 1 - radius
        centre = rng.uniform(low, np.maximum(low, high)).reshape(-1, *[1] * len(shape))
        offset = np.abs(grid - centre)
        distance = np.sqrt((offset**2).sum(axis=0)) if value % 2 else offset.max(axis=0)
        label[distance <= radius] = value
    image = rng.normal(0.0, 1.0, shape) + 3.0 * label
    return image[None].astype(np.float32), label
