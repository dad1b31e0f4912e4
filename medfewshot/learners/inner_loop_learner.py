"""Base of the MAML learners: adapt by the inner loop as it was meta-trained, then fine-tune.

The inner loop takes a few steps of gradient descent on plain patches of the supports, as in meta-training. The
remaining steps and time go to :class:`Finetune`, which starts from the result.
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
from medfewshot.backbones import UNet, seeded, to_channels_last
from medfewshot.learners.base import TrainedOptions, missing_start_error
from medfewshot.learners.finetune import DIVERGED_LOSS, Finetune, NetworkSegmenter, random_unet
from medfewshot.learners.inner_loop import (
    HEAD,
    Loss,
    MamlStart,
    Weights,
    cyclic_indices,
    detached,
    forward_features,
    head_loss,
    inner_step,
    network_loss,
    with_weights,
)
from medfewshot.learners.patches import PatchSampler, check_kind, fit_strides
from medfewshot.types import Support

Examples = Iterable[tuple[Tensor, Tensor]]
"""Batches of images ``(B, C, *S)`` and labels ``(B, *S)``."""
SHARED_SETTINGS: dict[str, Callable[[Any], bool]] = {
    "inner_steps": lambda value: type(value) is int and value >= 0,
    "batch_size": lambda value: type(value) is int and value >= 1,
}
"""Settings that adaptation shares with meta-training: see ``LearnerSpec.shared_settings``."""


@dataclass(frozen=True)
class InnerLoopLearner(TrainedOptions):
    """A learner with an inner loop, followed by fine-tuning.

    ``steps`` counts both; the inner steps come first and are always made, so 0 means the inner loop alone.
    ``learning_rate``, ``weight_decay`` and ``augmentation`` belong to fine-tuning. ``start`` is a :class:`MamlStart`,
    or a bare U-Net to build one from.
    """

    name: ClassVar[str]
    inner_steps: int = 5
    """Steps of the inner loop, in meta-training and in adaptation."""
    inner_rate: float = 0.1
    """Learning rate of the inner loop, if ``start`` has none."""
    batch_size: int = 1
    """Patches per step; in meta-training, the number of the episode's examples per inner step."""
    weight_decay: float = 1e-2

    @property
    def inner_prefix(self) -> str:
        """Prefix of the names of the weights that the inner loop changes."""
        return ""

    def build_start(self, backbone: UNet) -> MamlStart:
        """Build the meta-parameters of this learner from a copy of ``backbone``."""
        raise NotImplementedError

    def initial_weights(self, start: MamlStart, classes: int, examples: Examples) -> Weights:
        """Return the weights before the inner loop; ``examples`` belong to the support."""
        raise NotImplementedError

    def adapt(self, support: Support) -> NetworkSegmenter:
        """Run the inner loop, then fine-tune all weights.

        Returns:
            A segmenter for windows of ``support.patch_size``.

        Raises:
            InputError: ``start`` is not one of this learner, or does not fit the images.
        """
        adaptation = _Adaptation(self, support)
        examples = ((image[None], label[None]) for image, label in adaptation.sampler.covering_patches())
        with torch.no_grad():
            weights = self.initial_weights(adaptation.start, support.classes, examples)
        return adaptation.fine_tune(adaptation.inner_loop(weights))

    def meta_start(self, support: Support) -> MamlStart:
        """Return the start for meta-training on an episode of ``support``.

        Raises:
            InputError: There is no start that fits.
        """
        if not isinstance(self.start, MamlStart):
            raise missing_start_error(self.name)
        check_kind(self.start.backbone, support, self.name)
        return self.start

    def inner_path(
        self, start: MamlStart, support: Support, weights: Weights | None = None, *, second_order: bool
    ) -> list[Weights]:
        """Run the inner loop on the whole supports.

        Args:
            start: The meta-parameters.
            support: Patches of one shape.
            weights: Initial weights; default: those of ``start``.
            second_order: As in :func:`inner_step`.

        Returns:
            The weights after every inner step; without steps, the initial ones.
        """
        images, labels = torch.stack(support.images), torch.stack(support.labels)
        inputs = forward_features(start.backbone, images) if self.inner_prefix == HEAD else images
        loss_of = head_loss if self.inner_prefix == HEAD else network_loss
        path = [weights or start.weights(support.classes)]
        for step in range(self.inner_steps):
            chosen = cyclic_indices(len(inputs), self.batch_size, step)
            loss = loss_of(start.backbone, inputs[chosen], labels[chosen])
            rate = partial(start.rate, step=step, classes=support.classes)
            path.append(inner_step(loss, path[-1], rate, second_order=second_order, prefix=self.inner_prefix))
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
            raise missing_start_error(learner.name)
        if not isinstance(module, MamlStart):  # draws a head for a network without one
            module = seeded(partial(learner.build_start, module), learner.seed)
        check_kind(module.backbone, self.support, learner.name)
        fit_strides(module.backbone, self.support)
        to_channels_last(module.backbone)
        return module.to(learner.device)

    def inner_loop(self, weights: Weights) -> Weights:
        """Run the inner loop on patches of the support; a step after which the loss diverges is undone and the last."""
        learner, progress = self.learner, self.learner.progress.at("inner steps")
        weights = detached(weights)
        for step in range(learner.inner_steps):
            loss, rate = self._loss(), partial(self._rate, step=step)
            moved = inner_step(loss, weights, rate, second_order=False, prefix=learner.inner_prefix)
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
        if self.learner.inner_prefix != HEAD:
            return network_loss(self.start.backbone, images, labels)
        with torch.no_grad():
            features = forward_features(self.start.backbone, images)
        return head_loss(self.start.backbone, features, labels)

    def _rate(self, name: str, step: int) -> Tensor:
        return self.start.rate(name, step, self.support.classes).detach()

    def fine_tune(self, weights: Weights) -> NetworkSegmenter:
        """Fine-tune ``weights`` with the remaining steps and time, and return the segmenter."""
        learner, left = self.learner, self._left()
        network = to_channels_last(with_weights(self.start.backbone, weights))
        made, steps = len(self.losses), learner.steps - learner.inner_steps
        if steps <= 0 or left <= 0:
            record = self._inner_record(network)
        else:
            changes = {"start": network, "steps": steps, "budget_seconds": left if math.isfinite(left) else None}
            finetune = Finetune(**learner.as_keywords() | changes)
            finetune = replace(finetune, batch_size=learner.batch_size, weight_decay=learner.weight_decay)
            segmenter = finetune.adapt(self.support)
            network, record = segmenter.network, segmenter.record
            record["steps"] += made
        record |= {"learner": learner.name, "inner_steps": made, "inner_diverged": self.diverged}
        return NetworkSegmenter(network, record | {"seconds": round(time.perf_counter() - self.begun, 2)})

    def _inner_record(self, network: UNet) -> dict[str, Any]:
        """Return the entries of Finetune's record for the inner loop alone."""
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
        """Return the remaining seconds of the budget."""
        budget = self.learner.budget_seconds
        return math.inf if budget is None else budget - (time.perf_counter() - self.begun)
