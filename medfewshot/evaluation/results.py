"""The result of an evaluation and its three files: ``scores.csv``, ``summary.csv``, ``summary.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from medfewshot.evaluation.scores import CaseScore
from medfewshot.evaluation.summary import RESAMPLES, LabelSummary, summarize
from medfewshot.io import write_csv, write_text
from medfewshot.metrics import DEFAULT_TOLERANCE_MM, METRICS, Metric


@dataclass(frozen=True)
class Evaluation:
    """Scores of all cases, and what the reader must know about them.

    Attributes:
        scores: One per case and label.
        warnings: One line each.
        tolerance_mm: Tolerance of the surface Dice.
        seed: Seed of the bootstrap.
        metrics: The metrics that were computed.
    """

    scores: tuple[CaseScore, ...]
    warnings: tuple[str, ...] = ()
    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    seed: int = 0
    metrics: Mapping[str, Metric] = field(default_factory=lambda: METRICS)

    @cached_property
    def summaries(self) -> tuple[LabelSummary, ...]:
        """One summary per label, the one of all labels last."""
        return summarize(self.scores, seed=self.seed)

    def score_rows(self) -> list[dict[str, Any]]:
        """Return one plain dict per case and label; None for an undefined value."""
        return [{**score.row(), "tolerance_mm": self.tolerance_mm} for score in self.scores]

    def summary_rows(self) -> list[dict[str, Any]]:
        """Return one plain dict per label, that of all labels last (``label`` None); None for an undefined value."""
        return [{**summary.row(), "tolerance_mm": self.tolerance_mm} for summary in self.summaries]

    def write(self, folder: Path) -> None:
        """Write the three files into ``folder``, each atomically; an undefined value is an empty cell, or null."""
        folder = Path(folder)
        rows = self.summary_rows()
        document = {
            "tolerance_mm": self.tolerance_mm,
            "bootstrap": {"over": "subjects", "interval": 0.95, "resamples": RESAMPLES, "seed": self.seed},
            "meaning": self._meaning(),
            "labels": rows[:-1],
            "all_labels": rows[-1] if rows else None,
            "warnings": list(self.warnings),
        }
        write_csv(folder / "scores.csv", self.score_rows())
        write_csv(folder / "summary.csv", rows)
        write_text(folder / "summary.json", json.dumps(document, indent=2, allow_nan=False) + "\n")

    def _meaning(self) -> dict[str, str]:
        """What the columns mean, for a reader who opens the file a year later."""
        one_sided = "overlap metrics are 0 and counted, distances are undefined, left out and counted"
        return {
            "found": "in the reference and in the prediction",
            "missed": f"in the reference only: {one_sided}",
            "false_alarm": f"in the prediction only: {one_sided}",
            "absent": "in neither: part of no mean, counted in its own column",
            **{name: m.meaning.format(tolerance_mm=self.tolerance_mm) for name, m in self.metrics.items()},
            "all labels": "mean over cases of the mean over the labels of a case",
        }
