"""Fusion of network and atlas: a product of two experts, weighted per structure by how far each is trusted.

``log p = log p_network + w log p_atlas`` (Hinton 2002, "Training products of experts by minimizing contrastive
divergence", eq. 1, with an exponent for the atlas). An expert that is not trusted with a structure is neutral about it:
it gives that structure its probability of the likeliest class.
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
LEAST_WEIGHT_FROM_SCRATCH = 1.0
"""... and at least this beside a network from random weights."""

# Pairs of thresholds: trust is 0 up to the first, 1 from the second, and linear between (:func:`ramp`).
DOUBTED_DICE, TRUSTED_DICE = 0.2, 0.5
"""Trust in the atlas by its leave-one-out Dice."""
APART, TOGETHER = 0.3, 0.7
"""Trust in the atlas by its Dice with the network, if there is no leave-one-out Dice ..."""
APART_UNSTEADY, TOGETHER_UNSTEADY = 0.05, 0.2
"""... and if the network is unsteady or trained from scratch: low agreement then speaks against the network."""
SCARCE, PLENTY = 0.25, 0.5
"""The network misses a structure by the volume it finds, as a share of the volume that the atlas finds ..."""
NOWHERE_ELSE, ELSEWHERE = 0.02, 0.05
"""... unless it is meta-trained and finds this share of that volume outside of the atlas's: a lesion that moved."""
UNLEARNED_DICE, LEARNED_DICE = 0.3, 0.7
"""Trust in the network by its Dice on the training patches."""
UNSTEADY, STEADY = 0.6, 0.8
"""Trust in the network by its Dice with the network half way back to its start."""
ATLAS_FLOOR = 0.02
"""Added to the atlas's probabilities: no outline of a support excludes a class altogether."""
NETWORK_FLOOR = 0.01
"""Added to the network's, which can be sure and wrong on a scan unlike the supports: from four supports on, unanimous
votes outweigh it."""
LEAST_PROBABILITY = 1e-6
RELEVANT = 0.05
"""A class with less probability than this from both experts is scaled down, so that the floors do not favour it."""
HALF = 0.5
"""Below this trust, the result has a flag."""
REGISTRATION_ONLY = "taken from registration only: the network missed it or was unstable on this scan"
DISAGREE = "uncertain: network and registration disagree about its location"


def product(
    network: Tensor, votes: Tensor, weight: float, network_trust: Sequence[float], atlas_trust: Sequence[float]
) -> Tensor:
    """Multiply the two experts' probabilities.

    ``log p_c = s_c log n_c + (1 - s_c) max_d log n_d + w (t_c log v_c + (1 - t_c) max_d log v_d) + log r_c`` with
    trusts ``s_c`` and ``t_c`` in [0, 1], both 1 for the background, and ``v_c = t_c p_atlas,c``: votes that are not
    trusted count for the background. ``n`` and ``v`` have floors, which ``r_c = min(1, max(n_c, v_c) / RELEVANT)``
    removes again if neither expert sees a class.

    Args:
        network: Probabilities ``(N + 1, *S)``.
        votes: Probabilities ``(N + 1, *S)`` of the atlas.
        weight: The atlas's exponent ``w``.
        network_trust: Trust in the network per structure.
        atlas_trust: Trust in the atlas per structure.

    Returns:
        Log-probabilities ``(N + 1, *S)`` up to a constant per voxel.
    """
    votes = votes.clone()
    for index, trust in enumerate(atlas_trust, start=1):
        votes[0] += (1 - trust) * votes[index]
        votes[index] *= trust
    relevance = torch.maximum(network, votes).div_(RELEVANT).clamp_(LEAST_PROBABILITY, 1)
    fused = _neutralise((network + NETWORK_FLOOR).log(), network_trust)
    return fused.add_(_neutralise(votes.add_(ATLAS_FLOOR).log_(), atlas_trust), alpha=weight).add_(relevance.log_())


def _neutralise(logs: Tensor, trusts: Sequence[float]) -> Tensor:
    """In place: move each structure towards the likeliest class by the lack of trust in it."""
    if all(trust == 1 for trust in trusts):
        return logs
    likeliest = logs.amax(0)
    for index, trust in enumerate(trusts, start=1):
        logs[index].lerp_(likeliest, 1 - trust)
    return logs


class Trusts(NamedTuple):
    """Per structure: trust in network and atlas, in [0, 1], and whether they find it in different places.

    ``apart`` is known only if no support could be left out to measure the atlas.
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
    from_scratch: bool = False,
    voted: Tensor | None = None,
) -> Trusts:
    """Trust in network and atlas on one scan, structure by structure.

    Args:
        network: Probabilities ``(N + 1, *S)``.
        votes: Probabilities ``(N + 1, *S)`` of the atlas.
        left_out: Trust in the atlas from leaving supports out. None if that was impossible: agreement of the two
            experts then decides.
        learned: How far the network learned each structure. What it did not learn is left to the atlas.
        steady: How steady the network is on this scan. Where it is not, a trusted atlas counts instead.
        from_scratch: Whether the network began with random weights. Without leave-one-out trust, the atlas then counts
            more until the network contradicts it.
        voted: Where the atlas has votes, ``(*S)`` bool; None for everywhere. Elsewhere it contradicts nothing.
    """
    found, matched = network.argmax(0), votes.argmax(0)
    if voted is not None:
        matched = torch.where(voted, matched, found)
    result = Trusts([], [], [])
    for index, (trust, known, firm) in enumerate(zip(left_out, learned, steady, strict=True), start=1):
        apart = False
        if trust is None:
            together = dice(found == index, matched == index)
            together = 0.0 if math.isnan(together) else together
            doubtful = ramp(together, APART_UNSTEADY, TOGETHER_UNSTEADY)
            apart = together < APART
            sure = 0.0 if from_scratch else firm
            trust = sure * ramp(together, APART, TOGETHER) + (1 - sure) * doubtful
            lost = missed(found == index, matched == index, from_scratch=from_scratch)
            trust, known = max(trust, lost), min(known, 1 - lost)
        trust = max(trust, 1 - known)
        result.atlas.append(trust)
        result.network.append(max(min(known, firm), 1 - trust))
        result.apart.append(apart)
    return result


def doubts(trusted: Trusts, learned: Sequence[float]) -> list[Doubt]:
    """Structures that come from the atlas only or about which the experts disagree; not those hardly ``learned``."""
    found = []
    for index, (network, apart, known) in enumerate(zip(trusted.network, trusted.apart, learned, strict=True), start=1):
        if known >= HALF and (network < HALF or apart):
            found.append((index, REGISTRATION_ONLY if network < HALF else DISAGREE))
    return found


def missed(found: Tensor, matched: Tensor, *, from_scratch: bool = False) -> float:
    """How far the network missed a structure that the atlas shows, in [0, 1].

    Args:
        found: Mask of the network.
        matched: Mask of the atlas.
        from_scratch: Whether the network began with random weights. It then missed the structure if it finds little of
            it; a meta-trained network must also find nothing elsewhere.
    """
    volume = int(matched.sum())
    if not volume:
        return 0.0
    scarce = 1 - ramp(int(found.sum()) / volume, SCARCE, PLENTY)
    elsewhere = 0.0 if from_scratch else ramp(int((found & ~matched).sum()) / volume, NOWHERE_ELSE, ELSEWHERE)
    return scarce * (1 - elsewhere)


def stabilise(adapted: Tensor, cautious: Tensor) -> tuple[Tensor, list[float]]:
    """Combine a network with a more cautious one.

    On a scan unlike the support, a network that adaptation changed much disagrees with the cautious one. The less they
    agree over all structures, the more the geometric mean follows the cautious one.

    Args:
        adapted: Probabilities ``(N + 1, *S)``; changed in place.
        cautious: Probabilities ``(N + 1, *S)``.

    Returns:
        Probabilities ``(N + 1, *S)``, and per structure how steady the network is, in [0, 1].
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


def atlas_weight(shots: int, *, from_scratch: bool = False) -> float:
    """The atlas's exponent for ``shots`` supports, beside a network trained from scratch or from a start."""
    weight = min(MOST_WEIGHT, LEAST_WEIGHT + WEIGHT_PER_SUPPORT * shots)
    return max(LEAST_WEIGHT_FROM_SCRATCH, weight) if from_scratch else weight


def atlas_trust(left_out_dice: float | None) -> float | None:
    """Trust in a structure of the atlas by its leave-one-out Dice; None if there is none."""
    return None if left_out_dice is None else ramp(left_out_dice, DOUBTED_DICE, TRUSTED_DICE)


def learned(training_dice: Sequence[float]) -> list[float]:
    """Per structure, how far the network learned it, by its Dice on the training patches."""
    return [ramp(value, UNLEARNED_DICE, LEARNED_DICE) for value in training_dice]


def ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, linear between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
