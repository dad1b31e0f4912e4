"""Metrics, class scores and the background's threshold against numbers worked out by hand or by numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medfewshot.errors import InputError
from medfewshot.learners.prototype_head import LearnedMetric, PrototypeHead, class_scores, similarity


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Similarity


def test_cosine_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64).T.reshape(1, 2, 2)  # two voxels
    prototypes = torch.tensor([[1.0, 0.0], [6.0, 8.0]], dtype=torch.float64)
    expected = torch.tensor([[[0.6, 1.0], [0.0, -0.8]]], dtype=torch.float64)  # (image, voxel, prototype)
    torch.testing.assert_close(similarity(features, prototypes, "cosine"), expected)


def test_euclidean_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64).T.reshape(1, 2, 2)
    prototypes = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    expected = -torch.tensor([[[20.0, 0.0], [5.0, 45.0]]], dtype=torch.float64) / 2
    torch.testing.assert_close(similarity(features, prototypes, "euclidean"), expected)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4)])
def test_similarity_voxel_by_voxel(metric, shape):
    features, prototypes = doubles(2, 5, *shape), doubles(7, 5, seed=1)
    got = similarity(features, prototypes, metric).numpy()
    assert got.shape == (2, *shape, 7)
    for where in np.ndindex(2, *shape):
        x = features.numpy()[(where[0], slice(None), *where[1:])]
        for p, y in enumerate(prototypes.numpy()):
            if metric == "cosine":
                expected = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
            else:
                expected = -((x - y) ** 2).mean()
            assert got[(*where, p)] == pytest.approx(expected, abs=1e-12)


# Scores


def test_class_scores_are_softmax_weighted_means():
    similarities = torch.tensor([0.1, 0.9, 0.3, 0.5], dtype=torch.float64).view(1, 1, 1, 4)
    owner = torch.tensor([0, 0, 0, 1])
    got = class_scores(similarities, owner, 3, temperature=2.0).flatten()
    weights = [math.exp(2 * s) for s in (0.1, 0.9, 0.3)]
    background = sum(w * s for w, s in zip(weights, (0.1, 0.9, 0.3), strict=True)) / sum(weights)
    assert float(got[0]) == pytest.approx(background, abs=1e-12)
    assert float(got[1]) == pytest.approx(0.5, abs=1e-12)
    assert float(got[2]) == -1e4


# The learned metric


@pytest.mark.parametrize("rank", [0, 3])
def test_the_learned_metric_begins_as_squared_euclidean(rank):
    features, prototypes = doubles(2, 5, 3, 4), doubles(7, 5, seed=1)
    learned = LearnedMetric(5, rank).double()
    expected = similarity(features, prototypes, "euclidean")
    torch.testing.assert_close(similarity(features, prototypes, "learned", learned), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)])
def test_mahalanobis_by_numpy(rank, shape):
    """-(x - y).T M (x - y) / D with the matrix written out."""
    features, prototypes = doubles(2, 5, *shape), doubles(4, 5, seed=1)
    learned = LearnedMetric(5, rank).double()
    with torch.no_grad():
        learned.log_scale.copy_(0.3 * doubles(5, seed=2))
        if rank:
            learned.up.copy_(doubles(5, rank, seed=3))
    linear = np.diag(np.exp(learned.log_scale.detach().numpy()))
    if rank:
        linear = linear + learned.up.detach().numpy() @ learned.down.detach().numpy()
    matrix = linear.T @ linear
    got = similarity(features, prototypes, "learned", learned).detach().numpy()
    for where in np.ndindex(2, *shape):
        for p, y in enumerate(prototypes.numpy()):
            difference = features.numpy()[(where[0], slice(None), *where[1:])] - y
            expected = -difference @ matrix @ difference / 5
            assert got[(*where, p)] == pytest.approx(expected, abs=1e-10)


def test_both_parts_of_the_metric_learn():
    """One step of descent: ``up`` moves at once, ``down`` from the second on."""
    features, prototypes = doubles(1, 5, 4, 4), doubles(3, 5, seed=1)
    learned = LearnedMetric(5, 2).double()
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        similarity(features, prototypes, "learned", learned).square().mean().backward()
        optimizer.step()
    assert all(float(p.grad.abs().max()) > 0 for p in learned.parameters())


def test_a_metric_to_learn_must_be_given():
    with pytest.raises(ValueError, match="LearnedMetric"):
        similarity(doubles(1, 2, 3, 3), doubles(1, 2), "learned")


# The threshold


def test_threshold_logits_by_hand():
    """Two voxels, one foreground prototype: their softmax is ADNet's sigmoid around the threshold."""
    head = PrototypeHead(2, "cosine", "threshold", temperature=20.0).double()
    features = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64).T.reshape(1, 2, 1, 2)
    prototypes = torch.tensor([[0.0, 1.0], [5.0, 0.0]], dtype=torch.float64)
    logits = head(features, prototypes, torch.tensor([0, 1]), 2)  # the background's prototype must not matter
    # Cosines to (5, 0) are 0.6 and 0: anomaly scores -12 and 0, threshold -10, steepness a half.
    expected = torch.tensor([[[[5.0, 5.0]], [[6.0, 0.0]]]], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    foreground = [1 / (1 + math.exp(0.5 * (anomaly - -10))) for anomaly in (-12, 0)]
    assert logits.softmax(1)[0, 1, 0].tolist() == pytest.approx(foreground, abs=1e-5)


def test_the_background_threshold_is_shared_by_the_classes():
    head = PrototypeHead(3, "euclidean", "threshold", temperature=4.0)
    logits = head(torch.randn(1, 3, 2, 2), torch.randn(3, 3), torch.tensor([1, 2, 2]), 4)
    assert logits.shape == (1, 4, 2, 2)
    torch.testing.assert_close(logits[:, 0], torch.full((1, 2, 2), -0.5 * 2.0))
    assert float(logits[:, 3].detach().max()) < -1e3  # no prototype, no voxel


def test_a_threshold_without_any_prototype_says_background():
    head = PrototypeHead(3, "cosine", "threshold")
    logits = head(torch.randn(1, 3, 2, 2), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2)
    assert (logits.argmax(1) == 0).all()


@pytest.mark.parametrize("wrong", [{"metric": "manhattan"}, {"background": "none"}, {"temperature": 0.0}, {"rank": -1}])
def test_a_wrong_option_is_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PrototypeHead(4, **wrong)
