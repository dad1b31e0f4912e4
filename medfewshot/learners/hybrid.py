"""Hybrid: matching and adaptation in one learner, their probabilities multiplied.

A product of experts (Hinton 2002, "Training products of experts by minimizing contrastive divergence", eq. 1, with the
atlas's exponent below 1): ``log p = log p_network + w log p_atlas``. A network adapted to the supports knows edges, an
atlas knows place; they err in different voxels. ``w`` is one number for a support set: where supports can be left out
(K >= 2), it follows from how well they are segmented from one another, down to 0 where matching fails, as it does for
lesions.

A product cannot overrule a network that is sure and wrong, which is what networks are on a scan unlike the supports. So
each query has a weight of its own besides: where the two disagree on the structures as a whole, the votes are mixed in,
``p = (1 - m) p_product + m p_atlas`` (a mixture of experts). Whether the atlas is to be believed there is judged by
leaving supports out, and by whether what lies under its structures is as bright as the supports' structures are. With
a single support there is nothing to judge by, and ``m`` is 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medfewshot.augment import Augmentation
from medfewshot.backbones import UNet
from medfewshot.learners.atlas import Atlas, AtlasSegmenter, leave_one_out_dice
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.linear_head import LinearHeadStart
from medfewshot.learners.patches import window_of
from medfewshot.learners.segmenters import NetworkSegmenter
from medfewshot.registration import RegistrationOptions
from medfewshot.types import Progress, Support

ATLAS_WEIGHT = 0.5
"""Exponent of the atlas where it is trusted."""
DOUBTED_DICE, TRUSTED_DICE = 0.3, 0.6
"""Leave-one-out Dice of the atlas at and below which it has no say, and from which it has its full weight."""
ATLAS_FLOOR = 0.02
"""Added to the atlas's probabilities: no support's outline forbids a class altogether."""
NETWORK_FLOOR = 1e-4
OVERLAP = 0.5
MIXED = 0.8
"""The atlas's share where the two disagree in full."""
DISAGREE, AGREE = 0.5, 0.8
"""Dice of the two with each other, mean over structures: at and below the first the atlas has its whole share, from the
second on it has none."""
ALIKE, UNLIKE = 1.0, 2.0
"""Difference in brightness, in standard deviations of a structure: up to the first the atlas is believed, from the
second on it is not."""
LEAST_DEVIATION = 0.2
"""Of a structure's brightness, in those of the image: cohorts differ by so much."""


class HybridSegmenter:
    """Needs the whole field of view; the network inside still slides over it in windows of ``patch_size``."""

    kind = "hybrid"
    whole_volume = True

    def __init__(
        self,
        network: NetworkSegmenter,
        atlas: AtlasSegmenter,
        *,
        patch_size: Sequence[int],
        weight: float,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.part, self.atlas = network, atlas
        self.patch_size, self.weight = tuple(patch_size), float(weight)
        self.record = dict(record or {})

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
        return self.fuse(network, self.atlas.votes(query) if self.weight else None, query)

    def fuse(self, network: Tensor, votes: Tensor | None, query: Tensor) -> Tensor:
        """Log-probabilities ``(N + 1, *S)``, up to a constant a voxel, from those of the two; no votes: none count."""
        fused = (network + NETWORK_FLOOR).log()
        if self.weight == 0 or votes is None:
            return fused
        fused += self.weight * (votes + ATLAS_FLOOR).log()
        share = self.share(network, votes, query)
        if share == 0:
            return fused
        return ((1 - share) * fused.softmax(0) + share * votes).clamp_min(NETWORK_FLOOR).log()

    def share(self, network: Tensor, votes: Tensor, query: Tensor) -> float:
        """The atlas's share ``m`` in [0, 1] in one query ``(C, *S)``; probabilities ``(N + 1, *S)`` of the two."""
        if len(self.atlas.images) < 2:
            return 0.0
        trusted = self.weight / ATLAS_WEIGHT
        labels = votes.argmax(0)
        doubt = 1 - _ramp(agreement(network.argmax(0), labels, len(votes)), DISAGREE, AGREE)
        if doubt == 0:
            return 0.0
        return MIXED * trusted * doubt * (1 - _ramp(strangeness(self.atlas, labels, query), ALIKE, UNLIKE))

    def config(self) -> dict[str, Any]:
        return {
            "network": self.part.config(),
            "atlas": self.atlas.config(),
            "patch_size": list(self.patch_size),
            "weight": self.weight,
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
        weight = atlas_weight(left_out)
        record = network.record | {
            "learner": "hybrid",
            "atlas_left_out_dice": None if left_out is None else round(left_out, 4),
            "atlas_weight": round(weight, 4),
            "seconds": round(time.perf_counter() - begun, 2),
        }
        return HybridSegmenter(
            NetworkSegmenter(network.network),
            atlas.adapt(support),
            patch_size=window_of(support),
            weight=weight,
            record=record,
        )


def agreement(first: Tensor, second: Tensor, classes: int) -> float:
    """Dice of two label maps with each other, mean over the structures that either has; 1 where there are none."""
    found = []
    for index in range(1, classes):
        a, b = first == index, second == index
        total = int(a.sum()) + int(b.sum())
        if total:
            found.append(2 * int((a & b).sum()) / total)
    return sum(found) / len(found) if found else 1.0


def strangeness(atlas: AtlasSegmenter, labels: Tensor, query: Tensor) -> float:
    """How far the brightness under ``labels (*S)`` in ``query (C, *S)`` is from that of the supports' structures.

    In standard deviations of a structure, the first channel alone, mean over structures found.
    """
    differences = []
    for index in range(1, atlas.classes):
        here = query[0][labels == index]
        there = torch.cat([i[0].float()[m == index] for i, m in zip(atlas.images, atlas.labels, strict=True)])
        if len(here) > 1 and len(there) > 1:
            spread = there.std().clamp_min(LEAST_DEVIATION)
            differences.append(float((here.float().mean() - there.mean()).abs() / spread))
    return sum(differences) / len(differences) if differences else 0.0


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, a line between."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def atlas_weight(left_out_dice: float | None) -> float:
    """The atlas's exponent: full where there is nothing to judge by, else by its leave-one-out Dice."""
    if left_out_dice is None:
        return ATLAS_WEIGHT
    return ATLAS_WEIGHT * _ramp(left_out_dice, DOUBTED_DICE, TRUSTED_DICE)
