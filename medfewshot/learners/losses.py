"""The segmentation loss that every learner shares."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_dice(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Soft Dice per foreground class over the whole batch, and which classes the batch holds.

    ``logits (B, N + 1, *S)``, ``labels (B, *S)`` int64 -> ``dice (N,)`` in [0, 1], ``present (N,)`` bool
    (Milletari et al. 2016, V-Net).
    """
    probabilities = logits.float().softmax(1)
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(probabilities)
    axes = (0, *range(2, logits.ndim))
    overlap = (probabilities * truth).sum(axes)[1:]
    sizes = (probabilities + truth).sum(axes)[1:]
    return (2 * overlap + 1e-5) / (sizes + 1e-5), truth.sum(axes)[1:] > 0


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy plus (1 - Dice) over the classes present: absent ones leave Dice to the cross entropy."""
    dice, present = soft_dice(logits, labels)
    dice_term = ((1 - dice) * present).sum() / present.sum().clamp_min(1)
    return F.cross_entropy(logits.float(), labels) + dice_term
