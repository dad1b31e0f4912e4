"""A linear head in closed form: ridge regression from dense features to one-hot labels.

The solution is differentiable in the features. Each class has one output per voxel of a block, as in the head of
:class:`~medfewshot.backbones.UNet`. Voxels are weighted by the inverse square root of their class's frequency: equal
weights per voxel lose small structures, and equal weights per class let them flood the background.

References:
    Bertinetto et al. 2019, "Meta-learning with differentiable closed-form solvers" (R2-D2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medfewshot.backbones import UNet, fold_blocks, pad_to_multiple


class LinearHead:
    """Sums features and labels patch by patch, and solves the ridge regression.

    Args:
        network: The network of the features.
        classes: N + 1.
        frequencies: Number of voxels of each class in all patches, ``(classes,)``.
    """

    def __init__(self, network: UNet, classes: int, frequencies: Tensor) -> None:
        self.network, self.classes = network, classes
        share = frequencies.float() / frequencies.sum().clamp_min(1)
        self.voxel_weight = torch.where(frequencies > 0, share.clamp_min(1e-6).rsqrt(), 0.0)
        self.gram: Tensor | float = 0.0
        self.cross: Tensor | float = 0.0
        self.total: Tensor | float = 0.0

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add a patch: ``features (B, D, *S')`` float32 of the network, ``labels (B, *S)`` int64."""
        phi = nn.functional.pad(features.flatten(2).transpose(1, 2).flatten(0, 1), (0, 1), value=1.0)  # 1: the bias
        whole = pad_to_multiple(labels[:, None].float(), self.network.multiple)
        blocks = fold_blocks(whole, self.network.fold).flatten(2).transpose(1, 2).flatten(0, 1).long()
        known, blocks = blocks >= 0, blocks.clamp_min(0)  # a voxel that is not annotated has no weight and no target
        weight = (self.voxel_weight[blocks] * known).mean(1, keepdim=True)
        marks = nn.functional.one_hot(blocks, self.classes).to(phi) - 1 / self.classes
        targets = (marks * known[..., None]).transpose(1, 2).flatten(1)
        weighted = phi * weight
        self.gram = self.gram + weighted.T @ phi
        self.cross = self.cross + weighted.T @ targets
        self.total = self.total + weight.sum()

    def solve(self, ridge: Tensor | float) -> tuple[Tensor, Tensor]:
        """Solve for the head.

        Args:
            ridge: Regularisation relative to the mean square of the features.

        Returns:
            Weight ``(classes * block, D)`` and bias ``(classes * block,)``.
        """
        gram, cross = torch.as_tensor(self.gram / self.total), torch.as_tensor(self.cross / self.total)
        energy = gram.diagonal()[:-1].mean()
        penalty = torch.ones_like(gram[0])
        penalty[-1] = 1e-6  # the bias has no penalty
        solution = torch.linalg.solve(gram + torch.diag(penalty * (ridge * energy + 1e-6)), cross)
        return solution[:-1].T, solution[-1]


class LinearHeadStart(nn.Module):
    """Meta-parameters of a backbone with a closed-form head: the ridge, and the map from scores to logits."""

    def __init__(self, backbone: UNet) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_ridge = nn.Parameter(torch.tensor(-4.0))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.foreground_bias = nn.Parameter(torch.tensor(0.0))

    def as_head(self, fitted: LinearHead) -> tuple[Tensor, Tensor]:
        """Return the fitted head as weight and bias of logits, with the shapes of :meth:`LinearHead.solve`."""
        weight, bias = fitted.solve(self.log_ridge.exp())
        scale = self.log_scale.exp()
        foreground = torch.ones_like(bias)
        foreground[: len(bias) // fitted.classes] = 0
        return scale * weight, scale * bias + self.foreground_bias * foreground


def class_frequencies(labels: Sequence[Tensor], classes: int) -> Tensor:
    """Count the voxels of each class in label maps of any shape, without ignored ones; returns ``(classes,)``."""
    return torch.stack([torch.bincount(label[label >= 0], minlength=classes) for label in labels]).sum(0)
