"""Hybrid: a fine-tuned network and an atlas in one learner, their probabilities multiplied (``hybrid_fusion.py``).

The network knows edges, the atlas knows location; they err in different voxels. The supports say how far to trust each
with a structure: the atlas by leaving supports out (K >= 2), the network by its Dice on the training patches. A single
support leaves nothing out. Then agreement of the two decides, and, for a meta-trained start, whether the network is
steady: whether the network half way back to its start finds the same. That is the interpolation of Wortsman et al.
2022, "Robust fine-tuning of zero-shot models", eq. 1, which loses less on scans unlike those adapted to.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from medfewshot.backbones import UNet
from medfewshot.learners import finetune
from medfewshot.learners.atlas import Atlas, AtlasSegmenter, voted
from medfewshot.learners.base import OVERLAP, LearnerSpec, Segmenter
from medfewshot.learners.finetune import Finetune, NetworkSegmenter
from medfewshot.learners.hybrid_fusion import (
    LEAST_PROBABILITY,
    atlas_trust,
    atlas_weight,
    doubts,
    learned,
    product,
    stabilise,
    trusts,
)
from medfewshot.learners.linear_head import LinearHeadStart
from medfewshot.types import Doubt, Progress, Support

NAME = "hybrid"
HALF_WAY = 0.5
"""Share of the way from the start to the adapted network; best of 1/4, 1/2 and 3/4 on queries unlike the support."""
CALIBRATION = -1.2
"""Offset of the predicted Dice, fitted to support-pool subjects: a product is surer than its factors."""
MOST_MATCHED = 10
"""Supports that the atlas keeps: each costs seconds in every query."""


class HybridSegmenter(Segmenter):
    """Needs the whole field of view; the network inside slides over it in windows of ``patch_size``.

    Args:
        network: The adapted network.
        atlas: The supports.
        patch_size: Windows of the network.
        weight: The atlas's exponent.
        trust: Trust in the atlas per structure, in [0, 1]; None if only the query can tell.
        learned: Trust in the network per structure; None for 1 everywhere.
        cautious: The network half way back to its start, if there is one.
        from_scratch: Whether the network began with random weights.
        record: What adaptation reports.
    """

    kind = NAME
    whole_volume = True
    keeps_supports = True

    def __init__(
        self,
        network: NetworkSegmenter,
        atlas: AtlasSegmenter,
        *,
        patch_size: Sequence[int],
        weight: float,
        trust: Sequence[float | None],
        learned: Sequence[float] | None = None,
        cautious: NetworkSegmenter | None = None,
        from_scratch: bool = False,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(record)
        self.network, self.atlas, self.cautious = network, atlas, cautious
        self.patch_size, self.weight, self.trust = tuple(patch_size), float(weight), tuple(trust)
        self.learned = tuple(learned or [1.0] * len(self.trust))
        self.from_scratch = bool(from_scratch)

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
    def examine(self, image: Tensor, *, overlap: float = OVERLAP) -> tuple[Tensor, list[Doubt]]:
        """Compute log-probabilities of a whole volume and list the structures that the two parts disagree about."""
        query = image[0].to(self.device)
        network = self._slide(self.network, query, overlap)
        if not self._uses_atlas:  # no floors, which would add up over the background
            return network.clamp_min(LEAST_PROBABILITY).log()[None], []
        steady = None
        if self.cautious is not None:
            network, steady = stabilise(network, self._slide(self.cautious, query, overlap))
        logits, doubted = self.fuse(network, self.atlas.votes(query), steady)
        return logits[None], doubted

    def _slide(self, part: NetworkSegmenter, query: Tensor, overlap: float) -> Tensor:
        """Probabilities ``(N + 1, *S)`` of one network."""
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
        return self.weight > 0 and (any(trust != 0 for trust in self.trust) or min(self.learned) < 1)

    def fuse(self, network: Tensor, votes: Tensor, steady: Sequence[float] | None = None) -> tuple[Tensor, list[Doubt]]:
        """Multiply the probabilities of the two parts.

        Args:
            network: Probabilities ``(N + 1, *S)``.
            votes: Probabilities ``(N + 1, *S)`` of the atlas.
            steady: Per structure, how steady the network is on this scan; None for 1 everywhere.

        Returns:
            Log-probabilities ``(N + 1, *S)`` up to a constant per voxel, and the structures in doubt.
        """
        steady = steady or [1.0] * len(self.trust)
        where = voted(votes) if self.atlas.partial else None
        trusted = trusts(network, votes, self.trust, self.learned, steady, from_scratch=self.from_scratch, voted=where)
        logits = product(network, votes, self.weight, trusted.network, trusted.atlas)
        return logits, doubts(trusted, self.learned)

    def config(self) -> dict[str, Any]:
        """Return the configs of both parts and the options of their fusion."""
        return {
            "network": self.network.config(),
            self.atlas.kind: self.atlas.config(),
            "patch_size": list(self.patch_size),
            "weight": self.weight,
            "trust": list(self.trust),
            "learned": list(self.learned),
            "cautious": None if self.cautious is None else self.cautious.config(),
            "from_scratch": self.from_scratch,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HybridSegmenter:
        """Build the segmenter without its tensors."""
        cautious = config.get("cautious")  # the first release had neither this nor the next two
        return cls(
            NetworkSegmenter.from_config(config["network"]),
            AtlasSegmenter.from_config(config[AtlasSegmenter.kind]),
            patch_size=config["patch_size"],
            weight=config["weight"],
            trust=config["trust"],
            learned=config.get("learned"),
            cautious=None if cautious is None else NetworkSegmenter.from_config(cautious),
            from_scratch=config.get("from_scratch", config.get("untaught", False)),  # its name in version 0.2.0.dev0
        )


@dataclass(frozen=True)
class Hybrid:
    """A :class:`Finetune` and an :class:`Atlas` on the same supports."""

    finetune: Finetune = field(default_factory=Finetune)
    atlas: Atlas = field(default_factory=Atlas)

    def adapt(self, support: Support) -> HybridSegmenter:
        """Measure the atlas by leaving supports out, train the network, and decide how far to trust each.

        Leaving supports out takes at most half of the budget, and at least one is left out.
        """
        begun, learner = time.perf_counter(), self.finetune
        budget = learner.budget_seconds
        left_out = self.atlas.leave_one_out_dice(support, None if budget is None else budget / 2)
        if budget is not None:
            learner = replace(learner, budget_seconds=max(1.0, budget - (time.perf_counter() - begun)))
        network = learner.adapt(support)
        from_scratch = learner.start is None
        weight = atlas_weight(support.shots, from_scratch=from_scratch)
        trust = [atlas_trust(dice) for dice in left_out]
        known = learned(network.record["training_dice"]) if learner.steps else [1.0] * len(trust)
        matched = _covering(support, MOST_MATCHED)
        for index, shown in enumerate(_shown(matched)):
            if not shown:  # the atlas cannot find what none of its supports shows
                trust[index], known[index] = 0.0, 1.0
        cautious = self._cautious(network, support)
        record = network.record | {
            "learner": NAME,
            "atlas_left_out_dice": [None if dice is None else round(dice, 4) for dice in left_out],
            "atlas_weight": round(weight, 4),
            "atlas_trust": [None if value is None else round(value, 4) for value in trust],
            "network_trust": [round(value, 4) for value in known],
            "seconds": round(time.perf_counter() - begun, 2),
        }
        return HybridSegmenter(
            NetworkSegmenter(network.network),
            replace(self.atlas, progress=Progress()).adapt(matched),
            patch_size=support.window,
            weight=weight,
            trust=trust,
            learned=known,
            cautious=cautious,
            from_scratch=from_scratch,
            record=record,
        )

    def _cautious(self, adapted: NetworkSegmenter, support: Support) -> NetworkSegmenter | None:
        """The network half way back to a meta-trained start, for a single support; otherwise None."""
        learner = self.finetune
        if support.shots > 1 or not learner.steps or not isinstance(learner.start, LinearHeadStart):
            return None
        begun = replace(learner, steps=0, progress=Progress()).adapt(support)
        return NetworkSegmenter(between(begun.network, adapted.network, HALF_WAY))


def build(**settings: Any) -> Hybrid:
    """A hybrid from the settings of both parts, as keywords."""
    of_network, of_atlas = ({setting.name for setting in fields(part)} for part in (Finetune, Atlas))
    atlas = {name: value for name, value in settings.items() if name in of_atlas}
    network = {name: value for name, value in settings.items() if name in of_network or name not in of_atlas}
    return Hybrid(Finetune(**network), Atlas(**atlas))


def between(start: UNet, end: UNet, share: float) -> UNet:
    """The network ``start + share (end - start)``, weight by weight; both have the same layers."""
    network, origin = copy.deepcopy(end), start.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(origin[name], 1 - share)
    return network


def _covering(support: Support, count: int) -> Support:
    """At most ``count`` supports: the first ones, and those without which a structure would be missing."""
    if support.shots <= count:
        return support
    shown = [set(label.unique().tolist()) for label in support.labels]
    needed: list[int] = []
    for index in range(1, support.classes):
        holders = [number for number, classes in enumerate(shown) if index in classes]
        if holders and not set(holders) & set(needed):
            needed.append(holders[0])
    others = [number for number in range(support.shots) if number not in needed]
    return support.of(sorted((needed + others)[:count]))


def _shown(support: Support) -> list[bool]:
    """Per structure, whether any of the supports shows it."""
    return [any(bool((label == index).any()) for label in support.labels) for index in range(1, support.classes)]


SPEC = LearnerSpec(
    name=NAME,
    learner=build,
    summary="a fine-tuned network and the atlas, their probabilities multiplied",
    options=(Finetune, Atlas),
    segmenter=HybridSegmenter,
    weights=finetune.SPEC.weights,
    steps_from_weights=finetune.SPEC.steps_from_weights,
    steps_continued=finetune.SPEC.steps_continued,
    adopt=finetune.adopt,
    auto_dims=(3,),
)
