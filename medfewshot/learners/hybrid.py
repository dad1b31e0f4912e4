"""Hybrid: matching and adaptation in one learner, their probabilities multiplied.

A product of experts (Hinton 2002, "Training products of experts by minimizing contrastive divergence", eq. 1, with an
exponent for the atlas): ``log p = log p_network + w log p_atlas``. A network adapted to the supports knows edges, an
atlas knows place; they err in different voxels. ``w`` grows with the number of supports, whose votes are averaged.

Structures differ in whether place tells anything: it does for organs, and not for lesions. Where supports can be left
out (K >= 2), a structure's trust follows from how well the others find it; where there is nothing to leave out, from
whether network and atlas find it in the same place at all. An untrusted structure is neither held back nor favoured:
to it, the atlas's probability of the likeliest class is given.
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
from medfewshot.learners.atlas import Atlas, AtlasSegmenter, leave_one_out_dice, overlap
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.linear_head import LinearHeadStart
from medfewshot.learners.patches import window_of
from medfewshot.learners.segmenters import NetworkSegmenter
from medfewshot.registration import RegistrationOptions
from medfewshot.types import Progress, Support

LEAST_WEIGHT, WEIGHT_PER_SUPPORT, MOST_WEIGHT = 0.4, 0.2, 1.6
"""The atlas's exponent: ``min(1.6, 0.4 + 0.2 K)``, chosen on support-pool subjects."""
DOUBTED_DICE, TRUSTED_DICE = 0.2, 0.5
"""Leave-one-out Dice at and below which a structure of the atlas is not trusted, and from which it is in full."""
APART, TOGETHER = 0.3, 0.7
"""The same for the Dice of network and atlas with each other, where nothing can be left out."""
ATLAS_FLOOR = 0.02
"""Added to the atlas's probabilities: no support's outline forbids a class altogether."""
NETWORK_FLOOR = 0.01
"""Added to the network's, which on a scan unlike the supports are sure and wrong: from four supports on, votes that all
agree outweigh a network that is sure of something else."""
LEAST_PROBABILITY = 1e-6
HEARD = 0.05
"""A class that both give less than this sinks below the floors in proportion: floors are for disputes."""
OVERLAP = 0.5
CALIBRATION = -1.2
"""Of the predicted Dice, fitted to support-pool subjects: a product is surer than its factors."""
MOST_MATCHED = 10
"""Supports that the atlas keeps, the first ones: each costs seconds in every query."""


class HybridSegmenter:
    """Needs the whole field of view; the network inside still slides over it in windows of ``patch_size``."""

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
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.part, self.atlas = network, atlas
        self.patch_size, self.weight, self.trust = tuple(patch_size), float(weight), tuple(trust)
        self.record = dict(record or {})

    @property
    def windowed(self) -> NetworkSegmenter:
        """The part that needs no more than a window: what is left for volumes that memory does not hold."""
        return self.part

    @property
    def calibration(self) -> float | None:
        """Offset of the predicted Dice; None, as for any network, where the atlas has no say."""
        return CALIBRATION if self._listens else None

    @property
    def network(self) -> UNet:
        return self.part.network

    @property
    def device(self) -> torch.device:
        return self.part.device

    def to(self, device: torch.device) -> HybridSegmenter:
        return HybridSegmenter(
            self.part.to(device),
            self.atlas.to(device),
            patch_size=self.patch_size,
            weight=self.weight,
            trust=self.trust,
            record=self.record,
        )

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        return torch.stack([self._one(one) for one in image])

    def _one(self, query: Tensor) -> Tensor:
        from monai.inferers import sliding_window_inference

        query = query.to(self.device)
        logits = sliding_window_inference(
            query[None], self.patch_size, 1, self.part, overlap=OVERLAP, mode="gaussian", padding_mode="replicate",
            device=self.device,
        )  # fmt: skip
        assert isinstance(logits, Tensor)
        network = logits[0].float().softmax(0)
        return self.fuse(network, self.atlas.votes(query) if self._listens else None)

    @property
    def _listens(self) -> bool:
        """Whether any structure of the atlas may be trusted."""
        return self.weight > 0 and any(trust != 0 for trust in self.trust)

    def fuse(self, network: Tensor, votes: Tensor | None) -> Tensor:
        """Log-probabilities, up to a constant a voxel, from probabilities ``(N + 1, *S)`` of the two; None: no votes.

        ``log p_c = log p_network,c + w (t_c log v_c + (1 - t_c) max_d log v_d)`` with the trust ``t_c`` of class c in
        [0, 1], 1 for the background, and ``v_c = t_c p_atlas,c``: the background has the votes that are not trusted.
        Both have floors; a class that neither of them sees stays as unlikely as they say.
        """
        if votes is None:  # nothing to dispute with, so no floor that would add up over the background
            return network.clamp_min(LEAST_PROBABILITY).log()
        fused = (network + NETWORK_FLOOR).log()
        trusts = self._trust(network, votes)
        votes = votes.clone()
        for index, trust in enumerate(trusts, start=1):
            votes[0] += (1 - trust) * votes[index]
            votes[index] *= trust
        heard = torch.maximum(network, votes).div_(HEARD).clamp_(LEAST_PROBABILITY, 1)
        said = votes.add_(ATLAS_FLOOR).log_()
        likeliest = said.amax(0)
        for index, trust in enumerate(trusts, start=1):
            said[index].lerp_(likeliest, 1 - trust)
        return fused.add_(said, alpha=self.weight).add_(heard.log_())

    def _trust(self, network: Tensor, votes: Tensor) -> list[float]:
        """Per structure: what leaving supports out said of it, else whether the two find it in the same place."""
        if None not in self.trust:
            return [float(trust) for trust in self.trust if trust is not None]
        found, matched = network.argmax(0), votes.argmax(0)
        return [
            _ramp(overlap(found == index, matched == index) or 0.0, APART, TOGETHER) if trust is None else trust
            for index, trust in enumerate(self.trust, start=1)
        ]

    def config(self) -> dict[str, Any]:
        return {
            "network": self.part.config(),
            "atlas": self.atlas.config(),
            "patch_size": list(self.patch_size),
            "weight": self.weight,
            "trust": list(self.trust),
        }

    def tensors(self) -> dict[str, Tensor]:
        return {f"network.{k}": v for k, v in self.part.tensors().items()} | {
            f"atlas.{k}": v for k, v in self.atlas.tensors().items()
        }

    @classmethod
    def restore(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> HybridSegmenter:
        def of(part: str) -> dict[str, Tensor]:
            return {k.removeprefix(part): v for k, v in tensors.items() if k.startswith(part)}

        return cls(
            NetworkSegmenter.restore(config["network"], of("network.")),
            AtlasSegmenter.restore(config["atlas"], of("atlas.")),
            patch_size=config["patch_size"],
            weight=config["weight"],
            trust=config["trust"],
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
        left_out = leave_one_out_dice(atlas, support)
        matched = time.perf_counter() - begun
        learner = Finetune(
            steps=self.steps,
            budget_seconds=None if self.budget_seconds is None else max(1.0, self.budget_seconds - matched),
            learning_rate=self.learning_rate,
            width=self.width,
            seed=self.seed,
            device=self.device,
            augmentation=self.augmentation,
            start=self.start,
            progress=self.progress,
        )
        network = learner.adapt(support)
        weight, trust = atlas_weight(support.shots), [atlas_trust(dice) for dice in left_out]
        record = network.record | {
            "learner": "hybrid",
            "atlas_left_out_dice": [None if dice is None else round(dice, 4) for dice in left_out],
            "atlas_weight": round(weight, 4),
            "atlas_trust": [None if value is None else round(value, 4) for value in trust],
            "seconds": round(time.perf_counter() - begun, 2),
        }
        return HybridSegmenter(
            NetworkSegmenter(network.network),
            atlas.adapt(_first(support, MOST_MATCHED)),
            patch_size=window_of(support),
            weight=weight,
            trust=trust,
            record=record,
        )


def _first(support: Support, count: int) -> Support:
    return replace(support, images=support.images[:count], labels=support.labels[:count])


def atlas_weight(shots: int) -> float:
    """The atlas's exponent for K = ``shots`` supports."""
    return min(MOST_WEIGHT, LEAST_WEIGHT + WEIGHT_PER_SUPPORT * shots)


def atlas_trust(left_out_dice: float | None) -> float | None:
    """Trust in a structure of the atlas by its leave-one-out Dice; None where there is none."""
    return None if left_out_dice is None else _ramp(left_out_dice, DOUBTED_DICE, TRUSTED_DICE)


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, a line between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))
