"""Ridge regression against numpy and by hand, its gradients against finite differences, and a head that segments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from blobs import backbone_for, dice, episode_of, example, meta_train, support_of

from medfewshot.errors import InputError
from medfewshot.learners import Ridge
from medfewshot.learners.ridge import RidgeHead, build_start, linear_logits, normal_equations, solve_ridge


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def labels_of(*shape: int, classes: int = 3) -> torch.Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(1))


# The solution


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2)])
def test_the_solution_by_numpy(shape, power):
    """All voxels as rows, their weights as a diagonal: the textbook's normal equations."""
    features, labels = doubles(2, 4, *shape), labels_of(2, *shape)
    labels[0, 0] = 0  # classes of differing size
    got = solve_ridge(normal_equations(features, labels, 3), scalar(0.3), scalar(power)).numpy()
    x = features.movedim(1, -1).reshape(-1, 4).numpy()
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    where = labels.flatten().numpy()
    counts = np.bincount(where, minlength=3).astype(float)
    weights = (counts**power / counts / (counts**power).sum())[where]
    penalty = 0.3 * np.diag([1.0, 1, 1, 1, 0])
    expected = np.linalg.solve(x.T @ np.diag(weights) @ x + penalty, x.T @ np.diag(weights) @ np.eye(3)[where])
    np.testing.assert_allclose(got, expected.T, atol=1e-10)


def test_one_feature_by_hand():
    """Background at -1 three times, class 1 at +1 once.

    Balanced: mean 0, variance 1, so the slope is 0.5 / (1 + r) and the constant 0.5. Every voxel alike: mean -0.5,
    variance 0.75, covariance with the label 0.375, and the constant 0.25 + 0.5 slope.
    """
    features = torch.tensor([-1.0, -1, -1, 1], dtype=torch.float64).view(1, 1, 2, 2)
    sums = normal_equations(features, torch.tensor([[[0, 0], [0, 1]]]), 2)
    balanced = solve_ridge(sums, scalar(0.25), scalar(0.0))
    assert balanced[1].tolist() == pytest.approx([0.4, 0.5])
    assert balanced[0].tolist() == pytest.approx([-0.4, 0.5])
    alike = solve_ridge(sums, scalar(0.25), scalar(1.0))
    assert alike[1].tolist() == pytest.approx([0.375, 0.25 + 0.5 * 0.375])


def test_the_power_weighs_small_classes():
    """Features that say nothing: each class is given its share of the weight, by its count to the power."""
    sums = normal_equations(torch.zeros(1, 1, 10, 10).double(), (torch.arange(100) < 4).long().view(1, 10, 10), 2)
    for power, expected in ((0.0, 0.5), (0.5, 2 / (2 + math.sqrt(96))), (1.0, 0.04)):
        solution = solve_ridge(sums, scalar(1e-3), scalar(power))
        assert float(solution[1, -1]) == pytest.approx(expected)


def test_streaming_equals_one_batch():
    features, labels = doubles(6, 4, 3, 5), labels_of(6, 3, 5)
    together = normal_equations(features, labels, 3)
    apart = sum(normal_equations(features[i : i + 1], labels[i : i + 1], 3) for i in range(6))
    torch.testing.assert_close(apart, together)
    head = RidgeHead()
    torch.testing.assert_close(head(apart), head(together))
    assert together.shape == (3, 5, 5)  # whatever the number of voxels
    assert together[:, -1, -1].tolist() == torch.bincount(labels.flatten()).tolist()


def test_gradients_by_finite_differences():
    labels = labels_of(1, 3, 4)

    def solution(features, log_regularisation, power_logit):
        sums = normal_equations(features, labels, 3)
        return solve_ridge(sums, log_regularisation.exp(), power_logit.sigmoid())

    inputs = (doubles(1, 3, 3, 4).requires_grad_(), scalar(-1.0).requires_grad_(), scalar(0.2).requires_grad_())
    assert torch.autograd.gradcheck(solution, inputs)
    head = RidgeHead().double()

    def coefficients(log_scale, background):
        names = {"log_scale": log_scale, "background": background}
        return torch.func.functional_call(head, names, (normal_equations(inputs[0].detach(), labels, 3),))

    assert torch.autograd.gradcheck(coefficients, (scalar(0.7).requires_grad_(), scalar(0.1).requires_grad_()))


def test_the_head_scales_and_shifts():
    features, labels = doubles(1, 3, 4, 5), labels_of(1, 4, 5)
    sums = normal_equations(features, labels, 3)
    plain = solve_ridge(sums, scalar(0.2), scalar(0.5))
    got = RidgeHead(regularisation=0.2, scale=3.0, background=0.7).double()(sums)
    expected = 3 * linear_logits(features, plain)
    expected[:, 0] += 0.7
    torch.testing.assert_close(linear_logits(features, got), expected, atol=1e-6, rtol=1e-6)


def test_a_class_without_a_voxel_is_never_found():
    features, labels = doubles(1, 3, 4, 5), labels_of(1, 4, 5)
    coefficients = RidgeHead()(normal_equations(features, labels, 5))
    logits = linear_logits(features.float(), coefficients)
    assert float(logits[:, 3:].detach().max()) < -1e3
    alone = RidgeHead()(normal_equations(features, labels, 3))
    torch.testing.assert_close(coefficients[:3], alone)


@pytest.mark.parametrize("wrong", [{"regularisation": 0.0}, {"scale": -1.0}, {"frequency_power": 1.0}])
def test_a_wrong_option_is_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong)).replace("_", " ")):
        RidgeHead(**wrong)


# The learner


@pytest.mark.parametrize("shape", [(32, 32), (18, 16, 14)])
def test_a_blob_is_learned(shape):
    segmenter = Ridge(steps=40, width=8).adapt(support_of([shape, shape]))
    image, label = example(shape, seed=50)
    assert dice(segmenter(image[None]), label) > 0.75


def test_without_steps_the_start_gives_features_and_solver():
    support = support_of([(24, 24)])
    start = build_start(backbone_for((24, 24)), scale=3.0)
    segmenter = Ridge(start=start, steps=0).adapt(support)
    assert segmenter.record["steps"] == 0
    assert torch.equal(segmenter.network.stem.weight, start.backbone.stem.weight)
    tripled = Ridge(start=build_start(backbone_for((24, 24)), scale=9.0), steps=0).adapt(support)
    torch.testing.assert_close(tripled.coefficients, 3 * segmenter.coefficients)


@pytest.mark.parametrize("shape", [(16, 16), (12, 12, 12)])
def test_the_loss_reaches_every_meta_parameter(shape):
    start = build_start(backbone_for(shape))
    Ridge(start=start).meta_loss(episode_of(shape, labels=2 if len(shape) == 2 else 1)).backward()
    for name, parameter in start.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert float(parameter.grad.abs().max()) > 0 or name.startswith("backbone."), name
    assert {n.split(".")[0] for n, p in start.named_parameters() if not p.requires_grad} == {"backbone"}


@pytest.mark.parametrize("shape", [(20, 20), (14, 12, 10)])
def test_meta_training_lowers_the_query_loss(shape):
    before, after = meta_train(Ridge(start=build_start(backbone_for(shape))), shape)
    assert after < 0.8 * before


def test_what_cannot_be_done_is_said():
    with pytest.raises(InputError, match="0 steps leave a random network"):
        Ridge(steps=0).adapt(support_of([(24, 24)]))
    with pytest.raises(InputError, match="build_start"):
        Ridge().meta_loss(episode_of((16, 16)))
