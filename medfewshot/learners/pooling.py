"""Support features and labels -> prototypes: masked average pooling, over everything and over the cells of a grid.

Global means: Wang et al. 2019, PANet. Local means: Ouyang et al. 2020, ALPNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.backbones import pad_to_multiple

LOCAL_COVERAGE = 0.5
"""A grid cell gives a local prototype of a class when this fraction of it belongs to the class."""


def pool_prototypes(features: Tensor, labels: Tensor, classes: int, cell: int) -> tuple[Tensor, Tensor]:
    """Global and local prototypes of one batch: ``features (B, D, *S)``, ``labels (B, *S)`` -> ``(P, D)``, ``(P,)``.

    Global: masked average pooling over everything. Local: average pooling over cells of ``cell`` voxels an edge, kept
    where a class covers at least half of the cell.
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


def thin_prototypes(prototypes: Tensor, owner: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most ``most`` prototypes of each class, drawn at random: a scan's background alone would give thousands."""
    kept = []
    for index in owner.unique().tolist():
        mine = (owner == index).nonzero()[:, 0]
        order = torch.randperm(len(mine), generator=generator)[:most].to(mine.device)
        kept.append(mine[order.sort().values])
    chosen = torch.cat(kept)
    return prototypes[chosen], owner[chosen]


def shrink_labels(labels: Tensor, size: torch.Size) -> Tensor:
    """Nearest-neighbour labels ``(B, *S)`` on the features' grid; a class it would lose marks all that it touches."""
    fold = [-(-length // n) for length, n in zip(labels.shape[1:], size, strict=True)]
    whole = pad_to_multiple(labels[:, None].float(), fold)
    small = F.interpolate(whole, size=size, mode="nearest-exact")[:, 0].long()
    pool = F.max_pool2d if len(size) == 2 else F.max_pool3d
    for index in sorted(set(labels.unique().tolist()) - set(small.unique().tolist())):
        small[pool((whole == index).float(), fold)[:, 0] > 0] = index
    return small
