"""Transfer-learning baseline: train a network on the augmented supports, from a given start or a random one.

The plain recipe that every meta-learner has to beat (cf. Chen et al. 2019, "A Closer Look at Few-shot Classification";
Isensee et al. 2021, nnU-Net, for patches, loss and augmentation).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medfewshot.augment import Augmentation
from medfewshot.backbones import UNet, build_unet
from medfewshot.devices import autocast
from medfewshot.learners.losses import dice_cross_entropy, soft_dice
from medfewshot.learners.patches import FOREGROUND_FRACTION, PatchSampler
from medfewshot.learners.segmenters import NetworkSegmenter, seeded, to_channels_last
from medfewshot.types import Progress, Support

COLLAPSED_DICE = 0.02
"""Below this training Dice, halfway through, the network says background everywhere."""
MOST_RESTARTS = 2
CALIBRATION_STEPS = 6


@dataclass(frozen=True)
class Finetune:
    """Adapts a U-Net to the supports by gradient descent.

    Deterministic for a seed on one machine, as long as ``budget_seconds`` is not what ends it: the budget depends on
    the machine's speed, and the record says which of the two stopped adaptation.
    """

    steps: int = 400
    """Optimiser steps (at least 1)."""
    budget_seconds: float | None = None
    """Upper bound on adaptation time; the schedule is shortened to fit after the first few steps are timed."""
    batch_size: int = 2
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule (AdamW)."""
    weight_decay: float = 1e-2
    width: int = 16
    """Channels of the finest level."""
    seed: int = 0
    device: torch.device = torch.device("cpu")
    augmentation: Augmentation = field(default_factory=Augmentation)
    start: UNet | None = None
    """Weights to start from; copied, never changed."""
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> NetworkSegmenter:
        """Train on ``support``; returns a segmenter for windows of ``support.patch_size``."""
        begun = time.perf_counter()
        support = _on_device(support, self.device)
        restarts = 0
        while True:
            attempt = _Attempt(self, support, restarts, begun)
            outcome = attempt.run()
            if outcome["trained"] or restarts == MOST_RESTARTS:
                break
            restarts += 1
        outcome |= {"restarts": restarts, "seconds": round(time.perf_counter() - begun, 2)}
        return NetworkSegmenter(attempt.network, outcome)


class _Attempt:
    """One training run; later attempts learn more slowly and look at foreground only."""

    def __init__(self, learner: Finetune, support: Support, restarts: int, begun: float) -> None:
        self.learner, self.support, self.restarts, self.begun = learner, support, restarts, begun
        self.foreground = FOREGROUND_FRACTION if restarts == 0 else 1.0
        generator = torch.Generator().manual_seed(learner.seed + 7919 * restarts)
        self.sampler = PatchSampler(support, learner.augmentation, generator)
        self.network = self._network()
        rate = learner.learning_rate / 4**restarts
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=learner.weight_decay
        )
        self.rate = rate
        self.dice = torch.zeros(support.classes - 1)
        self.losses: list[float] = []
        self.skipped = 0

    def _network(self) -> UNet:
        learner, support = self.learner, self.support
        if learner.start is not None:
            network = copy.deepcopy(learner.start)
        else:
            dims = support.spatial_dims

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

    def run(self) -> dict[str, Any]:
        total, done, stopped_by = self.learner.steps, 0, "steps"
        first = time.perf_counter()
        for done in self._count():
            if done == CALIBRATION_STEPS and self.learner.budget_seconds is not None:
                per_step = (time.perf_counter() - first) / CALIBRATION_STEPS
                left = self.learner.budget_seconds - (time.perf_counter() - self.begun)
                affordable = CALIBRATION_STEPS + max(0, int(0.97 * left / per_step))
                if affordable < total:
                    total, stopped_by = affordable, "budget"
            if done >= total or self._out_of_time():
                stopped_by = stopped_by if done >= total else "budget"
                break
            self._set_rate(done / total)
            self._step()
            self.learner.progress.update(done + 1, total, f"loss {self.losses[-1]:.2f}")
            if done == total // 2 and self._collapsed():
                return self._outcome(done + 1, "collapse", trained=False)
        return self._outcome(done, stopped_by, trained=not self._collapsed())

    def _count(self) -> Iterator[int]:
        yield from range(self.learner.steps + 1)

    def _out_of_time(self) -> bool:
        budget = self.learner.budget_seconds
        return budget is not None and time.perf_counter() - self.begun > budget and bool(self.losses)

    def _set_rate(self, fraction: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * one_cycle(fraction)

    def _step(self) -> None:
        total = 0.0
        for _ in range(self.learner.batch_size):
            image, label = self.sampler.sample(self.foreground)
            with autocast(self.learner.device):
                logits = self.network(image[None])
            loss = dice_cross_entropy(logits, label[None]) / self.learner.batch_size
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            self._follow_dice(logits.detach(), label[None])
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.skipped += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(total)

    def _follow_dice(self, logits: Tensor, label: Tensor) -> None:
        dice, present = soft_dice(logits, label)
        dice, present = dice.cpu(), present.cpu()
        self.dice = torch.where(present, 0.9 * self.dice + 0.1 * dice, self.dice)

    def _collapsed(self) -> bool:
        return bool((self.dice < COLLAPSED_DICE).all()) or self.skipped > len(self.losses) // 2

    def _outcome(self, steps: int, stopped_by: str, trained: bool) -> dict[str, Any]:
        tail = self.losses[-20:] or [float("nan")]
        return {
            "learner": "finetune",
            "steps": steps,
            "stopped_by": stopped_by,
            "trained": trained,
            "final_loss": round(sum(tail) / len(tail), 4),
            "training_dice": [round(float(d), 4) for d in self.dice],
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }


def one_cycle(fraction: float, warm_up: float = 0.15) -> float:
    """Learning-rate factor: cosine up to 1 during the warm-up, cosine down to 0 at the end (Smith & Topin 2018)."""
    cosine = torch.cos(torch.tensor(fraction / warm_up if fraction < warm_up else (fraction - warm_up) / (1 - warm_up)) * torch.pi)
    if fraction < warm_up:
        return float(0.04 + 0.96 * (1 - cosine) / 2)
    return float((1 + cosine) / 2)


def _on_device(support: Support, device: torch.device) -> Support:
    return Support(
        images=tuple(image.to(device) for image in support.images),
        labels=tuple(label.to(device) for label in support.labels),
        classes=support.classes,
        patch_size=support.patch_size,
        spacing_mm=support.spacing_mm,
    )
