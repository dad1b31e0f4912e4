"""The atlas's votes, and how the hybrid weighs them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import pytest
import torch
from blobs import dice, example, support_of

from medfewshot.learners.atlas import Atlas, AtlasSegmenter, LeftOut
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.hybrid import CALIBRATION, Hybrid, HybridSegmenter
from medfewshot.learners.hybrid import build as build_hybrid
from medfewshot.learners.hybrid_fusion import ATLAS_FLOOR, NETWORK_FLOOR, RELEVANT, WEIGHT, atlas_trust
from medfewshot.quality import check_supports
from medfewshot.registration import RegistrationOptions, Transform
from medfewshot.types import Progress, Support

QUICK = RegistrationOptions(levels=((2, 10), (1, 10)), affine_steps=12, starts=0)


def test_a_support_segments_itself():
    support = support_of([(20, 18, 12)], labels=2)
    logits = Atlas(options=QUICK).adapt(support)(support.images[0][None])
    assert dice(logits, support.labels[0], 1) > 0.9
    assert dice(logits, support.labels[0], 2) > 0.9


def test_votes_are_probabilities():
    support = support_of([(14, 12), (12, 14)], labels=2)
    votes = Atlas(options=QUICK).adapt(support).votes(support.images[0])
    assert votes.min() >= 0
    torch.testing.assert_close(votes.sum(0), torch.ones(14, 12))


def test_the_background_adds_no_probability_however_large_the_scan():
    """The predicted Dice counts the probability of a structure in the whole scan."""
    image, label = torch.zeros(1, 300, 300), torch.zeros(300, 300, dtype=torch.int64)
    label[100:110, 100:110] = 1
    segmenter = AtlasSegmenter([image], [label], classes=2, spacing_mm=[1.0, 1.0])
    segmenter.register = lambda query: in_place(query, 0.9)
    assert float(segmenter(image[None]).softmax(1)[0, 1].sum()) == pytest.approx(100, abs=1)


def test_the_support_that_looks_alike_has_the_larger_vote():
    """One support is the query itself, the other has its structure somewhere else: the first one decides."""
    image, label = example((20, 20), seed=1)
    other = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    support = Support((image, other), (label, 1 - label), 2, (20, 20), (1.0, 1.0))
    assert dice(Atlas(options=QUICK).adapt(support)(image[None]), label) > 0.85


def in_place(query, *correlations: float):
    """Supports lie where the query does, and correlate with it as said."""
    dims, shots = query.ndim - 1, len(correlations)
    half = torch.tensor(query.shape[1:]) / 2
    still = torch.eye(dims).repeat(shots, 1, 1), torch.zeros(shots, dims), torch.zeros(shots, dims, *[2] * dims)
    local = torch.tensor(correlations).view(shots, 1, *[1] * dims).expand(shots, 1, *[2] * dims)
    return Transform(*still, half, half.expand(shots, dims)), local


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4)])
@pytest.mark.parametrize(
    ("correlations", "brightness", "logarithm"),
    [
        ((0.9, 0.8), (0.0, 0.0), 1.2),  # 12 * 0.1
        ((0.9, 0.9), (0.0, 0.5), 0.5),  # 0.25 / (2 * 0.25)
        ((0.9, 0.9), (0.25, 0.75), 1.0),  # (0.5625 - 0.0625) / 0.5
        ((0.9, 0.9), (0.0, 4.0), 3.0),  # as far as a vote falls
        ((0.7, 0.9), (0.5, 1.0), -0.9),  # (2 - 0.5) - 12 * 0.2
    ],
)
def test_votes_by_hand(shape, correlations, brightness, logarithm):
    """Of a support that says structure and one that says background: what the first one's vote has over the other's."""
    images = [torch.full((1, *shape), value) for value in brightness]
    labels = [torch.ones(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)]
    segmenter = AtlasSegmenter(images, labels, classes=2, spacing_mm=[1.0] * len(shape))
    query = torch.zeros(1, *shape)
    votes = segmenter.fuse_labels(query, *in_place(query, *correlations))
    torch.testing.assert_close(votes[1].logit(), torch.full(shape, logarithm), atol=1e-4, rtol=0)


def test_a_difference_counts_in_its_neighbourhood():
    """One voxel off by 3/2 takes (9/4) / 9 / (2 * 0.25) = 1/2 off the vote there and beside it, nothing elsewhere."""
    image, label = torch.zeros(1, 7, 7), torch.zeros(7, 7, dtype=torch.int64)
    image[0, 3, 3] = 1.5
    segmenter = AtlasSegmenter([image, 0 * image], [1 - label, label], classes=2, spacing_mm=(1.0, 1.0))
    votes = segmenter.fuse_labels(0 * image, *in_place(image, 1.0, 1.0))
    expected = torch.zeros(7, 7)
    expected[2:5, 2:5] = -0.5
    torch.testing.assert_close(votes[1].logit(), expected, atol=1e-4, rtol=0)


def test_structures_in_one_piece_are_known():
    image, whole, parts = torch.zeros(1, 6, 6), torch.zeros(6, 6, dtype=torch.long), torch.zeros(6, 6, dtype=torch.long)
    whole[:2], whole[4], parts[0], parts[4] = 1, 2, 1, 1
    two = AtlasSegmenter([image, image], [whole, parts], classes=3, spacing_mm=(1, 1))
    assert two.one_piece == {2}
    unknown = AtlasSegmenter([image], [whole.index_fill(0, torch.tensor([5]), -1)], classes=3, spacing_mm=(1, 1))
    assert unknown.one_piece == frozenset()


def test_leaving_one_out_needs_another():
    assert Atlas(options=QUICK).leave_one_out(support_of([(12, 12)])).dice == [None]
    image, label = example((20, 20), seed=1)
    twins = Support((image, image), (label, label), 2, (20, 20), (1.0, 1.0))
    found = Atlas(options=QUICK).leave_one_out(twins)
    assert found.dice[0] is not None
    assert found.dice[0] > 0.9
    assert [(warp.example, warp.like) for warp in found.warps] == [(1, 0), (0, 1)]
    points = torch.tensor([5.0, 7.0]).view(2, 1, 1)
    torch.testing.assert_close(found.warps[0].points(points), points, atol=0.5, rtol=0)


def test_a_structure_of_one_support_alone_cannot_be_left_out():
    image, label = example((20, 20), seed=1)
    only_first = label.clone()
    only_first[:2, :2] = 2
    pair = Support((image, image), (only_first, label), 3, (20, 20), (1.0, 1.0))
    known, unknown = Atlas(options=QUICK).leave_one_out(pair).dice
    assert known is not None
    assert unknown is None


def test_pairs_tell_which_mask_is_of_another_scan():
    image, label = example((20, 20), seed=1)
    moved = label.roll((7, 5), (0, 1))
    three = Support((image,) * 3, (label, moved, label), 2, (20, 20), (1.0, 1.0))
    pairs = Atlas(options=QUICK).leave_one_out(three).pairs
    elsewhere = replace(three, images=(image,) * 2, labels=(label, moved))
    assert Atlas(options=QUICK).leave_one_out(elsewhere).warps == ()  # their shapes have nothing in common
    assert set(pairs) == {(i, j) for i in range(3) for j in range(3) if i != j}
    assert min(pairs[0, 2] + pairs[2, 0]) > 0.95
    assert max(pairs[0, 1] + pairs[1, 0] + pairs[1, 2] + pairs[2, 1]) < 0.3
    compared = [{"support": i, "from": j, "dice": list(values)} for (i, j), values in pairs.items()]
    messages = [row["message"] for row in check_supports(compared, ["a", "b", "c"], ["liver"])]
    assert [bool(message) for message in messages] == [False, True, False]
    assert messages[1].startswith("check b: its mask fits none of the others")


@pytest.mark.parametrize(("left_out", "trust"), [(0.1, 0), (0.4, 0), (0.5, 0.5), (0.6, 1), (0.9, 1)])
def test_a_structure_is_trusted_as_leaving_one_out_says(left_out, trust):
    assert atlas_trust(left_out) == pytest.approx(trust)
    assert atlas_trust(None) is None


class Sure:
    """A network that finds its label, whatever it sees."""

    device = torch.device("cpu")

    def __init__(self, label, classes=2):
        self.logits = 12.0 * torch.nn.functional.one_hot(label, classes).movedim(-1, 0)[None].float()

    def __call__(self, image):
        return self.logits


def hybrid_of(network, support, trust=1.0, weight=2.0):
    atlas = Atlas(options=QUICK).adapt(support)
    trusts = [trust] * (support.classes - 1)
    return HybridSegmenter(
        Sure(network, support.classes), atlas, patch_size=support.patch_size, atlas_weight=weight, atlas_trust=trusts
    )


def test_a_trusted_atlas_makes_a_product():
    support = support_of([(16, 16)], labels=2)
    query, label = support.images[0], support.labels[0]
    hybrid = hybrid_of(label, support, weight=0.7)
    network, votes = hybrid.network(query[None])[0].softmax(0), hybrid.atlas.votes(query)
    expected = (network + NETWORK_FLOOR).log() + 0.7 * (votes + ATLAS_FLOOR).log()
    expected += (torch.maximum(network, votes) / RELEVANT).clamp(1e-6, 1).log()
    torch.testing.assert_close(hybrid(query[None])[0], expected, atol=1e-4, rtol=1e-4)


def test_an_untrusted_structure_is_neither_shown_back_nor_favoured():
    """By hand, two structures of which the second is not trusted, at one voxel."""
    support = support_of([(16, 16)], labels=2)
    hybrid = hybrid_of(support.labels[0], support, weight=2.0)
    hybrid.atlas_trust = (1.0, 0.0)
    network, votes = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.1, 0.6, 0.3])
    fused = hybrid.fuse(network.view(3, 1), votes.view(3, 1))[0][:, 0]
    said = [math.log(0.4 + ATLAS_FLOOR), math.log(0.6 + ATLAS_FLOOR), math.log(0.6 + ATLAS_FLOOR)]
    expected = [math.log(p + NETWORK_FLOOR) + 2 * s for p, s in zip(network.tolist(), said, strict=True)]
    torch.testing.assert_close(fused, torch.tensor(expected))


def test_floors_do_not_fill_the_background():
    """Where both say background, a structure keeps no share that adds up over a whole scan."""
    support = support_of([(16, 16)], labels=1)
    hybrid = hybrid_of(support.labels[0], support, weight=WEIGHT)
    fused = hybrid.fuse(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [0.0]]))[0].softmax(0)
    assert fused[1] < 1e-6


@pytest.mark.parametrize(("trust", "overruled"), [(1.0, True), (0.4, False)])
def test_a_trusted_atlas_overrules_a_network_that_misses_a_structure_and_is_sure(trust, overruled):
    support = support_of([(16, 16)], labels=1)
    hybrid = hybrid_of(support.labels[0], support, trust=trust, weight=WEIGHT)
    fused = hybrid.fuse(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]]))[0]
    assert bool(fused[1] > fused[0]) is overruled


def test_with_no_trust_at_all_the_network_decides():
    support = support_of([(20, 20)], labels=1)
    nothing = torch.zeros_like(support.labels[0])
    hybrid = hybrid_of(nothing, support, trust=0.0)
    network = hybrid.network(support.images)[0].softmax(0)
    torch.testing.assert_close(hybrid(support.images[0][None])[0].softmax(0), network, atol=1e-5, rtol=0)
    assert hybrid.calibration is None
    assert hybrid_of(nothing, support).calibration == CALIBRATION


def test_with_one_support_a_structure_found_elsewhere_is_not_trusted():
    """Nothing can be left out: network and atlas are asked whether they mean the same place."""
    support = support_of([(20, 20)], labels=1)
    query, label = support.images[0], support.labels[0]
    elsewhere = torch.zeros_like(label)
    elsewhere[:3, :3] = 1 - label[:3, :3]
    assert dice(hybrid_of(elsewhere, support, trust=None)(query[None]), elsewhere) == 1
    together = hybrid_of(label, support, trust=None)
    expected = hybrid_of(label, support, trust=1.0)(query[None])
    torch.testing.assert_close(together(query[None]), expected)


def test_the_hybrid_of_an_adapted_network():
    support = support_of([(16, 16)], labels=1)
    hybrid = build_hybrid(steps=3, width=4, options=QUICK).adapt(support)
    assert torch.isfinite(hybrid(support.images[0][None])).all()
    assert hybrid.record["atlas_weight"] == 1.0
    assert hybrid.record["atlas_trust"] == [None]
    assert hybrid.interpolated is None  # a random start is no place to go back to


@dataclass(frozen=True)
class Timed(Finetune):
    """Notes the budget that it gets."""

    budgets: list[float | None] = field(default_factory=list)

    def adapt(self, support):
        self.budgets.append(self.budget_seconds)
        return super().adapt(support)


@dataclass(frozen=True)
class Slow(Atlas):
    """Takes a tenth of a second to leave supports out, and notes how long it may take."""

    budgets: list[float | None] = field(default_factory=list)

    def leave_one_out(self, support, seconds=None):
        self.budgets.append(seconds)
        time.sleep(0.1)
        return LeftOut([0.5] * (support.classes - 1), {})


@pytest.mark.parametrize("budget", [100.0, None])
def test_matching_gets_half_of_the_budget_and_the_network_what_is_left(budget):
    network, slow = Timed(steps=1, width=4, budget_seconds=budget), Slow(options=QUICK)
    Hybrid(network, slow).adapt(support_of([(12, 12), (12, 12)]))
    assert slow.budgets == [None if budget is None else 50.0]
    if budget is None:
        assert network.budgets == [None]
    else:
        assert 50 < network.budgets[0] <= 99.9


def test_stages_are_named_in_order():
    """Leaving supports out takes as long as training: both report what they do."""
    stages = []
    progress = Progress(lambda event: stages.append(event.stage))
    build_hybrid(steps=1, width=4, options=QUICK, progress=progress).adapt(support_of([(12, 12), (12, 12)]))
    assert list(dict.fromkeys(stages)) == ["comparing the labelled scans", "training the network"]


def test_the_overlap_that_inference_asks_for_is_used():
    """Windows of a fifth of the image: logits depend on the overlap, whose default is a half."""
    support = support_of([(30, 30)], patch=(6, 6))
    hybrid, image = build_hybrid(steps=1, width=4, options=QUICK).adapt(support), support.images[0][None]
    found = {overlap: hybrid.examine(image, overlap=overlap)[0] for overlap in (0.0, 0.5, 0.75)}
    assert torch.equal(found[0.5], hybrid(image))
    assert not torch.allclose(found[0.0], found[0.5])
    assert not torch.allclose(found[0.75], found[0.5])


def test_of_many_supports_the_atlas_keeps_ten():
    one = support_of([(12, 12)], labels=1)
    many = Support(one.images * 12, one.labels * 12, 2, (12, 12), (1.0, 1.0))
    assert len(build_hybrid(steps=1, width=4, options=QUICK).adapt(many).atlas.image) == 10


def test_both_need_the_whole_field_of_view():
    assert AtlasSegmenter.whole_volume
    assert build_hybrid(steps=1, width=4, options=QUICK).adapt(support_of([(12, 12)])).whole_volume
