"""Scores of one case: compare two label maps and return one ``CaseScore`` per label."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medfewshot.metrics import DEFAULT_TOLERANCE_MM, METRICS, MaskPair, check_label_maps
from medfewshot.structures import boxes, union_box
from medfewshot.types import IGNORED

Status = Literal["found", "missed", "false_alarm", "absent"]
NAN = float("nan")


@dataclass(frozen=True)
class CaseScore:
    """Scores of one label in one case.

    Attributes:
        status: ``found`` (in reference and prediction, overlapping or not), ``missed`` (reference only),
            ``false_alarm`` (prediction only), ``absent`` (neither).
        values: Metric name -> value; NaN if undefined, as ``medfewshot.metrics`` states.
        volume_ml: Volume of the prediction; NaN in 2D.
        reference_volume_ml: Volume of the reference; NaN in 2D.
    """

    case_id: str
    subject_id: str
    label: int
    label_name: str
    status: Status
    values: Mapping[str, float]
    volume_ml: float = 0.0
    reference_volume_ml: float = 0.0

    @property
    def dice(self) -> float:
        """The score by which cases are ranked."""
        return self.values["dice"]

    def row(self) -> dict[str, Any]:
        """Return the columns of ``scores.csv``; None for an undefined value."""
        return flat_row(self, "values")

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> CaseScore:
        """Read a row of ``scores.csv``; an empty cell is NaN, and other columns are ignored.

        Raises:
            KeyError, ValueError: A column is missing or is not a number.
        """
        return cls(
            case_id=row["case_id"],
            subject_id=row["subject_id"],
            label=int(row["label"]),
            label_name=row["label_name"],
            status=row["status"],  # type: ignore[arg-type]
            values={name: float(row[name] or NAN) for name in METRICS},
            volume_ml=float(row["volume_ml"] or NAN),
            reference_volume_ml=float(row["reference_volume_ml"] or NAN),
        )


def evaluate_arrays(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    labels: Mapping[int, str] | Sequence[int] | None = None,
    case_id: str = "",
    subject_id: str | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> list[CaseScore]:
    """Score every label of one case, in the order of ``labels``.

    Args:
        prediction: Label map ``(*S)`` of integers, 2D or 3D; 0 is background and never scored.
        reference: Label map of the same shape; voxels that are :data:`~medfewshot.types.IGNORED` are not scored, and
            distances are then undefined.
        spacing_mm: ``(D,)``.
        labels: Label values with or without names; other values are ignored. None: every value in either map.
        case_id: Name of the case.
        subject_id: Whose scan it is; None: every case is a subject.
        tolerance_mm: Tolerance of the surface Dice.

    Raises:
        InputError: The arrays or the spacing do not fit together.
    """
    prediction, reference = check_label_maps(prediction, reference, spacing_mm)
    ignored = reference == IGNORED
    metrics = METRICS
    if ignored.any():
        prediction, reference = (np.where(ignored, 0, labels) for labels in (prediction, reference))
        metrics = {key: metric for key, metric in METRICS.items() if not metric.needs_distances}
    predicted, true = boxes(prediction), boxes(reference)
    names = label_names(sorted(predicted.keys() | true.keys()) if labels is None else labels)
    subject = case_id if subject_id is None else subject_id
    scores = []
    for label, name in names.items():
        box = union_box(predicted.get(label), true.get(label))
        if box is None:
            scores.append(absent_score(case_id, subject, label, name, reference.ndim))
            continue
        pair = MaskPair(prediction, reference, spacing_mm, value=label, box=box, tolerance_mm=tolerance_mm)
        missed: Status = "missed" if label in true else "false_alarm"
        status: Status = "found" if label in true and label in predicted else missed
        values = {key: float(metrics[key].function(pair)) if key in metrics else NAN for key in METRICS}
        volumes = (
            np.count_nonzero(mask) * float(np.prod(spacing_mm)) / 1000 if mask.ndim == 3 else NAN
            for mask in pair.inside
        )
        scores.append(CaseScore(case_id, subject, label, name, status, values, *volumes))
    return scores


def absent_score(case_id: str, subject_id: str, label: int, name: str, spatial_dims: int) -> CaseScore:
    """Return the row of a label that is rightly in neither map."""
    volume = 0.0 if spatial_dims == 3 else NAN
    return CaseScore(case_id, subject_id, label, name, "absent", dict.fromkeys(METRICS, NAN), volume, volume)


def label_names(labels: Mapping[int, str] | Sequence[int]) -> dict[int, str]:
    """Return label value -> name without background; a label without a name is called by its value."""
    named = labels if isinstance(labels, Mapping) else {value: str(value) for value in labels}
    return {int(value): str(name) for value, name in named.items() if int(value) != 0}


def by_structure(scores: Iterable[CaseScore]) -> dict[str, list[CaseScore]]:
    """Return the scores of each structure, by its name."""
    groups: dict[str, list[CaseScore]] = defaultdict(list)
    for score in scores:
        groups[score.label_name].append(score)
    return groups


def mean(values: Iterable[float]) -> float:
    """Return the mean of the defined values, NaN if there is none; state the number of undefined values beside it."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else NAN


def flat_row(record: object, metrics: str, suffix: str = "") -> dict[str, Any]:
    """Return the fields of a record, one column for each metric in the field called ``metrics``.

    NaN and infinity become None, because strict JSON cannot hold them.
    """
    row: dict[str, Any] = {}
    for name, value in vars(record).items():
        row |= {f"{metric}{suffix}": one for metric, one in value.items()} if name == metrics else {name: value}
    return {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in row.items()}
