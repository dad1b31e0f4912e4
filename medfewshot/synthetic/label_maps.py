"""Label maps: maps that mix several, and images with a random brightness of every tissue, from a simulated scanner.

References:
    Billot et al., SynthSeg, Medical Image Analysis 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from medfewshot.synthetic.acquisition import acquire, blur, draw_protocol, normalise

MEMBER_SPREAD = 0.02
"""Standard deviation of a tissue's brightness between the members of an episode."""
MAX_TEXTURE = 0.08
DARK_BACKGROUND = 0.8
"""Share of episodes whose voxels without a label are dark, like air."""
CT_SHARE = 0.2
"""Share of episodes with the artefacts of CT; the others have those of MR."""


def paint_labels(
    labels: Tensor, tissues: Mapping[int, int], *, thick: bool, rng: np.random.Generator, generator: torch.Generator
) -> Tensor:
    """Paint the label maps of one episode with one contrast and one protocol.

    Args:
        labels: ``(M, X, Y, Z)`` whole numbers; 0 is background.
        tissues: Label value -> tissue; labels of one tissue have the same brightness.
        thick: Whether the slices are thick already, so that no thicker ones are simulated.
        rng: Draws what the members share.
        generator: Draws what differs between members.

    Returns:
        Normalised images ``(M, 1, X, Y, Z)`` on the device of ``labels``.
    """
    table = torch.zeros(max(tissues, default=0) + 1, dtype=torch.int64)
    for value, tissue in tissues.items():
        table[value] = tissue + 1
    count = int(table.max()) + 1
    mean = torch.as_tensor(rng.uniform(0, 1, count)).float()
    if rng.random() < DARK_BACKGROUND:
        mean[0] *= 0.1
    texture = torch.as_tensor(rng.uniform(0, MAX_TEXTURE, count)).float()
    protocol = draw_protocol("ct" if rng.random() < CT_SHARE else "any", thick, rng)
    members = mean + MEMBER_SPREAD * torch.randn((len(labels), count), generator=generator)
    drawn = table.to(labels.device)[labels]
    bright = torch.stack([row[one] for row, one in zip(members.to(labels.device), drawn, strict=True)])
    grain = blur(torch.randn((len(labels), 1, *labels.shape[1:]), generator=generator).to(labels.device), 1.0)
    clean = bright[:, None] + texture.to(labels.device)[drawn][:, None] * grain / grain.std().clamp_min(1e-6)
    return normalise(acquire(blur(clean, 0.5), protocol, rng, generator), protocol)


def recombine_maps(maps: Sequence[Tensor], count: int) -> list[Tensor]:
    """Make label maps with structures from several maps; the same maps always give the same ones.

    Each structure of a map gets the shape that it has in one of the maps; its centre stays. Large ones come first, so
    that they do not hide small ones.

    Args:
        maps: ``(X, Y, Z)`` uint8, of any sizes.
        count: Maps to make; they have the places of the first map, of the second, and so on.
    """
    rng, mixed = np.random.default_rng(0), []
    for number in range(count):
        place = maps[number % len(maps)]
        made = torch.zeros_like(place)
        sizes = place.flatten().long().bincount()
        values = [value for value in sizes.argsort(descending=True).tolist() if value and sizes[value]]
        for value in values:
            showing = [one for one in maps if (one == value).any()]
            voxels = (showing[int(rng.integers(len(showing)))] == value).nonzero()
            shift = (place == value).nonzero().float().mean(0) - voxels.float().mean(0)
            moved = voxels + shift.round().long()
            inside = ((moved >= 0) & (moved < torch.tensor(place.shape))).all(1)
            made[tuple(moved[inside].T)] = value
        mixed.append(made)
    return mixed
