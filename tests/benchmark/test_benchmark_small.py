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
    """And the same file and seed give the same scores again, in other processes (one cell of the four)."""
    words = [sys.executable, "-m", "medfewshot", "benchmark", str(SMALL), "--device", "cpu", "-q", "-o"]
    again = Path("cells/blobs/prototype/k1/s0/scores.csv")
    subprocess.run([*words, str(tmp_path / "first")], check=True)
    subprocess.run([*words, str(tmp_path / "second"), "--only", "blobs/prototype/"], check=True)
    assert len(list((tmp_path / "first" / "cells").rglob("scores.csv"))) == 4
    assert without_seconds(tmp_path / "first" / again) == without_seconds(tmp_path / "second" / again)
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
