"""Prototypes that segment, with either background; the alignment loss by hand; meta-training."""

from __future__ import annotations

import math

import pytest
import torch
from blobs import backbone_for, dice, episode_of, example, meta_train, small, support_of

from medfewshot.errors import InputError
from medfewshot.learners import Prototype
from medfewshot.learners.features import episode_features, support_features, to_voxels
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.learners.prototype import PrototypeSegmenter, alignment_loss, build_start, fit_threshold
from medfewshot.learners.prototype_head import PrototypeHead, pool_prototypes
from medfewshot.types import Support


@pytest.mark.parametrize(
    ("kind", "background"),
    [("cosine", "prototypes"), ("euclidean", "prototypes"), ("cosine", "threshold"), ("learned", "threshold")],
)
def test_a_blob_is_learned(kind, background):
    support = support_of([(32, 32), (32, 32)])
    segmenter = Prototype(steps=40, width=8, metric=kind, background=background).adapt(support)
    image, label = example((32, 32), seed=50)
    assert dice(segmenter(image[None]), label) > 0.7


def test_without_training_the_start_gives_the_features():
    support = support_of([(24, 24)])
    trained = Prototype(steps=4, width=8).adapt(support)
    again = Prototype(start=trained.network, steps=0).adapt(support)
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


def test_memory_is_bounded_without_a_trace():
    support = support_of([(16, 14, 12)])
    segmenter = small("prototype").adapt(support)
    image, _ = example((16, 14, 12), seed=50)
    whole, most, voxels = segmenter(image[None]), 50, []
    segmenter.scores_at_once = most * len(segmenter.prototypes)
    segmenter.head.register_forward_pre_hook(lambda _, given: voxels.append(given[0].shape[2]))
    torch.testing.assert_close(segmenter(image[None]), whole, atol=1e-5, rtol=1e-5)
    assert len(voxels) > 1
    assert max(voxels) <= most


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
    head = PrototypeHead(2, "euclidean", temperature=1.0)
    prototypes, owner = torch.tensor([[0.0, 1.0], [3.0, 1.0]]), torch.tensor([0, 1])
    segmenter = PrototypeSegmenter(Folded(), head, prototypes, owner, classes=2)
    logits = segmenter(torch.zeros(1, 1, length, 3))
    assert logits.shape == (1, 2, length, 3)
    ahead = (logits[0, 1] - logits[0, 0])[:, 0]  # linear in the position, 0 half way between blocks 1 and 2: voxel 3.5
    torch.testing.assert_close(ahead[3] + ahead[4], torch.tensor(0.0), atol=1e-5, rtol=0)


# The background's threshold


def test_the_threshold_lies_between_structure_and_background():
    """By hand: mean squared distances to the prototype (2, 0) are 2 in the background, 0 and 1/2 in the structure."""
    features = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).view(1, 2, 2, 2)
    labels = torch.tensor([[[0, 0], [1, 1]]])
    head = PrototypeHead(2, "euclidean", "threshold", temperature=1.0)
    segmenter = PrototypeSegmenter(Folded(), head, torch.tensor([[2.0, 0.0]]), torch.tensor([1]), classes=2)
    fit_threshold(segmenter, [(features, labels)])
    assert float(head.threshold.detach()) == pytest.approx((2 + 1 / 4) / 2)


def test_adaptation_reads_the_threshold_off_the_supports():
    """So reading it again changes nothing, whatever it was in between."""
    support = support_of([(24, 24)])
    learner = small("prototype", background="threshold")
    segmenter = learner.adapt(support)
    threshold = segmenter.head.threshold.detach()
    found = float(threshold)
    threshold.fill_(5.0)
    fit_threshold(segmenter, support_features(segmenter.network, support, torch.Generator().manual_seed(0)))
    assert float(threshold) == pytest.approx(found, abs=1e-3)
    assert found != pytest.approx(-10, abs=0.1)  # what a new head has


# Meta-training


def test_the_alignment_loss_by_hand():
    """A 2 x 2 map, two voxels of each class; one of the four is told wrongly by the query's prototypes."""
    head = PrototypeHead(2, "euclidean", temperature=2.0).double()
    features = torch.tensor([[[[0.0, 1.0], [2.0, 2.0]], [[0.0, 0.0], [0.0, 2.0]]]], dtype=torch.float64)
    labels = torch.tensor([[[0, 0], [1, 1]]])
    query = torch.tensor([[[[0.0, 2.0], [2.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    predicted = torch.tensor([[[0, 0], [1, 1]]])
    prototypes, owner = pool_prototypes(query, predicted, 2, cell=4)
    # Prototypes (1, 0) and (2, 0), twice each: the half-covered cell gives the mean again.
    assert prototypes.tolist() == [[1.0, 0.0]] * 2 + [[2.0, 0.0]] * 2
    # Mean squared distances to both: .5 2 | 0 .5 | .5 0 | 2.5 2; the logits are -2 times that.
    logits = [(-1, -4), (0, -1), (-1, 0), (-5, -4)]
    costs = [math.log(1 + math.exp(wrong - right)) for right, wrong in
             [(logits[0][0], logits[0][1]), (logits[1][0], logits[1][1]),
              (logits[2][1], logits[2][0]), (logits[3][1], logits[3][0])]]  # fmt: skip
    loss = alignment_loss(head, features, labels, prototypes, owner, 2)
    assert float(loss.detach()) == pytest.approx(sum(costs) / 4, abs=1e-6)


def test_the_alignment_loss_leaves_out_what_was_not_predicted():
    head = PrototypeHead(2, "euclidean")
    features, labels = torch.randn(1, 2, 2, 2), torch.tensor([[[0, 1], [2, 2]]])
    prototypes = torch.randn(2, 2)
    both = alignment_loss(head, features, labels, prototypes, torch.tensor([0, 1]), 3)
    without = labels.clone()
    without[labels == 2] = -100
    torch.testing.assert_close(both, alignment_loss(head, features, without, prototypes, torch.tensor([0, 1]), 3))
    assert float(both) < 1e3  # the class without a prototype costs nothing
    assert float(alignment_loss(head, features, labels, prototypes, torch.tensor([0, 0]), 3)) == 0


@pytest.mark.parametrize("background", ["prototypes", "threshold"])
@pytest.mark.parametrize("shape", [(16, 16), (12, 12, 12)])
def test_the_loss_reaches_every_meta_parameter(shape, background):
    start = build_start(backbone_for(shape), metric="learned", background=background)
    loss = Prototype(start=start).meta_loss(episode_of(shape, labels=1 if len(shape) == 2 else 2))
    loss.backward()
    for name, parameter in start.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    frozen = [name for name, parameter in start.named_parameters() if not parameter.requires_grad]
    assert frozen == ["backbone.head.weight", "backbone.head.bias"]


def test_meta_training_asks_for_a_low_threshold():
    """Beside the query's loss ADNet's T / temperature, whose temperature is not pushed by it."""
    start, episode = build_start(backbone_for((12, 12)), background="threshold", temperature=4.0), episode_of((12, 12))
    with torch.no_grad():
        start.head.threshold.fill_(3.0)
    support, labels, query = episode_features(start.backbone, episode)
    logits = start.head(query, *pool_prototypes(support, labels, 2, cell=4), 2)
    voxels = to_voxels(logits, start.backbone.fold, (12, 12))
    extra = Prototype(start=start, alignment=0.0).meta_loss(episode) - dice_cross_entropy(voxels, episode.truth)
    assert float(extra.detach()) == pytest.approx(3 / 4, abs=1e-5)
    extra.backward()
    assert float(start.head.threshold.grad) == pytest.approx(1 / 4, abs=1e-5)
    assert float(start.head.log_temperature.grad) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_meta_training_aligns_the_support_with_what_the_query_was_taken_for(weight):
    episode = episode_of((16, 16))
    start = build_start(backbone_for((16, 16)), metric="euclidean")
    with torch.no_grad():
        plain, aligned = (Prototype(start=start, alignment=a).meta_loss(episode) for a in (0.0, weight))
        support, labels, query = episode_features(start.backbone, episode)
        found = start.head(query, *pool_prototypes(support, labels, 2, cell=4), 2).argmax(1)
        expected = alignment_loss(start.head, support, labels, *pool_prototypes(query, found, 2, cell=4), 2)
    assert float(expected) > 0.01
    assert float(aligned - plain) == pytest.approx(weight * float(expected), rel=1e-3)


@pytest.mark.parametrize("background", ["prototypes", "threshold"])
@pytest.mark.parametrize("shape", [(20, 20), (14, 12, 10)])
def test_meta_training_lowers_the_query_loss(shape, background):
    start = build_start(backbone_for(shape), metric="learned", background=background)
    before, after = meta_train(Prototype(start=start), shape)
    assert after < 0.8 * before


def test_a_start_brings_its_own_head():
    support = support_of([(24, 24)])
    start = build_start(backbone_for((24, 24)), metric="learned", background="threshold", temperature=7.0, rank=2)
    segmenter = Prototype(start=start, steps=0).adapt(support)
    assert segmenter.head.config == start.head.config
    assert float(segmenter.head.temperature) == pytest.approx(7.0)
    assert float(segmenter.head.threshold) == pytest.approx(3.5)  # learned, so not read off the supports
    assert segmenter.head.threshold is not start.head.threshold


def test_features_may_be_adapted_from_a_start_for_other_classes():
    support = support_of([(24, 24)], labels=2)
    start = build_start(backbone_for((24, 24)))
    segmenter = Prototype(start=start, steps=3).adapt(support)
    assert segmenter.record["steps"] == 3
    assert segmenter.network.config["classes"] == 3
    still = Prototype(start=start, steps=0).adapt(support)
    assert not torch.equal(segmenter.network.stem.weight, start.backbone.stem.weight)
    assert torch.equal(still.network.stem.weight, start.backbone.stem.weight)


def test_what_cannot_be_done_is_said():
    support = support_of([(24, 24)])
    with pytest.raises(InputError, match="0 steps leave a random network"):
        Prototype(steps=0).adapt(support)
    with pytest.raises(InputError, match="3D images of 1 channel"):
        Prototype(start=build_start(backbone_for((8, 8, 8)))).adapt(support)
    with pytest.raises(InputError, match="build_start"):
        Prototype(start=backbone_for((16, 16))).meta_loss(episode_of((16, 16)))
