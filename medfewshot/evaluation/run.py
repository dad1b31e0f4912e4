"""Evaluation of files, with one pair of label maps in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.evaluation.matching import Pair, some
from medfewshot.evaluation.results import Evaluation
from medfewshot.evaluation.scores import CaseScore, absent_score, evaluate_arrays, label_names
from medfewshot.io import check_same_grid, read_label
from medfewshot.metrics import DEFAULT_TOLERANCE_MM
from medfewshot.structures import boxes
from medfewshot.types import Progress, Volume


def evaluate_pairs(
    pairs: Sequence[Pair],
    *,
    labels: Mapping[int, str] | Sequence[int] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    subjects: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Score files label by label.

    Args:
        pairs: Case id, prediction and reference of each case.
        labels: Label values to score, with or without names. None: every value in any reference or prediction, so
            that a label that is predicted but never drawn counts as a false alarm.
        tolerance_mm: Tolerance of the surface Dice.
        subjects: Case id -> subject id for the bootstrap; None: every case is a subject.
        warnings: Warnings about the pairs, from :func:`match_cases`; they come first in the result's.
        progress: Called before each case and at the end.

    Raises:
        InputError: There are no pairs, or a case comes twice.
        GridMismatchError: The grids of a pair differ.
    """
    _check_pairs(pairs)
    progress, subjects_of, told = progress or Progress(), subjects or {}, list(warnings)
    scores: list[CaseScore] = []
    dims: dict[str, int] = {}
    without_spacing: list[str] = []
    for done, (case, predicted_path, reference_path) in enumerate(pairs):
        progress.update(done, len(pairs), case)
        prediction, reference = read_label(Path(predicted_path)), read_label(Path(reference_path))
        check_same_grid(prediction, reference)
        scores += evaluate_arrays(
            prediction.data[0], reference.data[0], reference.spacing_mm, labels=labels, case_id=case,
            subject_id=subjects_of.get(case), tolerance_mm=tolerance_mm,
        )  # fmt: skip
        dims[case] = reference.spatial_dims
        without_spacing += [] if reference.has_spacing else [case]
        told += _case_warnings(case, (prediction, reference), labels)
    progress.update(len(pairs), len(pairs), "evaluated")
    if labels is None:
        scores = _with_absent_rows(scores, dims, subjects_of)
    if not scores:
        told.append("nothing was scored: every label map is background only; pass labels to score correct absences")
    if without_spacing:
        told.append(
            f"{len(without_spacing)} of {len(dims)} references state no voxel size in mm: their distances, and the "
            f"tolerance of their surface Dice, are in pixels, not mm ({some(without_spacing)})"
        )
    unknown = [case for case in dims if subjects is not None and case not in subjects]
    if unknown:
        told.append(f"no subject is known for {some(unknown)}: each counts as a subject of its own")
    return Evaluation(tuple(scores), tuple(dict.fromkeys(told)), tolerance_mm)


def _check_pairs(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise InputError("nothing to evaluate: no pair of prediction and reference was given")
    seen: set[str] = set()
    for case, _, reference in pairs:
        if case in seen:
            raise InputError(f"case {case} comes twice, the second time with {reference}", "give each case once")
        seen.add(case)


def _with_absent_rows(
    scores: Sequence[CaseScore], dims: Mapping[str, int], subjects: Mapping[str, str]
) -> list[CaseScore]:
    """Add rows for the labels that a case lacks: all labels are known only after the last case."""
    by_key = {(score.case_id, score.label): score for score in scores}
    values = sorted({score.label for score in scores})
    return [
        by_key.get((case, value)) or absent_score(case, subjects.get(case, case), value, str(value), spatial_dims)
        for case, spatial_dims in dims.items()
        for value in values
    ]


def _case_warnings(case: str, volumes: Sequence[Volume], labels: Mapping[int, str] | Sequence[int] | None) -> list[str]:
    warnings = [f"{volume.name}: {warning}" for volume in volumes for warning in volume.warnings]
    if labels is None:
        return warnings
    others = sorted({value for volume in volumes for value in boxes(volume.data[0])} - label_names(labels).keys())
    told = f"case {case}: values {others} are in its files but not among the labels, and are not scored"
    return [*warnings, told] if others else warnings
