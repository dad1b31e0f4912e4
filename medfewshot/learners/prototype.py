"""Prototypical segmentation: each voxel takes the class of the prototype it is most like.

Snell et al. 2017, "Prototypical Networks for Few-shot Learning": a class is the mean of its support features, a query
is scored by its distance to each. Wang et al. 2019, PANet: masked average pooling and the cosine metric. Ouyang et al.
2020, ALPNet: besides the global mean, local prototypes from a coarse grid, because one vector cannot stand for all of
the background.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.augment import NO_AUGMENTATION, Augmentation
from medfewshot.backbones import UNet, cut_to, pad_to_multiple
from medfewshot.devices import autocast
from medfewshot.learners.finetune import Finetune
from medfewshot.learners.patches import PatchSampler
from medfewshot.learners.segmenters import to_channels_last
from medfewshot.types import Progress, Support

Metric = Literal["cosine", "euclidean"]
LOCAL_COVERAGE = 0.5
"""A grid cell gives a local prototype of a class when this fraction of it belongs to the class."""
PATCHES_PER_SHOT = 6
MOST_PROTOTYPES = 256
"""Of one class."""
MOST_EXTRA_PATCHES = 20
"""Patches per class to go on drawing while a class that a support holds has no prototype yet."""
SCORES_AT_ONCE = 1 << 24
"""Similarities (prototypes x voxels) held at once: 64 MB in float32."""


def similarity(features: Tensor, prototypes: Tensor, metric: Metric) -> Tensor:
    """``features (B, D, *S)``, ``prototypes (P, D)`` -> scores ``(B, P, *S)``, larger is more alike.

    ``cosine`` in [-1, 1]; ``euclidean`` is the negative mean squared distance per feature.
    """
    if metric == "cosine":
        return torch.einsum("bd...,pd->bp...", F.normalize(features, dim=1), F.normalize(prototypes, dim=1))
    cross = torch.einsum("bd...,pd->bp...", features, prototypes)
    own = features.square().sum(1, keepdim=True)
    theirs = prototypes.square().sum(1).view(1, -1, *[1] * (features.ndim - 2))
    return (2 * cross - own - theirs) / features.shape[1]


def class_scores(similarities: Tensor, owner: Tensor, classes: int, temperature: float) -> Tensor:
    """Scores of each class from those of its prototypes: ``(B, P, *S)``, owner ``(P,)`` -> ``(B, classes, *S)``.

    The softmax-weighted mean over a class's prototypes, as in ALPNet (eq. 4-5); a class without any scores -1e4.
    """
    scores = []
    for index in range(classes):
        mine = similarities[:, owner == index]
        if mine.shape[1] == 0:
            scores.append(torch.full_like(similarities[:, 0], -1e4))
        else:
            scores.append(((temperature * mine).softmax(1) * mine).sum(1))
    return torch.stack(scores, dim=1)


def pool_prototypes(features: Tensor, labels: Tensor, classes: int, cell: int) -> tuple[Tensor, Tensor]:
    """Global and local prototypes of one batch: ``features (B, D, *S)``, ``labels (B, *S)`` -> ``(P, D)``, ``(P,)``.

    Global: masked average pooling over everything. Local: average pooling over cells of ``cell`` voxels an edge, kept
    where a class covers at least half of the cell.
    """
    pool = F.avg_pool2d if features.ndim == 4 else F.avg_pool3d
    window = [min(cell, size) for size in features.shape[2:]]
    vectors, owners = [], []
    for index in range(classes):
        mask = (labels == index).unsqueeze(1).to(features)
        if float(mask.sum()) == 0:
            continue
        axes = (0, *range(2, features.ndim))
        found = [((features * mask).sum(axes) / mask.sum())[None]]
        coverage = pool(mask, window).flatten(2)
        local = (pool(features * mask, window).flatten(2) / coverage.clamp_min(1e-6)).movedim(1, -1).flatten(0, 1)
        found.append(local[coverage[:, 0].flatten() >= LOCAL_COVERAGE])
        vectors.append(torch.cat(found))
        owners.append(torch.full((len(vectors[-1]),), index, device=features.device))
    return torch.cat(vectors), torch.cat(owners)


def thin_prototypes(prototypes: Tensor, owner: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """At most ``most`` prototypes of each class, drawn at random: a scan's background alone would give thousands."""
    kept = []
    for index in owner.unique().tolist():
        mine = (owner == index).nonzero()[:, 0]
        order = torch.randperm(len(mine), generator=generator)[:most].to(mine.device)
        kept.append(mine[order.sort().values])
    chosen = torch.cat(kept)
    return prototypes[chosen], owner[chosen]


class PrototypeSegmenter:
    """Feed-forward: ``(B, C, *S)`` image -> ``(B, N + 1, *S)`` logits, temperature times similarity."""

    kind = "prototype"
    whole_volume = False

    def __init__(
        self,
        network: UNet,
        prototypes: Tensor,
        owner: Tensor,
        *,
        classes: int,
        metric: Metric,
        temperature: float,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.network, self.prototypes, self.owner = network.eval(), prototypes, owner
        self.classes, self.metric, self.temperature = classes, metric, temperature
        self.record = dict(record or {})

    @property
    def device(self) -> torch.device:
        return self.prototypes.device

    def to(self, device: torch.device) -> PrototypeSegmenter:
        self_config = {k: v for k, v in self.config().items() if k != "network"}
        return PrototypeSegmenter(
            copy.deepcopy(self.network).to(device),
            self.prototypes.to(device, copy=True),
            self.owner.to(device, copy=True),
            record=self.record,
            **self_config,
        )

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        return torch.cat([self._one(one[None].to(self.device)) for one in image])

    def _one(self, image: Tensor) -> Tensor:
        features = voxel_features(self.network, image)
        logits = torch.cat([self._scores(some) for some in self._in_parts(features.flatten(2))], dim=2)
        logits = self.temperature * logits.unflatten(2, features.shape[2:])
        # The last block may reach beyond an odd edge: enlarge by the fold and cut, or everything would be squeezed.
        size = [n * fold for n, fold in zip(features.shape[2:], self.network.fold, strict=True)]
        logits = F.interpolate(logits, size=size, mode="bilinear" if image.ndim == 4 else "trilinear")
        return cut_to(logits, image.shape[2:])

    def _scores(self, features: Tensor) -> Tensor:
        similarities = similarity(features, self.prototypes, self.metric)
        return class_scores(similarities, self.owner, self.classes, self.temperature)

    def _in_parts(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.split(max(1, SCORES_AT_ONCE // len(self.prototypes)), dim=2)

    def config(self) -> dict[str, Any]:
        return {
            "network": self.network.config,
            "classes": self.classes,
            "metric": self.metric,
            "temperature": self.temperature,
        }

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"network.{name}": value.contiguous() for name, value in self.network.state_dict().items()}
        return weights | {"prototypes": self.prototypes.contiguous(), "owner": self.owner.contiguous()}

    @classmethod
    def restore(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PrototypeSegmenter:
        network = to_channels_last(UNet(**config["network"]))
        prefix = "network."
        network.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        options = {key: value for key, value in config.items() if key != "network"}
        return cls(network, tensors["prototypes"], tensors["owner"], **options)


def voxel_features(network: UNet, image: Tensor) -> Tensor:
    """``(B, C, *S)`` -> float32 features ``(B, D, *ceil(S / fold))`` of the finest decoder level."""
    with autocast(image.device):
        features = network.features(image)
    features = features.float()
    # Padding of the network is cut off, so that features and image cover the same field.
    size = [-(-length // fold) for length, fold in zip(image.shape[2:], network.fold, strict=True)]
    return cut_to(features, size)


@dataclass(frozen=True)
class Prototype:
    """Prototypes on a backbone's features.

    Features come from ``start`` where weights are given; otherwise they are learned on the supports themselves by
    ``steps`` of gradient descent, because the features of a random network say nothing.
    """

    metric: Metric = "cosine"
    temperature: float = 20.0
    """Sharpness of the softmax over similarities, as in PANet."""
    cell: int = 4
    """Edge of a local prototype's cell, in feature voxels."""
    steps: int = 200
    budget_seconds: float | None = None
    width: int = 16
    seed: int = 0
    device: torch.device = torch.device("cpu")
    start: UNet | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    progress: Progress = field(default_factory=Progress)

    def adapt(self, support: Support) -> PrototypeSegmenter:
        """Learn features where there are none, then pool prototypes over patches of every support."""
        network, record = self._features(support)
        generator = torch.Generator().manual_seed(self.seed)
        sampler = PatchSampler(support, NO_AUGMENTATION, generator)
        vectors: list[Tensor] = []
        owners: list[Tensor] = []
        missing = {index for index in range(support.classes) if any(bool((y == index).any()) for y in support.labels)}
        planned = PATCHES_PER_SHOT * support.shots
        for drawn in range(planned + MOST_EXTRA_PATCHES * support.classes):
            if drawn >= planned and not missing:
                break
            image, label = sampler.sample() if drawn < planned else sampler.sample(1.0 if missing != {0} else 0.0)
            with torch.no_grad():
                features = voxel_features(network, image[None].to(self.device))
            small = shrink_labels(label.to(self.device)[None], features.shape[2:])
            prototypes, owner = pool_prototypes(features, small, support.classes, self.cell)
            vectors.append(prototypes)
            owners.append(owner)
            missing -= set(owner.tolist())
        prototypes, owner = thin_prototypes(torch.cat(vectors), torch.cat(owners), MOST_PROTOTYPES, generator)
        return PrototypeSegmenter(
            network,
            prototypes,
            owner,
            classes=support.classes,
            metric=self.metric,
            temperature=self.temperature,
            record=record | {"learner": "prototype", "prototypes": len(prototypes)},
        )

    def _features(self, support: Support) -> tuple[UNet, dict[str, Any]]:
        if self.start is not None:
            return to_channels_last(copy.deepcopy(self.start)).to(self.device), {"steps": 0}
        learner = Finetune(
            steps=self.steps,
            budget_seconds=self.budget_seconds,
            width=self.width,
            seed=self.seed,
            device=self.device,
            augmentation=self.augmentation,
            progress=self.progress,
        )
        segmenter = learner.adapt(support)
        return segmenter.network, segmenter.record


def shrink_labels(labels: Tensor, size: torch.Size) -> Tensor:
    """Nearest-neighbour labels ``(B, *S)`` on the features' grid; a class it would lose marks all that it touches."""
    fold = [-(-length // n) for length, n in zip(labels.shape[1:], size, strict=True)]
    whole = pad_to_multiple(labels[:, None].float(), fold)
    small = F.interpolate(whole, size=size, mode="nearest-exact")[:, 0].long()
    pool = F.max_pool2d if len(size) == 2 else F.max_pool3d
    for index in sorted(set(labels.unique().tolist()) - set(small.unique().tolist())):
        small[pool((whole == index).float(), fold)[:, 0] > 0] = index
    return small
