"""In-context segmentation: classes put together by hand, the working grid, pseudo-episodes and meta-training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from blobs import backbone_for, dice, episode_of, example, meta_train, slow_steps, support_of

from medfewshot.augment import NO_AUGMENTATION
from medfewshot.backbones import choose_strides
from medfewshot.errors import InputError
from medfewshot.learners import InContext
from medfewshot.learners.cross_unet import CrossUNet
from medfewshot.learners.in_context import (
    InContextSegmenter,
    PseudoEpisodes,
    add_background,
    build_backbone,
    build_start,
    class_masks,
    context_logits,
    grid_labels,
    grid_spacing_mm,
    working_grid,
)
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.registration import resized


def cross_unet(shape, width: int = 6) -> CrossUNet:
    torch.manual_seed(5)
    return CrossUNet(len(shape), 1, width, choose_strides(shape, (1.0,) * len(shape)))


# Classes


def test_one_class_is_a_sigmoid():
    binary = torch.randn(2, 1, 3, 4)
    torch.testing.assert_close(add_background(binary).softmax(1)[:, 1], binary[:, 0].sigmoid())


def test_several_classes_by_hand():
    logits = add_background(torch.tensor([[1.0, -1.0, -2.0], [2.0, -3.0, -2.0]]).view(1, 2, 3))
    assert logits[0].argmax(0).tolist() == [2, 0, 0]
    total = 1 + math.e + math.e**2
    assert logits.softmax(1)[0, :, 0].tolist() == pytest.approx([1 / total, math.e / total, math.e**2 / total])


def test_one_pass_a_class():
    """Each class's logit is that of the network with its mask; a class without a mask is never found."""
    network = cross_unet((12, 12)).eval()
    query, images = torch.randn(1, 12, 12), torch.randn(2, 1, 12, 12)
    masks = (torch.rand(2, 3, 12, 12) > 0.5).float()
    masks[:, 1] = 0
    with torch.no_grad():
        logits = context_logits(network, query, images, masks)
        alone = context_logits(network, query, images, masks[:, 2:])
        swapped = context_logits(network, query, images, masks[:, [2, 1, 0]])
    assert torch.equal(logits[0], torch.zeros(12, 12))
    assert float(logits[2].max()) < -1e3
    torch.testing.assert_close(logits[3], alone[1])
    torch.testing.assert_close(swapped[[0, 3, 2, 1]], logits)


def test_many_supports_are_read_in_groups():
    network = cross_unet((8, 8)).eval()
    query, images = torch.randn(1, 8, 8), torch.randn(5, 1, 8, 8)
    masks = (torch.rand(5, 1, 8, 8) > 0.5).float()
    with torch.no_grad():
        got = context_logits(network, query, images, masks, at_once=3)[1]
        first = context_logits(network, query, images[:3], masks[:3])[1]
        second = context_logits(network, query, images[3:], masks[3:])[1]
    torch.testing.assert_close(got, (3 * first + 2 * second) / 5, atol=1e-5, rtol=1e-4)


# The working grid


def test_the_working_grid_is_bounded():
    assert working_grid([(512, 400, 90), (512, 300, 30)]) == (64, 64, 60)
    assert working_grid([(20, 30, 1)]) == (20, 30, 1)
    assert working_grid([(300, 90)]) == (128, 90)


def test_the_spacing_of_the_grid():
    support = support_of([(40, 20, 8), (20, 20, 8)], patch=(16, 16, 8))
    assert grid_spacing_mm(support, (15, 20, 4)) == pytest.approx((2.0, 1.0, 2.0))


def test_a_small_structure_survives_on_the_grid():
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    labels[0, :32] = 1
    labels[0, 50, 50] = 2
    masks = resized(class_masks(labels, 3), (16, 16))
    assert float(masks[0, 1].sum()) == pytest.approx(1 / 16)
    small = grid_labels(masks)
    assert (small[0, :8] == 1).all()
    assert (small == 2).nonzero().tolist() == [[0, 12, 12]]


def test_memory_does_not_grow_with_the_scan():
    """A scan of any size meets the network on the working grid, and the answer has the scan's size."""
    network = cross_unet((16, 16)).eval()
    seen = []
    network.register_forward_pre_hook(lambda _, given: seen.append([tuple(x.shape) for x in given]))
    segmenter = InContextSegmenter(network, torch.randn(2, 1, 16, 16), torch.ones(2, 1, 16, 16))
    assert segmenter.whole_volume
    assert segmenter(torch.randn(1, 1, 200, 90)).shape == (1, 2, 200, 90)
    assert seen == [[(1, 1, 16, 16), (1, 2, 1, 16, 16), (1, 2, 16, 16)]]


# Pseudo-episodes


def test_pseudo_episodes_hold_one_class_and_another_scan():
    """Constant images tell which example a view was made of."""
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 8, 8).clone()
    labels = torch.zeros(3, 8, 8, dtype=torch.int64)
    labels[:, :2], labels[:, 5:] = 1, 2
    episodes = PseudoEpisodes(
        images, class_masks(labels, 3), (1.0, 1.0), NO_AUGMENTATION, torch.Generator().manual_seed(0)
    )
    sizes = set()
    for _ in range(12):
        query, mask, others, masks = episodes.sample()
        assert float(query.mean()) not in others.mean((1, 2, 3)).tolist()
        assert len(others) == 2
        sizes.add(int(mask.sum()))
        assert [int(m.sum()) for m in masks] == [int(mask.sum())] * 2
    assert sizes == {16, 24}


def test_one_support_plays_both_parts():
    episodes = PseudoEpisodes(
        torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), (1.0, 1.0), NO_AUGMENTATION, torch.Generator().manual_seed(0)
    )
    _, mask, others, _ = episodes.sample()
    assert len(others) == 1
    assert mask.all()


# The learner


@pytest.mark.parametrize("shape", [(32, 32), (16, 14, 12)])
def test_a_blob_is_learned(shape):
    segmenter = InContext(steps=60, width=8).adapt(support_of([shape, shape]))
    assert segmenter.record["trained"]
    assert segmenter.record["steps"] == 60
    image, label = example(shape, seed=50)
    assert dice(segmenter(image[None]), label) > 0.7


def test_a_budget_ends_training(monkeypatch):
    options = {"width": 4, "budget_seconds": 2.0, "progress": slow_steps(monkeypatch)}
    record = InContext(steps=100_000, **options).adapt(support_of([(16, 16)])).record
    assert record["stopped_by"] == "budget"
    assert 17 <= record["steps"] <= 20
    none = options | {"budget_seconds": 0.0}
    assert InContext(steps=50, **none).adapt(support_of([(16, 16)])).record["steps"] == 1


@pytest.mark.parametrize("shape", [(20, 20), (12, 12, 10)])
def test_meta_training_lowers_the_query_loss(shape):
    before, after = meta_train(InContext(start=build_start(cross_unet(shape))), shape)
    assert after < 0.8 * before


@pytest.mark.parametrize("shape", [(16, 16), (12, 12, 12)])
def test_the_loss_reaches_every_meta_parameter(shape):
    start = build_start(cross_unet(shape))
    InContext(start=start).meta_loss(episode_of(shape, labels=2)).backward()
    for name, parameter in start.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_with_a_start_nothing_is_trained():
    """And the same weights serve any number of classes and supports."""
    start = build_start(cross_unet((20, 20)))
    learner = InContext(start=start, steps=0)
    for labels, shots in ((1, 1), (2, 3)):
        segmenter = learner.adapt(support_of([(20, 20)] * shots, labels=labels))
        assert segmenter.record["steps"] == 0
        image, _ = example((20, 20), labels, seed=50)
        assert segmenter(image[None]).shape == (1, labels + 1, 20, 20)
        weights = start.backbone.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in segmenter.network.state_dict().items())


def test_the_meta_loss_is_the_segmenter_s():
    """What is trained is what is used: the loss of the logits that adapting to the support gives."""
    start, episode = build_start(cross_unet((20, 20))), episode_of((20, 20), labels=2)
    logits = InContext(start=start, steps=0).adapt(episode.support)(episode.query.image)
    expected = dice_cross_entropy(logits, episode.query.label)
    torch.testing.assert_close(InContext(start=start).meta_loss(episode), expected, atol=2e-2, rtol=2e-2)


def test_a_trained_network_reads_a_grid_of_another_anisotropy():
    """Pooling follows the grid and holds no weights; the fold and the number of levels are in the weights."""
    start = build_start(build_backbone(dims=3, width=4, levels=3))
    thick = replace(support_of([(16, 16, 16)]), spacing_mm=(1.0, 1.0, 6.0))
    segmenter = InContext(start=start, steps=0).adapt(thick)
    # The fold leaves 8 voxels of 2 x 2 x 12 mm: the fine axes are halved, to 4 voxels, and then the thick one.
    assert segmenter.network.config["strides"] == [[2, 2, 2], [2, 2, 1], [1, 1, 2]]
    assert start.backbone.config["strides"] == [[2, 2, 2]] * 3
    assert segmenter(thick.images[0][None]).shape == (1, 2, 16, 16, 16)
    with pytest.raises(ValueError, match="fold"):
        start.backbone.set_strides([[1, 1, 1], [2, 2, 2], [2, 2, 2]])


def test_what_cannot_be_done_is_said():
    support = support_of([(24, 24)])
    with pytest.raises(InputError, match="0 steps leave a random network"):
        InContext(steps=0).adapt(support)
    with pytest.raises(InputError, match="build_start"):
        InContext(start=backbone_for((24, 24))).adapt(support)
    with pytest.raises(InputError, match="2D images of 1 channel"):
        InContext(start=build_start(cross_unet((24, 24)))).adapt(support_of([(12, 12)], channels=2))
    with pytest.raises(InputError, match="build_start"):
        InContext(start=backbone_for((24, 24))).meta_loss(episode_of((24, 24)))
