"""Similarities, pooling and class scores against numbers worked out by hand, and prototypes that segment."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from blobs import dice, example, small, support_of

from medfewshot.learners import Prototype, PrototypeSegmenter
from medfewshot.learners import prototype as module
from medfewshot.learners.prototype import class_scores, pool_prototypes, shrink_labels, similarity
from medfewshot.types import Support


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Similarity


def test_cosine_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64).T.reshape(1, 2, 2)  # two voxels
    prototypes = torch.tensor([[1.0, 0.0], [6.0, 8.0]], dtype=torch.float64)
    expected = torch.tensor([[[0.6, 0.0], [1.0, -0.8]]], dtype=torch.float64)
    torch.testing.assert_close(similarity(features, prototypes, "cosine"), expected)


def test_euclidean_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64).T.reshape(1, 2, 2)
    prototypes = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    expected = -torch.tensor([[[20.0, 5.0], [0.0, 45.0]]], dtype=torch.float64) / 2
    torch.testing.assert_close(similarity(features, prototypes, "euclidean"), expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
def test_similarity_voxel_by_voxel(metric, shape):
    features, prototypes = doubles(2, 5, *shape), doubles(7, 5, seed=1)
    got = similarity(features, prototypes, metric).numpy()
    assert got.shape == (2, 7, *shape)
    for where in np.ndindex(2, *shape):
        x = features.numpy()[(where[0], slice(None), *where[1:])]
        for p, y in enumerate(prototypes.numpy()):
            if metric == "cosine":
                expected = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
            else:
                expected = -((x - y) ** 2).mean()
            assert got[(where[0], p, *where[1:])] == pytest.approx(expected, abs=1e-12)


# Scores


def test_class_scores_are_softmax_weighted_means():
    similarities = torch.tensor([0.1, 0.9, 0.5, 0.3], dtype=torch.float64).view(1, 4, 1, 1)
    owner = torch.tensor([0, 0, 1, 0])
    got = class_scores(similarities, owner, 3, temperature=2.0).flatten()
    weights = [math.exp(2 * s) for s in (0.1, 0.9, 0.3)]
    background = sum(w * s for w, s in zip(weights, (0.1, 0.9, 0.3), strict=True)) / sum(weights)
    assert float(got[0]) == pytest.approx(background, abs=1e-12)
    assert float(got[1]) == pytest.approx(0.5, abs=1e-12)
    assert float(got[2]) == -1e4


# Pooling


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


# The learner


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_blob_is_learned(metric):
    support = support_of([(32, 32), (32, 32)])
    segmenter = Prototype(steps=40, width=8, metric=metric).adapt(support)
    image, label = example((32, 32), seed=50)
    assert dice(segmenter(image[None]), label) > 0.7


def test_without_training_the_start_gives_the_features():
    support = support_of([(24, 24)])
    trained = Prototype(steps=4, width=8).adapt(support)
    again = Prototype(start=trained.network).adapt(support)
    assert again.record["steps"] == 0
    image, _ = example((24, 24), seed=50)
    torch.testing.assert_close(again(image[None]), trained(image[None]))


def test_a_class_in_a_corner_of_the_support_has_a_prototype():
    """So small a structure is missed by most patches, and by a reading of every second voxel."""
    rng = torch.Generator().manual_seed(0)
    label = torch.zeros(160, 160, dtype=torch.int64)
    for index in range(1, 12):
        label[4 + 12 * index : 8 + 12 * index, 10:20] = index
    label[156, 154] = 12
    support = Support((torch.randn(1, 160, 160, generator=rng),), (label,), 13, (64, 64), (1.0, 1.0))
    for seed in range(4):
        segmenter = small("prototype", steps=1, seed=seed).adapt(support)
        assert segmenter.network.fold == (2, 2)
        assert set(segmenter.owner.tolist()) == set(range(13))


def test_memory_is_bounded_without_a_trace(monkeypatch):
    support = support_of([(16, 14, 12)])
    segmenter = small("prototype").adapt(support)
    image, _ = example((16, 14, 12), seed=50)
    whole = segmenter(image[None])
    sizes = []
    original = module.similarity
    monkeypatch.setattr(module, "SCORES_AT_ONCE", 50 * len(segmenter.prototypes))
    monkeypatch.setattr(module, "similarity", lambda *a: sizes.append(original(*a).numel()) or original(*a))
    torch.testing.assert_close(segmenter(image[None]), whole, atol=1e-5, rtol=1e-5)
    assert max(sizes) <= 50 * len(segmenter.prototypes)


class Folded(torch.nn.Module):
    """Features of blocks of two: the block's position along the first axis."""

    fold = (2, 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        size = -(-x.shape[2] // 2)
        ramp = torch.arange(size).float().view(1, 1, -1, 1).expand(1, 1, -1, x.shape[3])
        return torch.cat([ramp, torch.ones_like(ramp)], dim=1)


@pytest.mark.parametrize("length", [8, 9])
def test_odd_sizes_are_not_squeezed(length):
    """The middle of block i lies at voxel 2 i + 0.5, whether or not the last block is complete."""
    segmenter = PrototypeSegmenter(
        Folded(), torch.tensor([[0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1]), classes=2, metric="euclidean",
        temperature=1.0,
    )  # fmt: skip
    logits = segmenter(torch.zeros(1, 1, length, 3))
    assert logits.shape == (1, 2, length, 3)
    ahead = (logits[0, 1] - logits[0, 0])[:, 0]  # linear in the position, 0 half way between blocks 1 and 2: voxel 3.5
    torch.testing.assert_close(ahead[3] + ahead[4], torch.tensor(0.0), atol=1e-5, rtol=0)


def test_thinning_keeps_every_class_and_changes_no_prototype():
    generator = torch.Generator().manual_seed(0)
    prototypes, owner = torch.arange(20.0).view(10, 2), torch.tensor([0] * 7 + [1] * 2 + [3])
    kept, owners = module.thin_prototypes(prototypes, owner, 3, generator)
    assert owners.tolist() == [0, 0, 0, 1, 1, 3]
    assert {tuple(row) for row in kept.tolist()} <= {tuple(row) for row in prototypes.tolist()}
    assert len({tuple(row) for row in kept.tolist()}) == 6
