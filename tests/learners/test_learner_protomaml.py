"""Prototypes as a head, worked out by hand and against squared distances; what Proto-MAML's gradient goes through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from blobs import dice, example, support_of
from meta import FLAT, SOLID, along, episode_of, gradient_of, make_smooth, random_direction, slope, tiny_unet

from medfewshot.errors import InputError
from medfewshot.learners import ProtoMaml
from medfewshot.learners.inner_loop import forward, forward_features
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.learners.protomaml import ABSENT_MARGIN, prototype_head, prototype_sums


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def meta_learner(dims: int = 2, dtype: torch.dtype = torch.float64, fold=None, **options) -> ProtoMaml:
    learner = ProtoMaml(**{"inner_steps": 2, "inner_rate": 0.05} | options)
    return replace(learner, start=learner.build_start(tiny_unet(dims, fold=fold)).to(dtype).train())


# The head


def test_the_head_by_hand():
    """Two voxels of class 0 with features (1, 0) and (3, 0), one of class 1 with (0, 2); class 2 is not there."""
    features = torch.tensor([[1.0, 3.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64).view(1, 2, 3, 1)
    sums, counts = prototype_sums(features, torch.tensor([[[0], [0], [1]]]), 3, (1, 1))
    assert counts.tolist() == [[2], [1], [0]]
    rows, bias = prototype_head(sums, counts)
    assert rows.tolist() == [[4, 0], [0, 4], [4, 0]]
    assert bias.tolist() == [-4, -4, -4 - ABSENT_MARGIN]


@pytest.mark.parametrize(("shape", "fold"), [((5, 6), (2, 1)), ((5, 4, 3), (2, 2, 1)), ((4, 4), (1, 1))])
def test_every_place_in_a_block_has_its_own_prototypes(shape, fold):
    """Voxel by voxel, with features that were padded beyond the labels."""
    cells = tuple(-(-n // step) + 1 for n, step in zip(shape, fold, strict=True))
    features = doubles(2, 3, *cells)
    labels = torch.randint(0, 3, (2, *shape), generator=torch.Generator().manual_seed(0))
    sums, counts = prototype_sums(features, labels, 4, fold)
    expected, number = np.zeros(sums.shape), np.zeros(counts.shape)
    for b, *where in np.ndindex(2, *shape):
        cell = tuple(x // step for x, step in zip(where, fold, strict=True))
        place = np.ravel_multi_index(tuple(x % step for x, step in zip(where, fold, strict=True)), fold)
        label = int(labels[(b, *where)])
        expected[label, place] += features[(b, slice(None), *cell)].numpy()
        number[label, place] += 1
    np.testing.assert_allclose(sums, expected)
    np.testing.assert_array_equal(counts, number)


def test_a_place_without_a_class_takes_the_class_mean():
    sums, counts = doubles(2, 2, 3), torch.tensor([[4.0, 2.0], [3.0, 0.0]]).double()
    sums[1, 1] = 0
    rows, bias = prototype_head(sums, counts)
    torch.testing.assert_close(rows[3], 2 * sums[1, 0] / 3)
    torch.testing.assert_close(bias[3], bias[2])


@pytest.mark.parametrize(
    ("shape", "fold"), [(FLAT, (1, 1)), ((11, 10), (2, 1)), (SOLID, (2, 2, 2)), (SOLID, (1, 1, 1))]
)
def test_before_the_first_step_logits_are_squared_distances(shape, fold):
    """``-|f - c_k|^2`` but for a term that is the same for every class, at every voxel."""
    learner = meta_learner(len(shape), fold=fold)
    start, episode = learner.start, episode_of(shape, labels=2, dtype=torch.float64)
    images, labels = torch.stack(episode.support.images), torch.stack(episode.support.labels)
    sums, counts = prototype_sums(forward_features(start.backbone, images), labels, 3, fold)
    weights = learner.initial_weights(start, 3, [(images, labels)])
    logits = forward(start.backbone, weights, episode.query.image)
    features = forward_features(start.backbone, episode.query.image)
    whole = sums.sum(1) / counts.sum(1, keepdim=True)
    for where in np.ndindex(*shape):
        place = np.ravel_multi_index(tuple(x % step for x, step in zip(where, fold, strict=True)), fold)
        f = features[(0, slice(None), *(x // step for x, step in zip(where, fold, strict=True)))]
        c = torch.stack([sums[k, place] / counts[k, place] if counts[k, place] else whole[k] for k in range(3)])
        scores = -(f - c).square().sum(1)
        torch.testing.assert_close(logits[(0, slice(None), *where)], scores + f.square().sum())


# Meta-training


@pytest.mark.parametrize("rates", ["fixed", "step"])
@pytest.mark.parametrize("shape", [FLAT, SOLID])
def test_the_meta_gradient_is_that_of_the_loss(shape, rates, monkeypatch):
    make_smooth(monkeypatch)
    learner = meta_learner(len(shape), rates=rates)
    episode = episode_of(shape, labels=2, shots=2, queries=2, dtype=torch.float64)
    gradient = gradient_of(learner.meta_loss(episode), learner.start)
    assert set(gradient) == {name for name, value in learner.start.named_parameters() if value.requires_grad}
    for seed in range(2):
        direction = random_direction(gradient, seed)
        expected = slope(lambda: learner.meta_loss(episode), learner.start, direction)
        assert along(gradient, direction) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_first_order_has_another_gradient_and_the_same_value():
    learner = meta_learner()
    first = replace(learner, second_order=False)
    episode = episode_of(dtype=torch.float64)
    losses = [one.meta_loss(episode) for one in (learner, first)]
    assert float(losses[0].detach()) == float(losses[1].detach())
    gradients = [gradient_of(loss, learner.start)["backbone.stem.weight"] for loss in losses]
    assert float((gradients[0] - gradients[1]).abs().max()) > 1e-4


def test_meta_training_makes_adaptation_better():
    learner = ProtoMaml(inner_steps=2, inner_rate=0.05)
    learner = replace(learner, start=learner.build_start(tiny_unet(width=4)))

    def unseen() -> float:
        losses = [float(learner.meta_loss(episode_of((16, 16), seed=5000 + i)).detach()) for i in range(4)]
        return sum(losses) / len(losses)

    before = unseen()
    trained = [parameter for parameter in learner.start.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    for i in range(20):
        optimizer.zero_grad()
        learner.meta_loss(episode_of((16, 16), seed=10 * i)).backward()
        optimizer.step()
    assert unseen() < 0.8 * before


@pytest.mark.parametrize("labels", [1, 3])
def test_meta_loss_takes_any_number_of_classes_and_shots(labels):
    loss = meta_learner(dtype=torch.float32).meta_loss(episode_of((18, 10), labels=labels, shots=3, queries=2))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert loss.requires_grad


# Adaptation


def test_no_steps_at_all_is_a_prototypical_network():
    learner = meta_learner(dtype=torch.float32, steps=0, inner_steps=0)
    support = support_of([(24, 24)], labels=2)
    segmenter = learner.adapt(support)
    assert segmenter.record["steps"] == 0
    body = {n: v for n, v in segmenter.network.named_parameters() if not n.startswith("head")}
    assert all(torch.equal(value, learner.start.backbone.get_parameter(name)) for name, value in body.items())
    assert not torch.equal(learner.adapt(support_of([(24, 24)], labels=2, seed=5)).network.head.weight,
                           segmenter.network.head.weight)  # fmt: skip


def test_the_inner_rule_is_the_same_in_training_and_in_adaptation():
    """One step by hand from prototypes that count as given, and the query's loss after it."""
    learner = meta_learner(inner_steps=1)
    start, episode = learner.start, episode_of(dtype=torch.float64)
    image, label = episode.support.images[0][None], episode.support.labels[0][None]
    initial = learner.initial_weights(start, 2, [(image, label)])
    weights = {name: value.detach().requires_grad_() for name, value in initial.items()}
    loss = dice_cross_entropy(forward(start.backbone, weights, image), label)
    gradients = torch.autograd.grad(loss, list(weights.values()))
    moved = {name: w - 0.05 * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    expected = dice_cross_entropy(forward(start.backbone, moved, episode.query.image), episode.query.label)
    torch.testing.assert_close(learner.meta_loss(episode), expected)


def test_several_structures_are_told_apart_early():
    support = support_of([(30, 24)] * 3, labels=2, patch=(30, 24))
    segmenter = ProtoMaml(steps=30, width=8).adapt(support)
    image, label = example((30, 24), labels=2, seed=50)
    assert min(dice(segmenter(image[None]), label, index) for index in (1, 2)) > 0.7
    assert segmenter.record["steps"] == 30


def test_a_small_structure_has_a_prototype():
    """Found although most patches miss it: drawing goes on until every class that a support holds was met."""
    generator = torch.Generator().manual_seed(0)
    label = torch.zeros(96, 96, dtype=torch.int64)
    for index in range(1, 8):
        label[4 + 12 * index : 8 + 12 * index, 10:14] = index
    support = replace(
        support_of([(96, 96)]), images=(torch.randn(1, 96, 96, generator=generator),), labels=(label,), classes=8,
        patch_size=(16, 16),
    )  # fmt: skip
    for seed in range(3):
        network = ProtoMaml(steps=0, inner_steps=0, width=4, seed=seed).adapt(support).network
        rows = network.head.weight.flatten(1)
        assert all(not torch.equal(rows[0], rows[k]) for k in range(1, 8))


def test_refusals():
    with pytest.raises(InputError, match="learner protomaml: has no start"):
        ProtoMaml().meta_loss(episode_of())
    with pytest.raises(InputError, match="rates often: unknown"):
        ProtoMaml(rates="often").build_start(tiny_unet())
