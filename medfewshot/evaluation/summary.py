"""From one row per case and label to one row per label: counts, means, and a bootstrap interval over subjects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from medfewshot.evaluation.scores import CaseScore

RESAMPLES = 2000
ALL_LABELS = "all labels"


@dataclass(frozen=True)
class LabelSummary:
    """One label over all cases, or all labels together (``label`` None): then a mean over the per-case means.

    ``cases = found + missed + false_alarms + absent`` for one label; for all labels the four count case-label pairs.
    ``dice_*`` and ``surface_dice_mean`` count misses and false alarms as 0; ``hd95_mm_mean`` and ``asd_mm_mean`` run
    over found structures and ``distances_left_out`` says how many they leave out; ``rvd_mean`` runs over found and
    missed. ``dice_ci_low`` and ``dice_ci_high``: 95 % percentile bootstrap over subjects, NaN for fewer than two.
    """

    label: int | None
    label_name: str
    cases: int
    subjects: int
    found: int
    missed: int
    false_alarms: int
    absent: int
    dice_mean: float
    dice_ci_low: float
    dice_ci_high: float
    dice_median: float
    surface_dice_mean: float
    hd95_mm_mean: float
    asd_mm_mean: float
    distances_left_out: int
    rvd_mean: float
    extra: Mapping[str, float] = field(default_factory=dict)


def summarize(scores: Sequence[CaseScore], seed: int = 0, resamples: int = RESAMPLES) -> tuple[LabelSummary, ...]:
    """One summary per label in order of first appearance, then one of all labels. Empty for no scores."""
    if not scores:
        return ()
    by_label = _grouped(scores, "label")
    rows = [
        _summary(label, group[0].label_name, [[score] for score in group], seed, resamples)
        for label, group in by_label.items()
    ]
    by_case = list(_grouped(scores, "case_id").values())
    return (*rows, _summary(None, ALL_LABELS, by_case, seed, resamples))


def bootstrap_interval(
    values: Sequence[float], subjects: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of ``values``, whole subjects resampled with replacement.

    ``values`` and ``subjects`` run in parallel: scans of one subject are not independent, so they are drawn together.
    ``(NaN, NaN)`` for fewer than two subjects. Source: Efron and Tibshirani 1993, chapter 13.
    """
    _, index = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    count = np.bincount(index).astype(np.float64)
    if count.size < 2:
        return float("nan"), float("nan")
    total = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.integers(0, count.size, count.size)
        means[i] = total[drawn].sum() / count[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _summary(
    label: int | None, name: str, cases: Sequence[Sequence[CaseScore]], seed: int, resamples: int
) -> LabelSummary:
    """``cases``: the scores of each case, which are averaged within the case before anything else."""
    scores = [score for case in cases for score in case]
    status = [score.status for score in scores]
    dices = [(case[0].subject_id, _mean(score.dice for score in case)) for case in cases]
    counted = [(subject, value) for subject, value in dices if not np.isnan(value)]
    values = [value for _, value in counted]
    low, high = bootstrap_interval(values, [subject for subject, _ in counted], seed, resamples)
    return LabelSummary(
        label=label,
        label_name=name,
        cases=len(cases),
        subjects=len({score.subject_id for score in scores}),
        found=status.count("found"),
        missed=status.count("missed"),
        false_alarms=status.count("false_alarm"),
        absent=status.count("absent"),
        dice_mean=_mean(values),
        dice_ci_low=low,
        dice_ci_high=high,
        dice_median=float(np.median(values)) if values else float("nan"),
        surface_dice_mean=_mean_of_cases(cases, "surface_dice"),
        hd95_mm_mean=_mean_of_cases(cases, "hd95_mm"),
        asd_mm_mean=_mean_of_cases(cases, "asd_mm"),
        distances_left_out=status.count("missed") + status.count("false_alarm"),
        rvd_mean=_mean_of_cases(cases, "rvd"),
        extra={name: _mean_of_extra(cases, name) for name in extra_names(scores)},
    )


def extra_names(scores: Iterable[CaseScore]) -> tuple[str, ...]:
    """Names of the metrics beyond the built-in ones, in order of first appearance."""
    return tuple(dict.fromkeys(name for score in scores for name in score.extra))


def _mean_of_cases(cases: Sequence[Sequence[CaseScore]], column: str) -> float:
    return _mean(_mean(getattr(score, column) for score in case) for case in cases)


def _mean_of_extra(cases: Sequence[Sequence[CaseScore]], name: str) -> float:
    return _mean(_mean(score.extra.get(name, np.nan) for score in case) for case in cases)


def _mean(values: Iterable[float]) -> float:
    """Mean of the defined values, NaN if there is none. Every caller counts what is left out in a column beside it."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _grouped(scores: Sequence[CaseScore], key: str) -> dict:
    groups: dict = defaultdict(list)
    for score in scores:
        groups[getattr(score, key)].append(score)
    return dict(groups)
