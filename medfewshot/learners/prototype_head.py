"""Prototypes of support features, their similarity to each voxel, and the scores of the classes.

References:
    Wang et al. 2019, PANet: global prototypes, cosine similarity.
    Ouyang et al. 2020, ALPNet: local prototypes.
    Snell et al. 2017, "Prototypical Networks for Few-shot Learning": squared Euclidean distance.
    Xing et al. 2002, "Distance Metric Learning": a learned Mahalanobis distance; here diagonal plus low rank.
    Hansen et al. 2022, ADNet: the background as "far from every foreground prototype".
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfewshot.errors import InputError

Metric = Literal["cosine", "euclidean", "learned"]
Background = Literal["prototypes", "threshold"]
ABSENT = -1e4
"""Score of a class without any prototype."""
STEEPNESS = 0.5
"""Steepness of ADNet's sigmoid around the threshold (its kappa)."""
LOCAL_COVERAGE = 0.5
"""A grid cell gives a local prototype of a class when this fraction of it belongs to the class."""


class LearnedMetric(nn.Module):
    """The linear map ``L = diag(exp(log_scale)) + up @ down`` of D features, initially the identity.

    Squared Euclidean distance after it is the Mahalanobis distance of the matrix ``L.T @ L``, which is never
    indefinite. ``down`` starts at random and ``up`` at zero (as in Hu et al. 2021, LoRA): if both were zero, neither
    would ever get a gradient.

    Args:
        features: D.
        rank: Rank of ``up @ down``; 0 for the diagonal alone.
        seed: Seed of ``down``.
    """

    def __init__(self, features: int, rank: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.down: nn.Parameter | None = None
        self.up: nn.Parameter | None = None
        if rank:
            self.down = nn.Parameter(torch.randn((rank, features), generator=generator) / math.sqrt(features))
            self.up = nn.Parameter(torch.zeros(features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(B, D, ...)``; the shape stays."""
        mapped = x * self.log_scale.exp().view(1, -1, *[1] * (x.ndim - 2))
        if self.down is None or self.up is None:
            return mapped
        return mapped + torch.einsum("dr,re,be...->bd...", self.up, self.down, x)


def similarity(features: Tensor, prototypes: Tensor, metric: Metric, learned: LearnedMetric | None = None) -> Tensor:
    """Compare features with prototypes; larger is more similar.

    Args:
        features: ``(B, D, *S)``.
        prototypes: ``(P, D)``.
        metric: ``cosine``: in [-1, 1]. ``euclidean``: negative mean squared distance per feature. ``learned``: the same
            after the map ``learned``.
        learned: The map of the metric ``learned``.

    Returns:
        Similarities ``(B, *S, P)``: those of one voxel lie together in memory, for a fast softmax on a CPU.

    Raises:
        ValueError: The metric is ``learned`` and the map is missing.
    """
    if metric == "cosine":
        return F.normalize(features, dim=1).movedim(1, -1) @ F.normalize(prototypes, dim=1).T
    if metric == "learned":
        if learned is None:
            raise ValueError("metric learned: needs a LearnedMetric")
        features, prototypes = learned(features), learned(prototypes)
    own = features.square().sum(1).unsqueeze(-1)
    cross = features.movedim(1, -1) @ prototypes.T
    return (2 * cross - own - prototypes.square().sum(1)) / features.shape[1]


def class_scores(similarities: Tensor, owner: Tensor, classes: int, temperature: float | Tensor) -> Tensor:
    """Combine the similarities of each class's prototypes by their softmax-weighted mean.

    Args:
        similarities: ``(B, *S, P)``.
        owner: Class of each prototype, ``(P,)``, in ascending order.
        classes: N + 1.
        temperature: Factor of the similarities in the softmax.

    Returns:
        Scores ``(B, classes, *S)``; -1e4 for a class without prototypes.

    References:
        Ouyang et al. 2020, ALPNet, eq. 4-5.
    """
    scores = []
    for mine in similarities.split(owner.bincount(minlength=classes).tolist(), dim=-1):
        if mine.shape[-1] == 0:
            scores.append(mine.new_full(mine.shape[:-1], ABSENT))
        else:
            scores.append(((temperature * mine).softmax(-1) * mine).sum(-1))
    return torch.stack(scores, dim=1)


class PrototypeHead(nn.Module):
    """Turns features and prototypes into logits; contains the learned parameters of the comparison, but no prototypes.

    ``background="prototypes"``: the background is a class like any other, ``logits = temperature * score``.
    ``background="threshold"`` (ADNet): the anomaly score of a voxel is ``A = -temperature * score`` against
    foreground prototypes only, and its foreground probability ``sigmoid(STEEPNESS * (T - A))`` with a learned threshold
    ``T``. As logits that is ``-STEEPNESS * T`` for the background against ``-STEEPNESS * A`` for a class.
    """

    def __init__(
        self,
        features: int,
        metric: Metric = "cosine",
        background: Background = "prototypes",
        temperature: float = 20.0,
        rank: int = 4,
        seed: int = 0,
    ) -> None:
        """Build a new head.

        Args:
            features: Number of features D.
            metric: Similarity of features and prototypes.
            background: ``prototypes`` or ``threshold``.
            temperature: Factor of the similarities, above 0.
            rank: Rank of the learned metric, beside its diagonal.
            seed: Seed of the learned metric.

        Raises:
            InputError: A name is unknown or a value out of range.
        """
        super().__init__()
        _check_choice("metric", metric, get_args(Metric))
        _check_choice("background", background, get_args(Background))
        if temperature <= 0 or rank < 0:
            raise InputError(f"temperature {temperature}, rank {rank}: need a temperature above 0 and a rank from 0 up")
        self.config: dict[str, Any] = {"features": features, "metric": metric, "background": background, "rank": rank}
        self.metric: Metric = metric
        self.background: Background = background
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.learned = LearnedMetric(features, rank, seed) if metric == "learned" else None
        # The middle of the cosine's positive range, as in ADNet; for other metrics a mean squared distance of 0.5.
        first = (-0.5 if metric == "cosine" else 0.5) * temperature
        self.threshold = nn.Parameter(torch.tensor(first)) if background == "threshold" else None

    @property
    def temperature(self) -> Tensor:
        """Factor of the similarities, above 0."""
        return self.log_temperature.exp()

    def forward(self, features: Tensor, prototypes: Tensor, owner: Tensor, classes: int) -> Tensor:
        """Compute logits.

        Args:
            features: ``(B, D, *S)``.
            prototypes: ``(P, D)``.
            owner: Class of each prototype, ``(P,)``.
            classes: N + 1.

        Returns:
            Logits ``(B, classes, *S)``.
        """
        if self.threshold is not None:
            prototypes, owner = prototypes[owner > 0], owner[owner > 0]
        owner, order = owner.sort(stable=True)
        prototypes = prototypes[order]
        similarities = similarity(features, prototypes, self.metric, self.learned)
        scores = self.temperature * class_scores(similarities, owner, classes, self.temperature)
        if self.threshold is None:
            return scores
        background = (-self.threshold).expand_as(scores[:, :1])
        return STEEPNESS * torch.cat([background, scores[:, 1:]], dim=1)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} {value}: unknown", f"choose {' or '.join(known)}")


def pool_prototypes(features: Tensor, labels: Tensor, classes: int, cell: int) -> tuple[Tensor, Tensor]:
    """Compute global and local prototypes of a batch.

    Global: the mean feature of a class over the batch. Local: the mean over each cell of the grid in which the class
    covers at least half of the cell.

    Args:
        features: ``(B, D, *S)``.
        labels: ``(B, *S)``.
        classes: N + 1.
        cell: Edge of a cell in feature voxels.

    Returns:
        Prototypes ``(P, D)`` and their classes ``(P,)``.
    """
    pool = F.avg_pool2d if features.ndim == 4 else F.avg_pool3d
    window = [min(cell, size) for size in features.shape[2:]]
    vectors, owners = [], []
    for index in range(classes):
        mask = (labels == index).unsqueeze(1).to(features)
        if float(mask.sum()) == 0:
            continue
        axes = (0, *range(2, features.ndim))
        found = [((features * mask).sum(axes) / mask.sum())[None]]
        coverage = pool(mask, window).flatten(2)
        local = (pool(features * mask, window).flatten(2) / coverage.clamp_min(1e-6)).movedim(1, -1).flatten(0, 1)
        found.append(local[coverage[:, 0].flatten() >= LOCAL_COVERAGE])
        vectors.append(torch.cat(found))
        owners.append(torch.full((len(vectors[-1]),), index, device=features.device))
    return torch.cat(vectors), torch.cat(owners)


def sample_prototypes(
    prototypes: Tensor, owner: Tensor, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw at most ``most`` prototypes of each class at random, because the background alone would give thousands."""
    kept = []
    for index in owner.unique().tolist():
        mine = (owner == index).nonzero()[:, 0]
        order = torch.randperm(len(mine), generator=generator)[:most].to(mine.device)
        kept.append(mine[order.sort().values])
    chosen = torch.cat(kept)
    return prototypes[chosen], owner[chosen]
