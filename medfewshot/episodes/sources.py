"""Episode sources: numbered streams in which every episode depends on its seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from medfewshot.errors import InputError
from medfewshot.types import Episode

CPU = torch.device("cpu")


class EpisodeSource(Protocol):
    """Makes episodes. To train on a new kind of tasks, write such a class and name it in ``training/sources.py``."""

    def sample(self, seed: int, *, progress: float = 1.0, device: torch.device = CPU) -> Episode:
        """Draw the episode of ``seed``.

        Args:
            seed: Decides everything.
            progress: How far training is, in [0, 1]; a curriculum follows it.
            device: Where the episode's tensors are.
        """
        ...


@dataclass(frozen=True)
class Mixture:
    """Draws the source of every episode by weight.

    Raises:
        InputError: No source has a weight above 0.
    """

    sources: Mapping[str, EpisodeSource]
    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.sources or not sum(self.weights[name] for name in self.sources) > 0:
            raise InputError("there are no tasks to train on", "give at least one kind of tasks a weight above 0")

    def sample(self, seed: int, *, progress: float = 1.0, device: torch.device = CPU) -> Episode:
        """Draw the episode of ``seed`` from one of the sources."""
        names = sorted(self.sources)
        weights = np.array([self.weights[name] for name in names])
        name = names[int(np.random.default_rng([seed, 1]).choice(len(names), p=weights / weights.sum()))]
        return self.sources[name].sample(seed, progress=progress, device=device)


def episode_seed(run: int, stream: int, number: int) -> int:
    """Return the seed of episode ``number``; different streams (e.g. training and validation) share no seed."""
    return int(np.random.SeedSequence([run, stream, number]).generate_state(1, np.uint64)[0] >> 1)
