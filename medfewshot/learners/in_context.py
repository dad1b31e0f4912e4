"""In-context segmentation: the supports are an input of the network, and nothing is trained for a new task.

One network reads the query together with the labelled supports, all resampled to one grid of fixed size. So it needs
whole fields of view.

References:
    Butoi et al. 2023, "UniverSeg: Universal Medical Image Segmentation".
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
from medfewshot.learners.base import (
    NOT_LOADED,
    LearnerSpec,
    Segmenter,
    TrainedOptions,
    missing_start_error,
    missing_steps_error,
)
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
from medfewshot.registration import resized
from medfewshot.types import Episode, Support

NAME = "in_context"
MAX_SHOTS = 3
"""Supports of one pseudo-episode; more cost time and help little."""
LONGEST_EDGE = {2: 128, 3: 64}
"""Voxels along the longest edge of the working grid, by number of axes."""
SUPPORTS_AT_ONCE = 8
"""Supports per pass of the network. The logits of several passes are averaged, as in UniverSeg's ensembles."""


def working_grid(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the mean of the shapes, with no axis longer than :data:`LONGEST_EDGE`."""
    longest = LONGEST_EDGE[len(shapes[0])]
    return tuple(max(1, min(longest, round(sum(axis) / len(shapes)))) for axis in zip(*shapes, strict=True))


def class_masks(labels: Tensor, classes: int) -> Tensor:
    """Split labels ``(B, *S)`` int64 into float32 masks ``(B, N, *S)``, without the background."""
    return F.one_hot(labels, classes)[..., 1:].movedim(-1, 1).float()


def add_background(binary: Tensor) -> Tensor:
    """Combine one binary logit per class ``(B, N, *S)`` into logits ``(B, N + 1, *S)``; the background's is 0.

    For one class, the softmax of these is exactly the sigmoid of its logit. For several classes, each logit is the log
    odds of its class against the background: the largest positive one wins, and the background if all are negative. The
    network is trained class by class and only knows "this class or anything else". Both readings agree if at most one
    class claims a voxel, and :meth:`InContext.meta_loss` trains through this function.
    """
    return torch.cat([torch.zeros_like(binary[:, :1]), binary], dim=1)


def context_logits(
    network: CrossUNet, query: Tensor, images: Tensor, masks: Tensor, *, at_once: int = SUPPORTS_AT_ONCE
) -> Tensor:
    """Segment a query by the supports, with one pass of the network per class.

    Args:
        network: The network.
        query: ``(C, *G)`` on the working grid.
        images: Support images ``(K, C, *G)``.
        masks: Support masks ``(K, N, *G)``.
        at_once: Number of supports per pass; more are read in groups whose logits are averaged.

    Returns:
        Logits ``(N + 1, *G)``. A class that no support contains gets -1e4.
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
    return add_background(torch.stack(found)[None])[0]


def build_start(backbone: CrossUNet) -> HeadStart:
    """Build a start from a copy of ``backbone``; meta-training changes the network only."""
    return HeadStart(copy.deepcopy(backbone))


def build_backbone(*, dims: int, in_channels: int = 1, width: int = 16, levels: int = 4) -> CrossUNet:
    """Build a random network for meta-training. Its stems fold 2 voxels an axis; each grid sets the pooling."""
    return CrossUNet(dims, in_channels, width, [[2] * dims] * levels)


class PseudoEpisodes:
    """Draws episodes from augmented views of the supports: a query, its mask, support images and their masks.

    Each episode is about one class, and every view is augmented by itself. The query's example is none of the support
    examples, unless there is a single support.

    Args:
        images: ``(K, C, *G)``.
        masks: ``(K, N, *G)`` in [0, 1].
        spacing_mm: Spacing of the grid.
        augmentation: How views are augmented.
        generator: Source of random numbers.
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
        """Draw an episode.

        Returns:
            Query ``(C, *G)``, its mask ``(*G)`` int64, support images ``(S, C, *G)`` and masks ``(S, *G)`` float32.
        """
        order = torch.randperm(len(self.samplers), generator=self.generator).tolist()
        index = self.present[int(torch.randint(len(self.present), (1,), generator=self.generator))]
        query, label = self.samplers[order[0]].sample()
        views = [self.samplers[i].sample() for i in (order[1:] or order)[:MAX_SHOTS]]
        images, labels = zip(*views, strict=True)
        return query, (label == index).long(), torch.stack(images), (torch.stack(labels) == index).float()


def grid_labels(masks: Tensor) -> Tensor:
    """Turn class fractions ``(K, N, *G)`` into labels ``(K, *G)``.

    A class that has no majority in any voxel marks every voxel that it touches.
    """
    labels = torch.cat([1 - masks.sum(1, keepdim=True), masks], dim=1).argmax(1)
    for label, own in zip(labels, masks, strict=True):
        for index, mask in enumerate(own, start=1):
            if not bool((label == index).any()):
                label[mask > 0] = index
    return labels


class InContextSegmenter(Segmenter):
    """Segments the whole field of view with a network that reads the supports.

    Args:
        network: The network.
        images: Support images ``(K, C, *G)`` on the working grid, float32.
        masks: Support masks ``(K, N, *G)``, float32.
        record: What adaptation reports.
    """

    kind = NAME
    parts: ClassVar = {"network": CrossUNet}
    whole_volume = True
    keeps_supports = True
    images: Tensor
    masks: Tensor

    def __init__(
        self,
        network: CrossUNet,
        images: Tensor = NOT_LOADED,
        masks: Tensor = NOT_LOADED,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(record)
        self.network = network.eval()
        self.register_buffer("images", images.contiguous())
        self.register_buffer("masks", masks.contiguous())

    def predict(self, image: Tensor) -> Tensor:
        """Compute logits ``(1, N + 1, *S)`` of an image ``(1, C, *S)``."""
        query = resized(image, self.images.shape[2:])[0]
        return resized(context_logits(self.network, query, self.images, self.masks)[None], image.shape[2:])


@dataclass(frozen=True)
class InContext(TrainedOptions):
    """Segments with a network that reads the supports as an input.

    It is made for meta-trained weights: with a ``start`` and 0 steps, nothing is trained. Without them the network is
    trained from scratch for ``steps`` on pseudo-episodes, in which augmented views of the supports play support and
    query. Then it learns these structures only, and ``finetune`` is the better choice.

    ``start`` is what :func:`build_start` makes, or a bare :class:`CrossUNet`.
    """

    steps: int = 200

    def adapt(self, support: Support) -> InContextSegmenter:
        """Resample the supports to the working grid, and train for ``steps``.

        Raises:
            InputError: There are neither steps nor a start, or the start does not fit this learner or the images.
        """
        begun = time.perf_counter()
        if any(bool((label < 0).any()) for label in support.labels):
            raise InputError(
                f"learner {NAME}: cannot learn from scans that are partly annotated",
                "annotate them completely, or take another learner",
                setting="learner",
            )
        grid = working_grid([label.shape for label in support.labels])
        images = torch.cat([resized(image[None].to(self.device), grid) for image in support.images])
        masks = torch.cat(
            [resized(class_masks(y[None].to(self.device), support.classes), grid) for y in support.labels]
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
        """Train the network in place and return the segmenter's record."""
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
        """Compute the loss on the queries; a scalar, differentiable in the parameters of ``start``.

        Raises:
            InputError: ``start`` is not from :func:`build_start`.
        """
        if not isinstance(self.start, HeadStart) or not isinstance(self.start.backbone, CrossUNet):
            raise missing_start_error(NAME)
        truth, support = episode.truth, episode.support
        grid = working_grid([truth.shape[1:]])
        images = resized(torch.stack(support.images), grid)
        masks = resized(class_masks(torch.stack(support.labels), support.classes), grid)
        queries = resized(episode.query.image, grid)
        fit_pooling(self.start.backbone, support, grid)
        logits = torch.stack([context_logits(self.start.backbone, query, images, masks) for query in queries])
        return dice_cross_entropy(resized(logits, truth.shape[1:]), truth)

    def _network(self, support: Support, grid: Sequence[int]) -> CrossUNet:
        network: Any = start_backbone(self.start, support, NAME)
        if network is None and self.steps == 0:
            raise missing_steps_error(NAME)
        if network is None:
            strides = choose_strides(grid, grid_spacing_mm(support, grid))
            size = support.spatial_dims, support.channels, self.width
            network = seeded(lambda: CrossUNet(*size, strides), self.seed)
        elif isinstance(network, CrossUNet):
            fit_pooling(network, support, grid)
        else:
            raise missing_start_error(NAME)
        return to_channels_last(network).to(self.device)


def fit_pooling(network: CrossUNet, support: Support, grid: Sequence[int]) -> None:
    """Set the pooling of ``network``, in place, for a working grid."""
    levels = len(network.config["strides"])
    network.set_strides(choose_strides(grid, grid_spacing_mm(support, grid), levels, network.fold))


def grid_spacing_mm(support: Support, grid: Sequence[int]) -> tuple[float, ...]:
    """Return the spacing of the working grid in mm, if the mean shape of the supports fills it."""
    extents = [sum(axis) / support.shots for axis in zip(*(label.shape for label in support.labels), strict=True)]
    return tuple(s * extent / size for s, extent, size in zip(support.spacing, extents, grid, strict=True))


SPEC = LearnerSpec(
    name=NAME,
    learner=InContext,
    summary="a network reads your labelled scans beside the new scan",
    segmenter=InContextSegmenter,
    build_start=build_start,
    build_backbone=build_backbone,
    network=CrossUNet,
    weights={(2, 1): "in-context-2d"},
    steps_from_weights=0,
)
