"""The shared loss against hand computation."""

from __future__ import annotations

import math

import pytest
import torch

from medfewshot.learners.optimization import dice_cross_entropy, soft_dice


def logits_of(probabilities: torch.Tensor) -> torch.Tensor:
    """``(N + 1, *S)`` -> logits ``(1, N + 1, *S)`` with that softmax."""
    return probabilities.clamp_min(1e-12).log()[None]


TRUTH = torch.tensor([[0, 1, 1, 0]]).view(1, 2, 2)
P = torch.tensor([0.2, 0.7, 0.6, 0.1])  # of class 1; the rest is split 3 : 1 between background and class 2
LOGITS = logits_of(torch.stack([(1 - P) * 0.75, P, (1 - P) * 0.25]).view(3, 2, 2))


def test_soft_dice_by_hand():
    dice, present = soft_dice(LOGITS, TRUTH)
    assert present.tolist() == [True, False]
    assert float(dice[0]) == pytest.approx(2 * 1.3 / (1.6 + 2), abs=1e-5)
    assert float(dice[1]) == pytest.approx(0, abs=1e-4)


def test_the_loss_by_hand():
    """An absent class takes no part in the Dice term, only in the cross entropy."""
    chosen = [0.8 * 0.75, 0.7, 0.6, 0.9 * 0.75]
    cross_entropy = -sum(math.log(p) for p in chosen) / 4
    expected = cross_entropy + 1 - 2 * 1.3 / 3.6
    assert float(dice_cross_entropy(LOGITS, TRUTH)) == pytest.approx(expected, abs=1e-5)


def test_dice_is_taken_over_the_whole_batch():
    both = torch.cat([LOGITS, LOGITS.flip(2)])
    dice, _ = soft_dice(both, torch.cat([TRUTH, torch.zeros_like(TRUTH)]))
    assert float(dice[0]) == pytest.approx(2 * 1.3 / (3.2 + 2), abs=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3)])
def test_a_perfect_prediction_costs_nothing(shape):
    labels = torch.randint(0, 3, (2, *shape), generator=torch.Generator().manual_seed(0))
    logits = 40 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    assert float(dice_cross_entropy(logits, labels)) == pytest.approx(0, abs=1e-4)


def test_nothing_but_background_leaves_the_cross_entropy():
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    expected = torch.nn.functional.cross_entropy(LOGITS, labels)
    torch.testing.assert_close(dice_cross_entropy(LOGITS, labels), expected)


def test_half_precision_logits_are_taken_in_full():
    assert dice_cross_entropy(LOGITS.bfloat16(), TRUTH).dtype == torch.float32


def test_gradients_flow_to_every_class():
    logits = LOGITS.clone().requires_grad_()
    dice_cross_entropy(logits, TRUTH).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs().amax((0, 2, 3)) > 0).all()
