"""Benchmarks small enough for a test: blobs, the toy learner, and finished cells written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medfewshot.benchmark import BenchmarkConfig, Cell, plan_cells
from medfewshot.benchmark.cells import RECORD, SCORES
from medfewshot.io import strict_json, write_csv, write_text

BLOBS = {"cases": 6, "labels": 2, "shape": [14, 10, 8], "seed": 0}
DATASET = {"name": "blobs", "blobs": BLOBS, "pool": [0, 2], "queries": [2, 6]}
LEARNERS = [{"name": "toy", "learner": "toy"}]
Scores = Mapping[str, Mapping[int, float | None]]
"""Case -> label -> Dice; 0 is a miss, None is rightly absent."""


def make_config(**changes: Any) -> BenchmarkConfig:
    content = {"datasets": [DATASET], "learners": LEARNERS, "shots": [1], "seeds": [0], **changes}
    return BenchmarkConfig.model_validate(content)


def write_board(folder: Path, *learners: Mapping[str, Any]) -> Path:
    """A benchmark file with these learners."""
    path = folder / "board.yaml"
    path.write_text(yaml.safe_dump({"datasets": [DATASET], "learners": list(learners), "shots": [1], "seeds": [0]}))
    return path


def only_cell(**changes: Any) -> Cell:
    (cell,) = plan_cells(make_config(**changes))
    return cell


def two_learners(**changes: Any) -> BenchmarkConfig:
    """``one`` and ``two``, on ``blobs``."""
    return make_config(learners=[{"name": name, "learner": "finetune"} for name in ("one", "two")], **changes)


def write_cell(cell: Cell, run: Path, scores: Scores, **record: Any) -> None:
    """A finished cell with these Dice scores, and distances that follow from them."""
    rows = [_row(case, label, dice) for case, labels in scores.items() for label, dice in labels.items()]
    content = {
        "fingerprint": cell.fingerprint,
        "seconds": {"adapt": 10.0 + cell.seed, "segment_queries": 9.0, "metrics_queries": 1.0, "last_process": 99.0},
        "seconds_per_query": 0.5,
        "steps": 7,
        "stopped_by": "steps",
        "peak_gb": {"adapt": 0.4, "all": 0.5},
        "threads": 1,
        "device": "cpu",
        "machine": "a machine",
        "versions": {"medfewshot": "1"},
        **record,
    }
    write_csv(cell.folder(run) / SCORES, rows)
    write_text(cell.folder(run) / RECORD, strict_json(content))


def write_cells(cells: Sequence[Cell], run: Path, scores: Mapping[str, Scores]) -> None:
    """Finished cells, the scores by the learner's name; those of other learners are not written."""
    for cell in cells:
        if cell.learner.name in scores:
            write_cell(cell, run, scores[cell.learner.name])


def _row(case: str, label: int, dice: float | None) -> dict[str, Any]:
    found = bool(dice)
    return {
        "case_id": case,
        "subject_id": case,
        "label": label,
        "label_name": f"blob_{label}",
        "status": "absent" if dice is None else "found" if found else "missed",
        "dice": dice,
        "hd95_mm": 10 * (1 - dice) if dice else None,
        "asd_mm": 1.0 if found else None,
        "surface_dice": dice,
        "rvd": 0.0 if found else None,
        "volume_ml": 1.0,
        "reference_volume_ml": 1.0,
        "confidence": 0.9,
        "seconds": 0.1,
    }
