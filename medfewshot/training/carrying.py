"""Carry the regions of scans without labels to similar scans, so that support and query are different subjects.

References:
    Gao et al., MASS, CVPR 2026 (class-free masks as tasks), and Xu and Niethammer, DeepAtlas, MICCAI 2019 (registration
    gives labels to scans without any).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.errors import InputError
from medfewshot.registration import register

AGREEMENT = 0.5
"""Dice of a region with what returns of it, from which it is kept."""


def carry_regions(
    maps: Sequence[Tensor], images: Sequence[Tensor], spacing_mm: Sequence[float], neighbours: int
) -> list[dict[int, Tensor]]:
    """Carry the region maps of every scan to the other scans that it matches best.

    A region is kept in a neighbour if both directions agree: carried there and back, it overlaps itself.

    Args:
        maps: Of every scan ``(scales, X, Y, Z)`` uint8.
        images: The scans, ``(C, X, Y, Z)``.
        spacing_mm: Voxel size of all of them.
        neighbours: Scans to carry to: those with the highest local correlation.

    Returns:
        For every scan: number of the neighbour -> carried maps, on the neighbour's grid.

    Raises:
        InputError: There are too few scans.
    """
    if neighbours >= len(images):
        raise InputError(
            f"{len(images)} scan(s) cannot have {neighbours} neighbour(s) each", "lower neighbours or add scans"
        )
    if not neighbours:
        return [{} for _ in images]
    carried = []
    for number, (image, found) in enumerate(zip(images, maps, strict=True)):
        others = [other for other in range(len(images)) if other != number]
        back, correlation = register([images[other] for other in others], image, spacing_mm)
        best = correlation.flatten(1).mean(1).topk(neighbours).indices.tolist()
        one: dict[int, Tensor] = {}
        for index in best:
            neighbour = images[others[index]]
            there, _ = register([image], neighbour, spacing_mm)
            moved = _sample(found, there.grid(neighbour.shape[1:]))
            returned = _sample(moved, back.of(index).grid(image.shape[1:]))
            one[others[index]] = torch.stack([_agreed(*each) for each in zip(found, moved, returned, strict=True)])
        carried.append(one)
    return carried


def _sample(maps: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(maps[None].float(), grid, mode="nearest", align_corners=False)[0].to(torch.uint8)


def _agreed(before: Tensor, moved: Tensor, returned: Tensor) -> Tensor:
    """Return the moved regions, but none that returned elsewhere."""
    sizes, sizes_returned, common = (
        one.flatten().long().bincount(minlength=256) for one in (before, returned, before[before == returned])
    )
    kept = 2 * common >= AGREEMENT * (sizes + sizes_returned)
    kept[0] = False
    return moved * kept[moved.long()]
