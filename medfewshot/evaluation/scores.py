"""One case: two label maps in, one ``CaseScore`` per label out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from medfewshot.errors import InputError
from medfewshot.metrics import (
    DEFAULT_TOLERANCE_MM,
    METRICS,
    check_spacing,
    dice,
    relative_volume_difference,
    surface_distances,
    volume_ml,
)
from medfewshot.structures import boxes, union

Status = Literal["found", "missed", "false_alarm", "absent"]
NAN = float("nan")

# The metrics that have a field of their own in CaseScore; whatever else stands in METRICS goes into `extra`.
BUILT_IN = ("dice", "hd95_mm", "asd_mm", "surface_dice", "rvd")


@dataclass(frozen=True)
class CaseScore:
    """The scores of one label in one case; NaN = undefined, as ``medfewshot.metrics`` states.

    ``status``: ``found`` (in reference and prediction, overlapping or not), ``missed`` (reference only),
    ``false_alarm`` (prediction only), ``absent`` (neither). ``rvd``: relative volume difference. ``extra``: metrics
    added to ``METRICS``.
    """

    case_id: str
    subject_id: str
    label: int
    label_name: str
    status: Status
    dice: float = NAN
    hd95_mm: float = NAN
    asd_mm: float = NAN
    surface_dice: float = NAN
    rvd: float = NAN
    volume_ml: float = 0.0
    reference_volume_ml: float = 0.0
    extra: Mapping[str, float] = field(default_factory=dict)


def evaluate_arrays(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    labels: Mapping[int, str] | Sequence[int] | None = None,
    case_id: str = "",
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    subject_id: str | None = None,
) -> list[CaseScore]:
    """Scores of every label of one case, in the order of ``labels``.

    ``prediction (*S)`` and ``reference (*S)`` are integer label maps in 2D or 3D; 0 is background and never scored.
    ``labels`` names what to score and leaves out the rest; None means every value in either map. ``tolerance_mm`` is
    that of the surface Dice. ``subject_id`` defaults to ``case_id``. Raises ``InputError`` for arrays or a spacing that
    do not fit.
    """
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    _check_label_maps(prediction, reference)
    check_spacing(spacing_mm, reference.ndim)
    predicted, true = boxes(prediction), boxes(reference)
    names = label_names(sorted(predicted.keys() | true.keys()) if labels is None else labels)
    subject = case_id if subject_id is None else subject_id
    scores = []
    for label, name in names.items():
        box = union(predicted.get(label), true.get(label))
        if box is None:
            scores.append(absent_score(case_id, subject, label, name, reference.ndim))
            continue
        masks = prediction[box] == label, reference[box] == label
        values = _compare(*masks, spacing_mm, tolerance_mm)
        extra = _extra_metrics(prediction, reference, label, spacing_mm)
        status = _status(label in predicted, label in true)
        scores.append(CaseScore(case_id, subject, label, name, status, **values, extra=extra))
    return scores


def absent_score(case_id: str, subject_id: str, label: int, name: str, spatial_dims: int) -> CaseScore:
    """The row of a label that is rightly in neither map."""
    volume = 0.0 if spatial_dims == 3 else NAN
    return CaseScore(case_id, subject_id, label, name, "absent", volume_ml=volume, reference_volume_ml=volume)


def label_names(labels: Mapping[int, str] | Sequence[int]) -> dict[int, str]:
    """Label value -> name, background left out; a label without a name is called by its value."""
    named = labels if isinstance(labels, Mapping) else {value: str(value) for value in labels}
    return {int(value): str(name) for value, name in named.items() if int(value) != 0}


def _check_label_maps(prediction: np.ndarray, reference: np.ndarray) -> None:
    if prediction.shape != reference.shape:
        raise InputError(f"prediction {prediction.shape} and reference {reference.shape} differ in shape")
    if reference.ndim not in (2, 3):
        raise InputError(f"label maps must be 2D or 3D, got shape {reference.shape}")
    for name, labels in (("prediction", prediction), ("reference", reference)):
        if labels.dtype.kind not in "bui":
            raise InputError(f"the {name} has dtype {labels.dtype}; label maps hold integers, 0 = background")


def _status(predicted: bool, true: bool) -> Status:
    if predicted and true:
        return "found"
    return "missed" if true else "false_alarm"


def _compare(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], tolerance_mm: float
) -> dict[str, float]:
    distances = surface_distances(prediction, reference, spacing_mm)
    return {
        "dice": dice(prediction, reference, spacing_mm),
        "hd95_mm": distances.hd95_mm,
        "asd_mm": distances.average_mm,
        "surface_dice": distances.surface_dice(tolerance_mm),
        "rvd": relative_volume_difference(prediction, reference, spacing_mm),
        "volume_ml": volume_ml(prediction, spacing_mm),
        "reference_volume_ml": volume_ml(reference, spacing_mm),
    }


def _extra_metrics(
    prediction: np.ndarray, reference: np.ndarray, label: int, spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Metrics added to ``METRICS``, on the whole masks: a specificity, say, depends on the field of view."""
    added = {name: metric for name, metric in METRICS.items() if name not in BUILT_IN}
    if not added:
        return {}
    masks = prediction == label, reference == label
    return {name: float(metric(*masks, spacing_mm)) for name, metric in added.items()}
