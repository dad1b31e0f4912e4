"""Tiny supports and queries, and learners small enough to adapt in a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medfewshot.backbones import UNet, choose_strides
from medfewshot.learners import LEARNERS
from medfewshot.learners.base import Learner, MetaLearner
from medfewshot.registration import RegistrationOptions
from medfewshot.synthetic import make_blob_volume
from medfewshot.types import Episode, Progress, Query, Support


def example(shape: Sequence[int], labels: int = 1, channels: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Image ``(C, *S)`` and label ``(*S)``; further channels are noise."""
    rng = np.random.default_rng(seed)
    image, label = make_blob_volume(rng, tuple(shape), labels)
    noise = rng.normal(size=(channels - 1, *shape)).astype(np.float32)
    return torch.from_numpy(np.concatenate([image / 3, noise])), torch.from_numpy(label)


def support_of(
    shapes: Sequence[Sequence[int]],
    labels: int = 1,
    channels: int = 1,
    patch: Sequence[int] | None = None,
    seed: int = 0,
) -> Support:
    pairs = [example(shape, labels, channels, seed + i) for i, shape in enumerate(shapes)]
    images, truths = zip(*pairs, strict=True)
    patch = tuple(patch or shapes[0])
    return Support(images, truths, labels + 1, patch, (1.0,) * len(patch))


def small(name: str, **changes: Any) -> Learner:
    """A tiny learner; what its kind has no setting for (an atlas has no steps) is left out."""
    known = LEARNERS[name].settings
    quick = RegistrationOptions(affine_steps=6, levels=((2, 4), (1, 4)), starts=0)
    settings = {"steps": 2, "width": 4, "options": quick} | changes
    return LEARNERS[name].learner(**{key: value for key, value in settings.items() if key in known})


def has(name: str, setting: str) -> bool:
    return setting in LEARNERS[name].settings


def slow_steps(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Progress for a learner whose steps take a tenth of a second each, by a clock that only they move."""
    events: list[object] = []
    monkeypatch.setattr(time, "perf_counter", lambda: len(events) / 10)
    return Progress(events.append)


def dice(logits: Tensor, label: Tensor, index: int = 1) -> float:
    found, truth = logits[0].argmax(0) == index, label == index
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def backbone_for(shape: Sequence[int], width: int = 8, classes: int = 2) -> UNet:
    torch.manual_seed(5)
    return UNet(len(shape), 1, classes, width, choose_strides(shape, (1.0,) * len(shape)))


def episode_of(shape: Sequence[int], labels: int = 1, shots: int = 2, seed: int = 0) -> Episode:
    support = support_of([shape] * shots, labels, seed=seed)
    image, label = example(shape, labels, seed=seed + 500)
    return Episode(support, Query(image[None], label[None]))


def meta_train(learner: MetaLearner, shape: Sequence[int], steps: int = 12) -> tuple[float, float]:
    """Mean loss of episodes that were not trained on, before and after a few steps of meta-training."""
    assert learner.start is not None
    unseen = [episode_of(shape, seed=1000 + i) for i in range(3)]

    def loss() -> float:
        with torch.no_grad():
            return sum(float(learner.meta_loss(episode)) for episode in unseen) / len(unseen)

    before = loss()
    optimizer = torch.optim.AdamW([p for p in learner.start.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        learner.meta_loss(episode_of(shape, seed=10 * step)).backward()
        optimizer.step()
    return before, loss()
