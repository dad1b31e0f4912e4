"""Prototypical segmentation: each voxel takes the class of the prototype it is most like.

Snell et al. 2017, "Prototypical Networks for Few-shot Learning": a class is the mean of its support features, a query
is scored by its distance to each. Wang et al. 2019, PANet: masked average pooling, the cosine metric and the alignment
loss. Ouyang et al. 2020, ALPNet: besides the global mean, local prototypes from a coarse grid, because one vector
cannot stand for all of the background. Hansen et al. 2022, ADNet: or no prototype of the background at all.
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
from medfewshot.learners.base import UNREAD, LearnerSpec, Segmenter, TrainedOptions, needs_start
from medfewshot.learners.features import (
    HeadStart,
    adopt_backbone,
    episode_features,
    own_start,
    start_behind,
    support_features,
    to_voxels,
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
    thin_prototypes,
)
from medfewshot.types import Episode, Support

NAME = "prototype"
START_OPTIONS = {"metric": "cosine", "background": "prototypes", "temperature": 20.0, "rank": 4, "seed": 0}
MOST_PROTOTYPES = 256
"""Of one class."""
SCORES_AT_ONCE = 1 << 24
"""Similarities (prototypes x voxels) held at once: 64 MB in float32."""
IGNORED = -100


def build_start(backbone: UNet, **options: Any) -> HeadStart:
    """A start around a copy of ``backbone``, whose last layer plays no part; the head begins as ``Prototype``'s.

    Args:
        backbone: The feature network.
        options: ``metric``, ``background``, ``temperature``, ``rank`` and ``seed`` of :class:`PrototypeHead`.
    """
    return start_behind(backbone, PrototypeHead(backbone.config["width"], **options))


class PrototypeSegmenter(Segmenter):
    """Feed-forward: ``(B, C, *S)`` image -> ``(B, N + 1, *S)`` logits, temperature times similarity."""

    kind = NAME
    parts: ClassVar = {"network": UNet, "head": PrototypeHead}
    scores_at_once: int = SCORES_AT_ONCE
    prototypes: Tensor
    owner: Tensor

    def __init__(
        self,
        network: UNet,
        head: PrototypeHead,
        prototypes: Tensor = UNREAD,
        owner: Tensor = UNREAD,
        *,
        classes: int,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """``prototypes (P, D)`` float32; ``owner (P,)`` int64: the class of each."""
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

    Features and head come from ``start`` where weights are given. Without it the features are learned on the supports
    by ``steps`` of gradient descent, because those of a random network say nothing; the learned metric is then still
    the identity, so it equals ``euclidean``, and the threshold is read off the supports.
    """

    steps: int = 200
    metric: Metric = "cosine"
    """Metric, background, temperature and rank are for a new head; a start of this learner brings its own."""
    background: Background = "prototypes"
    temperature: float = 20.0
    """Sharpness of the softmax over similarities, as in PANet."""
    rank: int = 4
    """Of the learned metric, beside its diagonal."""
    cell: int = 4
    """Edge of a local prototype's cell, in feature voxels."""
    alignment: float = 1.0
    """Weight of PANet's alignment loss in meta-training; 0 leaves it out."""

    def adapt(self, support: Support) -> PrototypeSegmenter:
        """Adapt features, then pool prototypes over patches of every support.

        Raises:
            InputError: The start does not fit the supports, or there are neither start nor steps.
        """
        network, record = adapted_features(self, support, NAME)
        own = own_start(self.start, PrototypeHead)
        head = (self._new_head(network) if own is None else copy.deepcopy(own.head)).to(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        vectors: list[Tensor] = []
        owners: list[Tensor] = []
        for features, labels in support_features(network, support, generator):
            prototypes, owner = pool_prototypes(features, labels, support.classes, self.cell)
            vectors.append(prototypes)
            owners.append(owner)
        prototypes, owner = thin_prototypes(torch.cat(vectors), torch.cat(owners), MOST_PROTOTYPES, generator)
        record["prototypes"] = len(prototypes)
        segmenter = PrototypeSegmenter(network, head, prototypes, owner, classes=support.classes, record=record)
        if own is None:  # nothing has learned the threshold yet
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
        start, classes = own_start(self.start, PrototypeHead), episode.support.classes
        if start is None:
            raise needs_start(NAME)
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
        return thin_prototypes(*pool_prototypes(features, labels, classes, self.cell), MOST_PROTOTYPES, generator)


def fit_threshold(segmenter: PrototypeSegmenter, examples: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Put the threshold of a head, if it has one, between structures and background as the supports show them.

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
        # The best class's logit less the background's is STEEPNESS * (T - A).
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
    """PANet's prototype alignment: cross entropy of the *support* under prototypes of the query's own prediction.

    ``features (K, D, *F)``, ``labels (K, *F)`` of the support; ``prototypes (P, D)``, ``owner (P,)`` pooled from the
    query by the classes predicted there. Support voxels of a class that was predicted nowhere do not count; where only
    background was predicted the loss is 0.
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
    summary="each voxel takes the class of the most similar prototype",
    segmenter=PrototypeSegmenter,
    build_start=build_start,
    start_options=START_OPTIONS,
    shared={"cell": lambda value: type(value) is int and value >= 1},
    adopt=adopt_backbone,
)
