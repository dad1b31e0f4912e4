"""Local normalised correlation of images: the similarity that registration maximises."""

from __future__ import annotations

import torch
from torch import Tensor

from medfewshot.registration.separable import along, box_matrix

FLOOR = 1e-4
"""Added to the product of the variances; suppresses noise in flat regions."""


class LocalCorrelation:
    """Correlation with one image, whose own means and variances are computed once.

    MONAI's loss of this name squares it, so inverted contrast counts as agreement there; here the sign is kept.

    Args:
        fixed: ``(B or 1, C, *S)``.
        window: Edge of the box in voxels.
        stride: Distance of the boxes along each axis, in voxels.

    Attributes:
        at: Voxels in the middle of the boxes, per axis.
    """

    def __init__(self, fixed: Tensor, window: int, stride: int = 1) -> None:
        self.fixed = fixed
        self.at = [torch.arange((n - 1) % stride // 2, n, stride, device=fixed.device) for n in fixed.shape[2:]]
        boxes = [box_matrix(n, window).to(fixed) for n in fixed.shape[2:]]
        self.boxes = [box[at] for box, at in zip(boxes, self.at, strict=True)]
        self.mean = along(fixed, self.boxes, 2)
        self.variance = (along(fixed * fixed, self.boxes, 2) - self.mean * self.mean).clamp_min(0)

    def __call__(self, moving: Tensor) -> Tensor:
        """Correlate with ``moving (B, C, *S)``, in [-1, 1], averaged over channels: ``(B, 1, *S / stride)``."""
        means = along(torch.cat([moving, moving * moving, moving * self.fixed]), self.boxes, 2)
        mean, square, product = means.chunk(3)
        variance = (square - mean * mean).clamp_min(0)
        cross = product - mean * self.mean
        return (cross / (variance * self.variance + FLOOR).sqrt()).mean(1, keepdim=True)

    def covered(self, grid: Tensor) -> Tensor:
        """Return which boxes have their middle inside the image that ``grid (B, *S, d)`` reads: bool, 1 channel."""
        for axis, at in enumerate(self.at, start=1):
            grid = grid.index_select(axis, at)
        return (grid.abs().amax(-1) <= 1).unsqueeze(1)
