"""Evaluation of files, with one pair of label maps in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medfewshot.errors import InputError
from medfewshot.evaluation.matching import match_cases
from medfewshot.evaluation.results import Evaluation
from medfewshot.evaluation.scores import CaseScore, absent_score, evaluate_arrays, label_names
from medfewshot.io import check_same_grid, read_label
from medfewshot.metrics import DEFAULT_TOLERANCE_MM, METRICS, Metric
from medfewshot.structures import boxes
from medfewshot.types import Progress, Volume

_SHOWN = 5


def evaluate_folders(
    predictions: Path,
    reference: Path,
    *,
    labels: Mapping[int, str] | Sequence[int] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    subjects: Mapping[str, str] | None = None,
    seed: int = 0,
    metrics: Mapping[str, Metric] = METRICS,
    progress: Progress | None = None,
) -> Evaluation:
    """Score what :func:`match_cases` pairs with :func:`evaluate_pairs`; warn about files without a counterpart."""
    matched = match_cases(predictions, reference)
    evaluation = evaluate_pairs(
        matched.pairs, labels=labels, tolerance_mm=tolerance_mm, subjects=subjects, seed=seed, metrics=metrics,
        progress=progress,
    )  # fmt: skip
    return replace(evaluation, warnings=matched.warnings + evaluation.warnings)


def evaluate_pairs(
    pairs: Sequence[tuple[str, Path, Path]],
    *,
    labels: Mapping[int, str] | Sequence[int] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    subjects: Mapping[str, str] | None = None,
    seed: int = 0,
    metrics: Mapping[str, Metric] = METRICS,
    progress: Progress | None = None,
) -> Evaluation:
    """Score files label by label.

    Args:
        pairs: Case id, prediction and reference of each case.
        labels: Label values to score, with or without names. None: every value in any reference or prediction, so
            that a label that is predicted but never drawn counts as a false alarm.
        tolerance_mm: Tolerance of the surface Dice.
        subjects: Case id -> subject id for the bootstrap; None: every case is a subject.
        seed: Seed of the bootstrap.
        metrics: What to compute.
        progress: Called before each case and at the end.

    Raises:
        InputError: There are no pairs, or a case comes twice.
        GridMismatchError: The grids of a pair differ.
    """
    _check_pairs(pairs)
    progress = progress or Progress()
    scores: list[CaseScore] = []
    dims: dict[str, int] = {}
    without_spacing: list[str] = []
    warnings: list[str] = []
    for done, (case, predicted_path, reference_path) in enumerate(pairs):
        progress.update(done, len(pairs), case)
        prediction, reference = read_label(Path(predicted_path)), read_label(Path(reference_path))
        check_same_grid(prediction, reference)
        scores += evaluate_arrays(
            prediction.data[0], reference.data[0], reference.spacing_mm, labels=labels, case_id=case,
            subject_id=(subjects or {}).get(case), tolerance_mm=tolerance_mm, metrics=metrics,
        )  # fmt: skip
        dims[case] = reference.spatial_dims
        without_spacing += [] if reference.has_spacing else [case]
        warnings += _case_warnings(case, (prediction, reference), label_names(labels) if labels is not None else None)
    progress.update(len(pairs), len(pairs), "evaluated")
    if labels is None:
        scores = _with_absent_rows(scores, dims, subjects or {}, metrics)
    if not scores:
        warnings.append("nothing was scored: every label map is background only; pass labels to score correct absences")
    warnings += _run_warnings(without_spacing, dims, subjects)
    return Evaluation(tuple(scores), tuple(dict.fromkeys(warnings)), tolerance_mm, seed, metrics)


def _check_pairs(pairs: Sequence[tuple[str, Path, Path]]) -> None:
    if not pairs:
        raise InputError("nothing to evaluate: no pair of prediction and reference was given")
    seen: set[str] = set()
    for case, _, reference in pairs:
        if case in seen:
            raise InputError(f"case {case} comes twice, the second time with {reference}", "give each case once")
        seen.add(case)


def _with_absent_rows(
    scores: Sequence[CaseScore], dims: Mapping[str, int], subjects: Mapping[str, str], metrics: Mapping[str, Metric]
) -> list[CaseScore]:
    """Add rows for the labels that a case lacks: all labels are known only after the last case."""
    by_key = {(score.case_id, score.label): score for score in scores}
    values = sorted({score.label for score in scores})
    return [
        by_key.get((case, value))
        or absent_score(case, subjects.get(case, case), value, str(value), spatial_dims, metrics)
        for case, spatial_dims in dims.items()
        for value in values
    ]


def _case_warnings(case: str, volumes: Sequence[Volume], labels: Mapping[int, str] | None) -> list[str]:
    warnings = [f"{volume.name}: {warning}" for volume in volumes for warning in volume.warnings]
    if labels is not None:
        others = sorted({value for volume in volumes for value in boxes(volume.data[0])} - set(labels))
        if others:
            warnings.append(
                f"case {case}: values {others} are in its files but not among the labels, and are not scored"
            )
    return warnings


def _run_warnings(
    without_spacing: Sequence[str], cases: Collection[str], subjects: Mapping[str, str] | None
) -> list[str]:
    warnings = []
    if without_spacing:
        warnings.append(
            f"{len(without_spacing)} of {len(cases)} references state no voxel size in mm: their distances, and the "
            f"tolerance of their surface Dice, are in pixels, not mm ({_some(without_spacing)})"
        )
    unknown = [case for case in cases if subjects is not None and case not in subjects]
    if unknown:
        warnings.append(f"no subject is known for {_some(unknown)}: each counts as a subject of its own")
    return warnings


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
