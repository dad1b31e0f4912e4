"""Training a network that reads supports on nothing but those supports: episodes made of augmented views of them."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from medfewshot.augment import Augmentation
from medfewshot.devices import autocast
from medfewshot.learners.cross_unet import CrossUNet
from medfewshot.learners.finetune import COLLAPSED_DICE, one_cycle
from medfewshot.learners.losses import dice_cross_entropy_parts
from medfewshot.learners.optimizer import AdaptationOptimizer
from medfewshot.learners.patches import PatchSampler
from medfewshot.types import Progress, Support

MOST_SHOTS = 3
"""Supports of one pseudo-episode: more cost time and teach little else."""
RECENT = 20
"""Steps that the final loss and Dice are means over."""


class PseudoEpisodes:
    """Draws ``(query, its mask, support images, their masks)`` of one class, every view augmented by itself.

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


class Trainable(Protocol):
    """What :func:`train_on_pseudo_episodes` reads from a learner."""

    @property
    def steps(self) -> int: ...
    @property
    def budget_seconds(self) -> float | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def augmentation(self) -> Augmentation: ...
    @property
    def progress(self) -> Progress: ...


def train_on_pseudo_episodes(
    network: CrossUNet, images: Tensor, masks: Tensor, spacing_mm: Sequence[float], learner: Trainable, begun: float
) -> dict[str, Any]:
    """Train in place for ``learner.steps``, or until the budget counted from ``begun`` is spent; what came of it.

    The schedule follows whichever of the two is further gone, so a budget cuts no run off at a high rate.
    """
    generator = torch.Generator().manual_seed(learner.seed)
    episodes = PseudoEpisodes(images, masks, spacing_mm, learner.augmentation, generator)
    optimizer = AdaptationOptimizer(network.train(), learner.learning_rate, weight_decay=1e-2)
    losses: list[float] = []
    dices: list[float] = []
    entered = time.perf_counter()
    while len(losses) < learner.steps:
        spent = _share_spent(learner.budget_seconds, begun, entered)
        if losses and spent >= 1:
            break
        optimizer.set_rate(learner.learning_rate * one_cycle(max(len(losses) / learner.steps, min(spent, 1.0))))
        cost, overlap = _step(network, optimizer, episodes.sample())
        losses.append(cost)
        if overlap is not None:
            dices.append(overlap)
        learner.progress.update(len(losses), learner.steps, f"loss {cost:.2f}")
    if len(losses) < learner.steps:
        learner.progress.update(len(losses), len(losses), "out of time")
    dice, loss = (_recent(dices) if dices else 0.0), _recent(losses)
    return {
        "steps": len(losses),
        "stopped_by": "steps" if len(losses) == learner.steps else "budget",
        "trained": dice >= COLLAPSED_DICE and math.isfinite(loss),
        "final_loss": round(loss, 4) if math.isfinite(loss) else None,
        "training_dice": [round(dice, 4)],
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _step(
    network: CrossUNet, optimizer: AdaptationOptimizer, episode: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[float, float | None]:
    """Loss, and Dice where the query shows the class."""
    query, label, images, masks = episode
    with autocast(query.device):
        logit = network(query[None], images[None], masks[None]).float()
    loss, dice, present = dice_cross_entropy_parts(torch.stack([torch.zeros_like(logit), logit], dim=1), label[None])
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    if torch.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach()), float(dice[0].detach()) if bool(present[0]) else None


def _share_spent(budget_seconds: float | None, begun: float, entered: float) -> float:
    """Share of the time left at ``entered`` that is gone by now."""
    if budget_seconds is None:
        return 0.0
    left = budget_seconds - (entered - begun)
    return (time.perf_counter() - entered) / left if left > 0 else 1.0


def _recent(values: Sequence[float]) -> float:
    some = values[-RECENT:]
    return sum(some) / len(some)
