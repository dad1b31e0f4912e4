"""The inner loop where its derivatives are known on paper, and the form of the meta-parameters."""

from __future__ import annotations

import pytest
import torch
from meta import FLAT, SOLID, episode_of, tiny_unet

from medfewshot.backbones import UNet, build_backbone
from medfewshot.errors import InputError
from medfewshot.learners.inner_loop import (
    HEAD,
    MamlStart,
    cyclic_indices,
    forward,
    forward_features,
    forward_head,
    inner_step,
    with_weights,
)
from medfewshot.learners.patches import check_kind


def descend(theta, rate, steps, loss, second_order):
    weights = {"theta": theta}
    for _ in range(steps):
        weights = inner_step(lambda w: loss(w["theta"]), weights, lambda name: rate, second_order=second_order)
    return weights["theta"]


# The task: L_support = h |theta - a|^2 / 2, L_query = |theta - b|^2 / 2, in one dimension or several.
# theta_T - a = (1 - alpha h)^T (theta - a).
H, ALPHA, STEPS = 1.7, 0.3, 4
A, B = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 3.0]).double()
SHRINK = (1 - ALPHA * H) ** STEPS


def quadratic(theta):
    return H * (theta - A).square().sum() / 2


@pytest.mark.parametrize("second_order", [True, False])
def test_the_meta_gradient_on_a_quadratic(second_order):
    """d L_query / d theta = (1 - alpha h)^T (theta_T - b); first order leaves out the factor."""
    theta = torch.tensor([2.0, 0.3, -1.0]).double().requires_grad_()
    final = descend(theta, torch.tensor(ALPHA).double(), STEPS, quadratic, second_order)
    torch.testing.assert_close(final, A + SHRINK * (theta - A))
    (gradient,) = torch.autograd.grad((final - B).square().sum() / 2, theta)
    torch.testing.assert_close(gradient, (SHRINK if second_order else 1.0) * (final - B).detach())


def test_the_derivative_by_the_rate_on_a_quadratic():
    """d theta_T / d alpha = -T h (1 - alpha h)^(T-1) (theta - a); first order: minus the sum of the gradients."""
    theta = torch.tensor([2.0, 0.3, -1.0]).double().requires_grad_()
    for second_order in (True, False):
        rate = torch.tensor(ALPHA).double().requires_grad_()
        final = descend(theta, rate, STEPS, quadratic, second_order)
        (got,) = torch.autograd.grad((final - B).square().sum() / 2, rate)
        factors = [STEPS * (1 - ALPHA * H) ** (STEPS - 1)] if second_order else [
            (1 - ALPHA * H) ** t for t in range(STEPS)
        ]  # fmt: skip
        change = -H * sum(factors) * (theta - A)
        torch.testing.assert_close(got, ((final - B) * change).sum().detach())


def test_linear_regression_by_hand():
    """L_support = (w x - y)^2 / 2 with x = 2, y = 1, alpha = 0.1: w' = w - 0.1 * 2 (2 w - 1) = 0.6 w + 0.2."""
    weight = torch.tensor(3.0).double().requires_grad_()
    final = descend(weight, torch.tensor(0.1).double(), 1, lambda w: (2 * w - 1).square() / 2, True)
    torch.testing.assert_close(final.detach(), torch.tensor(2.0).double())
    (gradient,) = torch.autograd.grad((final - 5).square() / 2, weight)  # (w' - 5) * dw'/dw = -3 * 0.6
    torch.testing.assert_close(gradient, torch.tensor(-1.8).double())


def test_only_the_named_weights_move():
    weights = {"head.weight": torch.ones(2, requires_grad=True), "body": torch.ones(2, requires_grad=True)}
    moved = inner_step(
        lambda w: (w["head.weight"] * w["body"]).sum(), weights, lambda name: 0.5, second_order=False, prefix=HEAD
    )
    assert moved["body"] is weights["body"]
    assert moved["head.weight"].tolist() == [0.5, 0.5]


def test_a_weight_made_from_another_is_a_variable_of_its_own():
    """L = head * body with head = 3 body: the partial derivative by body is head = 6, not 12."""
    body = torch.tensor(2.0, requires_grad=True)
    for second_order in (True, False):
        moved = inner_step(
            lambda w: w["head"] * w["body"], {"body": body, "head": 3 * body}, lambda name: 1, second_order=second_order
        )
        assert float(moved["body"].detach()) == 2 - 6
        assert float(moved["head"].detach()) == 6 - 2
        # body' = b - 3b, head' = 3b - b; at first order the gradients count as constants
        (gradient,) = torch.autograd.grad(moved["body"] + 10 * moved["head"], body)
        assert float(gradient) == (18 if second_order else 31)


def test_examples_go_round():
    assert [cyclic_indices(3, 2, step) for step in range(4)] == [[0, 1], [2, 0], [1, 2], [0, 1]]
    assert cyclic_indices(2, 5, 1) == [0, 1]
    assert [cyclic_indices(1, 1, step) for step in range(2)] == [[0], [0]]


# Meta-parameters


@pytest.mark.parametrize("fold", [(1, 1), (2, 1)])
def test_the_head_serves_any_number_of_classes(fold):
    """Background's logits as they are; the structures' logits differ and have the foreground's as their mean."""
    start = MamlStart(tiny_unet(fold=fold, width=4)).double()
    images = episode_of(dtype=torch.float64).query.image
    two = start.backbone(images)
    torch.testing.assert_close(forward(start.backbone, start.weights(2), images), two)
    five = forward(start.backbone, start.weights(5), images)
    assert five.shape == (1, 5, *FLAT)
    torch.testing.assert_close(five[:, :1], two[:, :1])
    torch.testing.assert_close(five[:, 1:].mean(1), two[:, 1], atol=1e-6, rtol=1e-6)
    assert float((five - two[:, 1:2]).detach()[:, 1:].abs().mean((0, 2, 3)).min()) > 0.05


def test_structures_begin_as_far_apart_as_the_rows_of_an_untrained_layer():
    start = MamlStart(tiny_unet(width=64, levels=1))
    rows = start.weights(9)["head.weight"][1:]
    assert float(rows.detach().std(0).square().mean().sqrt()) == pytest.approx((3 * 64) ** -0.5, rel=0.1)


@pytest.mark.parametrize("fold", [(1, 1), (2, 1)])
def test_many_structures_are_averaged_into_one(fold):
    backbone = tiny_unet(classes=4, fold=fold)
    images = episode_of().query.image
    before = backbone(images)
    start = MamlStart(backbone)
    got = start.backbone(images)
    torch.testing.assert_close(got, torch.cat([before[:, :1], before[:, 1:].mean(1, keepdim=True)], dim=1))
    assert start.backbone.config["classes"] == 2
    assert backbone.config["classes"] == 4
    torch.testing.assert_close(backbone(images), before)


@pytest.mark.parametrize(("dims", "shape"), [(2, FLAT), (3, SOLID)])
def test_features_and_head_make_the_network(dims, shape):
    start = MamlStart(tiny_unet(dims, fold=[2] * dims))
    images, weights = episode_of(shape, queries=2).query.image, start.weights(3)
    features = forward_features(start.backbone, images)
    by_parts = forward_head(start.backbone, weights, features, images.shape[2:])
    torch.testing.assert_close(by_parts, forward(start.backbone, weights, images))


def test_a_network_of_its_own():
    """Weights become a network of as many classes, which shares no memory with the start."""
    start = MamlStart(tiny_unet()).double()
    images, weights = episode_of(dtype=torch.float64).query.image, start.weights(4)
    network = with_weights(start.backbone, weights)
    assert network.config["classes"] == 4
    assert type(network)(**network.config).load_state_dict(network.state_dict())
    torch.testing.assert_close(network(images), forward(start.backbone, weights, images))
    before = start.backbone(images)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    torch.testing.assert_close(start.backbone(images), before)


def test_forms_of_the_rates():
    backbone = tiny_unet(fold=(2, 1))
    fixed, element, step = (
        MamlStart(backbone, rates=kind, inner_steps=3, inner_rate=0.2) for kind in ("fixed", "element", "step")
    )
    assert not list(fixed.rates.values())
    for name, weight in element.weights(4).items():
        assert element.rate(name, 7, 4).shape == weight.shape
        assert step.rate(name, 0, 4).shape == ()
        for start in (fixed, element, step):
            torch.testing.assert_close(
                start.rate(name, 1, 4).expand_as(weight), torch.full_like(weight, 0.2), check_dtype=False
            )
    with torch.no_grad():
        step.rates["stem/weight"].copy_(torch.tensor([1.0, 2.0, -3.0]))
    rates = [float(step.rate("stem.weight", t, 4).detach()) for t in range(5)]
    assert rates == pytest.approx([0.2, 0.4, -0.6, -0.6, -0.6])  # beyond the last learned step: its rate


@pytest.mark.parametrize("rates", ["fixed", "element", "step"])
def test_a_start_can_be_written_down(rates):
    start = MamlStart(tiny_unet(fold=(2, 1)), rates=rates, inner_steps=3, inner_rate=0.2)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(0.1)
    again = MamlStart(UNet(**start.backbone.config), rates=rates, inner_steps=3)
    again.load_state_dict(start.state_dict())
    assert float(again.inner_rate) == pytest.approx(0.2)
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), again.parameters(), strict=True))


def test_a_start_whose_strides_change_scores_every_voxel_of_a_block_alike():
    trunk = build_backbone(dims=2, width=3, levels=2)
    trunk.set_strides([[2, 2], [2, 2]])
    start, images = MamlStart(trunk, rates="element"), torch.randn(1, 1, 8, 12)
    assert start.head is not None
    logits = forward(start.backbone, start.weights(2), images)
    expected = start.head(start.backbone.features(images))
    assert torch.equal(logits[:, :, ::2, 1::2], logits[:, :, 1::2, ::2])
    torch.testing.assert_close(logits[:, :, ::2, ::2].float(), expected, atol=0.05, rtol=0.02)
    assert with_weights(start.backbone, start.weights(3))(images).shape == (1, 3, 8, 12)
    assert start.rate("head.weight", 0, classes=3).shape == start.weights(3)["head.weight"].shape


def test_a_start_of_the_wrong_kind_is_refused():
    with pytest.raises(InputError, match="1 class"):
        MamlStart(tiny_unet(classes=1))
    with pytest.raises(InputError, match="rates often: unknown"):
        MamlStart(tiny_unet(), rates="often")
    with pytest.raises(InputError, match=r"are for 2D images of 1 channel\(s\), the supports are 3D with 1"):
        check_kind(MamlStart(tiny_unet()).backbone, episode_of(SOLID).support, "maml")
