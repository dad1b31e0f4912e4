"""The atlas's votes, and how the hybrid weighs them."""

from __future__ import annotations

import pytest
import torch
from blobs import dice, example, support_of

from medfewshot.learners.atlas import Atlas, AtlasSegmenter, leave_one_out_dice
from medfewshot.learners.hybrid import ATLAS_FLOOR, ATLAS_WEIGHT, NETWORK_FLOOR, Hybrid, atlas_weight
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


def test_the_hybrid_is_a_product_of_its_parents():
    support = support_of([(16, 16)], labels=1)
    hybrid = Hybrid(steps=3, width=4, options=QUICK).adapt(support)
    query = support.images[0]
    network = hybrid.part(query[None])[0].softmax(0)
    expected = (network + NETWORK_FLOOR).log() + ATLAS_WEIGHT * (hybrid.atlas.votes(query) + ATLAS_FLOOR).log()
    torch.testing.assert_close(hybrid(query[None])[0], expected, atol=1e-4, rtol=1e-4)
    assert hybrid.record["atlas_weight"] == ATLAS_WEIGHT


def test_both_need_the_whole_field_of_view():
    assert AtlasSegmenter.whole_volume
    assert Hybrid(steps=1, width=4, options=QUICK).adapt(support_of([(12, 12)])).whole_volume
