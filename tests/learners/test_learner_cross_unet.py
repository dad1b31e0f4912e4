"""The cross-block against sums written out, and what it cannot depend on: the order and number of supports."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from medfewshot.errors import InputError
from medfewshot.learners.cross_unet import CrossBlock, CrossConv, CrossUNet, per_support

STRIDES = {2: [[2, 2], [2, 2], [2, 1]], 3: [[2, 2, 1], [2, 2, 2], [2, 2, 1]]}


def network(dims: int, channels: int = 1) -> CrossUNet:
    torch.manual_seed(0)
    return CrossUNet(dims, channels, 4, STRIDES[dims])


def inputs(shape, shots: int = 3, channels: int = 1, batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, channels, *shape, generator=generator),
        torch.randn(batch, shots, channels, *shape, generator=generator),
        (torch.rand(batch, shots, *shape, generator=generator) > 0.5).float(),
    )


@pytest.mark.parametrize("shape", [(5, 4), (4, 3, 5)])
def test_a_cross_convolution_is_that_of_concatenated_pairs(shape):
    torch.manual_seed(0)
    cross = CrossConv(len(shape), 2, 3, 4).double()
    query, support = torch.randn(2, 2, *shape).double(), torch.randn(2, 5, 3, *shape).double()
    weight = torch.cat([cross.query.weight, cross.support.weight], dim=1)
    convolve = F.conv2d if len(shape) == 2 else F.conv3d
    got = cross(query, support)
    assert got.shape == (2, 5, 4, *shape)
    for k in range(5):
        pair = torch.cat([query, support[:, k]], dim=1)
        torch.testing.assert_close(got[:, k], convolve(pair, weight, cross.query.bias, padding=1))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_cross_block_by_einsum(dims):
    """One voxel: only the middle of each kernel counts, and normalisation is the identity."""
    torch.manual_seed(0)
    block = CrossBlock(dims, 2, 3, 2).double()
    u, v = torch.tensor([[1.0, -2.0]]).double(), torch.tensor([[[0.5, 1.0, 2.0], [-1.0, 3.0, 0.0]]]).double()

    def middle(conv: torch.nn.Module) -> torch.Tensor:
        return conv.weight[(slice(None), slice(None), *[1] * dims)]

    def act(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.01 * x)

    pairs = torch.einsum("oc,bc->bo", middle(block.cross.query), u)[:, None]
    z = act(pairs + torch.einsum("od,bkd->bko", middle(block.cross.support), v) + block.cross.query.bias)
    new_u = act(torch.einsum("oc,bkc->bo", middle(block.to_query[0]), z) / 2)
    new_v = act(torch.einsum("oc,bkc->bko", middle(block.to_support[0]), z))
    got_u, got_v = block(u.view(1, 2, *[1] * dims), v.view(1, 2, 3, *[1] * dims))
    torch.testing.assert_close(got_u.flatten(1), new_u)
    torch.testing.assert_close(got_v.flatten(2), new_v)


@pytest.mark.parametrize("shape", [(13, 6), (9, 8, 3)])
def test_the_order_of_the_supports_does_not_matter(shape):
    net = network(len(shape)).double()
    query, images, masks = (x.double() for x in inputs(shape))
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(net(query, images[:, order], masks[:, order]), net(query, images, masks))


@pytest.mark.parametrize("shape", [(13, 6), (9, 8, 3)])
def test_a_support_given_twice_counts_as_once(shape):
    net = network(len(shape)).double()
    query, images, masks = (x.double() for x in inputs(shape, shots=1))
    twice = net(query, images.repeat_interleave(2, 1), masks.repeat_interleave(2, 1))
    torch.testing.assert_close(twice, net(query, images, masks))


def test_the_masks_and_the_images_matter():
    net = network(2)
    query, images, masks = inputs((12, 12))
    answer = net(query, images, masks)
    assert float((net(query, images, 1 - masks) - answer).detach().abs().max()) > 1e-3
    assert float((net(query, -images, masks) - answer).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (7, 16), (8, 1, 5), (16, 9, 4)])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_shape(shape, channels):
    answer = network(len(shape), channels)(*inputs(shape, shots=2, channels=channels, batch=2))
    assert answer.shape == (2, *shape)
    assert torch.isfinite(answer).all()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_is_its_samples(dims):
    net = network(dims).double()
    given = [x.double() for x in inputs((9, 8, 3)[:dims], batch=2)]
    alone = torch.cat([net(*(x[i : i + 1] for x in given)) for i in range(2)])
    torch.testing.assert_close(net(*given), alone)


@pytest.mark.parametrize("dims", [2, 3])
def test_every_parameter_is_used(dims):
    net = network(dims)
    net(*inputs((16, 16, 8)[:dims])).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_a_file_that_names_a_feature_network_is_refused():
    assert CrossUNet(**network(2).config, features=None).config == network(2).config
    with pytest.raises(InputError, match="adapt again"):
        CrossUNet(**network(2).config, features={"dims": 2})


def test_each_support_by_itself():
    x = torch.randn(2, 3, 4, 5, 5)
    assert torch.equal(per_support(lambda y: y.sum(1, keepdim=True), x)[1, 2], x[1, 2].sum(0, keepdim=True))
