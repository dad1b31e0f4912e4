"""Comparison of two segmentations of the same scans: paired differences by structure, with tests and intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from medfewshot.agreement import NAN, Agreement, agreement, holm, signed_rank_p
from medfewshot.evaluation.results import Evaluation, bootstrap_interval, mean
from medfewshot.evaluation.scores import by_structure
from medfewshot.metrics import METRICS

MEASURES = ("dice", "hd95_mm")
"""Metrics that are compared; every comparison has the volume besides."""


@dataclass(frozen=True)
class Difference:
    """One measure of one structure in both results, over the scans in which both have it.

    Attributes:
        structure: Name.
        measure: ``dice`` or ``hd95_mm`` (each result against the reference), or ``volume_ml``.
        cases: Number of scans.
        first: Mean of the first result.
        second: Mean of the second result.
        difference: Mean of second minus first.
        ci_low: Lower end of its 95 % bootstrap interval over scans; NaN for one scan.
        ci_high: Upper end.
        higher: Scans in which the second result has the higher value.
        lower: Scans in which it has the lower value.
        p: Of the two-sided signed-rank test; NaN for one scan.
        p_holm: Corrected over all tests of the comparison.
        volumes: Limits of agreement and ICC of the volumes, of second minus first; undefined for other measures.
    """

    structure: str
    measure: str
    cases: int
    first: float
    second: float
    difference: float
    ci_low: float = NAN
    ci_high: float = NAN
    higher: int = 0
    lower: int = 0
    p: float = NAN
    p_holm: float = NAN
    volumes: Agreement = field(default_factory=Agreement)

    def row(self) -> dict[str, Any]:
        """Return the columns of ``comparison.csv``; None for an undefined value."""
        row = {
            "structure": self.structure, "measure": self.measure, "scans": self.cases, "first_mean": self.first,
            "second_mean": self.second, "difference": self.difference, "difference_ci_low": self.ci_low,
            "difference_ci_high": self.ci_high, "scans_higher": self.higher, "scans_lower": self.lower,
            "p": self.p, "p_holm": self.p_holm, "difference_percent": self.volumes.bias_percent,
            "limit_low": self.volumes.limit_low, "limit_high": self.volumes.limit_high, "icc": self.volumes.icc,
            "icc_low": self.volumes.icc_low, "icc_high": self.volumes.icc_high,
        }  # fmt: skip
        return {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}


@dataclass(frozen=True)
class Comparison:
    """Two results of the same scans.

    Args:
        direct: The second result scored against the first, so that its ``volume_ml`` is of the second.
        first: The first result against the reference; None without one.
        second: The second result against the reference.
        warnings: One line each.
    """

    direct: Evaluation
    first: Evaluation | None = None
    second: Evaluation | None = None
    warnings: tuple[str, ...] = ()

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """One per structure and measure, in the order of the structures."""
        rows = [*self._differences()]
        tested = [number for number, row in enumerate(rows) if not np.isnan(row.p)]
        corrected = dict(zip(tested, holm([rows[number].p for number in tested]), strict=True))
        return tuple(replace(row, p_holm=corrected.get(number, NAN)) for number, row in enumerate(rows))

    def _differences(self) -> list[Difference]:
        scored = [one for one in (self.direct, self.first, self.second) if one is not None]
        rows, subjects = [], {score.case_id: score.subject_id for one in scored for score in one.scores}
        for name, scores in by_structure(self.direct.scores).items():
            if self.first is not None and self.second is not None:
                mine, other = (by_structure(one.scores).get(name, []) for one in (self.first, self.second))
                for measure in MEASURES:
                    values = [{s.case_id: s.values[measure] for s in own} for own in (mine, other)]
                    rows += _difference(name, measure, *values, subjects=subjects)
            present = [score for score in scores if score.status != "absent"]
            volumes = {s.case_id: s.reference_volume_ml for s in present}, {s.case_id: s.volume_ml for s in present}
            rows += _difference(name, "volume_ml", *volumes, subjects=subjects)
        return rows

    def case_rows(self) -> list[dict[str, Any]]:
        """Return the rows of ``cases.csv``: one per scan and structure; None for an undefined value."""
        rows = []
        scored = [
            {(score.case_id, score.label_name): score for score in one.scores} if one is not None else {}
            for one in (self.first, self.second)
        ]
        for score in self.direct.scores:
            row: dict[str, Any] = {
                "case": score.case_id, "structure": score.label_name,
                "in_both": {"found": "both", "missed": "first only", "false_alarm": "second only"}.get(
                    score.status, "neither"
                ),
                "dice_between": score.values["dice"], "hd95_between_mm": score.values["hd95_mm"],
                "first_volume_ml": score.reference_volume_ml, "second_volume_ml": score.volume_ml,
                "volume_difference_ml": score.volume_ml - score.reference_volume_ml,
            }  # fmt: skip
            for measure in MEASURES if any(scored) else ():
                found = [own.get((score.case_id, score.label_name)) for own in scored]
                first, second = (NAN if one is None else one.values[measure] for one in found)
                row |= {f"first_{measure}": first, f"second_{measure}": second}
                row |= {f"{measure}_difference": second - first}
            rows.append({k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()})
        return rows

    @property
    def changes(self) -> dict[str, float]:
        """Scan -> how much it changed, the most first: change of the mean Dice, or 1 minus the Dice between both.

        Scans without any structure did not change.
        """
        scored = self.first is not None
        change: dict[str, list[float]] = defaultdict(list)
        for row in self.case_rows():
            dice = row["dice_difference"] if scored else row["dice_between"]
            change[row["case"]].append(NAN if dice is None else dice if scored else 1 - dice)
        found = {case: float(np.nan_to_num(mean(values))) for case, values in change.items()}
        return dict(sorted(found.items(), key=lambda item: (-abs(item[1]), item[0])))

    @property
    def identical(self) -> bool:
        """Whether both results are the same in every scan."""
        return all(score.values["dice"] == 1 or score.status == "absent" for score in self.direct.scores)


def measure_title(measure: str) -> str:
    """Return how people call a measure of :class:`Difference`, with its unit."""
    if measure in METRICS:
        return f"{METRICS[measure].title} {METRICS[measure].unit}".strip()
    return "volume ml"


def p_text(p: float) -> str:
    """Write a p-value with three decimals, or ``<0.001``."""
    return "–" if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _difference(
    name: str, measure: str, first: Mapping[str, float], second: Mapping[str, float], *, subjects: Mapping[str, str]
) -> list[Difference]:
    """Compare one measure, over the scans in which both values are defined; nothing if there is none.

    Of a film, or of several scans of one subject, the mean counts: they are not independent.
    """
    cases: dict[str, list[str]] = defaultdict(list)
    for case in first:
        if case in second and not np.isnan(first[case]) and not np.isnan(second[case]):
            cases[subjects[case]].append(case)
    if not cases:
        return []
    before, after = (np.array([np.mean([of[c] for c in own]) for own in cases.values()]) for of in (first, second))
    change = after - before
    low, high = bootstrap_interval(change.tolist(), list(cases))
    return [
        Difference(
            name, measure, len(cases), float(before.mean()), float(after.mean()), float(change.mean()), low, high,
            int((change > 0).sum()), int((change < 0).sum()), signed_rank_p(change.tolist()) if len(cases) > 1 else NAN,
            volumes=agreement(after.tolist(), before.tolist()) if measure == "volume_ml" else Agreement(),
        )
    ]  # fmt: skip
