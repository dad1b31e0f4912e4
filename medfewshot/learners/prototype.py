"""Prototypical segmentation: each voxel takes the class of the most similar prototype.

References:
    Snell et al. 2017, "Prototypical Networks for Few-shot Learning": a class is the mean of its support features.
    Wang et al. 2019, PANet: masked average pooling, the cosine metric and the alignment loss.
    Ouyang et al. 2020, ALPNet: local prototypes from a coarse grid, because one mean cannot represent the background.
    Hansen et al. 2022, ADNet: a threshold in place of background prototypes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.backbones import UNet
from medfewshot.learners.base import NOT_LOADED, LearnerSpec, Segmenter, TrainedOptions, missing_start_error
from medfewshot.learners.features import (
    HeadStart,
    episode_features,
    matching_start,
    start_with_head,
    support_features,
    to_voxels,
    unet_of_start,
    voxel_features,
)
from medfewshot.learners.finetune import adapted_features
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.learners.prototype_head import (
    STEEPNESS,
    Background,
    Metric,
    PrototypeHead,
    pool_prototypes,
    sample_prototypes,
)
from medfewshot.types import Episode, Support

NAME = "prototype"
START_OPTIONS = {"metric": "cosine", "background": "prototypes", "temperature": 20.0, "rank": 4, "seed": 0}
MAX_PROTOTYPES = 256
"""Maximum number of prototypes of one class."""
SCORES_AT_ONCE = 1 << 24
"""Similarities (prototypes x voxels) in memory at once: 64 MB in float32."""
IGNORED = -100


def build_start(backbone: UNet, **options: Any) -> HeadStart:
    """Build a start from a copy of ``backbone`` with a frozen last layer and a new head.

    Args:
        backbone: The feature network.
        options: ``metric``, ``background``, ``temperature``, ``rank`` and ``seed`` of :class:`PrototypeHead`.
    """
    return start_with_head(backbone, PrototypeHead(backbone.config["width"], **options))


class PrototypeSegmenter(Segmenter):
    """Segments by the similarity of features to prototypes.

    Args:
        network: The feature network.
        head: Compares features with prototypes.
        prototypes: ``(P, D)`` float32.
        owner: Class of each prototype, ``(P,)`` int64.
        classes: N + 1.
        record: What adaptation reports.
    """

    kind = NAME
    parts: ClassVar = {"network": UNet, "head": PrototypeHead}
    scores_at_once: int = SCORES_AT_ONCE
    prototypes: Tensor
    owner: Tensor

    def __init__(
        self, network: UNet, head: PrototypeHead, prototypes: Tensor = NOT_LOADED, owner: Tensor = NOT_LOADED, *,
        classes: int, record: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(record)
        # A contiguous copy: products of transposed tensors are rounded differently.
        self.register_buffer("prototypes", prototypes.clone(memory_format=torch.contiguous_format))
        self.register_buffer("owner", owner)
        self.network, self.head = network.eval(), head.eval()
        self.classes = classes

    def predict(self, image: Tensor) -> Tensor:
        """Compute logits ``(1, N + 1, *S)`` of an image ``(1, C, *S)``."""
        features = voxel_features(self.network, image)
        parts = features.flatten(2).split(max(1, self.scores_at_once // max(1, len(self.prototypes))), dim=2)
        logits = torch.cat([self.head(part, self.prototypes, self.owner, self.classes) for part in parts], dim=2)
        return to_voxels(logits.unflatten(2, features.shape[2:]), self.network.fold, image.shape[2:])

    def config(self) -> dict[str, Any]:
        """Return the configs of network and head, and the number of classes."""
        return super().config() | {"classes": self.classes}


@dataclass(frozen=True)
class Prototype(TrainedOptions):
    """Prototypes on a backbone's features.

    Features and head come from ``start`` if weights are given. Otherwise the features are trained on the supports for
    ``steps``. The learned metric is then the identity, which equals ``euclidean``, and the threshold is fitted to the
    supports.
    """

    steps: int = 200
    metric: Metric = "cosine"
    """Metric, background, temperature and rank of a new head; a start of this learner has its own head."""
    background: Background = "prototypes"
    temperature: float = 20.0
    """Sharpness of the softmax over similarities, as in PANet."""
    rank: int = 4
    """Rank of the learned metric, beside its diagonal."""
    cell: int = 4
    """Edge of a local prototype's cell, in feature voxels."""
    alignment: float = 1.0
    """Weight of PANet's alignment loss in meta-training; 0 for none."""

    def adapt(self, support: Support) -> PrototypeSegmenter:
        """Adapt features, then pool prototypes over patches of every support.

        Raises:
            InputError: The start does not fit the supports, or there are neither start nor steps.
        """
        network, record = adapted_features(self, support, NAME)
        own = matching_start(self.start, PrototypeHead)
        head = (self._new_head(network) if own is None else copy.deepcopy(own.head)).to(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        pairs = support_features(network, support, generator)
        pooled = [pool_prototypes(features, labels, support.classes, self.cell) for features, labels in pairs]
        vectors, owners = (torch.cat(parts) for parts in zip(*pooled, strict=True))
        prototypes, owner = sample_prototypes(vectors, owners, MAX_PROTOTYPES, generator)
        record["prototypes"] = len(prototypes)
        segmenter = PrototypeSegmenter(network, head, prototypes, owner, classes=support.classes, record=record)
        if own is None:  # the threshold of a new head is untrained
            generator = torch.Generator().manual_seed(self.seed)
            fit_threshold(segmenter, support_features(network, support, generator))
        return segmenter

    def meta_loss(self, episode: Episode) -> Tensor:
        """Compute the loss of one episode.

        It is the loss on the query, plus ``alignment`` times PANet's loss, plus ADNet's ``T / temperature``, which
        keeps classes compact.

        Returns:
            A scalar that is differentiable in the parameters of ``start``.

        Raises:
            InputError: ``start`` is not from :func:`build_start`.
        """
        start, classes = matching_start(self.start, PrototypeHead), episode.support.classes
        if start is None:
            raise missing_start_error(NAME)
        head: PrototypeHead = start.head
        support, labels, query = episode_features(start.backbone, episode)
        prototypes, owner = self._pool(support, labels, classes)
        logits = head(query, prototypes, owner, classes)
        truth = episode.truth
        loss = dice_cross_entropy(to_voxels(logits, start.backbone.fold, truth.shape[1:]), truth)
        if head.threshold is not None:
            loss = loss + head.threshold / head.temperature.detach()
        if self.alignment:
            pooled = self._pool(query, logits.argmax(1), classes)
            loss = loss + self.alignment * alignment_loss(head, support, labels, *pooled, classes)
        return loss

    def _new_head(self, network: UNet) -> PrototypeHead:
        features = network.config["width"]
        return PrototypeHead(features, self.metric, self.background, self.temperature, self.rank, self.seed)

    def _pool(self, features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        return sample_prototypes(*pool_prototypes(features, labels, classes, self.cell), MAX_PROTOTYPES, generator)


def fit_threshold(segmenter: PrototypeSegmenter, examples: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set the threshold of a head, if it has one, midway between structures and background of the supports.

    Args:
        segmenter: Its head is changed in place.
        examples: Features ``(1, D, *F)`` and labels ``(1, *F)`` of the supports.
    """
    head, sums = segmenter.head, torch.zeros(2, 2, dtype=torch.float64)
    if head.threshold is None:
        return
    for features, labels in examples:
        with torch.no_grad():
            logits = head(features, segmenter.prototypes, segmenter.owner, segmenter.classes)
        # The best class's logit minus the background's is STEEPNESS * (T - A).
        margin = (logits[:, 1:].amax(1) - logits[:, 0]).double().cpu()
        for row, mask in enumerate((labels.cpu() == 0, labels.cpu() > 0)):
            sums[row] += torch.stack([margin[mask].sum(), mask.sum().double()])
    if bool((sums[:, 1] > 0).all()):
        middle = float((sums[:, 0] / sums[:, 1]).mean())
        with torch.no_grad():
            head.threshold.sub_(middle / STEEPNESS)


def alignment_loss(
    head: PrototypeHead, features: Tensor, labels: Tensor, prototypes: Tensor, owner: Tensor, classes: int
) -> Tensor:
    """Compute PANet's alignment loss: cross entropy of the support under prototypes of the query's own prediction.

    Support voxels of a class that was predicted nowhere are ignored. If only background was predicted, the loss is 0.

    Args:
        head: Compares features with prototypes.
        features: Support features ``(K, D, *F)``.
        labels: Support labels ``(K, *F)``.
        prototypes: ``(P, D)``, pooled from the query by its predicted classes.
        owner: Class of each prototype, ``(P,)``.
        classes: N + 1.
    """
    known = owner.unique()
    if not bool((known > 0).any()):
        return features.sum() * 0
    if head.threshold is not None:  # its background needs no prototype
        known = torch.cat([known, known.new_zeros(1)])
    logits = head(features, prototypes, owner, classes)
    targets = torch.where(torch.isin(labels, known), labels, IGNORED)
    total = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return total / (targets != IGNORED).sum().clamp_min(1)


SPEC = LearnerSpec(
    name=NAME,
    learner=Prototype,
    summary="each voxel takes the structure with the most similar features",
    segmenter=PrototypeSegmenter,
    build_start=build_start,
    start_options=START_OPTIONS,
    shared_settings={"cell": lambda value: type(value) is int and value >= 1},
    convert_start=unet_of_start,
)
