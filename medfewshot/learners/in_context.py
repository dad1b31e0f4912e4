"""In-context segmentation: the supports are an input of the network, and nothing is trained for a new task.

Butoi et al. 2023, "UniverSeg: Universal Medical Image Segmentation". One network reads the query together with the
labelled supports, all on one grid of fixed size, so it sees whole fields of view and gives one answer for each.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.augment import Augmentation
from medfewshot.backbones import choose_strides, seeded, to_channels_last
from medfewshot.devices import autocast
from medfewshot.errors import InputError
from medfewshot.learners.base import UNREAD, LearnerSpec, Segmenter, TrainedOptions, needs_start, needs_steps
from medfewshot.learners.cross_unet import CrossUNet
from medfewshot.learners.features import HeadStart, start_backbone
from medfewshot.learners.optimization import (
    COLLAPSED_DICE,
    RECENT,
    GradientDescent,
    dice_cross_entropy,
    dice_cross_entropy_parts,
)
from medfewshot.learners.patches import PatchSampler
from medfewshot.learners.prototype_head import ABSENT
from medfewshot.types import Episode, Support

NAME = "in_context"
MOST_SHOTS = 3
"""Supports of one pseudo-episode: more cost time and teach little else."""
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


def context_logits(
    network: CrossUNet, query: Tensor, images: Tensor, masks: Tensor, *, at_once: int = SUPPORTS_AT_ONCE
) -> Tensor:
    """``query (C, *G)``, ``images (K, C, *G)``, ``masks (K, N, *G)`` -> logits ``(N + 1, *G)``, one pass a class.

    A class that no support shows gets a logit of -1e4.
    """
    found = []
    for mask in masks.unbind(1):
        if not bool(mask.any()):
            found.append(torch.full_like(query[0], ABSENT))
            continue
        groups = zip(images.split(at_once), mask.split(at_once), strict=True)
        with autocast(query.device):
            passes = [network(query[None], some[None], theirs[None])[0].float() * len(some) for some, theirs in groups]
        found.append(torch.stack(passes).sum(0) / len(images))
    return compose(torch.stack(found)[None])[0]


def build_start(backbone: CrossUNet) -> HeadStart:
    """A start around a copy of ``backbone``; the network is all that meta-training changes."""
    return HeadStart(copy.deepcopy(backbone))


def build_backbone(*, dims: int, in_channels: int = 1, width: int = 16, levels: int = 4) -> CrossUNet:
    """A network to be meta-trained: its stems fold 2 voxels an axis, its pooling is set for each grid."""
    return CrossUNet(dims, in_channels, width, [[2] * dims] * levels)


class PseudoEpisodes:
    """Episodes made of augmented views of the supports: a query, its mask, support images and their masks.

    Each episode is about one class; every view is augmented by itself.
    The query's example is none of the supports' where there are several; with one support it must be.
    ``images (K, C, *G)``, ``masks (K, N, *G)`` in [0, 1].
    """

    def __init__(
        self,
        images: Tensor,
        masks: Tensor,
        spacing_mm: Sequence[float],
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> None:
        self.generator, grid = generator, tuple(images.shape[2:])
        labels = grid_labels(masks)
        self.samplers = [
            PatchSampler(
                Support((image,), (label,), masks.shape[1] + 1, grid, tuple(spacing_mm)), augmentation, generator
            )
            for image, label in zip(images, labels, strict=True)
        ]
        self.present = sorted(set(labels.unique().tolist()) - {0}) or [1]

    def sample(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``(C, *G)``, ``(*G)`` int64, ``(S, C, *G)``, ``(S, *G)`` float32."""
        order = torch.randperm(len(self.samplers), generator=self.generator).tolist()
        index = self.present[int(torch.randint(len(self.present), (1,), generator=self.generator))]
        query, label = self.samplers[order[0]].sample()
        views = [self.samplers[i].sample() for i in (order[1:] or order)[:MOST_SHOTS]]
        images, labels = zip(*views, strict=True)
        return query, (label == index).long(), torch.stack(images), (torch.stack(labels) == index).float()


def grid_labels(masks: Tensor) -> Tensor:
    """Class fractions ``(K, N, *G)`` -> labels ``(K, *G)``; a class that no voxel has most of marks all it touches."""
    labels = torch.cat([1 - masks.sum(1, keepdim=True), masks], dim=1).argmax(1)
    for label, own in zip(labels, masks, strict=True):
        for index, mask in enumerate(own, start=1):
            if not bool((label == index).any()):
                label[mask > 0] = index
    return labels


class InContextSegmenter(Segmenter):
    """Feed-forward: ``(B, C, *S)`` image, the whole field of view -> ``(B, N + 1, *S)`` logits."""

    kind = NAME
    parts: ClassVar = {"network": CrossUNet}
    whole_volume = True
    keeps_supports = True
    images: Tensor
    masks: Tensor

    def __init__(
        self,
        network: CrossUNet,
        images: Tensor = UNREAD,
        masks: Tensor = UNREAD,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """The supports on the working grid: ``images (K, C, *G)`` and ``masks (K, N, *G)``, float32."""
        super().__init__(record)
        self.network = network.eval()
        self.register_buffer("images", images.contiguous())
        self.register_buffer("masks", masks.contiguous())

    def predict(self, image: Tensor) -> Tensor:
        """Compute logits ``(1, N + 1, *S)`` of an image ``(1, C, *S)``."""
        query = on_grid(image, self.images.shape[2:])[0]
        return on_grid(context_logits(self.network, query, self.images, self.masks)[None], image.shape[2:])


@dataclass(frozen=True)
class InContext(TrainedOptions):
    """A network that reads the supports beside the query.

    Made for meta-trained weights: with a ``start`` and 0 steps nothing is trained. Without them the network is trained
    from scratch for ``steps`` on pseudo-episodes, in which augmented views of the supports play support and query; that
    teaches it these very structures and no more, so there a plain fine-tuned network is the better choice.

    ``start`` is what :func:`build_start` makes, or a bare :class:`CrossUNet`.
    """

    steps: int = 200

    def adapt(self, support: Support) -> InContextSegmenter:
        """Bring the supports to the working grid, and train for ``steps``.

        Raises:
            InputError: There are neither steps nor a start, or the start is another learner's or for other images.
        """
        begun = time.perf_counter()
        if any(bool((label < 0).any()) for label in support.labels):
            raise InputError(
                f"learner {NAME}: cannot learn from scans that are partly annotated",
                "annotate them completely, or take another learner",
                setting="learner",
            )
        grid = working_grid([label.shape for label in support.labels])
        images = torch.cat([on_grid(image[None].to(self.device), grid) for image in support.images])
        masks = torch.cat(
            [on_grid(class_masks(y[None].to(self.device), support.classes), grid) for y in support.labels]
        )
        network = self._network(support, grid)
        record: dict[str, Any] = {"steps": 0, "stopped_by": "steps"}
        if self.steps > 0:
            spacing = grid_spacing_mm(support, grid)
            generator = torch.Generator().manual_seed(self.seed)
            episodes = PseudoEpisodes(images, masks, spacing, self.augmentation, generator)
            record = self._train(network, episodes, begun)
        else:
            self.progress.update(1, 1, "read the supports")
        record |= {"learner": NAME, "grid": list(grid), "seconds": round(time.perf_counter() - begun, 2)}
        return InContextSegmenter(network, images, masks, record)

    def _train(self, network: CrossUNet, episodes: PseudoEpisodes, begun: float) -> dict[str, Any]:
        """Train in place; the segmenter's record."""
        dices: list[float] = []

        def backward() -> float:
            query, label, images, masks = episodes.sample()
            with autocast(query.device):
                logit = network(query[None], images[None], masks[None]).float()
            logits = torch.stack([torch.zeros_like(logit), logit], dim=1)
            loss, dice, present = dice_cross_entropy_parts(logits, label[None])
            loss.backward()
            if bool(present[0]):
                dices.append(float(dice[0].detach()))
            return float(loss.detach())

        descent = GradientDescent(network, self, begun=begun)
        descent.run(backward)
        recent = dices[-RECENT:]
        dice = sum(recent) / len(recent) if recent else 0.0
        trained = dice >= COLLAPSED_DICE and math.isfinite(descent.recent_loss)
        return descent.record() | {"trained": trained, "training_dice": [round(dice, 4)]}

    def meta_loss(self, episode: Episode) -> Tensor:
        """Loss of the queries read beside the supports. Raises InputError if ``start`` is not from build_start."""
        if not isinstance(self.start, HeadStart) or not isinstance(self.start.backbone, CrossUNet):
            raise needs_start(NAME)
        truth, support = episode.truth, episode.support
        grid = working_grid([truth.shape[1:]])
        images = on_grid(torch.stack(support.images), grid)
        masks = on_grid(class_masks(torch.stack(support.labels), support.classes), grid)
        queries = on_grid(episode.query.image, grid)
        fit_pooling(self.start.backbone, support, grid)
        logits = torch.stack([context_logits(self.start.backbone, query, images, masks) for query in queries])
        return dice_cross_entropy(on_grid(logits, truth.shape[1:]), truth)

    def _network(self, support: Support, grid: Sequence[int]) -> CrossUNet:
        network: Any = start_backbone(self.start, support, NAME)
        if network is None and self.steps == 0:
            raise needs_steps(NAME)
        if network is None:
            strides = choose_strides(grid, grid_spacing_mm(support, grid))
            size = support.spatial_dims, support.channels, self.width
            network = seeded(lambda: CrossUNet(*size, strides), self.seed)
        elif isinstance(network, CrossUNet):
            fit_pooling(network, support, grid)
        else:
            raise needs_start(NAME)
        return to_channels_last(network).to(self.device)


def fit_pooling(network: CrossUNet, support: Support, grid: Sequence[int]) -> None:
    """Give ``network``, in place, the pooling that its plan would choose for this working grid."""
    levels = len(network.config["strides"])
    network.set_strides(choose_strides(grid, grid_spacing_mm(support, grid), levels, network.fold))


def grid_spacing_mm(support: Support, grid: Sequence[int]) -> tuple[float, ...]:
    """Spacing of the working grid in mm: the mean shape of the supports spread over it."""
    extents = [sum(axis) / support.shots for axis in zip(*(label.shape for label in support.labels), strict=True)]
    return tuple(s * extent / size for s, extent, size in zip(support.spacing, extents, grid, strict=True))


SPEC = LearnerSpec(
    name=NAME,
    learner=InContext,
    summary="a network that reads the supports beside the query; nothing is trained",
    segmenter=InContextSegmenter,
    build_start=build_start,
    build_backbone=build_backbone,
    network=CrossUNet,
    weights={(2, 1): "in-context-2d"},
    steps_from_weights=0,
)
