"""The benchmark that needs no data, whole, as the documentation gives it: under two minutes in every test run."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = Path(__file__).resolve().parents[2] / "configs" / "benchmark" / "small.yaml"


@pytest.mark.slow
def test_the_small_benchmark_runs_and_leaves_a_whole_report(tmp_path):
    """Twice, each in processes of their own: the same file and seed give the same scores."""
    scores = []
    for name in ("first", "second"):
        words = [sys.executable, "-m", "medfewshot", "benchmark", str(SMALL), "--device", "cpu", "-q", "-o"]
        subprocess.run([*words, str(tmp_path / name)], check=True)
        found = sorted((tmp_path / name / "cells").rglob("scores.csv"))
        scores.append({path.relative_to(tmp_path / name): without_seconds(path) for path in found})
    assert len(scores[0]) == 4
    assert scores[0] == scores[1]
    report = tmp_path / "first" / "report"
    for plot in ("dice_vs_seconds", "dice_vs_shots", "dice_vs_volume"):
        assert (report / f"{plot}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report / f"{plot}.svg").read_text()
    tables = (report / "tables.md").read_text()
    for section in ("Scores", "Comparisons", "Structures", "Costs"):
        assert f"## {section}\n" in tables
    assert "4 done (of 4)" in tables
    assert "Metrics took " in tables
    assert r"\begin{tabular}" in (report / "tables.tex").read_text()
    page = (report / "index.html").read_text()
    for reason in ("best, Dice", "median, Dice", "worst, Dice"):
        assert reason in page


def without_seconds(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(stream)]
