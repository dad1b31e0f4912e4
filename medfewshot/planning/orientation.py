"""The axis order and flips, of 48, that bring a volume closest to the support's frame.

Closest-canonical orientation is wrong for oblique stacks: near 45 degrees it puts the slice axis first in one subject
and second in the next. Comparing with the support's own direction cosines avoids that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product

import numpy as np


@dataclass(frozen=True)
class AxisOrder:
    """``order[i]`` is the native axis that becomes planned axis i; ``flip[i]`` says whether it is reversed."""

    order: tuple[int, ...]
    flip: tuple[bool, ...]

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Reorder ``data (C, *S)``; a view, nothing is copied."""
        data = np.transpose(data, (0, *[axis + 1 for axis in self.order]))
        return data[(slice(None), *[slice(None, None, -1) if flip else slice(None) for flip in self.flip])]

    def affine(self, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Affine (4, 4) of the reordered array; ``shape`` is the native one."""
        move = np.zeros((4, 4))
        move[3, 3] = 1
        for planned, (native, flip) in enumerate(zip(self.order, self.flip, strict=True)):
            move[native, planned] = -1 if flip else 1
            move[native, 3] = shape[native] - 1 if flip else 0
        for axis in range(len(self.order), 3):
            move[axis, axis] = 1
        return affine @ move


def direction_cosines(affine: np.ndarray) -> np.ndarray:
    """Unit column vectors (3, 3) of a voxel -> RAS mm affine."""
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    return matrix / np.linalg.norm(matrix, axis=0, keepdims=True)


def closest_order(affine: np.ndarray, axes: np.ndarray) -> AxisOrder:
    """The axis order with the largest trace of ``axes^T R``, R the reordered direction cosines of ``affine``."""
    agreement = np.asarray(axes, dtype=np.float64).T @ direction_cosines(affine)
    best = max(
        product(permutations(range(3)), product((1, -1), repeat=3)),
        key=lambda choice: sum(sign * agreement[i, choice[0][i]] for i, sign in enumerate(choice[1])),
    )
    return AxisOrder(best[0], tuple(sign < 0 for sign in best[1]))


def order_for(affine: np.ndarray, axes: np.ndarray, spatial_dims: int) -> AxisOrder:
    """Planar images have no patient frame: they stay as they are."""
    if spatial_dims == 2:
        return AxisOrder((0, 1), (False, False))
    return closest_order(affine, axes)
