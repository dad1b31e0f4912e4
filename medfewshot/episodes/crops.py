"""Windows of one size around chosen voxels; what lies outside the scan is filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def crop(image: Tensor, label: Tensor, start: Sequence[int], size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The window that begins at voxel ``start``: image ``(C, *size)``, label ``(*size)``.

    Outside the scan the image is its smallest value per channel (air, or whatever the plan makes of it), the label 0.
    """
    window = [slice(max(a, 0), max(a + n, 0)) for a, n in zip(start, size, strict=True)]
    inside = label[tuple(window)]
    target = tuple(slice(max(-a, 0), max(-a, 0) + n) for a, n in zip(start, inside.shape, strict=True))
    low = image.flatten(1).min(dim=1).values.reshape(-1, *[1] * label.ndim)
    new_image = low.expand(-1, *size).clone()
    new_image[(slice(None), *target)] = image[(slice(None), *window)]
    new_label = label.new_zeros(tuple(size))
    new_label[target] = inside
    return new_image, new_label


def start_around(centre: Sequence[int], shape: Sequence[int], size: Sequence[int]) -> list[int]:
    """First voxel of a window around ``centre`` that leaves the scan only on axes where the scan is smaller."""
    start = []
    for c, extent, n in zip(centre, shape, size, strict=True):
        first = min(max(int(c) - n // 2, 0), extent - n) if extent >= n else (extent - n) // 2
        start.append(first)
    return start


def foreground_start(label: Tensor, size: Sequence[int], rng: np.random.Generator, whole: bool = False) -> list[int]:
    """Window around a random voxel of a random class in ``label (*S)``; ``whole``: around the middle of all classes."""
    if whole:
        voxels = torch.nonzero(label)
        return start_around(((voxels.amin(0) + voxels.amax(0)) // 2).tolist(), label.shape, size)
    classes = torch.unique(label[label > 0])
    voxels = torch.nonzero(label == classes[int(rng.integers(len(classes)))])
    return start_around(voxels[int(rng.integers(len(voxels)))].tolist(), label.shape, size)


def empty_start(label: Tensor, size: Sequence[int], rng: np.random.Generator, attempts: int = 30) -> list[int] | None:
    """A random window without foreground, or None where none was found."""
    for _ in range(attempts):
        start = start_around([int(rng.integers(n)) for n in label.shape], label.shape, size)
        window = tuple(slice(max(a, 0), a + n) for a, n in zip(start, size, strict=True))
        if not bool(label[window].any()):
            return start
    return None
