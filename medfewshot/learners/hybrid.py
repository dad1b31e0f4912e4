"""Hybrid: matching and adaptation in one learner, their probabilities multiplied (:mod:`medfewshot.learners.fusion`).

A network adapted to the supports knows edges, an atlas knows place; they err in different voxels. How far each is
trusted with a structure is found out from the supports where that can be: the atlas by leaving supports out (K >= 2),
the network by whether it has learned what they show. With one support, which leaves nothing out, the two are asked
whether they find a structure in the same place, and the network, where it began with meta-trained weights, whether it
is steady: whether the network half way back to these weights finds the same (the interpolation of Wortsman et al.
2022, "Robust fine-tuning of zero-shot models", eq. 1, which loses less on scans unlike those adapted to). One that
began at random gives way to the atlas in a structure of which it finds little.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from medfewshot.augment import Augmentation
from medfewshot.backbones import UNet
from medfewshot.learners.atlas import Atlas, AtlasSegmenter, leave_one_out_dice
from medfewshot.learners.base import Segmenter
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.fusion import (
    LEAST_PROBABILITY,
    Trusts,
    atlas_trust,
    atlas_weight,
    doubts,
    learned,
    product,
    steadied,
    trusts,
)
from medfewshot.learners.linear_head import LinearHeadStart
from medfewshot.learners.patches import window_of
from medfewshot.learners.segmenters import NetworkSegmenter, between
from medfewshot.registration import RegistrationOptions
from medfewshot.types import Doubt, Progress, Support

HALF_WAY = 0.5
"""Of the way from the start to the adapted network: best of a quarter, a half and three quarters for a query that is
unlike the support."""
OVERLAP = 0.5
CALIBRATION = -1.2
"""Of the predicted Dice, fitted to support-pool subjects: a product is surer than its factors."""
MOST_MATCHED = 10
"""Supports that the atlas keeps: each costs seconds in every query."""


class HybridSegmenter(Segmenter):
    """Needs the whole field of view; the network inside still slides over it in windows of ``patch_size``.

    ``trust``: per structure, of the atlas in [0, 1], None where it shows only with the query; ``learned``: of the
    network, None for all of it. ``cautious`` is the network half way to its start, where there is one. ``untaught``:
    the network began at random.
    """

    kind = "hybrid"
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
        untaught: bool = False,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(record)
        self.network, self.atlas, self.cautious = network, atlas, cautious
        self.patch_size, self.weight, self.trust = tuple(patch_size), float(weight), tuple(trust)
        self.learned = tuple(learned or [1.0] * len(self.trust))
        self.untaught = bool(untaught)

    @property
    def windowed(self) -> NetworkSegmenter:
        """The part that needs no more than a window: what is left for volumes that memory does not hold."""
        return self.network

    @property
    def calibration(self) -> float | None:
        """Offset of the predicted Dice; None, as for any network, where the atlas has no say."""
        return CALIBRATION if self._listens else None

    def predict(self, image: Tensor) -> Tensor:
        return self.examine(image)[0]

    @torch.no_grad()
    def examine(self, image: Tensor) -> tuple[Tensor, list[Doubt]]:
        """One image ``(1, C, *S)``: its logits ``(1, N + 1, *S)``, and which structures rest on one witness or none."""
        query = image[0].to(self.device)
        network = self._slide(self.network, query)
        if not self._listens:
            return self.fuse(network, None)[None], []
        steady = [1.0] * len(self.trust)
        if self.cautious is not None:
            network, steady = steadied(network, self._slide(self.cautious, query))
        votes = self.atlas.votes(query)
        believed = self._trusts(network, votes, steady)
        logits = product(network, votes, self.weight, believed.network, believed.atlas)
        return logits[None], doubts(believed, self.learned)

    def _slide(self, part: NetworkSegmenter, query: Tensor) -> Tensor:
        """Probabilities ``(N + 1, *S)`` of one network."""
        from monai.inferers import sliding_window_inference

        logits = sliding_window_inference(
            query[None], self.patch_size, 1, part, overlap=OVERLAP, mode="gaussian", padding_mode="replicate",
            device=self.device,
        )  # fmt: skip
        assert isinstance(logits, Tensor)
        return logits[0].float().softmax(0)

    @property
    def _listens(self) -> bool:
        """Whether any structure of the atlas may be trusted."""
        return self.weight > 0 and (any(trust != 0 for trust in self.trust) or min(self.learned) < 1)

    def fuse(self, network: Tensor, votes: Tensor | None, steady: Sequence[float] | None = None) -> Tensor:
        """Log-probabilities, up to a constant a voxel, from probabilities ``(N + 1, *S)`` of the two; None: no votes.

        ``steady``: per structure, how far the network may be believed on this scan; None: in full.
        """
        if votes is None:  # nothing to dispute with, so no floor that would add up over the background
            return network.clamp_min(LEAST_PROBABILITY).log()
        believed = self._trusts(network, votes, steady or [1.0] * len(self.trust))
        return product(network, votes, self.weight, believed.network, believed.atlas)

    def _trusts(self, network: Tensor, votes: Tensor, steady: Sequence[float]) -> Trusts:
        return trusts(network, votes, self.trust, self.learned, steady, untaught=self.untaught)

    def config(self) -> dict[str, Any]:
        return {
            "network": self.network.config(),
            "atlas": self.atlas.config(),
            "patch_size": list(self.patch_size),
            "weight": self.weight,
            "trust": list(self.trust),
            "learned": list(self.learned),
            "cautious": None if self.cautious is None else self.cautious.config(),
            "untaught": self.untaught,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HybridSegmenter:
        cautious = config.get("cautious")  # the first release had none of these three
        return cls(
            NetworkSegmenter.from_config(config["network"]),
            AtlasSegmenter.from_config(config["atlas"]),
            patch_size=config["patch_size"],
            weight=config["weight"],
            trust=config["trust"],
            learned=config.get("learned"),
            cautious=None if cautious is None else NetworkSegmenter.from_config(cautious),
            untaught=config.get("untaught", False),
        )


@dataclass(frozen=True)
class Hybrid:
    """Finetune and Atlas on the same supports; options as in :class:`~medfewshot.learners.finetune.Finetune`."""

    steps: int = 1000
    budget_seconds: float | None = None
    width: int = 16
    learning_rate: float = 2e-3
    seed: int = 0
    device: torch.device = torch.device("cpu")
    augmentation: Augmentation = field(default_factory=Augmentation)
    start: UNet | LinearHeadStart | None = None
    options: RegistrationOptions = field(default_factory=RegistrationOptions)
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> HybridSegmenter:
        begun = time.perf_counter()
        atlas = Atlas(self.device, self.options)
        left_out = leave_one_out_dice(atlas, support, self._seconds_to_match)
        matched = time.perf_counter() - begun
        network = self._finetune(matched).adapt(support)
        untaught = self.start is None
        weight, trust = atlas_weight(support.shots, untaught=untaught), [atlas_trust(dice) for dice in left_out]
        known = learned(network.record["training_dice"]) if self.steps else [1.0] * len(trust)
        matched_to = _covering(support, MOST_MATCHED)
        for index, held in enumerate(_held(matched_to)):
            if not held:  # what no support of the atlas shows is the network's alone
                trust[index], known[index] = 0.0, 1.0
        cautious = self._cautious(network, support)
        record = network.record | {
            "learner": "hybrid",
            "atlas_left_out_dice": [None if dice is None else round(dice, 4) for dice in left_out],
            "atlas_weight": round(weight, 4),
            "atlas_trust": [None if value is None else round(value, 4) for value in trust],
            "network_trust": [round(value, 4) for value in known],
            "seconds": round(time.perf_counter() - begun, 2),
        }
        return HybridSegmenter(
            NetworkSegmenter(network.network),
            atlas.adapt(matched_to),
            patch_size=window_of(support),
            weight=weight,
            trust=trust,
            learned=known,
            cautious=cautious,
            untaught=untaught,
            record=record,
        )

    @property
    def _seconds_to_match(self) -> float | None:
        """Leaving supports out may take half of the budget; one is always left out."""
        return None if self.budget_seconds is None else self.budget_seconds / 2

    def _finetune(self, seconds_spent: float) -> Finetune:
        return Finetune(
            steps=self.steps,
            budget_seconds=None if self.budget_seconds is None else max(1.0, self.budget_seconds - seconds_spent),
            learning_rate=self.learning_rate,
            width=self.width,
            seed=self.seed,
            device=self.device,
            augmentation=self.augmentation,
            start=self.start,
            progress=self.progress,
        )

    def _cautious(self, adapted: NetworkSegmenter, support: Support) -> NetworkSegmenter | None:
        """The network half way back to its start, for a single support; None from a start of no task's own."""
        if support.shots > 1 or not self.steps or not isinstance(self.start, LinearHeadStart):
            return None
        begun = replace(self._finetune(0.0), steps=0, progress=Progress()).adapt(support)
        return NetworkSegmenter(between(begun.network, adapted.network, HALF_WAY))


def _covering(support: Support, count: int) -> Support:
    """At most ``count`` of the supports, the first ones but for those that a structure would be missing without."""
    if support.shots <= count:
        return support
    shown = [set(label.unique().tolist()) for label in support.labels]
    needed: list[int] = []
    for index in range(1, support.classes):
        holders = [number for number, held in enumerate(shown) if index in held]
        if holders and not set(holders) & set(needed):
            needed.append(holders[0])
    others = [number for number in range(support.shots) if number not in needed]
    chosen = sorted((needed + others)[:count])
    images, labels = ([values[number] for number in chosen] for values in (support.images, support.labels))
    return replace(support, images=tuple(images), labels=tuple(labels))


def _held(support: Support) -> list[bool]:
    """Per structure, whether any of the supports shows it."""
    return [any(bool((label == index).any()) for label in support.labels) for index in range(1, support.classes)]
