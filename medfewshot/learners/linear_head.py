"""A linear head in closed form: what gradient descent on the head would find, solved for instead.

Bertinetto et al. 2019, "Meta-learning with differentiable closed-form solvers" (R2-D2): ridge regression from features
to one-hot labels, differentiable in the features. Here for dense features on voxel blocks: each class has one output
per voxel of a block, as in the head of :class:`~medfewshot.backbones.UNet`. Voxels are weighted by the inverse square
root of their class's frequency: with equal weight per voxel a small structure is lost, with equal weight per class it
floods the background.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medfewshot.backbones import UNet, fold_blocks, pad_to_multiple


class LinearHead:
    """Weighted sums of features and labels, gathered patch by patch, and the ridge solution from them."""

    def __init__(self, network: UNet, classes: int, frequencies: Tensor) -> None:
        """``frequencies (classes,)``: how often each class occurs in what will be added."""
        self.network, self.classes = network, classes
        share = frequencies.float() / frequencies.sum().clamp_min(1)
        self.voxel_weight = torch.where(frequencies > 0, share.clamp_min(1e-6).rsqrt(), 0.0)
        self.gram: Tensor | float = 0.0
        self.cross: Tensor | float = 0.0
        self.total: Tensor | float = 0.0

    def add(self, features: Tensor, labels: Tensor) -> None:
        """``features (B, D, *S')`` of ``network``, float32; ``labels (B, *S)`` int64."""
        phi = _with_ones(features.flatten(2).transpose(1, 2).flatten(0, 1))
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
        """Weight ``(classes * block, D)``, bias ``(classes * block,)``; ``ridge`` relative to the features' energy."""
        gram, cross = torch.as_tensor(self.gram / self.total), torch.as_tensor(self.cross / self.total)
        energy = gram.diagonal()[:-1].mean()
        penalty = torch.ones_like(gram[0])
        penalty[-1] = 1e-6  # the bias goes free
        solution = torch.linalg.solve(gram + torch.diag(penalty * (ridge * energy + 1e-6)), cross)
        return solution[:-1].T, solution[-1]


class LinearHeadStart(nn.Module):
    """Meta-parameters of a backbone with a closed-form head: the ridge, and how scores become logits."""

    def __init__(self, backbone: UNet) -> None:
        super().__init__()
        self.backbone = backbone
        self.log_ridge = nn.Parameter(torch.tensor(-4.0))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.foreground_bias = nn.Parameter(torch.tensor(0.0))

    def as_head(self, fitted: LinearHead) -> tuple[Tensor, Tensor]:
        """The fitted head as weight and bias of logits, shapes as in :meth:`LinearHead.solve`."""
        weight, bias = fitted.solve(self.log_ridge.exp())
        scale = self.log_scale.exp()
        foreground = torch.ones_like(bias)
        foreground[: len(bias) // fitted.classes] = 0
        return scale * weight, scale * bias + self.foreground_bias * foreground


def class_frequencies(labels: Sequence[Tensor], classes: int) -> Tensor:
    """Voxels of each class in label maps of any shape: ``(classes,)``."""
    return torch.stack([torch.bincount(label[label >= 0], minlength=classes) for label in labels]).sum(0)


def _with_ones(phi: Tensor) -> Tensor:
    return torch.cat([phi, torch.ones_like(phi[:, :1])], dim=1)
