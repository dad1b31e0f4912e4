"""The U-Net takes any shape, its parts are what they claim, and gradients of gradients go through it."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from medfewshot.backbones import (
    InstanceNorm,
    UNet,
    build_backbone,
    choose_strides,
    cut_to,
    fold_blocks,
    pad_to_multiple,
    seeded,
    to_channels_last,
    unfold_blocks,
)
from medfewshot.devices import autocast

STRIDES_3D = [[2, 2, 1], [2, 2, 1], [2, 2, 2]]
STRIDES_2D = [[2, 2], [2, 2], [2, 1]]


def network(dims: int = 3, channels: int = 1, classes: int = 3, width: int = 4) -> UNet:
    torch.manual_seed(0)
    return UNet(dims, channels, classes, width, STRIDES_2D if dims == 2 else STRIDES_3D)


@pytest.mark.parametrize(
    "shape", [(8, 8, 2), (7, 9, 3), (16, 5, 1), (1, 1, 1), (1, 17, 4), (8, 8), (13, 6), (1, 1), (1, 40)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_output_has_the_shape_of_the_input(shape, channels):
    net = network(len(shape), channels)
    with torch.no_grad():
        logits = net(torch.randn(2, channels, *shape))
        features = net.features(torch.randn(1, channels, *shape))
    assert logits.shape == (2, 3, *shape)
    assert torch.isfinite(logits).all()
    assert features.shape[:2] == (1, 4)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_config_builds_the_same_network(dims):
    net = network(dims)
    again = UNet(**net.config)
    again.load_state_dict(net.state_dict())
    x = torch.randn(1, 1, *(9,) * dims)
    assert torch.equal(net(x), again(x))


# Blocks and padding


@given(
    counts=st.lists(st.integers(1, 4), min_size=3, max_size=3),
    block=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    dims=st.sampled_from([2, 3]),
)
def test_unfolding_undoes_folding(counts, block, dims):
    block = block[:dims]
    shape = [c * b for c, b in zip(counts, block, strict=False)]
    x = torch.arange(2 * 3 * int(torch.tensor(shape).prod())).float().view(2, 3, *shape)
    folded = fold_blocks(x, block)
    assert folded.shape == (2, 3 * int(torch.tensor(block).prod()), *counts[:dims])
    assert torch.equal(unfold_blocks(folded, block), x)


def test_folding_gathers_neighbours():
    x = torch.arange(16).float().view(1, 1, 4, 4)
    assert fold_blocks(x, (2, 2))[0, :, 0, 1].tolist() == [2, 3, 6, 7]


@given(shape=st.lists(st.integers(1, 9), min_size=2, max_size=3), multiple=st.integers(1, 8))
def test_padding_is_undone_by_cutting(shape, multiple):
    x = torch.randn(1, 1, *shape)
    padded = pad_to_multiple(x, [multiple] * len(shape))
    assert all(n % multiple == 0 and n - s < multiple for n, s in zip(padded.shape[2:], shape, strict=True))
    assert torch.equal(cut_to(padded, shape), x)
    assert padded.amax() == x.amax()  # voxels repeat, nothing is invented


# Normalisation


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("shape", [(7, 5), (6, 5, 4), (9, 1, 1), (2, 1)])
def test_instance_norm_is_that_of_torch(batch, shape):
    x = torch.randn(batch, 4, *shape) * 5 + 3
    norm = InstanceNorm(4)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


def test_instance_norm_of_one_voxel_scales_and_shifts():
    norm = InstanceNorm(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([1.0, -1.0]))
    x = torch.tensor([[4.0, 5.0]]).view(1, 2, 1, 1, 1)
    assert norm(x).flatten().tolist() == [9.0, 14.0]


@pytest.mark.parametrize("dims", [2, 3])
def test_one_sample_and_two_take_the_same_gradient(dims):
    """B = 1 has a kernel of its own; a batch is the sum of its samples either way."""
    net = network(dims).double()
    x = torch.randn(2, 1, *(8, 9, 4)[:dims], dtype=torch.float64)
    weights = torch.randn(net(x).shape, dtype=torch.float64)

    def gradients(batches) -> list[torch.Tensor]:
        loss = sum((net(x[b]) * weights[b]).sum() for b in batches)
        return list(torch.autograd.grad(loss, list(net.parameters())))

    together, apart = gradients([slice(0, 2)]), gradients([slice(0, 1), slice(1, 2)])
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-8)


def test_nothing_leaks_from_sample_to_sample():
    net = network().train()
    x = torch.randn(2, 1, 8, 8, 4)
    alone = net(x[:1])
    net(torch.randn(3, 1, 8, 8, 4))  # no running statistics remember this
    torch.testing.assert_close(net(x)[:1], alone, atol=1e-5, rtol=1e-4)
    assert torch.equal(net.eval()(x[:1]), alone)


# Meta-learning


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_second_order_gradients_go_through_functional_calls(dims, batch):
    """One MAML step by hand, and its derivative against a finite difference."""
    net = network(dims, width=2).double()
    shape = (8, 8, 2)[:dims]
    x, y = torch.randn(batch, 1, *shape, dtype=torch.float64), torch.randint(0, 3, (batch, *shape))
    parameters = {name: value.detach().requires_grad_() for name, value in net.named_parameters()}

    def outer_loss(start: dict[str, torch.Tensor]) -> torch.Tensor:
        inner = F.cross_entropy(torch.func.functional_call(net, start, (x,)), y)
        steps = torch.autograd.grad(inner, list(start.values()), create_graph=True)
        adapted = {name: value - 0.1 * step for (name, value), step in zip(start.items(), steps, strict=True)}
        return F.cross_entropy(torch.func.functional_call(net, adapted, (x,)), y)

    gradients = torch.autograd.grad(outer_loss(parameters), list(parameters.values()))
    assert all(torch.isfinite(g).all() for g in gradients)
    generator = torch.Generator().manual_seed(1)
    direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in parameters.items()}
    slope = float(sum((g * d).sum() for g, d in zip(gradients, direction.values(), strict=True)))
    epsilon = 1e-6
    moved = [
        {n: (p + sign * epsilon * direction[n]).detach().requires_grad_() for n, p in parameters.items()}
        for sign in (1, -1)
    ]
    difference = float((outer_loss(moved[0]) - outer_loss(moved[1])).detach()) / (2 * epsilon)
    assert slope == pytest.approx(difference, rel=1e-3, abs=1e-6)


# Strides


def test_equal_axes_are_halved_alike():
    assert choose_strides((80, 80, 80), (1, 1, 1)) == [[2, 2, 2]] * 4
    assert choose_strides((48, 48, 48), (1, 1, 1)) == [[1, 1, 1]] + [[2, 2, 2]] * 3


def test_thick_slices_wait_until_the_others_are_as_coarse():
    assert choose_strides((96, 96, 16), (2, 2, 8)) == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]
    assert choose_strides((96, 96, 32), (2.5, 2.5, 7.7)) == [[2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize("thin", [1, 5])
def test_a_thin_axis_that_cannot_be_halved_holds_up_no_other(thin):
    """Few slices, no thicker than the pixels: the plane must still be downsampled."""
    assert choose_strides((128, 128, thin), (1, 1, 1)) == [[2, 2, 1]] * 4
    assert choose_strides((128, 128, thin), (1, 1, 0.5)) == [[2, 2, 1]] * 4


@given(
    patch=st.lists(st.integers(1, 200), min_size=2, max_size=3),
    spacing=st.lists(st.floats(0.2, 10), min_size=3, max_size=3),
)
def test_no_axis_falls_below_four_voxels_or_far_behind_in_spacing(patch, spacing):
    strides = choose_strides(patch, spacing[: len(patch)])
    assert len(strides) == 4
    sizes, lengths = list(patch), list(spacing)
    for level, stride in enumerate(strides):
        before = list(lengths)
        halvable = [length for length, size in zip(lengths, sizes, strict=False) if size >= 8]
        for axis, step in enumerate(stride):
            assert step in (1, 2)
            if step == 2:
                assert sizes[axis] >= (64 if level == 0 else 8)
                assert before[axis] < 2 * min(halvable)
                sizes[axis], lengths[axis] = sizes[axis] // 2, lengths[axis] * 2
        assert all(size >= min(4, original) for size, original in zip(sizes, patch, strict=True))


def test_a_network_with_chosen_strides_takes_other_sizes_and_single_slices():
    net = UNet(2, 1, 2, 4, choose_strides((64, 64), (1.0, 1.0)))
    assert net(torch.zeros(1, 1, 20, 30)).shape == (1, 2, 20, 30)
    net = UNet(3, 1, 2, 4, choose_strides((64, 48, 1), (1, 1, 5)))
    assert net(torch.zeros(1, 1, 64, 48, 1)).shape == (1, 2, 64, 48, 1)


# Weights for every anisotropy


@pytest.mark.parametrize("dims", [2, 3])
def test_agnostic_weights_do_not_tell_the_strides(dims):
    strides = [s[:dims] for s in STRIDES_3D], [s[:dims] for s in ([1, 1, 1], [2, 2, 2], [2, 2, 2])]
    first, second = (UNet(dims, 1, 0, 4, s, agnostic=True) for s in strides)
    shapes = [{name: value.shape for name, value in net.state_dict().items()} for net in (first, second)]
    assert shapes[0] == shapes[1]
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 1, *(16, 13, 6)[:dims])
    first.set_strides(strides[1])
    assert torch.equal(first.features(x), second.features(x))
    assert first.config == second.config


@pytest.mark.parametrize("shape", [(8, 8, 2), (7, 9, 3), (1, 1, 1), (13, 6)])
def test_an_agnostic_network_takes_any_shape_and_a_new_head(shape):
    dims = len(shape)
    trunk = build_backbone(dims=dims, width=4, levels=3)
    trunk.set_strides([s[:dims] for s in STRIDES_3D])
    net = trunk.with_classes(3)
    logits = net(torch.randn(2, 1, *shape))
    assert logits.shape == (2, 3, *shape)
    assert torch.isfinite(logits).all()
    again = UNet(**net.config)
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(torch.ones(1, 1, *shape)), net(torch.ones(1, 1, *shape)))


@pytest.mark.parametrize("shape", [(8, 8, 2), (7, 9, 3), (13, 6)])
def test_detail_is_silent_at_first_and_then_sees_single_voxels(shape):
    dims = len(shape)
    trunk = build_backbone(dims=dims, width=4, levels=3)
    trunk.set_strides([s[:dims] for s in STRIDES_3D])
    net = trunk.with_classes(2, detail=5)
    image, plain = torch.randn(2, 1, *shape), copy.deepcopy(net)
    plain.detail = None
    torch.testing.assert_close(net(image), plain(image))
    nn.init.normal_(net.detail.head.weight)
    assert not torch.allclose(net(image), plain(image))
    again = UNet(**net.config)
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(image), net(image))
    assert net.with_classes(3).detail is None
    trunk.set_strides([[1] * dims, *trunk.config["strides"][1:]])
    assert trunk.with_classes(2, detail=5).detail is None  # nothing was folded, so no detail was lost


def test_what_cannot_change_its_strides_says_so():
    with pytest.raises(ValueError, match="agnostic"):
        network().set_strides(STRIDES_3D)
    with pytest.raises(ValueError, match="levels"):
        build_backbone(dims=3, width=4).set_strides(STRIDES_3D)
    with pytest.raises(ValueError, match="no head"):
        build_backbone(dims=3, width=4, levels=3).with_classes(2).set_strides(STRIDES_3D)


def test_a_network_without_a_head_gives_its_features():
    trunk, image = build_backbone(dims=2, width=4), torch.randn(1, 1, 8, 8)
    assert torch.equal(trunk(image), trunk.features(image))


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("shape", [(1, 12, 12), (12, 12, 1), (2, 9, 5)])
def test_thin_volumes_are_computed_as_in_double_precision(shape, agnostic):
    """bf16 convolutions of a (1, Y, Z) image in channels-last order once gave anything up to NaN."""
    torch.manual_seed(0)
    net = UNet(3, 1, 2, 4, choose_strides(shape, (1, 1, 1)), agnostic)
    exact = copy.deepcopy(net).double()
    image = torch.randn(1, 1, *shape)
    with torch.no_grad(), autocast(torch.device("cpu")):
        found = to_channels_last(net)(image)
    assert (found.double() - exact(image.double())).abs().max() < 0.15


def test_weights_for_one_channel_serve_several():
    network = build_backbone(dims=2, width=4)
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    three = network.with_channels(3)
    assert three.config["in_channels"] == 3
    torch.testing.assert_close(three.features(image.expand(-1, 3, -1, -1)), network.features(image))
    for channel in range(3):  # each is seen, and opposite contrasts do not cancel
        seen = three.features(torch.eye(3)[channel].view(1, 3, 1, 1) * image)
        assert (seen - seen.mean()).abs().max() > 0.1
    opposite = torch.cat([image, -image, image], 1)
    assert (three.features(opposite) - three.features(0 * opposite)).abs().max() > 0.1


@pytest.mark.parametrize("strides", [[[1, 1, 1], [2, 2, 1], [2, 2, 1]], [[2, 2, 1], [2, 1, 1], [1, 2, 1]]])
def test_a_3d_network_in_2d_sees_a_volume_of_one_slice(strides):
    solid = build_backbone(dims=3, width=4, levels=3)
    flat = solid.as_2d()
    solid.set_strides(strides)
    flat.set_strides([stride[:2] for stride in strides])
    image = torch.randn(2, 1, 21, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flat.features(image), solid.features(image[..., None])[..., 0], atol=1e-5, rtol=1e-5)


def test_threads_build_the_networks_of_their_seeds():
    build = partial(nn.Linear, 300, 300)
    alone = [seeded(build, seed).weight for seed in (0, 1)]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(partial(seeded, build), [0, 1] * 100))
    assert all(torch.equal(network.weight, alone[number % 2]) for number, network in enumerate(built))
    assert torch.equal(torch.get_rng_state(), state)
