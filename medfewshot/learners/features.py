"""Backbone features for learners that bring their own head: where they come from, and the way back to voxels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfewshot.augment import NO_AUGMENTATION
from medfewshot.backbones import UNet, cut_to, pad_to_multiple, seeded, to_channels_last
from medfewshot.devices import autocast
from medfewshot.learners.base import TrainedOptions, needs_steps
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.patches import PatchSampler, check_kind, fit_strides
from medfewshot.types import Episode, Support


def voxel_features(network: UNet, image: Tensor) -> Tensor:
    """``(B, C, *S)`` -> float32 features ``(B, D, *ceil(S / fold))`` of the finest decoder level."""
    with autocast(image.device):
        features = network.features(image)
    features = features.float()
    # Padding of the network is cut off, so that features and image cover the same field.
    size = [-(-length // fold) for length, fold in zip(image.shape[2:], network.fold, strict=True)]
    return cut_to(features, size)


def to_voxels(logits: Tensor, fold: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Logits on the features' grid ``(B, N + 1, *ceil(S / fold))`` -> ``(B, N + 1, *S)`` with ``S = shape``."""
    # The last block may reach beyond an odd edge: enlarge by the fold and cut, or everything would be squeezed.
    size = [n * f for n, f in zip(logits.shape[2:], fold, strict=True)]
    enlarged = F.interpolate(logits, size=size, mode="bilinear" if len(size) == 2 else "trilinear")
    return cut_to(enlarged, shape)


def adapted_features(learner: TrainedOptions, support: Support, name: str) -> tuple[UNet, dict[str, Any]]:
    """A feature network of the learner's own, trained on the supports for ``learner.steps``.

    Args:
        learner: Training begins at its ``start`` if there is one: a :class:`UNet`, or a module with a ``backbone``.
        support: The supports.
        name: The learner's name, for record and errors.

    Returns:
        The network, and the record of its training.

    Raises:
        InputError: There is neither a start nor a step, or the start does not fit the supports.
    """
    backbone = start_backbone(learner.start, support, name)
    if learner.steps > 0:
        first = None if backbone is None else with_classes(backbone, support.classes, learner.seed)
        segmenter = Finetune(**learner.shared() | {"start": first}).adapt(support)
        return segmenter.network, segmenter.record | {"learner": name}
    if backbone is None:
        raise needs_steps(name)
    network = to_channels_last(backbone).to(learner.device).eval()
    learner.progress.update(1, 1, "features from the start")
    return network, {"learner": name, "steps": 0, "stopped_by": "steps"}


def start_backbone(start: nn.Module | None, support: Support, name: str) -> Any:
    """A copy of the start's feature network, its strides fitted to the support if it is agnostic.

    Raises:
        InputError: It was made for other images than the support's.
    """
    if start is None:
        return None
    backbone: Any = start.backbone if "backbone" in dict(start.named_children()) else start
    check_kind(backbone, support, name)
    backbone = copy.deepcopy(backbone)
    fit_strides(backbone, support)
    return backbone


def adopt_backbone(start: nn.Module) -> UNet | None:
    """The U-Net of another learner's start; None if it has none."""
    return start.backbone if isinstance(start.backbone, UNet) else None


def with_classes(backbone: UNet, classes: int, seed: int) -> UNet:
    """A trainable copy whose last layer has ``classes`` outputs, a new one if it had another number."""
    if backbone.config["classes"] == classes:
        network = copy.deepcopy(backbone)
    else:
        config = backbone.config | {"classes": classes}
        network = seeded(lambda: type(backbone)(**config), seed)
        weights = {key: value for key, value in backbone.state_dict().items() if not key.startswith("head.")}
        network.load_state_dict(weights, strict=False)
        network.to(next(backbone.parameters()).device)
    return network.requires_grad_(True)


def headless(backbone: UNet) -> UNet:
    """A copy for a start whose own head takes the place of the last layer: that layer asks for no gradient."""
    network = copy.deepcopy(backbone)
    network.head.requires_grad_(False)
    return network


def support_features(
    network: UNet, support: Support, device: torch.device, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features ``(1, D, *F)`` and labels ``(1, *F)`` of patches of every support, without gradients, one by one."""
    for image, label in PatchSampler(support, NO_AUGMENTATION, generator).cover():
        with torch.no_grad():
            features = voxel_features(network, image[None].to(device))
        yield features, shrink_labels(label.to(device)[None], features.shape[2:])


def episode_features(backbone: UNet, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
    """For meta-training: support features ``(K, D, *F)``, their labels ``(K, *F)``, query features ``(B, D, *F)``."""
    support = voxel_features(backbone, torch.stack(episode.support.images))
    labels = shrink_labels(torch.stack(episode.support.labels), support.shape[2:])
    return support, labels, voxel_features(backbone, episode.query.image)


def shrink_labels(labels: Tensor, size: torch.Size) -> Tensor:
    """Nearest-neighbour labels ``(B, *S)`` on the features' grid; a class it would lose marks all that it touches."""
    fold = [-(-length // n) for length, n in zip(labels.shape[1:], size, strict=True)]
    whole = pad_to_multiple(labels[:, None].float(), fold)
    small = F.interpolate(whole, size=size, mode="nearest-exact")[:, 0].long()
    pool = F.max_pool2d if len(size) == 2 else F.max_pool3d
    for index in sorted(set(labels.unique().tolist()) - set(small.unique().tolist())):
        small[pool((whole == index).float(), fold)[:, 0] > 0] = index
    return small
