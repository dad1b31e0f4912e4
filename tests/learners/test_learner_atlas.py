"""The atlas's votes, and how the hybrid weighs them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blobs import dice, example, support_of

from medfewshot.learners.atlas import Atlas, AtlasSegmenter, leave_one_out_dice
from medfewshot.learners.hybrid import (
    ATLAS_FLOOR,
    ATLAS_WEIGHT,
    MIXED,
    NETWORK_FLOOR,
    Hybrid,
    HybridSegmenter,
    agreement,
    atlas_weight,
    strangeness,
)
from medfewshot.registration import RegistrationOptions
from medfewshot.types import Support

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


def test_the_support_that_looks_alike_has_the_larger_vote():
    """One support is the query itself, the other has its structure somewhere else: the first one decides."""
    image, label = example((20, 20), seed=1)
    other = torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    support = Support((image, other), (label, 1 - label), 2, (20, 20), (1.0, 1.0))
    assert dice(Atlas(options=QUICK).adapt(support)(image[None]), label) > 0.85


def test_leaving_one_out_needs_another():
    assert leave_one_out_dice(Atlas(options=QUICK), support_of([(12, 12)])) is None
    image, label = example((20, 20), seed=1)
    twins = Support((image, image), (label, label), 2, (20, 20), (1.0, 1.0))
    found = leave_one_out_dice(Atlas(options=QUICK), twins)
    assert found is not None
    assert found > 0.9


@pytest.mark.parametrize(("left_out", "share"), [(None, 1), (0.1, 0), (0.3, 0), (0.45, 0.5), (0.6, 1), (0.9, 1)])
def test_the_atlas_has_the_say_that_leaving_one_out_gives_it(left_out, share):
    assert atlas_weight(left_out) == pytest.approx(share * ATLAS_WEIGHT)


class Sure:
    """A network that finds its label, whatever it sees."""

    device = torch.device("cpu")

    def __init__(self, label, classes=2):
        self.logits = 12.0 * torch.nn.functional.one_hot(label, classes).movedim(-1, 0)[None].float()

    def __call__(self, image):
        return self.logits


def hybrid_of(network, support, weight=ATLAS_WEIGHT):
    atlas = Atlas(options=QUICK).adapt(support)
    return HybridSegmenter(Sure(network), atlas, patch_size=support.patch_size, weight=weight)


def test_where_its_parents_agree_the_hybrid_is_their_product():
    support = support_of([(16, 16)], labels=1)
    query, label = support.images[0], support.labels[0]
    hybrid = hybrid_of(label, support)
    network, votes = hybrid.part(query[None])[0].softmax(0), hybrid.atlas.votes(query)
    assert hybrid.share(network, votes, query) == 0
    expected = (network + NETWORK_FLOOR).log() + ATLAS_WEIGHT * (votes + ATLAS_FLOOR).log()
    torch.testing.assert_close(hybrid(query[None])[0], expected, atol=1e-4, rtol=1e-4)


def test_without_votes_the_network_decides_alone():
    support = support_of([(16, 16)], labels=1)
    hybrid = hybrid_of(support.labels[0], support)
    network = torch.rand((2, 16, 16), generator=torch.Generator().manual_seed(0))
    alone = (network + NETWORK_FLOOR).log()
    torch.testing.assert_close(hybrid.fuse(network, None, support.images[0]), alone)
    silent = hybrid_of(support.labels[0], support, weight=0.0)
    torch.testing.assert_close(silent.fuse(network, network, support.images[0]), alone)
    # Two classes, votes of 1 and 0: the odds rise by the ratio of the floors, to the power of the weight.
    votes = torch.stack([torch.zeros(16, 16), torch.ones(16, 16)])
    odds = hybrid.fuse(network, votes, support.images[0]).diff(dim=0) - alone.diff(dim=0)
    expected = ATLAS_WEIGHT * torch.tensor((1 + ATLAS_FLOOR) / ATLAS_FLOOR).log()
    torch.testing.assert_close(odds, expected.expand_as(odds), atol=1e-4, rtol=1e-4)


def test_a_network_that_is_sure_and_wrong_is_overruled_where_the_atlas_is_trusted():
    one = support_of([(20, 20)], labels=1)
    support = replace(one, images=one.images * 2, labels=one.labels * 2)
    assert hybrid_of(one.labels[0] * 0, one)(one.images[0][None])[0].argmax(0).sum() == 0  # one support: no judge
    query, label = support.images[0], support.labels[0]
    nothing = torch.zeros_like(label)
    assert dice(hybrid_of(nothing, support)(query[None]), label) > 0.9
    assert dice(hybrid_of(nothing, support, weight=0.0)(query[None]), label) == 0
    hybrid = hybrid_of(nothing, support)
    network, votes = hybrid.part(query[None])[0].softmax(0), hybrid.atlas.votes(query)
    assert hybrid.share(network, votes, query) == pytest.approx(MIXED)
    # What lies under the atlas's structure is nothing like the supports' structure: a lesion that is elsewhere.
    assert hybrid.share(network, votes, query + 50) == 0


def test_agreement_and_strangeness_by_hand():
    a, b = torch.tensor([0, 1, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 0])
    assert agreement(a, b, 3) == pytest.approx((2 * 2 / 5 + 0) / 2)
    assert agreement(a * 0, b * 0, 3) == 1
    image = torch.tensor([[0.0, 1.0, 3.0, 0.0]])
    mask = torch.tensor([0, 1, 1, 0])
    atlas = AtlasSegmenter([image], [mask], classes=2, spacing_mm=(1.0,))
    assert strangeness(atlas, mask, image) == 0
    assert strangeness(atlas, mask, image + 2) == pytest.approx(2 / 2**0.5)  # values 1 and 3: deviation sqrt(2)
    assert strangeness(atlas, mask * 0, image) == 0


def test_the_hybrid_of_an_adapted_network():
    support = support_of([(16, 16)], labels=1)
    hybrid = Hybrid(steps=3, width=4, options=QUICK).adapt(support)
    assert torch.isfinite(hybrid(support.images[0][None])).all()
    assert hybrid.record["atlas_weight"] == ATLAS_WEIGHT


def test_both_need_the_whole_field_of_view():
    assert AtlasSegmenter.whole_volume
    assert Hybrid(steps=1, width=4, options=QUICK).adapt(support_of([(12, 12)])).whole_volume
