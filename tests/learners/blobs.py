"""Tiny supports and queries, and learners small enough to adapt in a second."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medfewshot.learners import LEARNERS
from medfewshot.synthetic import make_blob_volume
from medfewshot.types import Learner, Support


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
    known = signature(LEARNERS[name]).parameters
    settings = {"steps": 2, "width": 4} | changes
    return LEARNERS[name](**{key: value for key, value in settings.items() if key in known})


def has(name: str, setting: str) -> bool:
    return setting in signature(LEARNERS[name]).parameters


def dice(logits: Tensor, label: Tensor, index: int = 1) -> float:
    found, truth = logits[0].argmax(0) == index, label == index
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
