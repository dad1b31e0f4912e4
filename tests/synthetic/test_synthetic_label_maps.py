"""Images that are painted from label maps."""

from __future__ import annotations

import numpy as np
import torch

from medfewshot.synthetic import paint_labels, recombine_maps


def slabs() -> torch.Tensor:
    labels = torch.zeros((2, 24, 24, 24), dtype=torch.int64)
    for value in (1, 2, 3):
        labels[:, :, 6 * value : 6 * value + 6] = value
    return labels


def means(seed: int, tissues: dict[int, int]) -> torch.Tensor:
    """Mean brightness ``(members, labels)``."""
    labels, generator = slabs(), torch.Generator().manual_seed(seed)
    images = paint_labels(labels, tissues, thick=True, rng=np.random.default_rng(seed), generator=generator)
    assert images.shape == (2, 1, 24, 24, 24)
    assert bool(images.isfinite().all())
    return torch.stack(
        [torch.stack([i[0][y == v].mean() for v in range(4)]) for i, y in zip(images, labels, strict=True)]
    )


def test_tissues_differ_and_labels_of_one_tissue_do_not():
    found = torch.stack([means(seed, {1: 1, 2: 1, 3: 3}) for seed in range(6)])
    alike, other = (found[..., 1] - found[..., 2]).abs(), (found[..., 1] - found[..., 3]).abs()
    assert float(alike.mean()) < 0.5 * float(other.mean())


def test_members_share_their_contrast():
    for seed in range(3):
        first, second = means(seed, {1: 1, 2: 2, 3: 3})
        assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) > 0.8


def test_mixed_maps_have_the_places_of_one_map_and_shapes_of_any():
    """Structure 1 is a cube or a bar, structure 2 one voxel that the large structure 3 would hide if it came last."""
    maps = []
    for edges in ((4, 4, 4), (12, 2, 2)):
        one = torch.zeros((20, 20, 20), dtype=torch.uint8)
        one[10:, 10:, 10:] = 3
        one[15, 15, 15] = 2
        start = [6 - edge // 2 for edge in edges]
        one[tuple(slice(a, a + edge) for a, edge in zip(start, edges, strict=True))] = 1
        maps.append(one)
    mixed = recombine_maps(maps, 8)
    assert all(torch.equal(a, b) for a, b in zip(mixed, recombine_maps(maps, 8), strict=True))
    assert {int((one == 1).sum()) for one in mixed} == {64, 48}
    for one in mixed:
        assert one.dtype == torch.uint8
        assert (one == 1).nonzero().float().mean(0).tolist() == [5.5, 5.5, 5.5]
        assert int(one[15, 15, 15]) == 2
    maps[1][maps[1] == 1] = 0
    assert [int((one == 1).any()) for one in recombine_maps(maps, 2)] == [1, 0]
