"""Ridge regression as the head: a linear problem on the backbone's features, solved exactly for each task.

Meta-training differentiates through the solution, so features, regularisation and output scale are learned for it. The
primal problem has D + 1 unknowns, far fewer than voxels. Classes are weighted by a learned power of their frequency,
because neither equal voxels nor equal classes suit a structure that fills a hundredth of the scan.

References:
    Bertinetto et al. 2019, "Meta-learning with differentiable closed-form solvers" (R2-D2).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from medfewshot.backbones import UNet
from medfewshot.errors import InputError
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
from medfewshot.learners.prototype_head import ABSENT
from medfewshot.types import Episode, Support

NAME = "ridge"
START_OPTIONS = {"regularisation": 1e-2, "scale": 10.0, "frequency_power": 0.5, "background": 0.0}


def normal_equations(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum ``x x.T`` by class, where ``x`` is a voxel's features and a 1.

    The sums add up over patches, so memory does not grow with the number of supports. The last column of each contains
    the sum of the features and the number of voxels.

    Args:
        features: ``(B, D, *F)``.
        labels: ``(B, *F)``.
        classes: N + 1.

    Returns:
        Sums ``(N + 1, D + 1, D + 1)``, float64; float32 on devices without float64.
    """
    rows = features.movedim(1, -1).flatten(0, -2)
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    where = labels.flatten()
    exact = torch.float32 if features.device.type == "mps" else torch.float64
    sums = []
    for index in range(classes):
        mine = rows[where == index]
        sums.append(torch.einsum("nd,ne->de", mine, mine).to(exact))
    return torch.stack(sums)


class RidgeHead(nn.Module):
    """The meta-parameters of the solver, as logarithms if they must stay positive."""

    def __init__(
        self, regularisation: float = 1e-2, scale: float = 10.0, frequency_power: float = 0.5, background: float = 0.0
    ) -> None:
        """Store the positive parameters as logarithms, so that training keeps them positive.

        Args:
            regularisation: Weight of the squared coefficients, above 0.
            scale: Factor of the logits, above 0.
            frequency_power: In (0, 1). 0 gives every class the same weight, 1 gives every voxel the same weight, 0.5
                weighs a class by the square root of its frequency.
            background: Added to the background's logit.

        Raises:
            InputError: A value is out of range.
        """
        super().__init__()
        if min(regularisation, scale) <= 0 or not 0 < frequency_power < 1:
            raise InputError(
                f"regularisation {regularisation}, scale {scale}, frequency power {frequency_power}: the first two "
                "must be above 0, the third between 0 and 1"
            )
        self.log_regularisation = nn.Parameter(torch.tensor(math.log(regularisation)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.power_logit = nn.Parameter(torch.tensor(math.log(frequency_power / (1 - frequency_power))))
        self.background = nn.Parameter(torch.tensor(float(background)))

    def forward(self, sums: Tensor) -> Tensor:
        """Solve for the coefficients ``(N + 1, D + 1)`` float32 of the features and a 1.

        A class without voxels in ``sums`` (see :func:`normal_equations`) gets zeros and a constant of -1e4.
        """
        counts = sums[:, -1, -1]
        solution = solve_ridge(sums, self.log_regularisation.exp(), self.power_logit.sigmoid())
        scaled = self.log_scale.exp() * solution.to(self.log_scale)
        offset = scaled.new_zeros(scaled.shape)
        offset[0, -1] = 1
        absent = (counts == 0).to(scaled)[:, None] * _last_column(scaled)
        return scaled + offset * self.background + ABSENT * absent


def solve_ridge(sums: Tensor, regularisation: Tensor, power: Tensor) -> Tensor:
    """Solve the weighted ridge regression of one-hot labels by Cholesky; differentiable in all three arguments.

    Minimises ``sum_i w_i |W x_i - y_i|^2 + regularisation |W|^2`` without a penalty on the constant's column of ``W``.
    A voxel of a class of ``n`` voxels has ``w_i = n^power / n / (sum over classes of n^power)``. The weights of all
    voxels add up to 1, so the regularisation does not depend on their number.

    Args:
        sums: ``(N + 1, D + 1, D + 1)`` of :func:`normal_equations`.
        regularisation: Scalar above 0.
        power: Scalar in (0, 1).

    Returns:
        ``W (N + 1, D + 1)``.
    """
    counts = sums[:, -1, -1]
    present = counts > 0
    safe = torch.where(present, counts, 1)
    share = torch.where(present, safe.pow(power.to(sums)), 0)
    weights = share / share.sum() / safe
    penalty = regularisation.to(sums) * (1 - _last_column(sums[0])[0])
    gram = torch.einsum("c,cde->de", weights, sums) + torch.diag(penalty)
    targets = weights[:, None] * sums[:, :, -1]  # (N + 1, D + 1): the sum of w x y
    return torch.cholesky_solve(targets.T, torch.linalg.cholesky(gram)).T


def _last_column(like: Tensor) -> Tensor:
    """Return ``(R, C)`` zeros with ones in the last column."""
    mask = torch.zeros_like(like)
    mask[:, -1] = 1
    return mask


def linear_logits(features: Tensor, coefficients: Tensor) -> Tensor:
    """Compute logits ``(B, N + 1, *F)`` of ``features (B, D, *F)`` by ``coefficients (N + 1, D + 1)``."""
    constant = coefficients[:, -1].view(1, -1, *[1] * (features.ndim - 2))
    return torch.einsum("bd...,cd->bc...", features, coefficients[:, :-1]) + constant


def build_start(backbone: UNet, **options: Any) -> HeadStart:
    """Build a start from a copy of ``backbone`` with a frozen last layer and a new head.

    Args:
        backbone: The feature network.
        options: ``regularisation``, ``scale``, ``frequency_power`` and ``background`` of :class:`RidgeHead`.
    """
    return start_with_head(backbone, RidgeHead(**options))


class RidgeSegmenter(Segmenter):
    """Segments by logits that are linear in the features.

    Args:
        network: The feature network.
        coefficients: ``(N + 1, D + 1)`` float32; the last column is constant.
        record: What adaptation reports.
    """

    kind = NAME
    parts: ClassVar = {"network": UNet}
    coefficients: Tensor

    def __init__(
        self, network: UNet, coefficients: Tensor = NOT_LOADED, record: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(record)
        self.network = network.eval()
        # A contiguous copy: products of transposed tensors are rounded differently.
        self.register_buffer("coefficients", coefficients.clone(memory_format=torch.contiguous_format))

    def predict(self, image: Tensor) -> Tensor:
        """Compute logits ``(1, N + 1, *S)`` of an image ``(1, C, *S)``."""
        logits = linear_logits(voxel_features(self.network, image), self.coefficients)
        return to_voxels(logits, self.network.fold, image.shape[2:])


@dataclass(frozen=True)
class Ridge(TrainedOptions):
    """A ridge-regression head on a backbone's features.

    Features and solver come from ``start`` if weights are given. Otherwise the features are trained on the supports for
    ``steps``, and the solver uses the numbers below.
    """

    steps: int = 200
    regularisation: float = 1e-2
    """Weight of the squared coefficients. This and the next two are for a new head; a start has its own."""
    scale: float = 10.0
    """Logits per unit of the regression, whose targets are 0 and 1."""
    frequency_power: float = 0.5
    """The weight of a class is this power of its number of voxels."""

    def adapt(self, support: Support) -> RidgeSegmenter:
        """Adapt features, then solve for the head over patches of every support.

        Raises:
            InputError: The start does not fit the supports, or there are neither start nor steps.
        """
        network, record = adapted_features(self, support, NAME)
        generator = torch.Generator().manual_seed(self.seed)
        pairs = support_features(network, support, generator)
        sums: Any = sum(normal_equations(features, labels, support.classes) for features, labels in pairs)
        own = matching_start(self.start, RidgeHead)
        new = RidgeHead(self.regularisation, self.scale, self.frequency_power)
        head = (new if own is None else copy.deepcopy(own.head)).to(self.device)
        with torch.no_grad():
            coefficients = head(sums)
        return RidgeSegmenter(network, coefficients, record)

    def meta_loss(self, episode: Episode) -> Tensor:
        """Compute the loss on the query with the head solved on the support.

        Raises:
            InputError: ``start`` is not from :func:`build_start`.
        """
        start = matching_start(self.start, RidgeHead)
        if start is None:
            raise missing_start_error(NAME)
        support, labels, query = episode_features(start.backbone, episode)
        coefficients = start.head(normal_equations(support, labels, episode.support.classes))
        truth = episode.truth
        logits = to_voxels(linear_logits(query, coefficients), start.backbone.fold, truth.shape[1:])
        return dice_cross_entropy(logits, truth)


SPEC = LearnerSpec(
    name=NAME,
    learner=Ridge,
    summary="ridge regression from features to structures",
    segmenter=RidgeSegmenter,
    build_start=build_start,
    start_options=START_OPTIONS,
    convert_start=unet_of_start,
)
