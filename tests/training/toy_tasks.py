"""A meta-learner of three numbers and tasks of one blob: enough to tell whether a training loop works."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.types import Episode, Query, Support


class ToyStart(nn.Module):
    def __init__(self, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone or nn.Conv2d(1, 1, 1)
        self.sharpness = nn.Parameter(torch.tensor(0.1))


@dataclass(frozen=True)
class ToyLearner:
    """The class whose mean support intensity, after a learned map, is nearer; the margin is learned."""

    start: Any = None
    noise: float = 0.0
    device: torch.device = torch.device("cpu")

    def adapt(self, support: Support) -> Any:
        start = self.start
        image = torch.cat([start.backbone(i[None]).flatten() for i in support.images])
        label = torch.cat([y.flatten() for y in support.labels])
        means = torch.stack([image[label == k].mean() for k in range(support.classes)])

        def segmenter(x: Tensor) -> Tensor:
            return -start.sharpness * (start.backbone(x) - means.view(1, -1, *[1] * (x.ndim - 2))).square()

        return segmenter

    def meta_loss(self, episode: Episode) -> Tensor:
        image = episode.query.image + self.noise * torch.randn(episode.query.image.shape)
        return dice_cross_entropy(self.adapt(episode.support)(image), episode.query.label)


@dataclass(frozen=True)
class ToySource:
    """Squares, brighter than the background by 1 to 2."""

    shape: tuple[int, int] = (12, 12)

    def sample(self, seed: int, *, progress: float = 1.0, device: torch.device = torch.device("cpu")) -> Episode:
        generator = torch.Generator().manual_seed(seed % 2**63)
        images, labels = [], []
        for _ in range(3):
            label = torch.zeros(self.shape, dtype=torch.int64)
            x, y = torch.randint(0, 6, (2,), generator=generator).tolist()
            label[x : x + 5, y : y + 5] = 1
            contrast = 1 + torch.rand(1, generator=generator)
            images.append((0.3 * torch.randn(self.shape, generator=generator) + contrast * label)[None])
            labels.append(label)
        support = Support(tuple(images[:2]), tuple(labels[:2]), 2, self.shape, (1.0, 1.0))
        return Episode(support, Query(images[2][None], labels[2][None]), task="square")


class StoppingSource(ToySource):
    """A run that is interrupted after so many episodes."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def sample(self, seed, **options):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().sample(seed, **options)


def read_log(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(stream)]
