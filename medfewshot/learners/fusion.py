"""How a network and an atlas are heard together: a product of experts, each silent where it is not trusted.

``log p = log p_network + w log p_atlas`` (Hinton 2002, "Training products of experts by minimizing contrastive
divergence", eq. 1, with an exponent for the atlas). Each has a trust per structure. One that is not trusted neither
holds a structure back nor favours it: for that structure it gives its probability of the likeliest class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from medfewshot.structures import dice
from medfewshot.types import Doubt

LEAST_WEIGHT, WEIGHT_PER_SUPPORT, MOST_WEIGHT = 0.4, 0.2, 1.6
"""The atlas's exponent: ``min(1.6, 0.4 + 0.2 K)``, chosen on support-pool subjects ..."""
LEAST_WEIGHT_UNTAUGHT = 1.0
"""... and at least this beside a network from random weights."""
DOUBTED_DICE, TRUSTED_DICE = 0.2, 0.5
"""Leave-one-out Dice at and below which a structure of the atlas is not trusted, and from which it is in full."""
APART, TOGETHER = 0.3, 0.7
"""The same for the Dice of network and atlas with each other, where nothing can be left out ..."""
APART_UNSTEADY, TOGETHER_UNSTEADY = 0.05, 0.2
"""... and where the network is not steady, or began at random: little agreement then speaks against the network, not
against the atlas."""
SCARCE, PLENTY = 0.25, 0.5
"""Volume that the network finds of a structure, as a share of the atlas's: at and below the first it has missed it,
where the atlas is right ..."""
NOWHERE_ELSE, ELSEWHERE = 0.02, 0.05
"""... and the same of what it finds outside of the atlas's: where a meta-trained network finds that much, the atlas is
contradicted, as it is by a lesion that lies elsewhere."""
UNLEARNED_DICE, LEARNED_DICE = 0.3, 0.7
"""Training Dice at and below which the network has not learned a structure, and from which it has in full."""
UNSTEADY, STEADY = 0.6, 0.8
"""Dice of the adapted network with the one half way from its start: the same for being steady on a scan."""
ATLAS_FLOOR = 0.02
"""Added to the atlas's probabilities: no support's outline forbids a class altogether."""
NETWORK_FLOOR = 0.01
"""Added to the network's, which on a scan unlike the supports are sure and wrong: from four supports on, votes that all
agree outweigh a network that is sure of something else."""
LEAST_PROBABILITY = 1e-6
HALF = 0.5
"""Trust below which whoever reads the result is told."""
MATCHED_ALONE = "found by matching to the supports alone: the network misses it in this scan, or is not steady on it"
APART_PLACES = "in doubt: the network finds it where matching to the supports does not"
HEARD = 0.05
"""A class that both give less than this sinks below the floors in proportion: floors are for disputes."""


def product(
    network: Tensor, votes: Tensor, weight: float, network_trust: Sequence[float], atlas_trust: Sequence[float]
) -> Tensor:
    """Log-probabilities, up to a constant a voxel, from probabilities ``(N + 1, *S)`` of the two.

    ``log p_c = s_c log n_c + (1 - s_c) max_d log n_d + w (t_c log v_c + (1 - t_c) max_d log v_d) + log h_c`` with
    trusts ``s_c`` in the network and ``t_c`` in the atlas, in [0, 1], both 1 for the background, and ``v_c = t_c
    p_atlas,c``: the background has the votes that are not trusted. ``n`` and ``v`` have floors, which ``h_c = min(1,
    max(n_c, v_c) / HEARD)`` takes away again where neither sees a class.
    """
    votes = votes.clone()
    for index, trust in enumerate(atlas_trust, start=1):
        votes[0] += (1 - trust) * votes[index]
        votes[index] *= trust
    heard = torch.maximum(network, votes).div_(HEARD).clamp_(LEAST_PROBABILITY, 1)
    fused = _silence((network + NETWORK_FLOOR).log(), network_trust)
    return fused.add_(_silence(votes.add_(ATLAS_FLOOR).log_(), atlas_trust), alpha=weight).add_(heard.log_())


def _silence(said: Tensor, trusts: Sequence[float]) -> Tensor:
    """In place: what is not trusted says of its class what it says of the likeliest."""
    if all(trust == 1 for trust in trusts):
        return said
    likeliest = said.amax(0)
    for index, trust in enumerate(trusts, start=1):
        said[index].lerp_(likeliest, 1 - trust)
    return said


class Trusts(NamedTuple):
    """Per structure, trust in network and atlas in [0, 1], and whether they find it in different places on this scan.

    That is asked only where leaving supports out could not tell how far to trust the atlas.
    """

    network: list[float]
    atlas: list[float]
    apart: list[bool]


def trusts(
    network: Tensor,
    votes: Tensor,
    left_out: Sequence[float | None],
    learned: Sequence[float],
    steady: Sequence[float],
    *,
    untaught: bool = False,
) -> Trusts:
    """Trust in network and atlas, structure by structure; ``network`` and ``votes`` are ``(N + 1, *S)``.

    ``left_out`` is the atlas's own trust, None where no support could be left out: then the two are asked whether they
    find it in the same place. A structure that the network has not learned (``learned``) is the atlas's whatever that
    is worth; one on which it is not ``steady`` needs an atlas that is trusted. ``untaught``: the network began at
    random, and where nothing could be left out the atlas is the better of the two until the network contradicts it. A
    structure that the network has as good as missed is then the atlas's.
    """
    found, matched = network.argmax(0), votes.argmax(0)
    believed = Trusts([], [], [])
    for index, (trust, known, firm) in enumerate(zip(left_out, learned, steady, strict=True), start=1):
        apart = False
        if trust is None:
            together = dice(found == index, matched == index)
            together = 0.0 if math.isnan(together) else together
            doubtful = ramp(together, APART_UNSTEADY, TOGETHER_UNSTEADY)
            apart = together < APART
            sure = 0.0 if untaught else firm
            trust = sure * ramp(together, APART, TOGETHER) + (1 - sure) * doubtful
            lost = missed(found == index, matched == index, untaught=untaught)
            trust, known = max(trust, lost), min(known, 1 - lost)
        trust = max(trust, 1 - known)
        believed.atlas.append(trust)
        believed.network.append(max(min(known, firm), 1 - trust))
        believed.apart.append(apart)
    return believed


def doubts(believed: Trusts, learned: Sequence[float]) -> list[Doubt]:
    """Structures of a scan that only the atlas stands for, or where the two differ; not those hardly ``learned``."""
    found = []
    for index, (network, apart, known) in enumerate(
        zip(believed.network, believed.apart, learned, strict=True), start=1
    ):
        if known >= HALF and (network < HALF or apart):
            found.append((index, MATCHED_ALONE if network < HALF else APART_PLACES))
    return found


def missed(found: Tensor, matched: Tensor, *, untaught: bool = False) -> float:
    """How far the network, which found the mask ``found``, has missed a structure that is where the atlas has it.

    A network from random weights (``untaught``) has, where it finds next to nothing; another one also has to find
    nothing elsewhere.
    """
    volume = int(matched.sum())
    if not volume:
        return 0.0
    scarce = 1 - ramp(int(found.sum()) / volume, SCARCE, PLENTY)
    return scarce if untaught else scarce * (1 - ramp(int((found & ~matched).sum()) / volume, NOWHERE_ELSE, ELSEWHERE))


def steadied(adapted: Tensor, cautious: Tensor) -> tuple[Tensor, list[float]]:
    """Probabilities ``(N + 1, *S)`` of a network and of a more cautious one: what to believe, and how steady it is.

    Where adaptation has gone far and a scan looks unlike the support, the two part company. The less they agree over
    all structures, the more the geometric mean is the cautious one's. ``adapted`` is changed.
    """
    found, held = adapted.argmax(0), cautious.argmax(0)
    together = [dice(found == index, held == index) for index in range(1, len(adapted))]
    known = [value for value in together if not math.isnan(value)]
    share = ramp(sum(known) / len(known), UNSTEADY, STEADY) if known else 1.0
    if share < 1:
        adapted.clamp_min_(LEAST_PROBABILITY).log_()
        adapted.lerp_(cautious.clamp_min(LEAST_PROBABILITY).log(), 1 - share)
        adapted = adapted.softmax(0)
    return adapted, [1.0 if math.isnan(value) else ramp(value, UNSTEADY, STEADY) for value in together]


def atlas_weight(shots: int, *, untaught: bool = False) -> float:
    """The atlas's exponent for K = ``shots`` supports, beside a network from random weights (``untaught``) or not."""
    weight = min(MOST_WEIGHT, LEAST_WEIGHT + WEIGHT_PER_SUPPORT * shots)
    return max(LEAST_WEIGHT_UNTAUGHT, weight) if untaught else weight


def atlas_trust(left_out_dice: float | None) -> float | None:
    """Trust in a structure of the atlas by its leave-one-out Dice; None where there is none."""
    return None if left_out_dice is None else ramp(left_out_dice, DOUBTED_DICE, TRUSTED_DICE)


def learned(training_dice: Sequence[float]) -> list[float]:
    """Per structure, how far the network has learned what the supports show, from its Dice on their patches."""
    return [ramp(dice, UNLEARNED_DICE, LEARNED_DICE) for dice in training_dice]


def ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, a line between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
