"""Adaptation in two stages, for learners with an inner rule: the rule as it was meta-trained, then plain fine-tuning.

The inner rule is a handful of steps of gradient descent (Finn et al. 2017) on plain patches of the supports, which is
what it was trained for. What is left of the steps and of the time goes to :class:`Finetune`, from where the rule ends.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

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
    in_turn,
    inner_step,
    network_loss,
    with_weights,
)
from medfewshot.learners.patches import PatchSampler, check_kind, fit_strides
from medfewshot.types import Support

Examples = Iterable[tuple[Tensor, Tensor]]
"""Batches of images ``(B, C, *S)`` and labels ``(B, *S)``."""
SHARED: dict[str, Callable[[Any], bool]] = {
    "inner_steps": lambda value: type(value) is int and value >= 0,
    "batch_size": lambda value: type(value) is int and value >= 1,
}
"""Settings that adaptation shares with meta-training: see ``LearnerSpec.shared``."""


@dataclass(frozen=True)
class InnerLoopLearner(TrainedOptions):
    """A learner with an inner rule.

    ``steps`` counts both stages; the inner rule's steps come first and are always made, so 0 is the rule alone.
    ``learning_rate``, ``weight_decay`` and ``augmentation`` are those of fine-tuning. ``start`` is a
    :class:`MamlStart`, or a bare U-Net to build one around.
    """

    name: ClassVar[str]
    inner_steps: int = 5
    """Steps of the inner rule, in meta-training and in adaptation."""
    inner_rate: float = 0.1
    """The inner rule's rate if ``start`` does not bring its own."""
    batch_size: int = 1
    """Patches per step; in meta-training, the episode's examples that an inner step takes, in turn."""
    weight_decay: float = 1e-2

    @property
    def only(self) -> str:
        """Names of the weights that the inner rule moves begin with this."""
        return ""

    def build_start(self, backbone: UNet) -> MamlStart:
        """Meta-parameters around a copy of ``backbone``, in the form that this learner trains."""
        raise NotImplementedError

    def initial(self, start: MamlStart, classes: int, examples: Examples) -> Weights:
        """The weights that the inner rule begins with; ``examples`` are of the support."""
        raise NotImplementedError

    def adapt(self, support: Support) -> NetworkSegmenter:
        """The inner rule, then fine-tuning of all weights.

        Returns:
            A segmenter for windows of ``support.patch_size``.

        Raises:
            InputError: ``start`` is not one, or was made for images of another kind.
        """
        stages = _Adaptation(self, support)
        examples = ((image[None], label[None]) for image, label in stages.sampler.cover())
        with torch.no_grad():
            weights = self.initial(stages.start, support.classes, examples)
        return stages.fine_tune(stages.descend(weights))

    def meta_start(self, support: Support) -> MamlStart:
        """The start, for meta-training on an episode of ``support``. Raises InputError if there is none that fits."""
        if not isinstance(self.start, MamlStart):
            raise needs_start(self.name)
        check_kind(self.start.backbone, support, self.name)
        return self.start

    def path(
        self, start: MamlStart, support: Support, weights: Weights | None = None, *, second_order: bool
    ) -> list[Weights]:
        """The weights after every inner step on the whole supports, from ``weights`` or those of ``start``.

        Without a step, these alone.
        """
        images, labels = torch.stack(support.images), torch.stack(support.labels)
        inputs = forward_features(start.backbone, images) if self.only == HEAD else images
        loss_of = head_loss if self.only == HEAD else network_loss
        path = [weights or start.weights(support.classes)]
        for step in range(self.inner_steps):
            chosen = in_turn(len(inputs), self.batch_size, step)
            loss = loss_of(start.backbone, inputs[chosen], labels[chosen])
            rate = partial(start.rate, step=step, classes=support.classes)
            path.append(inner_step(loss, path[-1], rate, second_order=second_order, only=self.only))
        return path[1:] or path


class _Adaptation:
    """One adaptation of ``learner`` to ``support``."""

    def __init__(self, learner: InnerLoopLearner, support: Support) -> None:
        self.learner, self.begun = learner, time.perf_counter()
        self.support = support.to(learner.device)
        self.sampler = PatchSampler(self.support, NO_AUGMENTATION, torch.Generator().manual_seed(learner.seed))
        self.start = self._start()
        self.losses: list[float] = []
        self.diverged = False

    def _start(self) -> MamlStart:
        learner = self.learner
        module: Any = copy.deepcopy(learner.start)
        if module is None:
            module = random_unet(learner, self.support, classes=2, seed=learner.seed)
        if not isinstance(module, (MamlStart, UNet)):
            raise needs_start(learner.name)
        start = module if isinstance(module, MamlStart) else learner.build_start(module)
        check_kind(start.backbone, self.support, learner.name)
        fit_strides(start.backbone, self.support)
        to_channels_last(start.backbone)
        return start.to(learner.device)

    def descend(self, weights: Weights) -> Weights:
        """The inner rule on patches of the support; a step that leads astray is taken back, and is the last."""
        learner, progress = self.learner, self.learner.progress.at("inner steps")
        weights = detached(weights)
        for step in range(learner.inner_steps):
            loss, rate = self._loss(), partial(self._rate, step=step)
            moved = inner_step(loss, weights, rate, second_order=False, only=learner.only)
            with torch.no_grad():
                after = float(loss(moved))
            if not after < DIVERGED_LOSS:
                self.diverged = True
                break
            weights = detached(moved)
            self.losses.append(after)
            progress.update(step + 1, learner.inner_steps, f"loss {after:.2f}")
            if self._left() <= 0:
                break
        return weights

    def _loss(self) -> Loss:
        images, labels = self.sampler.batch(self.learner.batch_size)
        if self.learner.only != HEAD:
            return network_loss(self.start.backbone, images, labels)
        with torch.no_grad():
            features = forward_features(self.start.backbone, images)
        return head_loss(self.start.backbone, features, labels)

    def _rate(self, name: str, step: int) -> Tensor:
        return self.start.rate(name, step, self.support.classes).detach()

    def fine_tune(self, weights: Weights) -> NetworkSegmenter:
        """Spend what is left of steps and time on ``weights``; hands back the segmenter."""
        learner, left = self.learner, self._left()
        network = to_channels_last(with_weights(self.start.backbone, weights))
        made, steps = len(self.losses), learner.steps - learner.inner_steps
        if steps <= 0 or left <= 0:
            record = self._inner_record(network)
        else:
            changes = {"start": network, "steps": steps, "budget_seconds": left if math.isfinite(left) else None}
            finetune = Finetune(**learner.shared() | changes)
            finetune = replace(finetune, batch_size=learner.batch_size, weight_decay=learner.weight_decay)
            segmenter = finetune.adapt(self.support)
            network, record = segmenter.network, segmenter.record
            record["steps"] += made
        record |= {"learner": learner.name, "inner_steps": made, "inner_diverged": self.diverged}
        return NetworkSegmenter(network, record | {"seconds": round(time.perf_counter() - self.begun, 2)})

    def _inner_record(self, network: UNet) -> dict[str, Any]:
        """What Finetune's record says, for the inner rule alone."""
        loss = self.losses[-1] if self.losses else math.nan
        return {
            "steps": len(self.losses),
            "stopped_by": "steps" if self.learner.steps <= len(self.losses) or self._left() > 0 else "budget",
            "trained": not self.diverged,
            "final_loss": round(loss, 4) if math.isfinite(loss) else None,
            "parameters": sum(p.numel() for p in network.parameters()),
            "restarts": 0,
        }

    def _left(self) -> float:
        """Seconds left of the budget."""
        budget = self.learner.budget_seconds
        return math.inf if budget is None else budget - (time.perf_counter() - self.begun)
