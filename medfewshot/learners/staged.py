"""Adaptation in two stages, for learners with an inner rule: the rule as it was meta-trained, then plain fine-tuning.

The inner rule is a handful of steps of gradient descent (Finn et al. 2017) on plain patches of the supports, which is
what it was trained for. What is left of the steps and of the time goes to :class:`Finetune`, from where the rule ends.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.augment import NO_AUGMENTATION, Augmentation
from medfewshot.backbones import UNet, build_unet
from medfewshot.learners.finetune import DIVERGED_LOSS, Finetune
from medfewshot.learners.fitting import check_kind, fit_strides
from medfewshot.learners.inner import (
    HEAD,
    Loss,
    MamlStart,
    Weights,
    as_start,
    detached,
    forward_features,
    head_loss,
    inner_step,
    network_loss,
    with_weights,
)
from medfewshot.learners.patches import PatchSampler
from medfewshot.learners.segmenters import NetworkSegmenter, seeded, to_channels_last
from medfewshot.types import Progress, Support


@dataclass(frozen=True)
class StagedOptions:
    """What every learner with an inner rule is told; the names are :class:`Finetune`'s where they mean the same."""

    steps: int = 1000
    """Gradient steps in all. The inner rule's are the first of them and always made, so 0 is the rule alone."""
    budget_seconds: float | None = None
    """Upper bound on adaptation time; the first inner step is always made."""
    inner_steps: int = 5
    """Steps of the inner rule, in meta-training and in adaptation."""
    inner_rate: float = 0.1
    """The inner rule's rate where no ``start`` brings its own."""
    batch_size: int = 1
    """Patches per step; in meta-training, the episode's examples that an inner step takes, in turn."""
    learning_rate: float = 2e-3
    """Of the fine-tuning stage."""
    weight_decay: float = 1e-2
    """Of the fine-tuning stage."""
    width: int = 16
    """Channels of the finest level, where there is no ``start``."""
    seed: int = 0
    device: torch.device = torch.device("cpu")
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Of the fine-tuning stage; the inner rule reads plain patches."""
    start: nn.Module | None = None
    """A :class:`MamlStart`, or a bare U-Net to build one around; copied, never changed by adaptation."""
    progress: Progress = field(default_factory=Progress)


class Adaptation:
    """One adaptation of ``options`` to ``support``: the start it begins with, and the two stages."""

    def __init__(
        self, name: str, options: StagedOptions, support: Support, build_start: Callable[[UNet], MamlStart]
    ) -> None:
        self.name, self.options = name, options
        self.begun = time.perf_counter()
        images, labels = ([one.to(options.device) for one in these] for these in (support.images, support.labels))
        self.support = replace(support, images=tuple(images), labels=tuple(labels))
        self.sampler = PatchSampler(self.support, NO_AUGMENTATION, torch.Generator().manual_seed(options.seed))
        self.start = self._start(build_start)
        self.losses: list[float] = []
        self.diverged = False

    def _start(self, build_start: Callable[[UNet], MamlStart]) -> MamlStart:
        dims, options = self.support.spatial_dims, self.options

        def build() -> UNet:
            return build_unet(
                dims=dims,
                in_channels=self.support.images[0].shape[0],
                classes=2,
                patch_size=self.sampler.patch,
                spacing_mm=self.support.spacing_mm or (1.0,) * dims,
                width=options.width,
            )

        module = seeded(build, options.seed) if options.start is None else copy.deepcopy(options.start)
        start = as_start(module, self.name, build_start)
        check_kind(start.backbone, self.support, self.name)
        fit_strides(start.backbone, self.support)
        to_channels_last(start.backbone)
        return start.to(options.device)

    def descend(self, weights: Weights, only: str = "") -> Weights:
        """The inner rule on patches of the support; a step that leads astray is taken back, and is the last."""
        total = max(self.options.steps, self.options.inner_steps)
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
            self.options.progress.update(step + 1, total, f"loss {after:.2f}")
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
        shared = {f.name for f in fields(Finetune)} & {f.name for f in fields(self.options)}
        learner = Finetune(**{name: getattr(self.options, name) for name in shared - {"start"}})
        made, told = self.options.inner_steps, self.options.progress.update
        return replace(
            learner,
            start=network,
            steps=steps,
            budget_seconds=None if self.options.budget_seconds is None else self._left(),
            progress=Progress(lambda event: told(event.done + made, event.total + made, event.text)),
        )

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
