"""In-context segmentation: the supports are an input of the network, and nothing is trained for a new task.

Butoi et al. 2023, "UniverSeg: Universal Medical Image Segmentation". One network reads the query together with the
labelled supports, all on one grid of fixed size, so it sees whole fields of view and gives one answer for each.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfewshot.augment import Augmentation
from medfewshot.backbones import UNet, choose_strides
from medfewshot.devices import autocast
from medfewshot.errors import InputError
from medfewshot.learners.base import Segmenter
from medfewshot.learners.cross_unet import CrossUNet
from medfewshot.learners.features import query_label, start_backbone
from medfewshot.learners.losses import dice_cross_entropy
from medfewshot.learners.metric import ABSENT
from medfewshot.learners.pseudo_episodes import train_on_pseudo_episodes
from medfewshot.learners.segmenters import seeded, to_channels_last
from medfewshot.types import Episode, Progress, Support

LONGEST_EDGE = {2: 128, 3: 64}
"""Voxels along the longest edge of the working grid, by number of axes."""
SUPPORTS_AT_ONCE = 8
"""More supports are read in groups, whose logits are averaged (as UniverSeg's ensembles are), in bounded memory."""


def working_grid(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The mean shape, no axis longer than :data:`LONGEST_EDGE`."""
    longest = LONGEST_EDGE[len(shapes[0])]
    return tuple(max(1, min(longest, round(sum(axis) / len(shapes)))) for axis in zip(*shapes, strict=True))


def on_grid(x: Tensor, grid: Sequence[int]) -> Tensor:
    """``(B, C, *S)`` -> ``(B, C, *grid)``: averaged along axes that shrink, interpolated along those that grow."""
    smaller = tuple(min(a, b) for a, b in zip(x.shape[2:], grid, strict=True))
    if smaller != tuple(x.shape[2:]):
        x = F.interpolate(x, size=smaller, mode="area")
    if smaller != tuple(grid):
        x = F.interpolate(x, size=tuple(grid), mode="bilinear" if len(smaller) == 2 else "trilinear")
    return x


def class_masks(labels: Tensor, classes: int) -> Tensor:
    """``(B, *S)`` int64 -> float32 ``(B, N, *S)``, one mask a class, background left out."""
    return F.one_hot(labels, classes)[..., 1:].movedim(-1, 1).float()


def compose(binary: Tensor) -> Tensor:
    """One binary logit a class ``(B, N, *S)`` -> logits ``(B, N + 1, *S)`` with a background of 0.

    For one class the softmax of these is exactly the sigmoid of its logit. For several, each logit is taken as the log
    odds of its class against *background*: the largest positive one wins, and background where all are negative. A
    network that was trained class by class only knows "this class or anything else"; the two agree wherever at most one
    class claims a voxel, and :meth:`InContext.meta_loss` trains through this very composition.
    """
    return torch.cat([torch.zeros_like(binary[:, :1]), binary], dim=1)


def context_logits(network: CrossUNet, query: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """``query (C, *G)``, ``images (K, C, *G)``, ``masks (K, N, *G)`` -> logits ``(N + 1, *G)``, one pass a class.

    A class that no support shows gets a logit of -1e4.
    """
    found = []
    for mask in masks.unbind(1):
        if not bool(mask.any()):
            found.append(torch.full_like(query[0], ABSENT))
            continue
        groups = zip(images.split(SUPPORTS_AT_ONCE), mask.split(SUPPORTS_AT_ONCE), strict=True)
        with autocast(query.device):
            passes = [network(query[None], some[None], theirs[None])[0].float() * len(some) for some, theirs in groups]
        found.append(torch.stack(passes).sum(0) / len(images))
    return compose(torch.stack(found)[None])[0]


class InContextStart(nn.Module):
    """What meta-training learns: the cross-block network, and nothing besides."""

    def __init__(self, backbone: CrossUNet) -> None:
        super().__init__()
        self.backbone = backbone


def build_start(backbone: CrossUNet) -> InContextStart:
    """A start around a copy of ``backbone``, from :func:`build_backbone` or :func:`build_cross_unet`."""
    return InContextStart(copy.deepcopy(backbone))


def build_backbone(*, dims: int, in_channels: int = 1, width: int = 16, levels: int = 4) -> CrossUNet:
    """A network to be meta-trained: its stems fold 2 voxels an axis, its pooling is set for each grid."""
    return CrossUNet(dims, in_channels, width, [[2] * dims] * levels)


def build_cross_unet(
    *,
    dims: int,
    in_channels: int,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    width: int,
    features: UNet | None = None,
) -> CrossUNet:
    """A network whose strides follow from the grid's size and spacing; ``features`` is copied into it."""
    strides = choose_strides(patch_size, spacing_mm)
    network = CrossUNet(dims, in_channels, width, strides, features.config if features is not None else None)
    if network.features is not None and features is not None:
        network.features.load_state_dict(features.state_dict())
    return network


class InContextSegmenter(Segmenter):
    """Feed-forward: ``(B, C, *S)`` image, the whole field of view -> ``(B, N + 1, *S)`` logits."""

    kind = "in_context"
    whole_volume = True
    keeps_supports = True
    images: Tensor
    masks: Tensor

    def __init__(
        self, network: CrossUNet, images: Tensor, masks: Tensor, record: Mapping[str, Any] | None = None
    ) -> None:
        """The supports on the working grid: ``images (K, C, *G)`` and ``masks (K, N, *G)``, float32."""
        super().__init__(record)
        self.network = network.eval()
        self.register_buffer("images", images.contiguous())
        self.register_buffer("masks", masks.contiguous())

    def predict(self, image: Tensor) -> Tensor:
        query = on_grid(image, self.images.shape[2:])[0]
        return on_grid(context_logits(self.network, query, self.images, self.masks)[None], image.shape[2:])

    def config(self) -> dict[str, Any]:
        return {"network": self.network.config}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> InContextSegmenter:
        return cls(to_channels_last(CrossUNet(**config["network"])), torch.empty(0), torch.empty(0))


@dataclass(frozen=True)
class InContext:
    """A network that reads the supports beside the query.

    Made for meta-trained weights: with a ``start`` and 0 steps nothing is trained. Without them the network is trained
    from scratch for ``steps`` on pseudo-episodes, in which augmented views of the supports play support and query; that
    teaches it these very structures and no more, so there a plain fine-tuned network is the better choice.
    """

    steps: int = 200
    """Optimiser steps on pseudo-episodes, from ``start`` or from a random network; 0 with a start is feed-forward."""
    budget_seconds: float | None = None
    learning_rate: float = 2e-3
    width: int = 16
    seed: int = 0
    device: torch.device = torch.device("cpu")
    start: nn.Module | None = None
    """An :class:`InContextStart`; or a :class:`UNet`, whose features then join the image's channels, which takes steps:
    its cross-blocks are new. Copied, never changed."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> InContextSegmenter:
        """Bring the supports to the working grid, and train for ``steps`` where there are any. Raises InputError for a
        start unlike the supports, or for neither steps nor a start with cross-blocks."""
        begun = time.perf_counter()
        grid = working_grid([label.shape for label in support.labels])
        images = torch.cat([on_grid(image[None].to(self.device), grid) for image in support.images])
        masks = torch.cat(
            [on_grid(class_masks(y[None].to(self.device), support.classes), grid) for y in support.labels]
        )
        network = self._network(support, grid)
        record: dict[str, Any] = {"steps": 0, "stopped_by": "steps"}
        if self.steps > 0:
            spacing = grid_spacing_mm(support, grid)
            record = train_on_pseudo_episodes(network, images, masks, spacing, self, begun)
        else:
            self.progress.update(1, 1, "read the supports")
        record |= {"learner": "in_context", "grid": list(grid), "seconds": round(time.perf_counter() - begun, 2)}
        return InContextSegmenter(network, images, masks, record)

    def meta_loss(self, episode: Episode) -> Tensor:
        """Loss of the queries read beside the supports. Raises InputError where ``start`` is no InContextStart."""
        if not isinstance(self.start, InContextStart):
            raise InputError("learner in_context: meta-training needs a start made by in_context.build_start")
        truth, support = query_label(episode), episode.support
        grid = working_grid([truth.shape[1:]])
        images = on_grid(torch.stack(support.images), grid)
        masks = on_grid(class_masks(torch.stack(support.labels), support.classes), grid)
        queries = on_grid(episode.query.image, grid)
        fit_pooling(self.start.backbone, support, grid)
        logits = torch.stack([context_logits(self.start.backbone, query, images, masks) for query in queries])
        return dice_cross_entropy(on_grid(logits, truth.shape[1:]), truth)

    def _network(self, support: Support, grid: Sequence[int]) -> CrossUNet:
        backbone: Any = start_backbone(self.start, support, "in_context")
        if isinstance(backbone, CrossUNet):
            fit_pooling(backbone, support, grid)
            return to_channels_last(backbone).to(self.device)
        if self.steps == 0:
            raise InputError("learner in_context: 0 steps leave a random network; give meta-trained weights or steps")

        def build() -> CrossUNet:
            return build_cross_unet(
                dims=support.spatial_dims,
                in_channels=support.images[0].shape[0],
                patch_size=grid,
                spacing_mm=grid_spacing_mm(support, grid),
                width=self.width,
                features=backbone,
            )

        return to_channels_last(seeded(build, self.seed)).to(self.device)


def fit_pooling(network: CrossUNet, support: Support, grid: Sequence[int]) -> None:
    """Give ``network``, in place, the pooling that its plan would choose for this working grid."""
    levels = len(network.config["strides"])
    network.set_strides(choose_strides(grid, grid_spacing_mm(support, grid), levels, network.fold))


def grid_spacing_mm(support: Support, grid: Sequence[int]) -> tuple[float, ...]:
    """Spacing of the working grid in mm: the mean shape of the supports spread over it."""
    spacing = support.spacing_mm or (1.0,) * len(grid)
    extents = [sum(axis) / support.shots for axis in zip(*(label.shape for label in support.labels), strict=True)]
    return tuple(s * extent / size for s, extent, size in zip(spacing, extents, grid, strict=True))
