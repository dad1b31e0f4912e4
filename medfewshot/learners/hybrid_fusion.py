"""Fusion of network and atlas predictions: a product of two experts, weighted per structure by trust.

``log p = log p_network + w log p_atlas`` with an exponent ``w`` for the atlas. If an expert is not trusted with a
structure, it gives this structure the probability of the likeliest class and so has no influence on it.

The thresholds were chosen on support-pool subjects, which no published figure uses: see ``lab/notes/matching.md``.

References:
    Hinton 2002, "Training products of experts by minimizing contrastive divergence", eq. 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from medfewshot.structures import dice
from medfewshot.types import UncertainStructure

WEIGHT, WEIGHT_FROM_SCRATCH = 0.6, 1.0
"""Exponent of the atlas, and the same if the network was trained from scratch."""

# (low, high) of :func:`ramp`: trust is 0 up to the first value, 1 from the second, and linear between.
LEAVE_ONE_OUT_DICE = (0.4, 0.6)
"""Trust in the atlas by its median leave-one-out Dice."""
OVERRULING_DICE = (0.6, 0.8)
"""Trust in the atlas, by its median leave-one-out Dice, where the network finds a structure in another place."""
AGREEMENT = (0.3, 0.7)
"""Trust in the atlas by its Dice with the network, if there is no leave-one-out Dice."""
AGREEMENT_UNSTABLE = (0.05, 0.2)
"""The same if the network is unstable or trained from scratch: then low agreement is the network's fault. So it is if
the atlas has a high leave-one-out Dice."""
FOUND_SHARE = (0.25, 0.5)
"""Volume that the network finds, as a share of the atlas's volume: the structure is missed below, found above."""
ELSEWHERE_SHARE = (0.02, 0.05)
"""A meta-trained network that finds this share of the atlas's volume elsewhere did not miss it: a lesion moves."""
TRAINING_DICE = (0.3, 0.7)
"""Trust in the network by its Dice on the training patches."""
STABILITY_DICE = (0.6, 0.8)
"""Trust in the network by its Dice with the network half way back to its start."""
ATLAS_FLOOR = 0.02
"""Added to the atlas's probabilities, because no outline of a support excludes a class with certainty."""
NETWORK_FLOOR = 0.01
"""Added to the network's probabilities: with four supports or more, unanimous votes outweigh a wrong network."""
MIN_PROBABILITY = 1e-6
RELEVANT = 0.05
"""A class below this probability in both predictions is scaled down, so that the floors do not favour it."""
REMOVED = -100.0
"""Log-probability of a structure in the islands that are removed."""
HALF = 0.5
"""A structure below this trust is flagged."""
REGISTRATION_ONLY = "taken from registration only: the network missed it or was unstable on this scan"
DISAGREE = "uncertain: network and registration disagree about its location"
SECOND_PLACE = "uncertain: the network found it in a second place, which was removed"
SUPPORTED_SHARE = 0.25
"""A supported island has more than this share of the mean vote of the island with most votes."""
SECOND_PLACE_SHARE = 0.5
"""A removed island is a second place if it has this share of the voxels of the largest island that stays."""


def product_of_experts(
    network: Tensor, votes: Tensor, weight: float, network_trust: Sequence[float], atlas_trust: Sequence[float]
) -> Tensor:
    """Multiply the probabilities of network and atlas.

    ``log p_c = s_c log n_c + (1 - s_c) max_d log n_d + w (t_c log v_c + (1 - t_c) max_d log v_d) + log r_c`` with
    trusts ``s_c`` and ``t_c``, both 1 for the background, and ``v_c = t_c p_atlas,c``: votes that are not trusted count
    for the background. ``n`` and ``v`` have floors. ``r_c = min(1, max(n_c, v_c) / RELEVANT)`` removes them again if
    neither expert finds a class.

    Args:
        network: Probabilities ``(N + 1, *S)`` of the network.
        votes: Probabilities ``(N + 1, *S)`` of the atlas.
        weight: Exponent ``w`` of the atlas.
        network_trust: Trust in the network per structure, in [0, 1].
        atlas_trust: Trust in the atlas per structure, in [0, 1].

    Returns:
        Log-probabilities ``(N + 1, *S)`` up to a constant per voxel.
    """
    votes = votes.clone()
    for index, trust in enumerate(atlas_trust, start=1):
        votes[0] += (1 - trust) * votes[index]
        votes[index] *= trust
    relevance = torch.maximum(network, votes).div_(RELEVANT).clamp_(MIN_PROBABILITY, 1)
    fused = _neutralise((network + NETWORK_FLOOR).log(), network_trust)
    return fused.add_(_neutralise(votes.add_(ATLAS_FLOOR).log_(), atlas_trust), alpha=weight).add_(relevance.log_())


def _neutralise(logs: Tensor, trusts: Sequence[float]) -> Tensor:
    """Move each structure towards the likeliest class by the lack of trust in it, in place."""
    if all(trust == 1 for trust in trusts):
        return logs
    likeliest = logs.amax(0)
    for index, trust in enumerate(trusts, start=1):
        logs[index].lerp_(likeliest, 1 - trust)
    return logs


def drop_islands(
    logits: Tensor, votes: Tensor, atlas_trust: Sequence[float | None], one_piece: Collection[int] = ()
) -> list[UncertainStructure]:
    """Remove islands of a structure with hardly a vote, in place, if the structure has others with votes.

    A network may find a structure twice, and the wrong one may be the larger one. A part of it may touch votes, so the
    mean vote of an island counts. Corners connect, as everywhere.

    Args:
        logits: Fused log-probabilities ``(N + 1, *S)``.
        votes: Probabilities ``(N + 1, *S)`` of the atlas.
        atlas_trust: Trust per structure by leaving supports out. If it is low, nothing is removed. If it is None, the
            structure must be one of ``one_piece``, and an island must be mostly where the atlas finds the structure.
        one_piece: Structures in one piece in every support.

    Returns:
        Structures that lost a large island, each with the reason for a flag.
    """
    found, second_places = logits.argmax(0).cpu().numpy(), []
    for index, trust in enumerate(atlas_trust, start=1):
        if (trust is None and index not in one_piece) or (trust is not None and trust < HALF):
            continue
        islands, count = ndimage.label(found == index, np.ones((3,) * found.ndim))
        if count < 2:
            continue
        sizes, by_atlas = np.bincount(islands.ravel()), (votes.argmax(0) == index).cpu().numpy()
        agreement = 2 * np.bincount(islands[by_atlas], minlength=count + 1) / (sizes + np.count_nonzero(by_atlas))
        total = np.bincount(islands.ravel(), votes[index].cpu().numpy().ravel())
        mean = total / np.maximum(sizes, 1)
        supported = mean > max(RELEVANT, SUPPORTED_SHARE * mean[1 + total[1:].argmax()])
        if supported[1:].any() and (trust is not None or agreement[1:].max() >= HALF):
            sizes[0], supported[0] = 0, True
            logits[index][torch.from_numpy(~supported[islands]).to(logits.device)] = REMOVED
            if sizes[~supported].max(initial=0) >= SECOND_PLACE_SHARE * sizes[supported].max():
                second_places.append((index, SECOND_PLACE))
    return second_places


class Trust(NamedTuple):
    """Trust in network and atlas per structure, in [0, 1], and whether they disagree about its location."""

    network: list[float]
    atlas: list[float]
    disagree: list[bool]


def estimate_trust(
    network: Tensor, votes: Tensor, *, atlas_trust: Sequence[float | None], network_trust: Sequence[float],
    stability: Sequence[float], overruling: Sequence[float | None] | None = None, from_scratch: bool = False,
    voted: Tensor | None = None,
) -> Trust:  # fmt: skip
    """Estimate the trust in network and atlas on one scan.

    Args:
        network: Probabilities ``(N + 1, *S)`` of the network.
        votes: Probabilities ``(N + 1, *S)`` of the atlas.
        atlas_trust: Trust per structure by leaving supports out; None if that was impossible. Then the agreement of
            network and atlas decides.
        network_trust: Trust per structure by the Dice on training patches. The atlas replaces what is missing.
        stability: Stability of the network per structure on this scan. A trusted atlas replaces what is missing.
        overruling: Trust per structure in the atlas, where the network finds it elsewhere; None for ``atlas_trust``.
        from_scratch: Whether the network was trained from random weights. Without leave-one-out trust, the atlas then
            counts more unless the network contradicts it.
        voted: Where the atlas has votes, ``(*S)`` bool; None for everywhere. Elsewhere it contradicts nothing.

    Returns:
        The trust in each structure.
    """
    by_network, by_atlas = network.argmax(0), votes.argmax(0)
    if voted is not None:
        by_atlas = torch.where(voted, by_atlas, by_network)
    result = Trust([], [], [])
    for index, (trust, learned, stable) in enumerate(zip(atlas_trust, network_trust, stability, strict=True), start=1):
        masks = by_network == index, by_atlas == index
        agreement, disagree = dice(*masks), False
        agreement = 0.0 if math.isnan(agreement) else agreement
        if trust is None:
            disagree = agreement < AGREEMENT[0]
            sure = 0.0 if from_scratch else stable
            trust = sure * ramp(agreement, *AGREEMENT) + (1 - sure) * ramp(agreement, *AGREEMENT_UNSTABLE)
            missed = missed_share(*masks, from_scratch=from_scratch)
            trust = max(trust, missed)
        else:  # the atlas has found it in other supports, so a network that misses it, or contradicts it, is wrong
            apart = 1 - ramp(agreement, *AGREEMENT_UNSTABLE) if bool(masks[1].any()) else 0.0
            over = (overruling or atlas_trust)[index - 1] or 0.0
            missed = apart * max(over, trust * missed_share(*masks, from_scratch=True))
            disagree = apart == 1 and trust >= HALF > missed
        learned = min(learned, 1 - missed)
        trust = max(trust, 1 - learned)
        result.atlas.append(trust)
        result.network.append(max(min(learned, stable), 1 - trust))
        result.disagree.append(disagree)
    return result


def uncertain_structures(trust: Trust, network_trust: Sequence[float]) -> list[UncertainStructure]:
    """List structures that only the atlas supports, or about which network and atlas disagree.

    Structures that the network hardly learned are not listed: a warning of the adaptation names them.

    Args:
        trust: Trust on this scan.
        network_trust: Trust in the network by its Dice on training patches.

    Returns:
        (class index, reason) per structure.
    """
    rows = enumerate(zip(trust.network, trust.disagree, network_trust, strict=True), start=1)
    return [
        (index, REGISTRATION_ONLY if network < HALF else DISAGREE)
        for index, (network, disagree, learned) in rows
        if learned >= HALF and (network < HALF or disagree)
    ]


def missed_share(by_network: Tensor, by_atlas: Tensor, *, from_scratch: bool = False) -> float:
    """Compute how far the network missed a structure that the atlas finds.

    Args:
        by_network: Mask of the network.
        by_atlas: Mask of the atlas.
        from_scratch: Whether the network was trained from random weights. Such a network missed the structure if it
            finds little of it; a meta-trained one must also find nothing elsewhere.

    Returns:
        0 (found) to 1 (missed).
    """
    volume = int(by_atlas.sum())
    if not volume:
        return 0.0
    scarce = 1 - ramp(int(by_network.sum()) / volume, *FOUND_SHARE)
    elsewhere = 0.0 if from_scratch else ramp(int((by_network & ~by_atlas).sum()) / volume, *ELSEWHERE_SHARE)
    return scarce * (1 - elsewhere)


def stabilise(adapted: Tensor, interpolated: Tensor) -> tuple[Tensor, list[float]]:
    """Move the prediction of an unstable network towards the network half way back to its start.

    If adaptation changed a network much, the two disagree on scans unlike the support. The lower their mean Dice, the
    more weight the interpolated network has in the geometric mean of both.

    Args:
        adapted: Probabilities ``(N + 1, *S)`` of the adapted network; changed in place.
        interpolated: Probabilities ``(N + 1, *S)`` of the network half way back to its start.

    Returns:
        Probabilities ``(N + 1, *S)``, and the stability of each structure in [0, 1].
    """
    first, second = adapted.argmax(0), interpolated.argmax(0)
    agreement = [dice(first == index, second == index) for index in range(1, len(adapted))]
    known = [value for value in agreement if not math.isnan(value)]
    share = ramp(sum(known) / len(known), *STABILITY_DICE) if known else 1.0
    if share < 1:
        adapted.clamp_min_(MIN_PROBABILITY).log_()
        adapted.lerp_(interpolated.clamp_min(MIN_PROBABILITY).log(), 1 - share)
        adapted = adapted.softmax(0)
    return adapted, [1.0 if math.isnan(value) else ramp(value, *STABILITY_DICE) for value in agreement]


def atlas_trust(leave_one_out_dice: float | None, bounds: tuple[float, float] = LEAVE_ONE_OUT_DICE) -> float | None:
    """Return the trust in a structure of the atlas, in [0, 1]; None without a leave-one-out Dice."""
    return None if leave_one_out_dice is None else ramp(leave_one_out_dice, *bounds)


def network_trust(training_dice: Sequence[float]) -> list[float]:
    """Return the trust in the network per structure, in [0, 1], by its Dice on the training patches."""
    return [ramp(value, *TRAINING_DICE) for value in training_dice]


def ramp(value: float, low: float, high: float) -> float:
    """Map ``value`` to 0 up to ``low``, to 1 from ``high`` on, and linearly between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
