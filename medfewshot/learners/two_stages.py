"""Adaptation in two stages, for learners with an inner rule: the rule as it was meta-trained, then plain fine-tuning.

The inner rule is a handful of steps of gradient descent (Finn et al. 2017) on plain patches of the supports, which is
what it was trained for. What is left of the steps and of the time goes to :class:`Finetune`, from where the rule ends.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medfewshot.augment import NO_AUGMENTATION
from medfewshot.backbones import UNet, to_channels_last
from medfewshot.learners.base import TrainedOptions, needs_start
from medfewshot.learners.finetune import DIVERGED_LOSS, Finetune, NetworkSegmenter, random_unet
from medfewshot.learners.inner_loop import (
    HEAD,
    Loss,
    MamlStart,
    Weights,
    detached,
    forward_features,
    head_loss,
    inner_step,
    network_loss,
    with_weights,
)
from medfewshot.learners.patches import PatchSampler, check_kind, fit_strides
from medfewshot.types import Support


@dataclass(frozen=True)
class TwoStageOptions(TrainedOptions):
    """Settings of learners with an inner rule.

    ``steps`` counts both stages; the inner rule's steps come first and are always made, so 0 is the rule alone.
    ``learning_rate``, ``weight_decay`` and ``augmentation`` are those of fine-tuning. ``start`` is a
    :class:`MamlStart`, or a bare U-Net to build one around.
    """

    inner_steps: int = 5
    """Steps of the inner rule, in meta-training and in adaptation."""
    inner_rate: float = 0.1
    """The inner rule's rate if ``start`` does not bring its own."""
    batch_size: int = 1
    """Patches per step; in meta-training, the episode's examples that an inner step takes, in turn."""
    weight_decay: float = 1e-2


class TwoStages:
    """One adaptation of ``options`` to ``support``: the start it begins with, and the two stages."""

    def __init__(
        self, name: str, options: TwoStageOptions, support: Support, build_start: Callable[[UNet], MamlStart]
    ) -> None:
        self.name, self.options = name, options
        self.begun = time.perf_counter()
        self.support = support.to(options.device)
        self.sampler = PatchSampler(self.support, NO_AUGMENTATION, torch.Generator().manual_seed(options.seed))
        self.start = self._start(build_start)
        self.losses: list[float] = []
        self.diverged = False

    def _start(self, build_start: Callable[[UNet], MamlStart]) -> MamlStart:
        options = self.options
        if options.start is None:
            module: Any = random_unet(options, self.support, classes=2, seed=options.seed)
        else:
            module = copy.deepcopy(options.start)
        if not isinstance(module, (MamlStart, UNet)):
            raise needs_start(self.name)
        start = module if isinstance(module, MamlStart) else build_start(module)
        check_kind(start.backbone, self.support, self.name)
        fit_strides(start.backbone, self.support)
        to_channels_last(start.backbone)
        return start.to(options.device)

    def descend(self, weights: Weights, only: str = "") -> Weights:
        """The inner rule on patches of the support; a step that leads astray is taken back, and is the last."""
        progress = self.options.progress.at("inner steps")
        weights = detached(weights)
        for step in range(self.options.inner_steps):
            loss = self._loss(only)

            def rate(name: str, step: int = step) -> Tensor:
                return self.start.rate(name, step, self.support.classes).detach()

            moved, _ = inner_step(loss, weights, rate, second_order=False, only=only)
            with torch.no_grad():
                after = float(loss(moved))
            if not after < DIVERGED_LOSS:
                self.diverged = True
                break
            weights = detached(moved)
            self.losses.append(after)
            progress.update(step + 1, self.options.inner_steps, f"loss {after:.2f}")
            if self._left() <= 0:
                break
        return weights

    def _loss(self, only: str) -> Loss:
        images, labels = self.sampler.batch(self.options.batch_size)
        if only != HEAD:
            return network_loss(self.start.backbone, images, labels)
        with torch.no_grad():
            features = forward_features(self.start.backbone, images)
        return head_loss(self.start.backbone, features, labels)

    def fine_tune(self, weights: Weights) -> NetworkSegmenter:
        """Spend what is left of steps and time on ``weights``; hands back the segmenter."""
        network = to_channels_last(with_weights(self.start.backbone, weights))
        made, steps = len(self.losses), self.options.steps - self.options.inner_steps
        if steps <= 0 or self._left() <= 0:
            record = self._inner_record(network)
        else:
            segmenter = self._finetune(network, steps).adapt(self.support)
            network, record = segmenter.network, segmenter.record
            record["steps"] += made
        record |= {"learner": self.name, "inner_steps": made, "inner_diverged": self.diverged}
        return NetworkSegmenter(network, record | {"seconds": round(time.perf_counter() - self.begun, 2)})

    def _finetune(self, network: UNet, steps: int) -> Finetune:
        budget = None if self.options.budget_seconds is None else self._left()
        changes = {"start": network, "steps": steps, "budget_seconds": budget}
        settings = {**self.options.shared(), **changes}
        return Finetune(**settings, batch_size=self.options.batch_size, weight_decay=self.options.weight_decay)

    def _inner_record(self, network: UNet) -> dict[str, Any]:
        """What Finetune's record says, for the inner rule alone."""
        loss = self.losses[-1] if self.losses else math.nan
        return {
            "steps": len(self.losses),
            "stopped_by": "steps" if self.options.steps <= len(self.losses) or self._left() > 0 else "budget",
            "trained": not self.diverged,
            "final_loss": round(loss, 4) if math.isfinite(loss) else None,
            "parameters": sum(p.numel() for p in network.parameters()),
            "restarts": 0,
        }

    def _left(self) -> float:
        """Seconds left of the budget."""
        budget = self.options.budget_seconds
        return math.inf if budget is None else budget - (time.perf_counter() - self.begun)
