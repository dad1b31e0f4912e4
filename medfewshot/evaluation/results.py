"""The result of an evaluation and its three files: ``scores.csv``, ``summary.csv``, ``summary.json``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from medfewshot.evaluation.scores import CaseScore
from medfewshot.evaluation.summary import RESAMPLES, LabelSummary, extra_names, summarize
from medfewshot.io import write_text
from medfewshot.metrics import DEFAULT_TOLERANCE_MM


@dataclass(frozen=True)
class Evaluation:
    """One row per case and label, what they come to, and what the reader must know; ``seed`` is the bootstrap's."""

    scores: tuple[CaseScore, ...]
    warnings: tuple[str, ...] = ()
    tolerance_mm: float = DEFAULT_TOLERANCE_MM
    seed: int = 0

    @cached_property
    def summaries(self) -> tuple[LabelSummary, ...]:
        """One summary per label, the one of all labels last."""
        return summarize(self.scores, self.seed)

    def score_rows(self) -> list[dict[str, Any]]:
        """One plain dict per case and label, None where a value is undefined."""
        return [{**_row(score, extra_names(self.scores)), "tolerance_mm": self.tolerance_mm} for score in self.scores]

    def summary_rows(self) -> list[dict[str, Any]]:
        """One plain dict per label, that of all labels last (``label`` None); None where a value is undefined."""
        return [{**_row(row, extra_names(self.scores)), "tolerance_mm": self.tolerance_mm} for row in self.summaries]

    def write(self, folder: Path) -> None:
        """Write the three files into ``folder``, each whole or not at all; undefined is an empty cell, or null."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rows = self.summary_rows()
        document = {
            "tolerance_mm": self.tolerance_mm,
            "bootstrap": {"over": "subjects", "interval": 0.95, "resamples": RESAMPLES, "seed": self.seed},
            "meaning": _meaning(self.tolerance_mm),
            "labels": rows[:-1],
            "all_labels": rows[-1] if rows else None,
            "warnings": list(self.warnings),
        }
        write_text(folder / "scores.csv", _csv(self.score_rows()))
        write_text(folder / "summary.csv", _csv(rows))
        write_text(folder / "summary.json", json.dumps(document, indent=2, allow_nan=False) + "\n")


def _row(record: CaseScore | LabelSummary, extra: Sequence[str]) -> dict[str, Any]:
    row = {f.name: _cell(getattr(record, f.name)) for f in fields(record) if f.name != "extra"}
    return row | {name: _cell(record.extra.get(name, math.nan)) for name in extra}


def _cell(value: Any) -> Any:
    """None for NaN and infinity, which strict JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _meaning(tolerance_mm: float) -> dict[str, str]:
    """What the numbers mean, in words, for whoever opens the file a year later."""
    one_sided = "Dice and surface Dice are 0 and counted, HD95 and ASD are undefined, left out and counted"
    return {
        "found": "in the reference and in the prediction",
        "missed": f"in the reference only: {one_sided}",
        "false_alarm": f"in the prediction only: {one_sided}",
        "absent": "in neither: part of no mean, counted in its own column",
        "surface_dice": f"share of surface voxels within {tolerance_mm:g} mm of the other surface",
        "hd95_mm": "the larger of the two directed 95th percentiles of the surface distances",
        "asd_mm": "average symmetric surface distance, both directed sets pooled",
        "rvd": "(prediction - reference) / reference volume, where the reference has the structure",
        "all labels": "mean over cases of the mean over the labels of a case",
    }
