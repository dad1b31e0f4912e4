"""Fine-tuning (transfer learning): train a U-Net on the augmented supports, from scratch or from a start.

The baseline for every meta-learner. Patches, loss and augmentation follow nnU-Net.

A start is pretrained on many tasks. Their classes vary in number and meaning, so no class can have an output of its
own. Instead, each task's linear head is solved in closed form on its support (``linear_head``), and the loss on its
query trains the features alone. Adaptation begins with the same closed-form head and then trains all weights.

References:
    Chen et al. 2019, "A Closer Look at Few-shot Classification".
    Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation".
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medfewshot.augment import NO_AUGMENTATION
from medfewshot.backbones import UNet, choose_strides, cut_to, seeded, to_channels_last, unfold_blocks
from medfewshot.devices import autocast
from medfewshot.errors import InputError
from medfewshot.learners.base import LearnerSpec, Segmenter, TrainedOptions, missing_start_error, missing_steps_error
from medfewshot.learners.features import block_features, start_backbone, unet_of_start
from medfewshot.learners.linear_head import LinearHead, LinearHeadStart, class_frequencies
from medfewshot.learners.optimization import (
    COLLAPSED_DICE,
    GradientDescent,
    dice_cross_entropy,
    dice_cross_entropy_parts,
)
from medfewshot.learners.patches import FOREGROUND_FRACTION, PatchSampler, fitted
from medfewshot.types import Episode, Support

NAME = "finetune"
STEPS_TO_JUDGE = 30
"""From this step on, training is checked by its Dice."""
DIVERGED_LOSS = 20.0
"""Training has diverged above this loss; an untrained network's is about 1 + log(classes)."""
MAX_RESTARTS = 2
"""Restarts after a collapsed training."""
DETAIL = 16
"""Hidden channels of the part of the network that sees single voxels (``lab/notes/results.md``)."""
HEAD_PATCHES = 8
"""Patches for the closed-form head of a pretrained start; at least two per support."""


class NetworkSegmenter(Segmenter):
    """Segments with a network alone.

    Args:
        network: Maps images ``(B, C, *S)`` to logits ``(B, N + 1, *S)``.
        record: What adaptation reports.
    """

    kind = "network"
    parts: ClassVar = {"network": UNet}

    def __init__(self, network: UNet, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(record)
        self.network = network.eval()
        self.register_load_state_dict_pre_hook(_rename_version_1)

    @property
    def trained_network(self) -> UNet:
        """The network."""
        return self.network

    def predict(self, image: Tensor) -> Tensor:
        """Compute logits ``(1, N + 1, *S)`` of an image ``(1, C, *S)``."""
        with autocast(self.device):
            logits: Tensor = self.network(image).float()
        return logits


@dataclass(frozen=True)
class Finetune(TrainedOptions):
    """Trains a U-Net on the supports by gradient descent.

    Deterministic for a seed on one machine, unless ``budget_seconds`` ends it. ``start`` is a network, or
    a :class:`LinearHeadStart` that meta-training changed.
    """

    batch_size: int = 1
    weight_decay: float = 1e-2
    random_start: bool = False
    """Whether the training of ``start``, an adapted network, began with random weights."""

    def adapt(self, support: Support) -> NetworkSegmenter:
        """Train on ``support``.

        Returns:
            A segmenter for windows of ``support.patch_size``. Its record contains steps, loss, Dice on the training
            patches and restarts.

        Raises:
            InputError: There are 0 steps without a meta-trained start, or the start does not fit the images.
        """
        begun = time.perf_counter()
        if self.steps < 1 and not isinstance(self.start, LinearHeadStart):
            raise missing_steps_error(NAME)
        support = support.to(self.device)
        restarts = 0
        while True:
            attempt = _Attempt(self, support, restarts, begun)
            outcome = attempt.run()
            if outcome["trained"] or restarts == MAX_RESTARTS or attempt.descent.out_of_time():
                break
            restarts += 1
        outcome |= {"restarts": restarts, "seconds": round(time.perf_counter() - begun, 2)}
        return NetworkSegmenter(attempt.network, outcome)

    def meta_loss(self, episode: Episode) -> Tensor:
        """Compute cross entropy and Dice on the query, with the head solved on the support.

        Raises:
            InputError: ``start`` is no :class:`LinearHeadStart`, or the query has no label.
        """
        start, support, query = self.start, episode.support, episode.query
        if not isinstance(start, LinearHeadStart):
            raise missing_start_error(NAME)
        truth = episode.truth
        backbone = start.backbone
        head = LinearHead(backbone, support.classes, class_frequencies(support.labels, support.classes))
        images = torch.cat([torch.stack(support.images), query.image])
        # A CPU normalises a single sample faster; a GPU takes all in one pass.
        batches = images.split(1 if images.device.type == "cpu" else len(images))
        features = torch.cat([block_features(backbone, batch) for batch in batches])
        head.add(features[: support.shots], torch.stack(support.labels))
        weight, bias = start.as_head(head)
        scores = torch.einsum("bd...,od->bo...", features[support.shots :], weight)
        scores = scores + bias.view(1, -1, *[1] * (scores.ndim - 2))
        return dice_cross_entropy(cut_to(unfold_blocks(scores, backbone.fold), query.image.shape[2:]), truth)


def convert_start(start: nn.Module) -> LinearHeadStart | None:
    """Return the start itself, or one from the U-Net of another learner's start; None if that has none."""
    if isinstance(start, LinearHeadStart):
        return start
    backbone = unet_of_start(start)
    return None if backbone is None else LinearHeadStart(backbone)


def random_unet(options: TrainedOptions, support: Support, *, classes: int, seed: int) -> UNet:
    """Build a U-Net with random weights whose strides follow from the support's patches."""
    build = partial(
        UNet, support.spatial_dims, support.channels, classes, options.width,
        choose_strides(support.window, support.spacing), detail=DETAIL if classes else 0,
    )  # fmt: skip
    return seeded(build, seed)


def adapted_features(learner: TrainedOptions, support: Support, name: str) -> tuple[UNet, dict[str, Any]]:
    """Train a feature network on the supports for another learner.

    Args:
        learner: Gives ``steps`` and ``start``. Training begins at ``start`` if there is one: a :class:`UNet`, or a
            module with a ``backbone``.
        support: The supports.
        name: The learner's name, for record and errors.

    Returns:
        The network, and the record of its training.

    Raises:
        InputError: There is neither a start nor a step, or the start does not fit the supports.
    """
    backbone: UNet | None = start_backbone(learner.start, support, name)
    if learner.steps > 0:
        if backbone is not None and backbone.config["classes"] != support.classes:
            backbone = seeded(partial(backbone.with_classes, support.classes), learner.seed)
        start = None if backbone is None else backbone.requires_grad_(True)
        segmenter = Finetune(**learner.as_keywords() | {"start": start}).adapt(support)
        return segmenter.network, segmenter.record | {"learner": name}
    if backbone is None:
        raise missing_steps_error(name)
    network = to_channels_last(backbone).to(learner.device).eval()
    learner.progress.update(1, 1, "features from the start")
    return network, {"learner": name, "steps": 0, "stopped_by": "steps"}


class _Attempt:
    """One training run. Restarts use a lower learning rate and patches around foreground only."""

    def __init__(self, learner: Finetune, support: Support, restarts: int, begun: float) -> None:
        self.learner, self.support, self.restarts = learner, support, restarts
        self.foreground = FOREGROUND_FRACTION if restarts == 0 else 1.0
        generator = torch.Generator().manual_seed(learner.seed + 7919 * restarts)
        self.sampler = PatchSampler(support, learner.augmentation, generator)
        self.network = to_channels_last(self._network()).to(learner.device)
        self.descent = GradientDescent(
            self.network, learner, begun=begun, slower=4**restarts, weight_decay=learner.weight_decay,
            gently=support.shots == 1 and learner.start is not None and not learner.random_start,
        )  # fmt: skip
        self.dice = torch.zeros(support.classes - 1)
        self.seen = torch.zeros(support.classes - 1)

    def _network(self) -> UNet:
        start, seed = self.learner.start, self.learner.seed + self.restarts
        if isinstance(start, LinearHeadStart):
            return self._pretrained(start, seed)
        if isinstance(start, UNet) and start.config["classes"] == 0:
            return self._pretrained(LinearHeadStart(start), seed)
        if start is not None:
            network: UNet = copy.deepcopy(start)  # type: ignore[assignment]
            if network.config["classes"] != self.support.classes:
                raise InputError(
                    f"learner {NAME}: the network has a head of {network.config['classes']} classes, the supports have "
                    f"{self.support.classes} with the background",
                    "give a network without a head, or one with as many classes",
                    setting="start",
                )
            return network
        return random_unet(self.learner, self.support, classes=self.support.classes, seed=seed)

    def _pretrained(self, start: LinearHeadStart, seed: int) -> UNet:
        """Build the start's backbone with the strides of this support's patches and a head in closed form."""
        support = self.support
        backbone = fitted(start.backbone, support, NAME)
        network = seeded(lambda: backbone.with_classes(support.classes, detail=DETAIL), seed)
        network = to_channels_last(network).to(self.learner.device)
        sampler = PatchSampler(support, NO_AUGMENTATION, torch.Generator().manual_seed(self.learner.seed))
        patches = [sampler.sample() for _ in range(max(HEAD_PATCHES, 2 * support.shots))]
        head = LinearHead(network, support.classes, class_frequencies([y for _, y in patches], support.classes))
        with torch.no_grad():
            for image, label in patches:
                head.add(block_features(network, image[None]), label[None])
            weight, bias = start.as_head(head)
            network.head.weight.copy_(weight.view_as(network.head.weight))  # type: ignore[operator,union-attr,arg-type]
            network.head.bias.copy_(bias)  # type: ignore[operator,union-attr]
        return network

    def run(self) -> dict[str, Any]:
        """Train to the end of the steps or the budget, and return the segmenter's record."""
        self.descent.run(self._backward, self._collapsed)
        trained = self.descent.stopped_by != "collapse" and not self._collapsed()
        dice = [round(float(d), 4) for d in self._training_dice()]
        return {"learner": NAME, **self.descent.record(), "trained": trained, "training_dice": dice}

    def _backward(self) -> float:
        total = 0.0
        for _ in range(self.learner.batch_size):
            image, label = self.sampler.sample(self.foreground)
            with autocast(self.learner.device):
                logits = self.network(image[None])
            loss, dice, present = dice_cross_entropy_parts(logits, label[None])
            (loss / self.learner.batch_size).backward()
            total += float(loss.detach()) / self.learner.batch_size
            self._update_dice(dice.detach().cpu(), present.cpu())
        return total

    def _update_dice(self, dice: Tensor, present: Tensor) -> None:
        """Update running means; the first steps count in full."""
        share = torch.where(present & dice.isfinite(), 0.1, 0.0)
        self.dice = (1 - share) * self.dice + share * dice.nan_to_num()
        self.seen = (1 - share) * self.seen + share

    def _training_dice(self) -> Tensor:
        return self.dice / self.seen.clamp_min(1e-6)

    def _collapsed(self) -> bool:
        """Return whether the loss diverged, or the network still predicts background everywhere."""
        steps = len(self.descent.losses)
        if steps and (not self.descent.recent_loss < DIVERGED_LOSS or self.descent.skipped > steps // 2):
            return True
        return steps >= STEPS_TO_JUDGE and bool((self._training_dice() < COLLAPSED_DICE).all())


def _rename_version_1(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Read the tensors of format version 1, whose names lack ``network.``."""
    if f"{prefix}network.stem.weight" not in state:
        for name in [name for name in state if name.startswith(prefix)]:
            state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)


SPEC = LearnerSpec(
    name=NAME,
    instant_steps=20,
    learner=Finetune,
    summary="a network (U-Net) trained on your labelled scans",
    segmenter=NetworkSegmenter,
    build_start=LinearHeadStart,
    weights={(3, 1): "default"},
    steps_from_weights=400,
    steps_continued=150,
    convert_start=convert_start,
    auto_dims=(2,),
    derived=True,
)
