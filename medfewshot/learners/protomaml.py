"""Proto-MAML: initialise the head by prototypes, then adapt all weights by gradient descent.

A prototypical network scores class k by ``-|f - c_k|^2 = 2 c_k . f - |c_k|^2 - |f|^2``. The last term is the same for
every class, so a linear head with weights ``2 c_k`` and bias ``-|c_k|^2`` gives the same softmax, and gradient descent
continues from there. Each task has its own initial head, with any number of classes.

References:
    Triantafillou et al. 2020, "Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples", section 3.
    Snell et al. 2017, "Prototypical Networks for Few-shot Learning".
    Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from medfewshot.backbones import UNet, fold_blocks
from medfewshot.learners.base import LearnerSpec
from medfewshot.learners.finetune import NetworkSegmenter
from medfewshot.learners.inner_loop import MamlStart, RateKind, Weights, forward, forward_features
from medfewshot.learners.inner_loop_learner import SHARED_SETTINGS, Examples, InnerLoopLearner
from medfewshot.learners.optimization import at_least_float32, dice_cross_entropy
from medfewshot.types import Episode

NAME = "protomaml"
ABSENT_MARGIN = 10.0
"""A class that the supports do not contain scores this much less than the background; its row stays trainable."""


def prototype_sums(features: Tensor, labels: Tensor, classes: int, fold: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Sum features and count voxels per class and place in a block.

    The head scores each place in a block by rows of its own, so classes are summed place by place. Padding beyond the
    labels does not count.

    Args:
        features: ``(B, D, *S')``, one vector per block of ``fold`` voxels.
        labels: ``(B, *S)``.
        classes: N + 1.
        fold: Voxels of a block along each axis.

    Returns:
        Sums ``(classes, block, D)`` and counts ``(classes, block)``.
    """
    marks = (F.one_hot(labels.clamp_min(0), classes) * (labels >= 0)[..., None]).movedim(-1, 1).to(features)
    padding: list[int] = []
    for have, cells, step in zip(labels.shape[:0:-1], features.shape[:1:-1], reversed(fold), strict=True):
        padding += [0, cells * step - have]
    marks = rearrange(fold_blocks(F.pad(marks, padding), fold), "b (k j) ... -> b k j (...)", k=classes)
    return einsum(features.flatten(2), marks, "b d v, b k j v -> k j d"), marks.sum((0, 3))


def prototype_head(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the sums of :func:`prototype_sums` into rows ``2 c`` and biases ``-|c|^2`` of the head.

    ``c`` is the mean feature of a class at one place in the block, or over all places if that place did not occur. A
    class that did not occur at all scores ``ABSENT_MARGIN`` below the background.

    Returns:
        Rows ``(classes * block, D)`` and biases ``(classes * block,)``, in the head's order.
    """
    whole_counts = counts.sum(1, keepdim=True)
    whole = sums.sum(1, keepdim=True) / whole_counts.clamp_min(1)[..., None]
    means = torch.where(counts[..., None] > 0, sums / counts.clamp_min(1)[..., None], whole)
    absent = whole_counts == 0
    means = torch.where(absent[..., None], means[:1], means)
    bias = -means.square().sum(-1) - ABSENT_MARGIN * absent.to(means)
    return (2 * means).flatten(0, 1), bias.flatten()


def build_start(backbone: UNet, **options: Any) -> MamlStart:
    """Build a :class:`MamlStart` with a frozen head, because prototypes replace it in every task."""
    start = MamlStart(backbone, **options)
    (start.head or start.backbone.head).requires_grad_(False)
    return start


@dataclass(frozen=True)
class ProtoMaml(InnerLoopLearner):
    """Prototypes as the head, then gradient descent on all weights.

    With ``inner_steps`` and ``steps`` 0 the segmenter is a prototypical network.
    """

    name = NAME
    second_order: bool = True
    """Whether the meta-gradient contains the Hessian; the prototypes are differentiated in any case."""
    rates: RateKind = "fixed"
    """Which inner rates are learned: none, one for each element, or one for each parameter tensor and step."""

    def build_start(self, backbone: UNet) -> MamlStart:
        """Make the module that meta-training changes: ``backbone`` and the inner rates."""
        return build_start(backbone, rates=self.rates, inner_steps=self.inner_steps, inner_rate=self.inner_rate)

    def initial_weights(self, start: MamlStart, classes: int, examples: Examples) -> Weights:
        """Return the start's weights with the prototypes of the examples as head."""
        sums, counts = torch.zeros(()), torch.zeros(())
        for images, labels in examples:
            # Sums over thousands of voxels need float32.
            features = at_least_float32(forward_features(start.backbone, images))
            more, number = prototype_sums(features, labels, classes, start.backbone.fold)
            sums, counts = sums.to(more) + more, counts.to(number) + number
        rows, bias = prototype_head(sums, counts)
        kernel = rows.view(*rows.shape, *[1] * start.backbone.config["dims"])
        return start.weights(classes) | {"head.weight": kernel, "head.bias": bias}

    @torch.enable_grad()  # the inner loop needs gradients in validation too
    def meta_loss(self, episode: Episode) -> Tensor:
        """Compute the loss on the query after prototypes and ``inner_steps`` on the supports.

        Its gradient reaches ``start`` through the prototypes, the steps and the query.

        Returns:
            A scalar that is differentiable in the parameters of ``start``.

        Raises:
            InputError: There is no start, or the query has no label.
        """
        support, truth = episode.support, episode.truth
        start = self.meta_start(support)
        examples = [(torch.stack(support.images), torch.stack(support.labels))]
        weights = self.initial_weights(start, support.classes, examples)
        final = self.inner_path(start, support, weights, second_order=self.second_order)[-1]
        return dice_cross_entropy(forward(start.backbone, final, episode.query.image), truth)


SPEC = LearnerSpec(
    name=NAME,
    learner=ProtoMaml,
    summary="the features of prototype, then a few training steps (Proto-MAML)",
    segmenter=NetworkSegmenter,
    build_start=build_start,
    start_options=MamlStart.OPTIONS,
    shared_settings=SHARED_SETTINGS,
)
