"""Linear filters of images as one matrix per axis, which is fast forwards and backwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def along(x: Tensor, matrices: Sequence[Tensor], first: int) -> Tensor:
    """Multiply consecutive axes of ``x``, from ``first`` on, by one matrix ``(new size, size)`` each."""
    for axis, matrix in reversed(list(enumerate(matrices, start=first))):
        if axis == x.ndim - 1:
            x = x @ matrix.T
        else:
            rows = x.flatten(axis + 1).flatten(0, axis - 1)
            rows = torch.bmm(matrix.expand(len(rows), *matrix.shape), rows)
            x = rows.view(*x.shape[:axis], len(matrix), *x.shape[axis + 1 :])
    return x


def box_matrix(size: int, window: int) -> Tensor:
    """Return the matrix of a moving average over ``window`` voxels, or fewer on a shorter axis, repeating the edges."""
    reach = min(window // 2, (size - 1) // 2)
    near = torch.arange(size).unsqueeze(1) + torch.arange(-reach, reach + 1)
    return F.one_hot(near.clamp(0, size - 1), size).float().mean(1)


def interpolation_matrix(size: int, points: int, *, align_corners: bool) -> Tensor:
    """Return the matrix ``(size, points)`` of linear interpolation; see ``torch.nn.functional.interpolate``."""
    return F.interpolate(torch.eye(points)[None], size=size, mode="linear", align_corners=align_corners)[0].T


class Diffusion:
    """Squared gradient of a displacement (mm per mm), from its control points: mean over voxels, sum over supports.

    Args:
        smooth: Per axis, the matrix from control points to voxels.
        voxel_mm: ``(d,)``, edges of the voxels.
    """

    def __init__(self, smooth: Sequence[Tensor], voxel_mm: Tensor) -> None:
        same = [matrix.T @ matrix / len(matrix) for matrix in smooth]
        self.forms = []
        for axis, (matrix, edge) in enumerate(zip(smooth, voxel_mm, strict=True)):
            if len(matrix) > 1:
                slope = matrix.diff(dim=0) / edge
                self.forms.append([*same[:axis], slope.T @ slope / len(slope), *same[axis + 1 :]])

    def __call__(self, points: Tensor) -> Tensor:
        """Return the sum for control points ``(K, *G, d)`` in mm."""
        total = points.new_zeros(())
        for form in self.forms:
            total = total + (points * along(points, form, 1)).sum()
        return total
