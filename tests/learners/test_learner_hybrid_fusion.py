"""Who is trust where network and atlas differ: by hand, at single voxels and on small masks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from blobs import support_of

from medfewshot.backbones import build_backbone
from medfewshot.learners.hybrid import HybridSegmenter, _covering_supports, interpolate_weights
from medfewshot.learners.hybrid import build as build_hybrid
from medfewshot.learners.hybrid_fusion import (
    ATLAS_FLOOR,
    DISAGREE,
    NETWORK_FLOOR,
    REGISTRATION_ONLY,
    SECOND_PLACE,
    Trust,
    drop_islands,
    estimate_trust,
    missed_share,
    network_trust,
    product_of_experts,
    stabilise,
    uncertain_structures,
)
from medfewshot.learners.weights import build_start
from medfewshot.registration import RegistrationOptions

QUICK = RegistrationOptions(levels=((2, 5), (1, 5)), affine_steps=6, starts=0)


def probabilities(label, classes=2, sure=0.9):
    """``(classes, *S)``: ``sure`` of each voxel's class, the rest shared by the others."""
    hot = torch.nn.functional.one_hot(torch.tensor(label), classes).movedim(-1, 0).float()
    return hot * sure + (1 - hot) * (1 - sure) / (classes - 1)


def trust_of(network, votes, atlas_trust, **given):
    ones = [1.0] * len(atlas_trust)
    given = {"network_trust": ones, "stability": ones} | given
    return estimate_trust(network, votes, atlas_trust=atlas_trust, **given)


@pytest.mark.parametrize(("dice", "trust"), [(0.1, 0), (0.3, 0), (0.5, 0.5), (0.7, 1), (0.95, 1)])
def test_training_dice_gives_trust_in_the_network(dice, trust):
    assert network_trust([dice]) == pytest.approx([trust])


def test_the_atlas_replaces_a_structure_that_was_not_learned():
    """The second of two structures was not learned: the network says background where the atlas finds it."""
    network, votes = torch.tensor([[0.9], [0.08], [0.02]]), torch.tensor([[0.1], [0.2], [0.7]])
    of_network, of_atlas, _ = trust_of(network, votes, [1.0, 0.0], network_trust=[1.0, 0.0])
    assert of_network == [1, 0]
    assert of_atlas == [1, 1]  # the network does not know it
    fused = product_of_experts(network, votes, 1.0, of_network, of_atlas)[:, 0]
    said = [0.9, 0.08, 0.9]
    expected = [
        math.log(n + NETWORK_FLOOR) + math.log(v + ATLAS_FLOOR) for n, v in zip(said, [0.1, 0.2, 0.7], strict=True)
    ]
    torch.testing.assert_close(fused, torch.tensor(expected))
    assert fused.argmax() == 2
    assert product_of_experts(network, votes, 1.0, [1.0, 1.0], [1.0, 0.0])[:, 0].argmax() == 0


def test_the_network_keeps_a_lesion_that_the_atlas_cannot_place():
    network, votes = probabilities([0, 1, 1, 0]), probabilities([1, 0, 0, 0])
    assert trust_of(network, votes, [0.0])[:2] == ([1], [0])
    assert trust_of(network, votes, [None], stability=[0.0])[:2] == (
        [1],
        [0],
    )  # unstable, but the atlas is elsewhere


@pytest.mark.parametrize(
    ("found", "overruling", "expected"),
    [
        ([0, 0, 1, 1], 1.0, ([0], [1], [False])),  # registration found it well in the other labelled scans
        ([0, 0, 1, 1], 0.0, ([1], [1], [True])),  # it found it there, but a small body may be beside its place
        ([0, 0, 0, 0], 0.0, ([0], [1], [False])),  # the network found nothing that could be it
        ([1, 1, 0, 0], 0.0, ([1], [1], [False])),
    ],
)
def test_registration_overrules_a_network_that_found_it_elsewhere_only_if_it_is_sure(found, overruling, expected):
    network, votes = probabilities(found), probabilities([1, 1, 0, 0])
    trust = trust_of(network, votes, [1.0], overruling=[overruling])
    assert (trust.network, trust.atlas, trust.disagree) == expected


@pytest.mark.parametrize(("stability", "of_network", "of_atlas"), [(1.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5)])
def test_an_atlas_that_roughly_agrees_replaces_an_unstable_network(stability, of_network, of_atlas):
    """Dice with each other 2 * 1 / (4 + 4) = 0.25: too little to trust the atlas, unless the network is unstable."""
    network, votes = probabilities([1, 1, 1, 1, 0, 0, 0]), probabilities([0, 0, 0, 1, 1, 1, 1])
    assert trust_of(network, votes, [None], stability=[stability])[:2] == (
        [of_network],
        [of_atlas],
    )


@pytest.mark.parametrize(
    ("found", "of_network", "of_atlas"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], 0.0, 1.0),  # nothing: no contradiction of the atlas
        ([0, 0, 0, 0, 0, 0, 0, 1], 0.0, 1.0),  # a quarter of what the atlas finds, elsewhere: still nothing
        ([0, 0, 0, 0, 0, 1, 1, 1], 1.0, 0.0),  # three quarters, elsewhere: the two contradict each other
        ([1, 0, 0, 0, 0, 0, 1, 1], 1.0, 1.0),  # Dice with each other 2 / 7, more than 0.2: both count
    ],
)
def test_the_atlas_replaces_a_network_from_scratch_that_finds_little(found, of_network, of_atlas):
    network, votes = probabilities(found), probabilities([1, 1, 1, 1, 0, 0, 0, 0])
    assert trust_of(network, votes, [None], from_scratch=True)[:2] == ([of_network], [of_atlas])


def masks(found, matched, size=200):
    """Of ``size`` voxels: found inside the matched ones, and outside."""
    inside, outside = found
    place = torch.arange(size)
    return (place < inside) | ((place >= matched) & (place < matched + outside)), place < matched


@pytest.mark.parametrize(
    ("found", "meta_trained", "from_scratch"),
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
def test_a_structure_is_missed_if_little_is_found_and_nothing_elsewhere(found, meta_trained, from_scratch):
    pair = masks(found, 100)
    assert missed_share(*pair) == pytest.approx(meta_trained)
    assert missed_share(*pair, from_scratch=True) == pytest.approx(from_scratch)


def test_what_the_atlas_does_not_find_is_not_missed():
    assert missed_share(torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)) == 0


@pytest.mark.parametrize("stability", [0.0, 1.0])
def test_the_atlas_decides_about_a_structure_that_the_network_misses(stability):
    nothing, votes = probabilities([0, 0, 0, 0]), probabilities([1, 1, 0, 0])
    assert trust_of(nothing, votes, [None], stability=[stability])[:2] == (
        [0],
        [1],
    )
    assert product_of_experts(nothing, votes, 0.6, [0], [1]).argmax(0).tolist() == [1, 1, 0, 0]


def test_structures_that_one_expert_supports_are_uncertain():
    """In turn: both agree; the atlas alone; the two differ; never learned, which adaptation has said."""
    trust = Trust([1.0, 0.2, 1.0, 0.0], [1.0, 0.8, 0.0, 1.0], [False, True, True, True])
    assert uncertain_structures(trust, [1.0, 1.0, 1.0, 0.0]) == [(2, REGISTRATION_ONLY), (3, DISAGREE)]


@pytest.mark.parametrize(("found", "disagree"), [([1, 1, 1, 1, 0, 0, 0], True), ([0, 0, 0, 1, 1, 1, 1], False)])
def test_disagreement_counts_only_without_leave_one_out_trust(found, disagree):
    network, votes = probabilities(found), probabilities([0, 0, 0, 0, 1, 1, 1])
    assert trust_of(network, votes, [None]).disagree == [disagree]
    assert trust_of(network, votes, [0.0]).disagree == [False]


def test_a_hybrid_lists_uncertain_structures():
    support = support_of([(16, 16)], labels=1)
    image = support.images[0][None]
    hybrid = build_hybrid(steps=1, width=4, options=QUICK).adapt(support)
    hybrid.network_trust = (1.0,)
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


def test_leave_one_out_trust_decides_from_scratch_too():
    nothing, votes = probabilities([0, 0, 0, 0]), probabilities([1, 1, 0, 0])
    assert trust_of(nothing, votes, [0.0], from_scratch=True)[:2] == ([1], [0])


def test_neither_finds_a_structure():
    nothing = probabilities([0, 0, 0])
    trust = trust_of(nothing, nothing, [None], from_scratch=True)
    assert not product_of_experts(nothing, nothing, 1.0, trust.network, trust.atlas).argmax(0).any()


def test_a_hybrid_saves_that_it_was_trained_from_scratch():
    support = support_of([(16, 16)], labels=1)
    random = build_hybrid(steps=1, width=4, options=QUICK).adapt(support)
    assert random.from_scratch
    assert random.atlas_weight == 1.0
    again = HybridSegmenter.from_config(random.config())
    again.load_state_dict(random.state_dict())
    assert again.from_scratch
    assert not build_hybrid(steps=1, start=start(), options=QUICK).adapt(support).from_scratch
    more = build_hybrid(steps=1, start=random.trained_network, random_start=True, options=QUICK).adapt(support)
    assert (more.from_scratch, more.atlas_weight) == (True, 1.0)
    old = {key: value for key, value in random.config().items() if key != "from_scratch"}
    assert not HybridSegmenter.from_config(old).from_scratch
    assert HybridSegmenter.from_config({**old, "untaught": True}).from_scratch  # its name in version 0.2.0.dev0


def test_a_stable_network_stays_as_it_is():
    adapted = probabilities([0, 1, 1, 2], 3)
    found, stability = stabilise(adapted.clone(), probabilities([0, 1, 1, 2], 3, sure=0.8))
    assert torch.equal(found, adapted)
    assert stability == [1, 1]


def test_where_the_two_part_company_the_cautious_one_is_believed():
    """Dice 0 on the first structure and 2/3 on the second: 1/3 on the mean, below the threshold."""
    adapted, interpolated = probabilities([0, 0, 2, 0], 3), probabilities([1, 1, 2, 2], 3)
    found, stability = stabilise(adapted, interpolated.clone())
    torch.testing.assert_close(found, interpolated)
    assert stability == pytest.approx([0, (2 / 3 - 0.6) / 0.2])


def test_two_networks_that_find_nothing_agree():
    nothing = probabilities([0, 0, 0])
    found, stability = stabilise(nothing.clone(), nothing)
    assert torch.equal(found, nothing)
    assert stability == [1]


def start(dims=2):
    torch.manual_seed(0)
    return build_start("finetune", build_backbone(dims=dims, width=4, levels=2))


def test_weights_are_interpolated():
    first, second = start().backbone, start().backbone
    with torch.no_grad():
        for weight in second.parameters():
            weight += 1
    quarter = interpolate_weights(first, second, 0.25)
    for low, weight in zip(first.parameters(), quarter.parameters(), strict=True):
        torch.testing.assert_close(weight, low + 0.25)
    assert all((b - a).allclose(torch.ones(())) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_one_support_and_a_start_give_an_interpolated_network():
    support = support_of([(16, 16)], labels=2)
    hybrid = build_hybrid(steps=2, start=start(), options=QUICK).adapt(support)
    assert hybrid.interpolated is not None
    image = support.images[0][None]
    assert not torch.equal(hybrid.interpolated(image), hybrid.network(image))
    again = HybridSegmenter.from_config(hybrid.config())
    again.load_state_dict(hybrid.state_dict())
    assert again.network_trust == hybrid.network_trust
    torch.testing.assert_close(again(image), hybrid(image))
    torch.testing.assert_close(hybrid.copy_to(torch.device("cpu"))(image), hybrid(image))


def test_no_interpolated_network_without_need():
    two = support_of([(16, 16), (16, 16)], labels=1)
    assert build_hybrid(steps=1, start=start(), options=QUICK).adapt(two).interpolated is None
    one = support_of([(16, 16)], labels=1)
    untouched = build_hybrid(steps=0, start=start(), options=QUICK).adapt(one)
    assert untouched.interpolated is None
    assert untouched.network_trust == (1,)


def test_names_of_format_version_2_are_read():
    hybrid = build_hybrid(steps=2, start=start(), options=QUICK).adapt(support_of([(16, 16)], labels=2))
    old_names = {
        "atlas_weight": "weight", "atlas_trust": "trust", "network_trust": "learned", "interpolated": "cautious",
        "from_scratch": "untaught",
    }  # fmt: skip
    config = {old_names.get(key, key): value for key, value in hybrid.config().items()}
    again = HybridSegmenter.from_config(config)
    again.load_state_dict({key.replace("interpolated.", "cautious."): v for key, v in hybrid.state_dict().items()})
    assert again.config() == hybrid.config()
    assert all(torch.equal(value, hybrid.state_dict()[key]) for key, value in again.state_dict().items())


def test_a_segmenter_of_the_first_release_is_read():
    support = support_of([(16, 16)], labels=1)
    hybrid = build_hybrid(steps=1, width=4, options=QUICK).adapt(support)
    config = {k: v for k, v in hybrid.config().items() if k not in ("network_trust", "interpolated")}
    again = HybridSegmenter.from_config(config)
    assert again.network_trust == (1,)
    assert again.interpolated is None


def test_the_supports_of_the_atlas_contain_every_structure():
    support = support_of([(15, 6)] * 5, labels=3)
    labels = [torch.zeros_like(label) for label in support.labels]
    for number, index in enumerate((1, 1, 1, 2, 3)):
        labels[number][0, 0] = index
    support = replace(support, labels=tuple(labels))
    assert _covering_supports(support, 5) is support
    assert [int(label.max()) for label in _covering_supports(support, 4).labels] == [1, 1, 2, 3]
    assert [int(label.max()) for label in _covering_supports(support, 3).labels] == [1, 2, 3]


def test_the_network_decides_about_a_structure_that_no_atlas_support_contains():
    support = support_of([(12, 12)] * 2, labels=2)
    labels = tuple(torch.where(label == 2, 0, label) for label in support.labels)
    segmenter = build_hybrid(steps=1, width=4, options=QUICK).adapt(replace(support, labels=labels))
    assert segmenter.atlas_trust[1] == 0
    assert segmenter.network_trust[1] == 1


@pytest.mark.parametrize(("trust", "left"), [(1.0, [0, 1, 0, 0, 0]), (0.4, [0, 1, 0, 1, 1]), (None, [0, 1, 0, 1, 1])])
def test_islands_without_a_vote_are_removed_where_the_atlas_is_trusted(trust, left):
    logits, votes = probabilities([0, 1, 0, 1, 1]).log(), probabilities([0, 1, 0, 0, 0], sure=0.97)
    uncertain = drop_islands(logits, votes, [trust])
    assert logits.argmax(0).tolist() == left
    assert uncertain == ([(1, SECOND_PLACE)] if trust == 1 else [])


@pytest.mark.parametrize(("touched", "left"), [(1, 0), (6, 0), (9, 30)])
def test_an_island_with_a_small_part_of_the_votes_is_removed_though_it_is_the_largest(touched, left):
    logits = probabilities([0] + [1] * 8 + [0] + [1] * 30).log()
    votes = probabilities([0] + [1] * 8 + [0] + [1] * touched + [0] * (30 - touched), sure=0.999)
    assert drop_islands(logits, votes, [1.0]) == ([] if left else [(1, SECOND_PLACE)])
    assert int(logits.argmax(0)[9:].sum()) == left


@pytest.mark.parametrize(("atlas", "one_piece", "removed"), [(2, [1], True), (7, [1], False), (2, [], False)])
def test_with_one_support_a_structure_in_one_piece_stays_in_the_island_that_agrees(atlas, one_piece, removed):
    """The network finds 2 voxels in place and 4 elsewhere. If the atlas finds 7, the 2 are no agreement."""
    places = [0, 1, 1, 0] + [0] * 5 + [0, 1, 1, 1, 1]
    logits = probabilities(places).log()
    votes = probabilities([0] + [1] * atlas + [0] * (13 - atlas), sure=0.97)
    uncertain = drop_islands(logits, votes, [None], one_piece)
    assert logits.argmax(0).tolist() == ([0, 1, 1] + [0] * 11 if removed else places)
    assert uncertain == ([(1, SECOND_PLACE)] if removed else [])


def test_islands_stay_where_no_support_is_annotated():
    """Of 20 structures or more, each has so small a share there that it looked like no vote."""
    support = support_of([(12, 12)], labels=1)
    support = replace(support, labels=(support.labels[0].index_fill(0, torch.arange(6), -1),), classes=22)
    hybrid = build_hybrid(steps=1, width=4, options=QUICK).adapt(support)
    hybrid.atlas_trust = (1.0,) * 21
    network, votes = torch.full((2, 22, 5), 0.001)
    for place, index in enumerate([0, 1, 0, 1, 1]):
        network[index, place], votes[index, place] = 0.9, 0.9 if place < 3 else 0.001
    assert hybrid.fuse(network, votes)[0].argmax(0).tolist() == [0, 1, 0, 1, 1]


def test_a_small_island_is_removed_without_a_flag():
    logits, votes = probabilities([1, 1, 1, 0, 1]).log(), probabilities([1, 1, 1, 0, 0], sure=0.97)
    assert drop_islands(logits, votes, [1.0]) == []
    assert logits.argmax(0).tolist() == [1, 1, 1, 0, 0]


def test_an_oblique_vessel_is_one_island_though_its_slices_touch_at_corners_only():
    logits, votes = torch.zeros(2, 8, 8, 4), torch.zeros(2, 8, 8, 4)
    logits[1] = -5
    for z in range(4):
        logits[1, 2 * z : 2 * z + 2, 2 * z : 2 * z + 2, z] = 5
    votes[1, :4, :4, :2] = 0.6
    assert drop_islands(logits, votes, [1.0]) == []
    assert int((logits[1] > 0).sum()) == 16


def test_the_only_place_of_a_structure_is_never_removed():
    logits, votes = probabilities([0, 1, 0, 1, 1]).log(), probabilities([0, 0, 0, 0, 0], sure=0.97)
    assert drop_islands(logits, votes, [1.0]) == []
    assert logits.argmax(0).tolist() == [0, 1, 0, 1, 1]
