"""The result of registration: where each point of the query lies in each support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.registration.separable import along, interpolation_matrix


@dataclass(frozen=True)
class Transform:
    """Maps each point of the query to each of K supports: ``y = matrix (x + u(x)) + shift``, in mm from the centres.

    Attributes:
        matrix: ``(K, d, d)``.
        shift: ``(K, d)`` in mm.
        field: The displacement ``u``, ``(K, d, *G)`` in mm, on a grid over the query's extent.
        query_half_mm: ``(d,)``, half the query's extent.
        support_half_mm: ``(K, d)``, half the supports' extents.
    """

    matrix: Tensor
    shift: Tensor
    field: Tensor
    query_half_mm: Tensor
    support_half_mm: Tensor

    def grid(self, size: Sequence[int]) -> Tensor:
        """Compute the grid ``(K, *size, d)`` for ``F.grid_sample(..., align_corners=False)`` of the supports."""
        still = to_grid(centred_points(size, self.query_half_mm), self.matrix, self.shift, self.support_half_mm)
        enlarge = [
            interpolation_matrix(n, points, align_corners=False).to(still)
            for n, points in zip(size, self.field.shape[2:], strict=True)
        ]
        return still.add_(along(rows_to_grid(self.field.movedim(1, -1), self.matrix, self.support_half_mm), enlarge, 1))

    def voxels(self, points: Tensor, query_size: Sequence[int], support_size: Sequence[int]) -> Tensor:
        """Map voxel coordinates of the query to those of the first support: ``(d, *P)``, where P has d axes."""
        axes = [1] * (points.ndim - 1)
        size, other = (points.new_tensor(tuple(each)).view(-1, *axes) for each in (query_size, support_size))
        half, half_other = self.query_half_mm.view(-1, *axes), self.support_half_mm[0].view(-1, *axes)
        unit = (2 * points + 1) / size - 1
        grid = unit.flip(0).movedim(0, -1)[None]
        moved = unit * half + F.grid_sample(self.field[:1], grid, padding_mode="border", align_corners=False)[0]
        there = torch.einsum("ij,j...->i...", self.matrix[0], moved) + self.shift[0].view(-1, *axes)
        return ((there / half_other + 1) * other - 1) / 2

    def of(self, index: int) -> Transform:
        """Return the transform to one of the K supports, so that memory needs one grid at a time."""
        one = slice(index, index + 1)
        return Transform(
            self.matrix[one], self.shift[one], self.field[one], self.query_half_mm, self.support_half_mm[one]
        )


def centred_points(size: Sequence[int], half_mm: Tensor) -> Tensor:
    """Return the voxel centres ``(*size, d)`` in mm from the volume's centre."""
    axes = [
        (2 * torch.arange(n, dtype=torch.float32, device=half_mm.device) + 1 - n) / n * half
        for n, half in zip(size, half_mm, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def to_grid(points_mm: Tensor, matrix: Tensor, shift: Tensor, half_mm: Tensor) -> Tensor:
    """Map points ``(*S, d)`` by ``(K, d, d)`` and ``(K, d)``, for ``F.grid_sample``: ``(K, *S, d)``."""
    grid = rows_to_grid(points_mm.expand(len(matrix), *points_mm.shape), matrix, half_mm)
    return grid + (shift / half_mm).flip(1).view(len(shift), *[1] * (points_mm.ndim - 1), -1)


def rows_to_grid(rows_mm: Tensor, matrix: Tensor, half_mm: Tensor) -> Tensor:
    """Map displacements ``(K, *S, d)`` by ``(K, d, d)``, and express them for ``F.grid_sample``."""
    scaled = (matrix / half_mm.unsqueeze(-1)).flip(1).mT
    return torch.bmm(rows_mm.flatten(1, -2), scaled).view(rows_mm.shape)
