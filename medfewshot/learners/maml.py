"""MAML and its variants: an initialisation from which a few steps of gradient descent solve a new task.

Meta-training learns ``start``. Adaptation runs the inner loop from it, then fine-tunes.

References:
    Finn et al. 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks"; first-order: section 5.2.
    Nichol et al. 2018, "On First-Order Meta-Learning Algorithms" (Reptile).
    Raghu et al. 2020, "Rapid Learning or Feature Reuse?" (ANIL).
    Li et al. 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning".
    Antoniou et al. 2019, "How to train your MAML" (MAML++).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medfewshot.backbones import UNet
from medfewshot.errors import InputError
from medfewshot.learners.base import LearnerSpec
from medfewshot.learners.finetune import NetworkSegmenter
from medfewshot.learners.inner_loop import HEAD, MamlStart, RateKind, Weights, forward
from medfewshot.learners.inner_loop_learner import SHARED_SETTINGS, Examples, InnerLoopLearner
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.types import Episode, Support

NAME = "maml"


@dataclass(frozen=True)
class Variant:
    """How a variant of MAML differs from the others."""

    second_order: bool = True
    """Whether the meta-gradient contains the Hessian of the support loss."""
    inner_prefix: str = ""
    """Prefix of the names of the weights that the inner loop changes: empty for all, or the head's."""
    rates: RateKind = "fixed"
    anneals: bool = False
    """Whether training starts with the query loss of every step and first-order gradients (MAML++)."""


DEFAULT_VARIANT = "maml"
VARIANTS: dict[str, Variant] = {
    DEFAULT_VARIANT: Variant(),
    "fomaml": Variant(second_order=False),
    "reptile": Variant(second_order=False),
    "anil": Variant(inner_prefix=HEAD),
    "meta-sgd": Variant(rates="element"),
    "maml++": Variant(rates="step", anneals=True),
}


@dataclass(frozen=True)
class Maml(InnerLoopLearner):
    """Gradient descent on the supports from a learned initialisation; ``VARIANTS`` lists what else is learned."""

    name = NAME
    variant: str = DEFAULT_VARIANT
    """maml (second order), fomaml (first order), reptile, anil (the head alone), meta-sgd (a rate for each element) or
    maml++ (a rate for each parameter tensor and step, a loss at every step at first)."""
    annealing_episodes: int = 500
    """maml++: number of episodes with first-order gradients, in which the weights of the steps' losses change from
    equal to the last step alone; 0 for neither. ``start.episodes`` counts the episodes: in ``meta_loss`` while the
    start is in training mode, and in the training loop those of all processes."""

    def __post_init__(self) -> None:
        _variant(self.variant)

    @property
    def inner_prefix(self) -> str:
        """Prefix of the names of the weights that the inner loop changes."""
        return VARIANTS[self.variant].inner_prefix

    def build_start(self, backbone: UNet) -> MamlStart:
        """Make the module that meta-training changes: ``backbone`` and the inner rates."""
        rates = VARIANTS[self.variant].rates
        return MamlStart(backbone, rates=rates, inner_steps=self.inner_steps, inner_rate=self.inner_rate)

    def initial_weights(self, start: MamlStart, classes: int, examples: Examples) -> Weights:
        """Return the start's weights with a head of ``classes`` outputs."""
        return start.weights(classes)

    def adapt(self, support: Support) -> NetworkSegmenter:
        """Adapt a copy of the start to ``support`` by the inner loop, then by fine-tuning."""
        segmenter = super().adapt(support)
        segmenter.record["variant"] = self.variant
        return segmenter

    @torch.enable_grad()  # the inner loop needs gradients in validation too
    def meta_loss(self, episode: Episode) -> Tensor:
        """Compute the loss on the query after ``inner_steps`` on the supports.

        For ``reptile`` the value is that loss and the gradient is ``theta - theta'``, see :meth:`_reptile_loss`.

        Returns:
            A scalar that is differentiable in the parameters of ``start``.

        Raises:
            InputError: There is no start, it lacks the rates that the variant learns, or the query has no label.
        """
        start, truth = self.meta_start(episode.support), episode.truth
        rates_for(self.variant, start.rate_kind)
        anneals = VARIANTS[self.variant].anneals and self.annealing_episodes != 0
        progress = min(1.0, int(start.episodes) / self.annealing_episodes) if anneals else 1.0
        if start.training:
            start.episodes += 1
        if self.variant == "reptile":
            return self._reptile_loss(start, episode, truth)
        second_order = VARIANTS[self.variant].second_order and progress >= 1
        path = self.inner_path(start, episode.support, second_order=second_order)
        losses = [
            share * dice_cross_entropy(forward(start.backbone, weights, episode.query.image), truth)
            for share, weights in zip(step_shares(len(path), progress), path, strict=True)
            if share > 0
        ]
        return torch.stack(losses).sum()

    def _reptile_loss(self, start: MamlStart, episode: Episode, truth: Tensor) -> Tensor:
        """Compute Reptile's loss; ``theta'`` results from descent on supports and queries in turn.

        The gradient of ``|theta - theta'|^2 / 2`` with ``theta'`` held constant is ``theta - theta'``. So plain descent
        at rate epsilon is the paper's ``theta + epsilon (theta' - theta)``. A head row that serves several structures
        gets the sum of their differences.
        """
        support = episode.support
        everything = Support((*support.images, *episode.query.image), (*support.labels, *truth), support.classes)
        initial = start.weights(support.classes)
        final = self.inner_path(start, everything, second_order=False)[-1]
        distance = torch.stack([(initial[n] - final[n].detach()).square().sum() / 2 for n in initial]).sum()
        with torch.no_grad():
            value = dice_cross_entropy(forward(start.backbone, final, episode.query.image), truth)
        return value + distance - distance.detach()


def rates_for(variant: str, given: RateKind | None = None) -> RateKind | None:
    """Return the kind of rates of a start for ``variant``: those that it learns, or ``given`` if it learns none.

    Raises:
        InputError: The variant learns rates of another kind than ``given``, or is unknown.
    """
    learned = _variant(variant).rates
    if learned == "fixed":
        return given
    if given not in (None, learned):
        raise InputError(
            f"variant {variant}: learns rates of the kind {learned}, its start has {given}", "give it those"
        )
    return learned


def _variant(name: str) -> Variant:
    if str(name) not in VARIANTS:
        raise InputError(f"variant {name}: unknown", f"choose {' or '.join(VARIANTS)}")
    return VARIANTS[name]


def step_shares(steps: int, progress: float) -> list[float]:
    """Return the weight of every step's query loss, with sum 1.

    At ``progress`` 0 all weights are equal; at 1 only the last step counts (MAML++).
    """
    early = (1 - progress) / steps
    return [early] * (steps - 1) + [1 - early * (steps - 1)]


def _start_options(learner_options: Mapping[str, Any], start_options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add the rates that the variant learns."""
    rates = rates_for(learner_options.get("variant", DEFAULT_VARIANT), start_options.get("rates"))
    return start_options if rates is None else {**start_options, "rates": rates}


SPEC = LearnerSpec(
    name=NAME,
    learner=Maml,
    summary="pre-trained to adapt in few steps (MAML, Reptile, ANIL, Meta-SGD, MAML++)",
    segmenter=NetworkSegmenter,
    build_start=MamlStart,
    start_options=MamlStart.OPTIONS,
    complete_start_options=_start_options,
    shared_settings={"variant": VARIANTS.__contains__, **SHARED_SETTINGS},
)
