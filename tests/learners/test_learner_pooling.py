"""Masked average pooling against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfewshot.learners.features import shrink_labels
from medfewshot.learners.prototype_head import pool_prototypes, sample_prototypes


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pooling_by_hand():
    """A 4 x 4 map in cells of 2: the left half is class 1 but for one voxel, three quarters of the corner cell."""
    features = doubles(1, 3, 4, 4)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[:, :, :2] = 1
    labels[0, 0, 0] = 0
    vectors, owner = pool_prototypes(features, labels, 3, cell=2)
    values = features[0].numpy()
    mask = labels[0].numpy() == 1
    assert owner.tolist() == [0, 0, 0, 1, 1, 1]  # for each class its mean, and the cells that are half its own
    np.testing.assert_allclose(vectors[0], values[:, ~mask].mean(1))
    np.testing.assert_allclose(vectors[1], values[:, :2, 2:].mean((1, 2)))
    np.testing.assert_allclose(vectors[2], values[:, 2:, 2:].mean((1, 2)))
    np.testing.assert_allclose(vectors[3], values[:, mask].mean(1))
    np.testing.assert_allclose(vectors[4], np.mean([values[:, 0, 1], values[:, 1, 0], values[:, 1, 1]], axis=0))
    np.testing.assert_allclose(vectors[5], values[:, 2:, :2].mean((1, 2)))


@pytest.mark.parametrize("shape", [(5, 6, 7), (3, 4, 1), (6, 7)])
def test_global_prototypes_are_masked_means(shape):
    features = doubles(2, 4, *shape)
    labels = torch.randint(0, 3, (2, *shape), generator=torch.Generator().manual_seed(0))
    vectors, owner = pool_prototypes(features, labels, 4, cell=2)
    assert set(owner.tolist()) == {0, 1, 2}  # class 3 is not there
    for index in range(3):
        first = vectors[owner == index][0]
        expected = features.movedim(1, -1)[labels == index].mean(0)
        torch.testing.assert_close(first, expected)


def test_shrunken_labels_keep_every_class():
    labels = torch.zeros(1, 8, 8, 7, dtype=torch.int64)
    labels[0, :4] = 1
    labels[0, 6, 2, 4] = 2
    small_labels = shrink_labels(labels, torch.Size((4, 4, 4)))
    assert small_labels.shape == (1, 4, 4, 4)
    assert (small_labels[0, :2] == 1).all()
    assert (small_labels == 2).nonzero().tolist() == [[0, 3, 1, 2]]
    assert torch.equal(shrink_labels(labels, labels.shape[1:]), labels)


def test_thinning_keeps_every_class_and_changes_no_prototype():
    generator = torch.Generator().manual_seed(0)
    prototypes, owner = torch.arange(20.0).view(10, 2), torch.tensor([0] * 7 + [1] * 2 + [3])
    kept, owners = sample_prototypes(prototypes, owner, 3, generator)
    assert owners.tolist() == [0, 0, 0, 1, 1, 3]
    assert {tuple(row) for row in kept.tolist()} <= {tuple(row) for row in prototypes.tolist()}
    assert len({tuple(row) for row in kept.tolist()}) == 6
