"""Hybrid: a fine-tuned network and an atlas, whose probabilities are multiplied (see ``hybrid_fusion``).

The network finds edges and the atlas finds locations, so they err in different voxels. The supports measure how far to
trust each with a structure: the atlas by its leave-one-out Dice (K >= 2), the network by its Dice on training patches.
With a single support, the agreement of the two decides. For a meta-trained start, the stability of the network counts
too: whether the network half way back to its start finds the same.

References:
    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1: interpolated weights lose less on scans that
    differ from the supports.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from medfewshot.backbones import UNet
from medfewshot.learners import finetune
from medfewshot.learners.atlas import Atlas, AtlasSegmenter, voted
from medfewshot.learners.base import OVERLAP, LearnerSpec, Segmenter
from medfewshot.learners.finetune import Finetune, NetworkSegmenter
from medfewshot.learners.hybrid_fusion import (
    MIN_PROBABILITY,
    OVERRULING_DICE,
    WEIGHT,
    WEIGHT_FROM_SCRATCH,
    atlas_trust,
    drop_islands,
    estimate_trust,
    network_trust,
    product_of_experts,
    stabilise,
    uncertain_structures,
)
from medfewshot.learners.linear_head import LinearHeadStart
from medfewshot.types import Progress, Support, UncertainStructure

NAME = "hybrid"
HALF_WAY = 0.5
"""Share of the adapted weights in the interpolated network (``lab/studies/unlike_support.py``)."""
CALIBRATION = -1.2
"""Offset of the predicted Dice (``lab/studies/calibration.py``): a product is more confident than its factors."""
MAX_ATLAS_SUPPORTS = 10
"""Supports that the atlas keeps. Each costs seconds in every query."""
OLD_KEYS = {
    "weight": "atlas_weight",
    "trust": "atlas_trust",
    "learned": "network_trust",
    "cautious": "interpolated",
    "untaught": "from_scratch",
}
"""Names of the config up to format version 2."""


class HybridSegmenter(Segmenter):
    """Segments the whole field of view with an atlas and with a network in sliding windows.

    Args:
        network: The adapted network.
        atlas: The atlas of the supports.
        patch_size: Windows of the network, in voxels.
        atlas_weight: Exponent of the atlas in the product.
        atlas_trust: Trust in the atlas per structure, in [0, 1]; None if the query decides.
        network_trust: Trust in the network per structure, in [0, 1]; None for 1 everywhere.
        overruling: Trust in the atlas where the network finds a structure elsewhere; None for ``atlas_trust``.
        interpolated: The network half way back to its start, if there is one.
        from_scratch: Whether the network was trained from random weights.
        record: What adaptation reports.
    """

    kind = NAME
    whole_volume = True
    keeps_supports = True

    def __init__(
        self, network: NetworkSegmenter, atlas: AtlasSegmenter, *, patch_size: Sequence[int], atlas_weight: float,
        atlas_trust: Sequence[float | None], network_trust: Sequence[float] | None = None,
        overruling: Sequence[float | None] | None = None, interpolated: NetworkSegmenter | None = None,
        from_scratch: bool = False, record: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(record)
        self.network, self.atlas, self.interpolated = network, atlas, interpolated
        self.patch_size, self.atlas_weight = tuple(patch_size), float(atlas_weight)
        self.atlas_trust = tuple(atlas_trust)
        self.network_trust = tuple(network_trust or [1.0] * len(self.atlas_trust))
        self.overruling = tuple(overruling or self.atlas_trust)
        self.from_scratch = bool(from_scratch)
        self.register_load_state_dict_pre_hook(_rename_version_2)

    @property
    def trained_network(self) -> UNet:
        """The adapted network."""
        return self.network.network

    @property
    def windowed(self) -> NetworkSegmenter:
        """The network alone, which works in windows."""
        return self.network

    @property
    def calibration(self) -> float | None:
        """Offset of the predicted Dice; the default if the atlas is not used."""
        return CALIBRATION if self._uses_atlas else None

    def predict(self, image: Tensor) -> Tensor:
        """Compute log-probabilities ``(1, N + 1, *S)`` of an image ``(1, C, *S)``."""
        return self.examine(image)[0]

    @torch.no_grad()
    def examine(self, image: Tensor, *, overlap: float = OVERLAP) -> tuple[Tensor, list[UncertainStructure]]:
        """Compute log-probabilities of a whole volume and list uncertain structures; see :meth:`Segmenter.examine`."""
        query = image[0].to(self.device)
        network = self._slide(self.network, query, overlap)
        if not self._uses_atlas:  # no floors, which would add up over the background
            return network.clamp_min(MIN_PROBABILITY).log()[None], []
        stability = None
        if self.interpolated is not None:
            network, stability = stabilise(network, self._slide(self.interpolated, query, overlap))
        logits, uncertain = self.fuse(network, self.atlas.votes(query), stability)
        return logits[None], uncertain

    def _slide(self, part: NetworkSegmenter, query: Tensor, overlap: float) -> Tensor:
        """Compute probabilities ``(N + 1, *S)`` of a query ``(C, *S)`` by one network."""
        from monai.inferers import sliding_window_inference

        logits = sliding_window_inference(
            query[None], self.patch_size, 1, part, overlap=overlap, mode="gaussian", padding_mode="replicate",
            device=self.device,
        )  # fmt: skip
        assert isinstance(logits, Tensor)
        return logits[0].float().softmax(0)

    @property
    def _uses_atlas(self) -> bool:
        """Whether the atlas may be trusted with any structure."""
        trusted = any(trust != 0 for trust in self.atlas_trust) or min(self.network_trust) < 1
        return self.atlas_weight > 0 and trusted

    def fuse(
        self, network: Tensor, votes: Tensor, stability: Sequence[float] | None = None
    ) -> tuple[Tensor, list[UncertainStructure]]:
        """Multiply the probabilities of network and atlas.

        Args:
            network: Probabilities ``(N + 1, *S)`` of the network.
            votes: Probabilities ``(N + 1, *S)`` of the atlas.
            stability: Stability of the network per structure on this scan, in [0, 1]; None for 1 everywhere.

        Returns:
            Log-probabilities ``(N + 1, *S)`` up to a constant per voxel, and the uncertain structures.
        """
        where = voted(votes) if self.atlas.partial else None
        trust = estimate_trust(
            network, votes, atlas_trust=self.atlas_trust, network_trust=self.network_trust,
            stability=stability or [1.0] * len(self.atlas_trust), overruling=self.overruling,
            from_scratch=self.from_scratch, voted=where,
        )  # fmt: skip
        logits = product_of_experts(network, votes, self.atlas_weight, trust.network, trust.atlas)
        # No support votes there, so nothing contradicts an island.
        votes = votes if where is None else votes.where(where, 1.0)
        second_places = drop_islands(logits, votes, self.atlas_trust, self.atlas.one_piece)
        return logits, uncertain_structures(trust, self.network_trust) + second_places

    def config(self) -> dict[str, Any]:
        """Return the configs of both parts and the options of their fusion."""
        return {
            "network": self.network.config(),
            self.atlas.kind: self.atlas.config(),
            "patch_size": list(self.patch_size),
            "atlas_weight": self.atlas_weight,
            "atlas_trust": list(self.atlas_trust),
            "network_trust": list(self.network_trust),
            "overruling": list(self.overruling),
            "interpolated": None if self.interpolated is None else self.interpolated.config(),
            "from_scratch": self.from_scratch,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HybridSegmenter:
        """Build the segmenter without its tensors."""
        options = {OLD_KEYS.get(key, key): value for key, value in config.items()}
        network, atlas = options.pop("network"), options.pop(AtlasSegmenter.kind)
        if options.get("interpolated") is not None:
            options["interpolated"] = NetworkSegmenter.from_config(options["interpolated"])
        return cls(NetworkSegmenter.from_config(network), AtlasSegmenter.from_config(atlas), **options)


@dataclass(frozen=True)
class Hybrid:
    """Adapts a :class:`Finetune` and an :class:`Atlas` to the same supports.

    Args:
        finetune: Trains the network.
        atlas: Registers the supports.
    """

    finetune: Finetune = field(default_factory=Finetune)
    atlas: Atlas = field(default_factory=Atlas)

    def adapt(self, support: Support) -> HybridSegmenter:
        """Measure the atlas by leave-one-out, train the network, and derive the trust in each.

        Leave-one-out takes at most half of the time budget, and at least one round. Only the network
        learns from derived examples.
        """
        begun, learner, all_frames = time.perf_counter(), self.finetune, support
        support = support.of(range(support.shots - support.derived))
        budget = learner.budget_seconds
        compared = self.atlas.leave_one_out(support, None if budget is None else budget / 2)
        left_out = compared.dice
        if budget is not None:
            learner = replace(learner, budget_seconds=max(1.0, budget - (time.perf_counter() - begun)))
        network = learner.adapt(replace(all_frames, warps=compared.warps))
        from_scratch = learner.start is None or learner.random_start
        weight = WEIGHT_FROM_SCRATCH if from_scratch else WEIGHT
        in_atlas = [atlas_trust(dice) for dice in left_out]
        in_network = network_trust(network.record["training_dice"]) if learner.steps else [1.0] * len(in_atlas)
        kept = _covering_supports(support, MAX_ATLAS_SUPPORTS)
        contained = {index for label in kept.labels for index in label.unique().tolist()}
        for index in range(len(in_atlas)):
            if index + 1 not in contained:  # the atlas cannot find a structure that none of its supports contains
                in_atlas[index], in_network[index] = 0.0, 1.0
        record = network.record | {
            "learner": NAME,
            "atlas_left_out_dice": [None if dice is None else round(dice, 4) for dice in left_out],
            "supports_compared": compared.rows(),
            "atlas_weight": round(weight, 4),
            "atlas_trust": [None if value is None else round(value, 4) for value in in_atlas],
            "network_trust": [round(value, 4) for value in in_network],
        }
        interpolated = self._interpolated(network, support)
        return HybridSegmenter(
            NetworkSegmenter(network.network), replace(self.atlas, progress=Progress()).adapt(kept),
            patch_size=support.window, atlas_weight=weight, atlas_trust=in_atlas, network_trust=in_network,
            interpolated=interpolated, from_scratch=from_scratch,
            overruling=[atlas_trust(dice, OVERRULING_DICE) for dice in left_out],
            record=record | {"seconds": round(time.perf_counter() - begun, 2)},
        )  # fmt: skip

    def _interpolated(self, adapted: NetworkSegmenter, support: Support) -> NetworkSegmenter | None:
        """Return the network half way back to a meta-trained start for a single support; otherwise None."""
        learner = self.finetune
        if support.shots > 1 or not learner.steps or not isinstance(learner.start, LinearHeadStart):
            return None
        begun = replace(learner, steps=0, progress=Progress()).adapt(support)
        return NetworkSegmenter(interpolate_weights(begun.network, adapted.network, HALF_WAY))


def build(**settings: Any) -> Hybrid:
    """Build a hybrid from the settings of both parts, as keywords."""
    of_network, of_atlas = ({setting.name for setting in fields(part)} for part in (Finetune, Atlas))
    atlas = {name: value for name, value in settings.items() if name in of_atlas}
    network = {name: value for name, value in settings.items() if name in of_network or name not in of_atlas}
    return Hybrid(Finetune(**network), Atlas(**atlas))


def interpolate_weights(start: UNet, end: UNet, share: float) -> UNet:
    """Return a network with the weights ``start + share (end - start)``; both have the same layers."""
    network, origin = copy.deepcopy(end), start.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(origin[name], 1 - share)
    return network


def _covering_supports(support: Support, count: int) -> Support:
    """Return at most ``count`` supports: the first ones, and those that a structure would be missing without."""
    if support.shots <= count:
        return support
    contained = [set(label.unique().tolist()) for label in support.labels]
    needed: list[int] = []
    for index in range(1, support.classes):
        holders = [number for number, classes in enumerate(contained) if index in classes]
        if holders and not set(holders) & set(needed):
            needed.append(holders[0])
    others = [number for number in range(support.shots) if number not in needed]
    return support.of(sorted((needed + others)[:count]))


def _rename_version_2(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Read the tensors of format version 2, which called the interpolated network ``cautious``."""
    old = f"{prefix}cautious."
    for name in [name for name in state if name.startswith(old)]:
        state[f"{prefix}interpolated.{name.removeprefix(old)}"] = state.pop(name)


SPEC = LearnerSpec(
    name=NAME,
    learner=build,
    summary="a network trained on your scans and registration, combined",
    options=(Finetune, Atlas),
    segmenter=HybridSegmenter,
    weights=finetune.SPEC.weights,
    steps_from_weights=finetune.SPEC.steps_from_weights,
    steps_continued=finetune.SPEC.steps_continued,
    convert_start=finetune.convert_start,
    auto_dims=(3,),
    derived=True,
)
