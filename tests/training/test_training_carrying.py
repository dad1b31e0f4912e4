"""Regions that registration carries to similar scans."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from medfewshot.errors import InputError
from medfewshot.structures import dice
from medfewshot.training.carrying import carry_regions

SPACING = (3.0, 3.0, 3.0)


def scan(shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A body with two bright organs, ``shift`` voxels along the first axis, and the map of the organs."""
    organs = torch.zeros((40, 36, 24), dtype=torch.uint8)
    organs[8 + shift : 16 + shift, 8:18, 6:16] = 1
    organs[22 + shift : 32 + shift, 18:30, 8:18] = 2
    image = torch.zeros((1, 1, 40, 36, 24))
    image[0, 0, 3 + shift : 35 + shift, 3:33, 2:22] = 1
    image += (organs == 1) + 2.0 * (organs == 2)
    noise = 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(shift))
    return F.avg_pool3d(image, 3, 1, 1)[0] + noise[0], organs


def test_regions_follow_the_anatomy_to_the_most_similar_scan():
    first, organs = scan(0)
    second, truth = scan(4)
    other = torch.randn(first.shape, generator=torch.Generator().manual_seed(9))
    maps = [organs[None], truth[None], organs[None]]
    carried = carry_regions(maps, [first, second, other], SPACING, 1)
    assert list(carried[0]) == [1]
    assert list(carried[1]) == [0]
    for value in (1, 2):
        assert dice(carried[0][1][0] == value, truth == value) > 0.85
        assert dice(carried[1][0][0] == value, organs == value) > 0.85


def test_a_region_that_does_not_return_is_dropped():
    """Noise has nothing in common with a scan: small regions do not come back to where they were."""
    image, _ = scan(0)
    grains = torch.zeros((1, 40, 36, 24), dtype=torch.uint8)
    for value in range(8):
        grains[0, 4 * value + 2 : 4 * value + 4, 4 * value + 2 : 4 * value + 4, 2 * value + 4 : 2 * value + 6] = (
            value + 1
        )
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(9))
    (found, _) = carry_regions([grains, grains], [image, noise], SPACING, 1)
    assert len(found[1].unique()) - 1 < 4


def test_too_few_scans_are_refused_and_no_neighbours_cost_nothing():
    image, organs = scan(0)
    with pytest.raises(InputError, match="cannot have 1 neighbour"):
        carry_regions([organs[None]], [image], SPACING, 1)
    assert carry_regions([organs[None]], [image], SPACING, 0) == [{}]
