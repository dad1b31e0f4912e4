"""Transfer-learning baseline: train a network on the augmented supports, from a given start or a random one.

The plain recipe that every meta-learner has to beat (cf. Chen et al. 2019, "A Closer Look at Few-shot Classification";
Isensee et al. 2021, nnU-Net, for patches, loss and augmentation).

A start is pretrained on many tasks at once. Their classes vary in number and meaning, so none of them can have an
output of its own: each task's linear head is solved for in closed form on its support (``linear_head``), and the loss
on its query trains the features alone. Adaptation begins with the same closed-form head and then trains everything.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medfewshot.augment import NO_AUGMENTATION, Augmentation
from medfewshot.backbones import UNet, build_unet, cut_to, unfold_blocks
from medfewshot.devices import autocast
from medfewshot.errors import InputError
from medfewshot.learners.fitting import check_kind, fit_strides
from medfewshot.learners.linear_head import LinearHead, LinearHeadStart, class_frequencies
from medfewshot.learners.losses import dice_cross_entropy, dice_cross_entropy_parts
from medfewshot.learners.optimizer import AdaptationOptimizer
from medfewshot.learners.patches import FOREGROUND_FRACTION, PatchSampler, on_device
from medfewshot.learners.segmenters import NetworkSegmenter, seeded, to_channels_last
from medfewshot.types import Episode, Progress, Support

COLLAPSED_DICE = 0.02
"""Below this training Dice, halfway through, the network says background everywhere ..."""
STEPS_TO_JUDGE = 30
"""... unless it has hardly begun."""
DIVERGED_LOSS = 20.0
"""An untrained network's loss is about 1 + log(classes)."""
MOST_RESTARTS = 2
HEAD_PATCHES = 8
"""Patches that the closed-form head of a pretrained start is solved on, at least one of each support."""
TIMED_STEPS = (2, 10)
"""The budget is turned into steps by timing these; the very first ones are slower than the rest."""


@dataclass(frozen=True)
class Finetune:
    """Adapts a U-Net to the supports by gradient descent.

    Deterministic for a seed on one machine, as long as ``budget_seconds`` is not what ends it: the budget depends on
    the machine's speed, and the record says which of the two stopped adaptation.
    """

    steps: int = 1000
    """Optimiser steps; 0 keeps the closed-form head of a pretrained start as it is."""
    budget_seconds: float | None = None
    """Upper bound on adaptation time; the schedule is shortened to fit after the first few steps are timed."""
    batch_size: int = 1
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule (Muon for kernels, AdamW for the rest)."""
    weight_decay: float = 1e-2
    width: int = 16
    """Channels of the finest level."""
    seed: int = 0
    device: torch.device = torch.device("cpu")
    augmentation: Augmentation = field(default_factory=Augmentation)
    start: UNet | LinearHeadStart | None = None
    """Weights to start from, copied and never changed: a network as it is, or what pretraining made of a backbone."""
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> NetworkSegmenter:
        """Train on ``support``; returns a segmenter for windows of ``support.patch_size``."""
        begun = time.perf_counter()
        if self.steps < 1 and not isinstance(self.start, LinearHeadStart):
            raise InputError("learner finetune: 0 steps leave a random head; give meta-trained weights or some steps")
        support = on_device(support, self.device)
        restarts = 0
        while True:
            attempt = _Attempt(self, support, restarts, begun)
            outcome = attempt.run()
            if outcome["trained"] or restarts == MOST_RESTARTS or attempt.out_of_time():
                break
            restarts += 1
        outcome |= {"restarts": restarts, "seconds": round(time.perf_counter() - begun, 2)}
        return NetworkSegmenter(attempt.network, outcome)

    def meta_loss(self, episode: Episode) -> Tensor:
        """Cross entropy and Dice on the query, of the head solved on the support; patches as in ``MetaLearner``."""
        start, support, query = self.start, episode.support, episode.query
        if not isinstance(start, LinearHeadStart) or query.label is None:
            raise TypeError("meta-training needs a start from build_start, and queries with labels")
        backbone = start.backbone
        head = LinearHead(backbone, support.classes, class_frequencies(support.labels, support.classes))
        features = _features_of_all(backbone, torch.cat([torch.stack(support.images), query.image]))
        head.add(features[: support.shots], torch.stack(support.labels))
        weight, bias = start.as_head(head)
        scores = torch.einsum("bd...,od->bo...", features[support.shots :], weight)
        scores = scores + bias.view(1, -1, *[1] * (scores.ndim - 2))
        logits = cut_to(unfold_blocks(scores, backbone.fold), query.image.shape[2:])
        return dice_cross_entropy(logits, query.label)


def build_start(backbone: UNet) -> LinearHeadStart:
    """What meta-training changes: an agnostic backbone without a head, and the closed-form head's three numbers."""
    return LinearHeadStart(backbone)


def _features(network: UNet, image: Tensor) -> Tensor:
    with autocast(image.device):
        features = network.features(image)
    return features.float()


def _features_of_all(network: UNet, images: Tensor) -> Tensor:
    """One pass on a GPU; one image at a time on a CPU, where the normalisation of a lone sample is faster."""
    if images.device.type != "cpu":
        return _features(network, images)
    return torch.cat([_features(network, image[None]) for image in images])


class _Attempt:
    """One training run; later attempts learn more slowly and look at foreground only."""

    def __init__(self, learner: Finetune, support: Support, restarts: int, begun: float) -> None:
        self.learner, self.support, self.restarts, self.begun = learner, support, restarts, begun
        self.foreground = FOREGROUND_FRACTION if restarts == 0 else 1.0
        generator = torch.Generator().manual_seed(learner.seed + 7919 * restarts)
        self.sampler = PatchSampler(support, learner.augmentation, generator)
        self.network = self._network()
        rate = learner.learning_rate / 4**restarts
        self.optimizer = AdaptationOptimizer(self.network, rate, learner.weight_decay)
        self.rate = rate
        self.dice = torch.zeros(support.classes - 1)
        self.seen = torch.zeros(support.classes - 1)
        self.losses: list[float] = []
        self.skipped = 0
        self.timed_from = begun

    def _network(self) -> UNet:
        learner, support = self.learner, self.support
        dims = support.spatial_dims
        if isinstance(learner.start, LinearHeadStart):
            network = self._pretrained(learner.start)
        elif learner.start is not None:
            network = copy.deepcopy(learner.start)
        else:

            def build() -> UNet:
                return build_unet(
                    dims=dims,
                    in_channels=support.images[0].shape[0],
                    classes=support.classes,
                    patch_size=self.sampler.patch,
                    spacing_mm=support.spacing_mm or (1.0,) * dims,
                    width=learner.width,
                )

            network = seeded(build, learner.seed + self.restarts)  # type: ignore[assignment]
        return to_channels_last(network).to(learner.device).train()

    def _pretrained(self, start: LinearHeadStart) -> UNet:
        """The start's backbone with the strides of this support's patches, and a head in closed form."""
        support, backbone = self.support, copy.deepcopy(start.backbone)
        check_kind(backbone, support, "finetune")
        fit_strides(backbone, support)
        build = lambda: backbone.with_strides(backbone.config["strides"], support.classes)  # noqa: E731
        network: UNet = seeded(build, self.learner.seed + self.restarts)  # type: ignore[assignment]
        network = to_channels_last(network).to(self.learner.device)
        generator = torch.Generator().manual_seed(self.learner.seed)
        sampler = PatchSampler(support, NO_AUGMENTATION, generator)
        patches = [sampler.sample() for _ in range(max(HEAD_PATCHES, 2 * support.shots))]
        head = LinearHead(network, support.classes, class_frequencies([y for _, y in patches], support.classes))
        with torch.no_grad():
            for image, label in patches:
                head.add(_features(network, image[None]), label[None])
            weight, bias = start.as_head(head)
            network.head.weight.copy_(weight.view_as(network.head.weight))  # type: ignore[operator,union-attr,arg-type]
            network.head.bias.copy_(bias)  # type: ignore[operator,union-attr]
        return network

    def run(self) -> dict[str, Any]:
        """Train to the end of the steps or the budget; what came of it."""
        total, done = self.learner.steps, 0
        while done < total and not self.out_of_time():
            if done == TIMED_STEPS[0]:
                self.timed_from = time.perf_counter()
            elif done == TIMED_STEPS[1]:
                total = min(total, self._affordable_steps())
            self.optimizer.set_rate(self.rate * one_cycle(done / total))
            self._step()
            done += 1
            self.learner.progress.update(done, total, f"loss {self.losses[-1]:.2f}")
            if done == total // 2 and self._collapsed():
                return self._outcome(done, "collapse", trained=False)
        return self._outcome(done, "steps" if done == self.learner.steps else "budget", trained=not self._collapsed())

    def _affordable_steps(self) -> int:
        """How many steps fit into the budget, from the time that the first few took."""
        if self.learner.budget_seconds is None:
            return self.learner.steps
        now = time.perf_counter()
        per_step = (now - self.timed_from) / (TIMED_STEPS[1] - TIMED_STEPS[0])
        left = self.learner.budget_seconds - (now - self.begun)
        return TIMED_STEPS[1] + max(1, int(0.97 * left / per_step))

    def out_of_time(self) -> bool:
        """Whether the budget is spent; a first step is always made."""
        budget = self.learner.budget_seconds
        return budget is not None and bool(self.losses) and time.perf_counter() - self.begun > budget

    def _step(self) -> None:
        total = 0.0
        for _ in range(self.learner.batch_size):
            image, label = self.sampler.sample(self.foreground)
            with autocast(self.learner.device):
                logits = self.network(image[None])
            loss, dice, present = dice_cross_entropy_parts(logits, label[None])
            (loss / self.learner.batch_size).backward()
            total += float(loss.detach()) / self.learner.batch_size
            self._follow_dice(dice.detach().cpu(), present.cpu())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.skipped += 1
        self.optimizer.zero_grad()
        self.losses.append(total)

    def _follow_dice(self, dice: Tensor, present: Tensor) -> None:
        """Running means with the weight of what was seen so far, so that the first steps count in full."""
        share = torch.where(present & dice.isfinite(), 0.1, 0.0)
        self.dice = (1 - share) * self.dice + share * dice.nan_to_num()
        self.seen = (1 - share) * self.seen + share

    def _training_dice(self) -> Tensor:
        return self.dice / self.seen.clamp_min(1e-6)

    def _collapsed(self) -> bool:
        recent = sum(self.losses[-20:]) / max(1, len(self.losses[-20:]))
        if not recent < DIVERGED_LOSS or self.skipped > len(self.losses) // 2:
            return True
        return len(self.losses) >= STEPS_TO_JUDGE and bool((self._training_dice() < COLLAPSED_DICE).all())

    def _outcome(self, steps: int, stopped_by: str, trained: bool) -> dict[str, Any]:
        recent = self.losses[-20:]
        loss = sum(recent) / len(recent) if recent else math.nan
        return {
            "learner": "finetune",
            "steps": steps,
            "stopped_by": stopped_by,
            "trained": trained,
            "final_loss": round(loss, 4) if math.isfinite(loss) else None,
            "training_dice": [round(float(d), 4) for d in self._training_dice()],
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }


def one_cycle(fraction: float, warm_up: float = 0.15) -> float:
    """Learning-rate factor: cosine up to 1 during the warm-up, cosine down to 0 at the end (Smith & Topin 2018)."""
    if fraction < warm_up:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * fraction / warm_up)) / 2
    return (1 + math.cos(math.pi * (fraction - warm_up) / (1 - warm_up))) / 2
