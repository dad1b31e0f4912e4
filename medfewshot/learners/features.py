"""Features of a network for learners with a head of their own: from a start to features, and back to voxels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfewshot.augment import LINEAR, NO_AUGMENTATION
from medfewshot.backbones import UNet, cut_to, pad_to_multiple
from medfewshot.devices import autocast
from medfewshot.learners.patches import PatchSampler, fitted
from medfewshot.types import IGNORED, Episode, Support


class HeadStart(nn.Module):
    """What meta-training changes: a network, and the learned parameters of the learner's own head.

    Args:
        backbone: The feature network.
        head: Module with the head's parameters; None if it has none.
    """

    backbone: Any
    head: Any

    def __init__(self, backbone: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


def start_with_head(backbone: UNet, head: nn.Module) -> HeadStart:
    """Build a start from a copy of ``backbone`` whose last layer is frozen, because ``head`` replaces it."""
    network = copy.deepcopy(backbone)
    network.head.requires_grad_(False)
    return HeadStart(network, head.to(next(network.parameters()).device))


def matching_start(start: nn.Module | None, head: type[nn.Module]) -> HeadStart | None:
    """Return the start if its head has this class; None for other starts and bare networks."""
    return start if isinstance(start, HeadStart) and isinstance(start.head, head) else None


def start_backbone(start: nn.Module | None, support: Support, name: str) -> Any:
    """Copy the start's network and fit it to the support; None without a start.

    Raises:
        InputError: The network was made for images of other dimensions or channels.
    """
    if start is None:
        return None
    backbone: Any = start.backbone if "backbone" in dict(start.named_children()) else start
    return fitted(backbone, support, name)


def unet_of_start(start: nn.Module) -> UNet | None:
    """Return the U-Net of another learner's start; None if it has none."""
    return start.backbone if isinstance(start.backbone, UNet) else None


def block_features(network: UNet, images: Tensor) -> Tensor:
    """Compute float32 features ``(B, D, *S')`` of the padded images ``(B, C, *S)``."""
    with autocast(images.device):
        features = network.features(images)
    return features.float()


def voxel_features(network: UNet, images: Tensor) -> Tensor:
    """Compute float32 features ``(B, D, *ceil(S / fold))`` of images ``(B, C, *S)``, from the finest decoder level."""
    # Cut the network's padding off, so that features and image cover the same field.
    size = [-(-length // fold) for length, fold in zip(images.shape[2:], network.fold, strict=True)]
    return cut_to(block_features(network, images), size)


def to_voxels(logits: Tensor, fold: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Enlarge logits from the feature grid to the image grid.

    Args:
        logits: ``(B, N + 1, *ceil(S / fold))``.
        fold: Voxels per feature along each axis.
        shape: ``S``.

    Returns:
        Logits ``(B, N + 1, *S)``.
    """
    # The last block may reach beyond an odd edge, so enlarge by the fold and cut.
    size = [n * f for n, f in zip(logits.shape[2:], fold, strict=True)]
    enlarged = F.interpolate(logits, size=size, mode=LINEAR[len(size)])
    return cut_to(enlarged, shape)


def support_features(network: UNet, support: Support, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features and labels of patches of every support, without gradients.

    Args:
        network: The feature network.
        support: The supports.
        generator: Source of random numbers.

    Yields:
        Features ``(1, D, *F)`` and labels ``(1, *F)``.
    """
    device = next(network.parameters()).device
    for image, label in PatchSampler(support, NO_AUGMENTATION, generator).covering_patches():
        with torch.no_grad():
            features = voxel_features(network, image[None].to(device))
        yield features, shrink_labels(label.to(device)[None], features.shape[2:])


def episode_features(backbone: UNet, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
    """Compute features for meta-training.

    Returns:
        Support features ``(K, D, *F)``, their labels ``(K, *F)``, and query features ``(B, D, *F)``.
    """
    support = voxel_features(backbone, torch.stack(episode.support.images))
    labels = shrink_labels(torch.stack(episode.support.labels), support.shape[2:])
    return support, labels, voxel_features(backbone, episode.query.image)


def shrink_labels(labels: Tensor, size: torch.Size) -> Tensor:
    """Shrink labels ``(B, *S)`` to the grid ``size`` of the features by nearest neighbour.

    If a class would be lost, it marks every cell that it touches.
    """
    fold = [-(-length // n) for length, n in zip(labels.shape[1:], size, strict=True)]
    whole = pad_to_multiple(labels[:, None].float(), fold)
    small = F.interpolate(whole, size=size, mode="nearest-exact")[:, 0].long()
    pool = F.max_pool2d if len(size) == 2 else F.max_pool3d
    for index in sorted(set(labels.unique().tolist()) - set(small.unique().tolist()) - {IGNORED}):
        small[pool((whole == index).float(), fold)[:, 0] > 0] = index
    return small
