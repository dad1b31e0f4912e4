"""The segmentation loss that every learner shares."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_dice(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Soft Dice per foreground class over the whole batch, and which classes the batch holds.

    ``logits (B, N + 1, *S)``, ``labels (B, *S)`` int64 -> ``dice (N,)`` in [0, 1], ``present (N,)`` bool
    (Milletari et al. 2016, V-Net).
    """
    return _soft_dice(_at_least_float32(logits).log_softmax(1), labels)


def dice_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy plus (1 - Dice) over the classes present: absent ones leave Dice to the cross entropy."""
    return dice_cross_entropy_parts(logits, labels)[0]


def dice_cross_entropy_parts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The loss with the Dice and the classes present that it was made of, for whoever watches training."""
    log_probabilities = _at_least_float32(logits).log_softmax(1)
    dice, present = _soft_dice(log_probabilities, labels)
    dice_term = ((1 - dice) * present).sum() / present.sum().clamp_min(1)
    cross_entropy = -log_probabilities.gather(1, labels.unsqueeze(1)).mean()
    return cross_entropy + dice_term, dice, present


def _soft_dice(log_probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    # Sums over voxels by class, without a one-hot volume: memory traffic is what this costs.
    classes = log_probabilities.shape[1]
    own = log_probabilities.gather(1, labels.unsqueeze(1)).exp().flatten()
    where = labels.flatten()
    overlap = own.new_zeros(classes).index_add(0, where, own)[1:]
    counts = torch.bincount(where, minlength=classes)[1:]
    predicted = log_probabilities.exp().sum((0, *range(2, log_probabilities.ndim)))[1:]
    return (2 * overlap + 1e-5) / (predicted + counts + 1e-5), counts > 0


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
