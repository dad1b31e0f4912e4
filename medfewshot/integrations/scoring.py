"""MONAI's loss and metric interfaces for the loss of the learners and the metrics of this package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric, do_metric_reduction
from monai.utils import MetricReduction
from torch import Tensor, nn

from medfewshot.errors import InputError
from medfewshot.integrations.episodes import plain
from medfewshot.learners.optimization import dice_cross_entropy
from medfewshot.metrics import METRICS
from medfewshot.types import IGNORED


class FewShotLoss(nn.Module):
    """Cross entropy plus (1 - Dice) over the classes present in the labels."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: ``(B, N + 1, *S)``, background first.
            labels: ``(B, 1, *S)`` or ``(B, *S)``, whole numbers 0..N; voxels of -1 do not count.

        Returns:
            A scalar.

        Raises:
            InputError: The shapes do not fit together, or a label is another number.
        """
        logits, labels = plain(logits), plain(labels)
        if labels.ndim == logits.ndim and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != (logits.shape[0], *logits.shape[2:]):
            raise InputError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit together")
        whole = labels.long()
        if bool(((whole != labels) | (whole < IGNORED) | (whole >= logits.shape[1])).any()):
            raise InputError(f"labels: not whole numbers from {IGNORED} to {logits.shape[1] - 1}", "give class numbers")
        return dice_cross_entropy(logits, whole)


class SegmentationMetric(CumulativeIterationMetric):
    """One of :data:`medfewshot.metrics.METRICS` per image and class, with this package's policy for empty masks.

    Called with one-hot masks ``y_pred`` and ``y (B, N + 1, *S)`` (or lists of ``(N + 1, *S)``), it returns ``(B, N)``
    float64. Distances are in mm: voxel sizes come from ``spacing_mm``, the affine of ``y`` or, if ``y`` has none,
    of ``y_pred``; else they are 1 mm. Unlike MONAI's ``DiceMetric``, a false alarm counts as 0 and is not dropped.

    Args:
        metric: A key of ``METRICS``: ``dice``, ``hd95_mm``, ``asd_mm``, ``surface_dice``, ``rvd``.
        include_background: Whether channel 0 is a class.
        reduction: As in MONAI. Means ignore NaN (a class in neither mask, or a distance to an empty one).
        get_not_nans: Whether :meth:`aggregate` also returns the number of values in each mean.

    Raises:
        InputError: The metric or a keyword is unknown, or the masks are not one-hot: 0 and 1, in each voxel 1 once.
    """

    def __init__(
        self,
        metric: str = "dice",
        include_background: bool = False,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__()
        if metric not in METRICS:
            raise InputError(f"metric {metric}: unknown", f"choose {', '.join(METRICS)}")
        self.metric, self.include_background = metric, include_background
        self.reduction, self.get_not_nans = reduction, get_not_nans

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        if unknown := sorted(kwargs.keys() - {"spacing_mm"}):
            raise InputError(f"{', '.join(unknown)}: unknown", "give the voxel size as spacing_mm")
        if y is None or y.shape != y_pred.shape:
            shapes = f"{tuple(y_pred.shape)} and {tuple(y.shape) if y is not None else None}"
            raise InputError(f"one-hot prediction and reference must have one shape, not {shapes}")
        first = 0 if self.include_background else 1
        masks = [plain(y_pred), plain(y)]
        if y.shape[1] <= first or not all((m == 1).sum(1).eq(1).all() and (m != 0).sum(1).eq(1).all() for m in masks):
            raise InputError("masks are not one-hot", "make them so with AsDiscrete(to_onehot=N + 1)")
        spacings = self._spacings(y if isinstance(y, MetaTensor) else y_pred, kwargs.get("spacing_mm"))
        predicted, true = (m[:, first:].cpu().numpy() > 0 for m in masks)
        function = METRICS[self.metric]
        rows = [
            [function(p, t, spacing) for p, t in zip(*pair, strict=True)]
            for *pair, spacing in zip(predicted, true, spacings, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.float64, device=y_pred.device)

    def aggregate(self, reduction: MetricReduction | str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the reduced metric, and with ``get_not_nans`` the number of its values.

        Raises:
            ValueError: Nothing was scored since the last reset.
        """
        data = self.get_buffer()
        if not isinstance(data, Tensor):
            raise ValueError("nothing was scored since the last reset")
        reduced, not_nans = do_metric_reduction(data, reduction or self.reduction)
        return (reduced, not_nans) if self.get_not_nans else reduced

    @staticmethod
    def _spacings(reference: Tensor, spacing_mm: Sequence[float] | None) -> list[tuple[float, ...]]:
        dims = reference.ndim - 2
        if spacing_mm is not None:
            return [tuple(float(s) for s in spacing_mm)] * len(reference)
        if not isinstance(reference, MetaTensor):
            return [(1.0,) * dims] * len(reference)
        affines = torch.as_tensor(reference.affine).reshape(-1, *reference.affine.shape[-2:])
        sizes = [tuple(math.sqrt(float(c @ c)) for c in affine[:-1, :dims].T) for affine in affines]
        return sizes if len(sizes) == len(reference) else sizes * len(reference)
