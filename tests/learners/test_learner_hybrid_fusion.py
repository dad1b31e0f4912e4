"""Who is believed where network and atlas differ: by hand, at single voxels and on small masks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from blobs import support_of

from medfewshot.backbones import build_backbone
from medfewshot.learners.hybrid import HybridSegmenter, _covering, _shown, between
from medfewshot.learners.hybrid import build as build_hybrid
from medfewshot.learners.hybrid_fusion import (
    ATLAS_FLOOR,
    DISAGREE,
    NETWORK_FLOOR,
    REGISTRATION_ONLY,
    Trusts,
    doubts,
    learned,
    missed,
    product,
    stabilise,
    trusts,
)
from medfewshot.learners.weights import build_start
from medfewshot.registration import RegistrationOptions

QUICK = RegistrationOptions(levels=((2, 5), (1, 5)), affine_steps=6, starts=0)


def probabilities(label, classes=2, sure=0.9):
    """``(classes, *S)``: ``sure`` of each voxel's class, the rest shared by the others."""
    hot = torch.nn.functional.one_hot(torch.tensor(label), classes).movedim(-1, 0).float()
    return hot * sure + (1 - hot) * (1 - sure) / (classes - 1)


@pytest.mark.parametrize(("dice", "trust"), [(0.1, 0), (0.3, 0), (0.5, 0.5), (0.7, 1), (0.95, 1)])
def test_a_structure_is_learned_as_the_training_dice_says(dice, trust):
    assert learned([dice]) == pytest.approx([trust])


def test_a_network_that_has_not_learned_a_structure_leaves_it_to_the_atlas():
    """The second of two structures was not learned: the network says background where the atlas finds it."""
    network, votes = torch.tensor([[0.9], [0.08], [0.02]]), torch.tensor([[0.1], [0.2], [0.7]])
    of_network, of_atlas, _ = trusts(network, votes, [1.0, 0.0], [1.0, 0.0], [1.0, 1.0])
    assert of_network == [1, 0]
    assert of_atlas == [1, 1]  # nobody else could say anything of it
    fused = product(network, votes, 1.0, of_network, of_atlas)[:, 0]
    said = [0.9, 0.08, 0.9]
    expected = [
        math.log(n + NETWORK_FLOOR) + math.log(v + ATLAS_FLOOR) for n, v in zip(said, [0.1, 0.2, 0.7], strict=True)
    ]
    torch.testing.assert_close(fused, torch.tensor(expected))
    assert fused.argmax() == 2
    assert product(network, votes, 1.0, [1.0, 1.0], [1.0, 0.0])[:, 0].argmax() == 0


def test_a_lesion_that_the_atlas_cannot_place_stays_the_networks():
    network, votes = probabilities([0, 1, 1, 0]), probabilities([1, 0, 0, 0])
    assert trusts(network, votes, [0.0], [1.0], [1.0])[:2] == ([1], [0])
    assert trusts(network, votes, [None], [1.0], [0.0])[:2] == ([1], [0])  # unsteady, but the atlas is elsewhere


@pytest.mark.parametrize(("steady", "of_network", "of_atlas"), [(1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5)])
def test_an_unsteady_network_gives_way_to_an_atlas_that_is_roughly_there(steady, of_network, of_atlas):
    """Dice with each other 2 * 1 / (4 + 4) = 0.25: too little to trust the atlas, enough where the network reels."""
    network, votes = probabilities([1, 1, 1, 1, 0, 0, 0]), probabilities([0, 0, 0, 1, 1, 1, 1])
    assert trusts(network, votes, [None], [1.0], [steady])[:2] == ([of_network], [of_atlas])


@pytest.mark.parametrize(
    ("found", "of_network", "of_atlas"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], 0.0, 1.0),  # nothing: nobody contradicts the atlas
        ([0, 0, 0, 0, 0, 0, 0, 1], 0.0, 1.0),  # a quarter of what the atlas finds, elsewhere: still nothing
        ([0, 0, 0, 0, 0, 1, 1, 1], 1.0, 0.0),  # three quarters, elsewhere: the two contradict each other
        ([1, 0, 0, 0, 0, 0, 1, 1], 1.0, 1.0),  # Dice with each other 2 / 7, more than 0.2: both are heard
    ],
)
def test_a_network_from_random_weights_gives_way_where_it_finds_little(found, of_network, of_atlas):
    network, votes = probabilities(found), probabilities([1, 1, 1, 1, 0, 0, 0, 0])
    assert trusts(network, votes, [None], [1.0], [1.0], from_scratch=True)[:2] == ([of_network], [of_atlas])


def masks(found, matched, size=200):
    """Of ``size`` voxels: found inside the matched ones, and outside."""
    inside, outside = found
    place = torch.arange(size)
    return (place < inside) | ((place >= matched) & (place < matched + outside)), place < matched


@pytest.mark.parametrize(
    ("found", "taught", "from_scratch"),
    [
        ((0, 0), 1, 1),
        ((25, 2), 0.92, 0.92),  # 27 of 100: (0.5 - 0.27) / 0.25
        ((0, 2), 1, 1),
        ((0, 5), 0, 1),  # elsewhere: a lesion, perhaps
        ((0, 25), 0, 1),
        ((50, 0), 0, 0),
        ((90, 0), 0, 0),
    ],
)
def test_a_structure_is_missed_where_little_is_found_and_nothing_elsewhere(found, taught, from_scratch):
    pair = masks(found, 100)
    assert missed(*pair) == pytest.approx(taught)
    assert missed(*pair, from_scratch=True) == pytest.approx(from_scratch)


def test_what_the_atlas_does_not_find_is_not_missed():
    assert missed(torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)) == 0


@pytest.mark.parametrize("steady", [0.0, 1.0])
def test_a_structure_that_the_network_misses_is_the_atlas_s(steady):
    nothing, votes = probabilities([0, 0, 0, 0]), probabilities([1, 1, 0, 0])
    assert trusts(nothing, votes, [None], [1.0], [steady])[:2] == ([0], [1])
    assert product(nothing, votes, 0.6, [0], [1]).argmax(0).tolist() == [1, 1, 0, 0]


def test_what_one_witness_stands_for_is_doubted():
    """In turn: both agree; the atlas alone; the two differ; never learned, which adaptation has said."""
    believed = Trusts([1.0, 0.2, 1.0, 0.0], [1.0, 0.8, 0.0, 1.0], [False, True, True, True])
    assert doubts(believed, [1.0, 1.0, 1.0, 0.0]) == [(2, REGISTRATION_ONLY), (3, DISAGREE)]


@pytest.mark.parametrize(("found", "apart"), [([1, 1, 1, 1, 0, 0, 0], True), ([0, 0, 0, 1, 1, 1, 1], False)])
def test_two_that_differ_are_told_where_no_support_was_left_out(found, apart):
    network, votes = probabilities(found), probabilities([0, 0, 0, 0, 1, 1, 1])
    assert trusts(network, votes, [None], [1.0], [1.0]).apart == [apart]
    assert trusts(network, votes, [0.0], [1.0], [1.0]).apart == [False]


def test_a_hybrid_tells_which_structures_it_doubts():
    support = support_of([(16, 16)], labels=1)
    image = support.images[0][None]
    hybrid = build_hybrid(steps=1, width=4, options=QUICK).adapt(support)
    hybrid.learned = (1.0,)
    with torch.no_grad():
        hybrid.network.network.head.weight.zero_()
        hybrid.network.network.head.bias.copy_(torch.tensor([5.0, -5.0]))
    logits, found = hybrid.examine(image)
    assert found == [(1, REGISTRATION_ONLY)]
    torch.testing.assert_close(hybrid(image), logits)
    assert torch.equal(logits[0].argmax(0), hybrid.atlas.votes(support.images[0]).argmax(0))
    with torch.no_grad():
        hybrid.network.network.head.bias.zero_()
        hybrid.network.network.head.weight.zero_()
        hybrid.network.network.head.bias[1] = 5.0  # the structure everywhere, where the atlas has it among others
    assert hybrid.examine(image)[1] == []


def test_what_leaving_out_says_holds_from_random_weights_too():
    nothing, votes = probabilities([0, 0, 0, 0]), probabilities([1, 1, 0, 0])
    assert trusts(nothing, votes, [0.0], [1.0], [1.0], from_scratch=True)[:2] == ([1], [0])


def test_neither_finds_a_structure():
    nothing = probabilities([0, 0, 0])
    believed = trusts(nothing, nothing, [None], [1.0], [1.0], from_scratch=True)
    assert not product(nothing, nothing, 1.0, believed.network, believed.atlas).argmax(0).any()


def test_a_hybrid_knows_that_it_began_at_random():
    support = support_of([(16, 16)], labels=1)
    random = build_hybrid(steps=1, width=4, options=QUICK).adapt(support)
    assert random.from_scratch
    assert random.weight == 1.0
    again = HybridSegmenter.from_config(random.config())
    again.load_state_dict(random.state_dict())
    assert again.from_scratch
    assert not build_hybrid(steps=1, start=start(), options=QUICK).adapt(support).from_scratch
    old = {key: value for key, value in random.config().items() if key != "from_scratch"}
    assert not HybridSegmenter.from_config(old).from_scratch
    assert HybridSegmenter.from_config({**old, "untaught": True}).from_scratch  # its name in version 0.2.0.dev0


def test_a_steady_network_is_left_as_it_is():
    adapted = probabilities([0, 1, 1, 2], 3)
    found, steady = stabilise(adapted.clone(), probabilities([0, 1, 1, 2], 3, sure=0.8))
    assert torch.equal(found, adapted)
    assert steady == [1, 1]


def test_where_the_two_part_company_the_cautious_one_is_believed():
    """Dice 0 on the first structure and 2/3 on the second: 1/3 on the mean, below what is steady."""
    adapted, cautious = probabilities([0, 0, 2, 0], 3), probabilities([1, 1, 2, 2], 3)
    found, steady = stabilise(adapted, cautious.clone())
    torch.testing.assert_close(found, cautious)
    assert steady == pytest.approx([0, (2 / 3 - 0.6) / 0.2])


def test_two_networks_that_find_nothing_agree():
    nothing = probabilities([0, 0, 0])
    found, steady = stabilise(nothing.clone(), nothing)
    assert torch.equal(found, nothing)
    assert steady == [1]


def start(dims=2):
    torch.manual_seed(0)
    return build_start("finetune", build_backbone(dims=dims, width=4, levels=2))


def test_half_way_between_two_networks():
    first, second = start().backbone, start().backbone
    with torch.no_grad():
        for weight in second.parameters():
            weight += 1
    halved = between(first, second, 0.25)
    for low, weight in zip(first.parameters(), halved.parameters(), strict=True):
        torch.testing.assert_close(weight, low + 0.25)
    assert all((b - a).allclose(torch.ones(())) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_one_support_and_a_start_make_a_cautious_network_that_is_kept():
    support = support_of([(16, 16)], labels=2)
    hybrid = build_hybrid(steps=2, start=start(), options=QUICK).adapt(support)
    assert hybrid.cautious is not None
    image = support.images[0][None]
    assert not torch.equal(hybrid.cautious(image), hybrid.network(image))
    again = HybridSegmenter.from_config(hybrid.config())
    again.load_state_dict(hybrid.state_dict())
    assert again.learned == hybrid.learned
    torch.testing.assert_close(again(image), hybrid(image))
    torch.testing.assert_close(hybrid.copy_to(torch.device("cpu"))(image), hybrid(image))


def test_no_cautious_network_without_need():
    two = support_of([(16, 16), (16, 16)], labels=1)
    assert build_hybrid(steps=1, start=start(), options=QUICK).adapt(two).cautious is None
    one = support_of([(16, 16)], labels=1)
    untouched = build_hybrid(steps=0, start=start(), options=QUICK).adapt(one)
    assert untouched.cautious is None
    assert untouched.learned == (1,)


def test_a_segmenter_of_the_first_release_is_read():
    support = support_of([(16, 16)], labels=1)
    hybrid = build_hybrid(steps=1, width=4, options=QUICK).adapt(support)
    config = {k: v for k, v in hybrid.config().items() if k not in ("learned", "cautious")}
    again = HybridSegmenter.from_config(config)
    assert again.learned == (1,)
    assert again.cautious is None


def test_the_supports_that_are_matched_show_every_structure():
    support = support_of([(15, 6)] * 5, labels=3)
    labels = [torch.zeros_like(label) for label in support.labels]
    for number, index in enumerate((1, 1, 1, 2, 3)):
        labels[number][0, 0] = index
    support = replace(support, labels=tuple(labels))
    assert _covering(support, 5) is support
    assert [int(label.max()) for label in _covering(support, 4).labels] == [1, 1, 2, 3]
    assert [int(label.max()) for label in _covering(support, 3).labels] == [1, 2, 3]
    assert _shown(_covering(support, 3)) == [True] * 3


def test_a_structure_that_no_matched_support_shows_is_the_networks_alone():
    support = support_of([(12, 12)] * 2, labels=2)
    labels = tuple(torch.where(label == 2, 0, label) for label in support.labels)
    segmenter = build_hybrid(steps=1, width=4, options=QUICK).adapt(replace(support, labels=labels))
    assert segmenter.trust[1] == 0
    assert segmenter.learned[1] == 1
