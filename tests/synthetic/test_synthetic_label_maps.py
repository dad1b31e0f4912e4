"""Images that are painted from label maps."""

from __future__ import annotations

import numpy as np
import torch

from medfewshot.synthetic import paint_labels


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
