"""Where episodes come from: an endless, numbered stream in which each episode depends on its number alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from medfewshot.errors import InputError
from medfewshot.types import Episode


class EpisodeSource(Protocol):
    """Makes an episode of patches of one shape, on ``device``.

    ``seed`` decides everything; ``progress`` in [0, 1], how far training has come, is what a curriculum goes by.
    """

    def episode(self, seed: int, progress: float, device: torch.device) -> Episode: ...


@dataclass(frozen=True)
class Mixture:
    """Draws the source of each episode by weight."""

    sources: Mapping[str, EpisodeSource]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.sources or not sum(self.weights[name] for name in self.sources) > 0:
            raise InputError("no tasks to train on: give at least one source of episodes a weight above 0")

    def episode(self, seed: int, progress: float, device: torch.device) -> Episode:
        names = sorted(self.sources)
        weights = np.array([self.weights[name] for name in names])
        name = names[int(np.random.default_rng([seed, 1]).choice(len(names), p=weights / weights.sum()))]
        return self.sources[name].episode(seed, progress, device)


def episode_seed(run: int, stream: int, number: int) -> int:
    """Seed of episode ``number``; streams (0 training, 1 validation) share none."""
    return int(np.random.SeedSequence([run, stream, number]).generate_state(1, np.uint64)[0] >> 1)
