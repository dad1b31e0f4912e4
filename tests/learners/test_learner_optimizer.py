"""Muon's update against its definition, iterated on the whole matrix in double precision."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from medfewshot.learners.base import TrainedOptions
from medfewshot.learners.optimization import (
    ADAMW_SIZE,
    NEWTON_SCHULZ,
    NEWTON_SCHULZ_STEPS,
    GradientDescent,
    Muon,
    make_optimizers,
    orthogonalised,
)


def by_definition(matrix: torch.Tensor) -> torch.Tensor:
    a, b, c = NEWTON_SCHULZ
    x = matrix.double()
    x = x / x.norm()
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(6, 54), (16, 16), (40, 1080)])
@pytest.mark.parametrize("decades", [0, 3])
def test_small_matrices_stand_in_for_the_wide_one(shape, decades):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    matrix = (u * torch.logspace(0, -decades, len(s))) @ v
    torch.testing.assert_close(orthogonalised(matrix).double(), by_definition(matrix), atol=1e-3, rtol=0)
    torch.testing.assert_close(orthogonalised(matrix.T), orthogonalised(matrix).T, atol=1e-3, rtol=0)


def test_singular_values_come_near_one():
    matrix = torch.randn((12, 90), generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3


def test_a_step_has_the_size_of_adamws():
    kernel = nn.Parameter(torch.zeros((8, 4, 3, 3, 3)))
    kernel.grad = torch.randn(kernel.shape, generator=torch.Generator().manual_seed(2))
    Muon([kernel], lr=0.1).step()
    size = float(kernel.detach().square().mean().sqrt())
    assert size == pytest.approx(0.1 * ADAMW_SIZE, rel=0.3)


def test_ends_and_vectors_are_adamws():
    network = nn.ModuleDict({"stem": nn.Conv2d(1, 2, 3), "inside": nn.Conv2d(2, 2, 3), "head": nn.Conv2d(2, 2, 1)})
    muon, adamw = make_optimizers(network, 1e-3, 0.0)
    assert [p for group in muon.param_groups for p in group["params"]] == [network["inside"].weight]
    assert sum(len(group["params"]) for group in adamw.param_groups) == 5


@pytest.mark.parametrize(
    ("steps", "loss", "rate"),
    [
        (25, 1.0, 8e-3), (100, 0.2, 8e-3), (225, 1.0, 12e-3), (400, 1.0, 16e-3), (400, 0.525, 8e-3), (400, 0.2, 4e-3),
        (2400, 0.4125, 8e-3 / 2**0.5), (400, float("nan"), 4e-3),
    ],
)  # fmt: skip
def test_many_steps_have_a_higher_rate_the_less_the_network_knows(steps, loss, rate):
    descent = GradientDescent(nn.Conv2d(1, 2, 3), TrainedOptions(steps=steps), begun=0.0)
    descent.run(lambda: loss, lambda: True)
    assert descent.rate == pytest.approx(rate)


def test_the_rate_falls_gently_whatever_the_loss():
    descent = GradientDescent(nn.Conv2d(1, 2, 3), TrainedOptions(steps=400), begun=0.0, gently=True)
    descent.run(lambda: 1.0, lambda: True)
    assert descent.rate == pytest.approx(4e-3)


def test_a_given_rate_is_kept():
    descent = GradientDescent(nn.Conv2d(1, 2, 3), TrainedOptions(steps=25, learning_rate=1e-3), begun=0.0)
    descent.run(lambda: 1.0)
    assert descent.rate == 1e-3


def test_a_budget_that_leaves_few_steps_keeps_the_rate():
    options = TrainedOptions(steps=400, budget_seconds=0.5)
    descent = GradientDescent(nn.Conv2d(1, 2, 3), options, begun=time.perf_counter())
    descent.run(lambda: time.sleep(0.02) or 1.0)
    assert len(descent.losses) < 100
    assert descent.rate == pytest.approx(8e-3)
