"""Backbone features for learners that bring their own head: where they come from, and the way back to voxels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfewshot.augment import NO_AUGMENTATION, Augmentation
from medfewshot.backbones import UNet, cut_to
from medfewshot.devices import autocast
from medfewshot.errors import InputError
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.fitting import check_kind, fit_strides
from medfewshot.learners.patches import PatchSampler
from medfewshot.learners.pooling import shrink_labels
from medfewshot.learners.segmenters import seeded, to_channels_last
from medfewshot.types import Episode, Progress, Support

PATCHES_PER_SHOT = 6
MOST_EXTRA_PATCHES = 20
"""Patches per class to go on drawing while a class that a support holds has not been seen yet."""


@dataclass(frozen=True)
class FeatureOptions:
    """What every learner with a head of its own on a backbone's features is told; the names are :class:`Finetune`'s."""

    steps: int = 200
    """Optimiser steps on the supports before the head is made; 0 with a start is purely feed-forward."""
    budget_seconds: float | None = None
    width: int = 16
    seed: int = 0
    device: torch.device = torch.device("cpu")
    start: nn.Module | None = None
    """What the learner's ``build_start`` makes, or a :class:`UNet` for its features alone; copied, never changed."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    progress: Progress = field(default_factory=Progress)


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


def adapted_features(learner: FeatureOptions, support: Support, name: str) -> tuple[UNet, dict[str, Any]]:
    """A network of the learner's own, and what became of it: trained on the supports for ``learner.steps``.

    Training begins at ``learner.start`` where there is one (a :class:`UNet`, or a module with one as ``backbone``).
    Raises InputError where there is neither a start nor a step, or the start does not fit the supports.
    """
    backbone = start_backbone(learner.start, support, name)
    if learner.steps > 0:
        first = None if backbone is None else with_classes(backbone, support.classes, learner.seed)
        segmenter = Finetune(
            steps=learner.steps,
            budget_seconds=learner.budget_seconds,
            width=learner.width,
            seed=learner.seed,
            device=learner.device,
            augmentation=learner.augmentation,
            start=first,
            progress=learner.progress,
        ).adapt(support)
        return segmenter.network, segmenter.record | {"learner": name}
    if backbone is None:
        raise InputError(f"learner {name}: 0 steps leave a random network; give meta-trained weights or some steps")
    network = to_channels_last(backbone).to(learner.device).eval()
    learner.progress.update(1, 1, "features from the start")
    return network, {"learner": name, "steps": 0, "stopped_by": "steps"}


def start_backbone(start: nn.Module | None, support: Support, name: str) -> Any:
    """A copy of the start's feature network, its strides fitted to the support where it is agnostic.

    Raises InputError where it is made for other images than the support's.
    """
    if start is None:
        return None
    backbone: Any = getattr(start, "backbone", start)
    check_kind(backbone, support, name)
    backbone = copy.deepcopy(backbone)
    fit_strides(backbone, support)
    return backbone


def with_classes(backbone: UNet, classes: int, seed: int) -> UNet:
    """A trainable copy whose last layer has ``classes`` outputs, made anew where it had another number."""
    if backbone.config["classes"] == classes:
        network = copy.deepcopy(backbone)
    else:
        config = backbone.config | {"classes": classes}
        network = seeded(lambda: type(backbone)(**config), seed)  # type: ignore[assignment]
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
    """Features ``(1, D, *F)`` and labels ``(1, *F)`` of patches of every support, without gradients, one by one.

    After the planned number it goes on, within limits, until each class that a support holds was seen.
    """
    sampler = PatchSampler(support, NO_AUGMENTATION, generator)
    missing = {index for index in range(support.classes) if any(bool((y == index).any()) for y in support.labels)}
    planned = PATCHES_PER_SHOT * support.shots
    for drawn in range(planned + MOST_EXTRA_PATCHES * support.classes):
        if drawn >= planned and not missing:
            return
        image, label = sampler.sample() if drawn < planned else sampler.sample(1.0 if missing != {0} else 0.0)
        with torch.no_grad():
            features = voxel_features(network, image[None].to(device))
        small = shrink_labels(label.to(device)[None], features.shape[2:])
        missing -= set(small.unique().tolist())
        yield features, small


def episode_features(backbone: UNet, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
    """For meta-training: support features ``(K, D, *F)``, their labels ``(K, *F)``, query features ``(B, D, *F)``."""
    support = voxel_features(backbone, torch.stack(episode.support.images))
    labels = shrink_labels(torch.stack(episode.support.labels), support.shape[2:])
    return support, labels, voxel_features(backbone, episode.query.image)


def query_label(episode: Episode) -> Tensor:
    """``(B, *S)``. Raises InputError where the episode's query has none."""
    if episode.query.label is None:
        raise InputError(f"episode {episode.task}: its query has no label to learn from")
    return episode.query.label
