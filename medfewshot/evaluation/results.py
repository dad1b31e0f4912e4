"""Results of an evaluation: means with bootstrap intervals over subjects, and the files that contain them.

No other module averages scores.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.agreement import Agreement, agreement
from medfewshot.data_dictionary import meaning_of, write_table
from medfewshot.errors import InputError
from medfewshot.evaluation.films import FilmScore
from medfewshot.evaluation.scores import CaseScore, by_structure, flat_row, mean
from medfewshot.io import write_text
from medfewshot.metrics import DEFAULT_TOLERANCE_MM, METRICS

RESAMPLES, SEED = 2000, 0
TABLES = ("scores.csv", "summary.csv", "summary.json")
DRAWN_AT_A_TIME = 1_000_000
"""Subjects: their numbers take 8 MB, and so do their values."""
ALL_LABELS = "all labels"
VOLUME_COLUMNS = {
    "bias": "volume_bias_ml",
    "bias_percent": "volume_bias_percent",
    "limit_low": "volume_limit_low_ml",
    "limit_high": "volume_limit_high_ml",
    "icc": "volume_icc",
    "icc_low": "volume_icc_low",
    "icc_high": "volume_icc_high",
}
"""Field of :class:`~medfewshot.agreement.Agreement` -> column of ``summary.csv``."""


@dataclass(frozen=True)
class LabelSummary:
    """One label over all cases, or all labels together: then a mean over the means of the cases.

    ``cases = found + missed + false_alarms + absent`` for one label; for all labels the four count pairs of case and
    label.

    Attributes:
        label: Label value; None for all labels together.
        means: Metric name -> mean over the cases in which it is defined. Dice and surface Dice count misses and false
            alarms as 0; distances are undefined there, and ``distances_left_out`` says how many are undefined.
        dice_ci_low: Lower end of the 95 % percentile bootstrap over subjects; NaN for fewer than two.
        dice_ci_high: Upper end.
        volumes: Agreement of predicted and reference volumes in ml, over the cases with the label in either; undefined
            in 2D and for all labels together.
    """

    label: int | None
    label_name: str
    cases: int
    subjects: int
    found: int
    missed: int
    false_alarms: int
    absent: int
    means: Mapping[str, float]
    dice_ci_low: float
    dice_ci_high: float
    dice_median: float
    distances_left_out: int
    volumes: Agreement

    @property
    def dice_mean(self) -> float:
        """The mean by which methods are compared."""
        return self.means["dice"]

    def row(self) -> dict[str, Any]:
        """Return the columns of ``summary.csv``, one ``<metric>_mean`` a metric; None for an undefined value."""
        row, of_volumes = flat_row(self, "means", "_mean"), flat_row(self.volumes, "")
        del row["volumes"]
        return row | {column: of_volumes[field] for field, column in VOLUME_COLUMNS.items()}


@dataclass(frozen=True)
class Evaluation:
    """Scores of all cases, with warnings for the reader.

    Attributes:
        scores: One per case and label.
        warnings: One line each.
        tolerance_mm: Tolerance of the surface Dice.
        films: Changes over time, one per film and label. The labelled frames of a film are cases in ``scores``.
        reviews: Case -> status of its review; the table of scores has a column for it if there is any.
    """

    scores: tuple[CaseScore, ...]
    warnings: tuple[str, ...] = ()
    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    films: tuple[FilmScore, ...] = ()
    reviews: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def summaries(self) -> tuple[LabelSummary, ...]:
        """One summary per label, the one of all labels last."""
        return summarize(self.scores)

    @property
    def volumes(self) -> dict[str, list[tuple[float, float]]]:
        """Structure -> (predicted, reference) volume in ml of each case in which either has it; empty in 2D."""
        groups = by_structure(self.scores)
        return {name: pairs for name, group in groups.items() if (pairs := _volume_pairs(group))}

    def score_rows(self) -> list[dict[str, Any]]:
        """Return one plain dict per case and label; None for an undefined value."""
        return [
            {
                **score.row(), "tolerance_mm": self.tolerance_mm,
                **({"review_status": self.reviews.get(score.case_id)} if self.reviews else {}),
            }
            for score in self.scores
        ]  # fmt: skip

    def summary_rows(self) -> list[dict[str, Any]]:
        """Return one plain dict per label, all labels together last (``label`` None); None for an undefined value."""
        return [{**summary.row(), "tolerance_mm": self.tolerance_mm} for summary in self.summaries]

    def write(self, folder: Path) -> None:
        """Write three files into ``folder``, and ``films.csv`` if there are films, each atomically.

        An undefined value is an empty cell, or null.

        Raises:
            InputError: A file of that name exists, and no evaluation wrote it.
        """
        folder = Path(folder)
        taken = [folder / name for name in TABLES if (folder / name).exists()]
        if taken and not has_scores(folder):
            raise InputError(f"{taken[0]}: exists already and is no result of an evaluation", "give another folder")
        rows = self.summary_rows()
        document = {
            "tolerance_mm": self.tolerance_mm,
            "bootstrap": {"over": "subjects", "interval": 0.95, "resamples": RESAMPLES, "seed": SEED},
            "meaning": self._meaning(),
            "labels": rows[:-1],
            "all_labels": rows[-1] if rows else None,
            "warnings": list(self.warnings),
        }
        write_table(folder / "scores.csv", self.score_rows())
        write_table(folder / "summary.csv", rows)
        if self.films:
            write_table(folder / "films.csv", [score.row() for score in self.films])
        write_text(folder / "summary.json", json.dumps(document, indent=2, allow_nan=False) + "\n")

    def _meaning(self) -> dict[str, str]:
        """Describe the columns, for a reader who opens the file a year later."""
        one_sided = "overlap metrics are 0 and counted, distances are undefined, left out and counted"
        return {
            "found": "in the reference and in the prediction",
            "missed": f"in the reference only: {one_sided}",
            "false_alarm": f"in the prediction only: {one_sided}",
            "absent": "in neither: part of no mean, counted in its own column",
            **{name: m.meaning.format(tolerance_mm=self.tolerance_mm) for name, m in METRICS.items()},
            **{column: meaning_of("summary.csv", column)[1] for column in VOLUME_COLUMNS.values()},
            "all labels": "mean over cases of the mean over the labels of a case",
        }


def has_scores(folder: Path) -> bool:
    """Return whether an evaluation wrote into ``folder``."""
    return all((folder / name).is_file() for name in ("scores.csv", "summary.json"))


def summarize(scores: Sequence[CaseScore]) -> tuple[LabelSummary, ...]:
    """Return one summary per label in order of first appearance, then one of all labels. Empty for no scores."""
    if not scores:
        return ()
    by_label: dict[int, list[CaseScore]] = defaultdict(list)
    for score in scores:
        by_label[score.label].append(score)
    labels = [_summary(label, group[0].label_name, group) for label, group in by_label.items()]
    return (*labels, _summary(None, ALL_LABELS, scores))


def case_means(scores: Iterable[CaseScore], metric: str = "dice") -> dict[tuple[str, str], float]:
    """Return (subject id, case id) -> mean over the labels in which a metric is defined, NaN if in none."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for score in scores:
        values[score.subject_id, score.case_id].append(score.values[metric])
    return {case: mean(found) for case, found in values.items()}


def bootstrap_interval(
    values: Sequence[float], subjects: Sequence[str], *, seed: int = SEED, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean, whole subjects resampled with replacement.

    Args:
        values: One value per scan.
        subjects: Whose scan it is: scans of one subject are not independent, so they are drawn together.
        seed: Of the draws.
        resamples: Number of draws.

    Returns:
        ``(NaN, NaN)`` for fewer than two subjects.

    References:
        Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    _, index = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
    count = np.bincount(index).astype(np.float64)
    if count.size < 2:
        return float("nan"), float("nan")
    total = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    rng, rows = np.random.default_rng(seed), max(1, DRAWN_AT_A_TIME // count.size)
    means = []
    for first in range(0, resamples, rows):
        drawn = rng.integers(0, count.size, (min(rows, resamples - first), count.size))
        means.append(total[drawn].sum(axis=1) / count[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _summary(label: int | None, name: str, scores: Sequence[CaseScore]) -> LabelSummary:
    """Average the scores within each case first, then over cases."""
    status = [score.status for score in scores]
    dices = {case: value for case, value in case_means(scores).items() if not np.isnan(value)}
    low, high = bootstrap_interval(list(dices.values()), [subject for subject, _ in dices])
    return LabelSummary(
        label=label,
        label_name=name,
        cases=len({score.case_id for score in scores}),
        subjects=len({score.subject_id for score in scores}),
        found=status.count("found"),
        missed=status.count("missed"),
        false_alarms=status.count("false_alarm"),
        absent=status.count("absent"),
        means={metric: mean(case_means(scores, metric).values()) for metric in scores[0].values},
        dice_ci_low=low,
        dice_ci_high=high,
        dice_median=float(np.median(list(dices.values()))) if dices else float("nan"),
        distances_left_out=status.count("missed") + status.count("false_alarm"),
        volumes=Agreement() if label is None else _volume_agreement(scores),
    )


def _volume_pairs(scores: Iterable[CaseScore]) -> list[tuple[float, float]]:
    """Return (predicted, reference) volume in ml of each case in which either has the structure; none in 2D."""
    present = (score for score in scores if score.status != "absent")
    volumes = ((score.volume_ml, score.reference_volume_ml) for score in present)
    return [pair for pair in volumes if not np.isnan(pair).any()]


def _volume_agreement(scores: Iterable[CaseScore]) -> Agreement:
    pairs = _volume_pairs(scores)
    return agreement([found for found, _ in pairs], [true for _, true in pairs])
