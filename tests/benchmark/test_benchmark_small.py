"""The benchmark that needs no data, whole, as the documentation gives it."""

from __future__ import annotations

import csv
from pathlib import Path

from medfewshot.benchmark import Cell, load_benchmark, plan_cells, prepare_data, run_benchmark, write_report
from medfewshot.benchmark.run_cell import run_cell

SMALL = Path(__file__).resolve().parents[2] / "configs" / "benchmark" / "small.yaml"


def run_here(cells: list[Cell], run: Path) -> None:
    """In this process; test_benchmark_run tests those of their own."""
    assert run_benchmark(cells, prepare_data(cells, None, run), run, "cpu", runner=run_cell).failed == {}


def test_the_small_benchmark_runs_and_leaves_a_whole_report(tmp_path):
    """And the same file and seed give the same scores again (one cell of the four)."""
    config = load_benchmark(SMALL)
    cells = plan_cells(config)
    (repeated,) = [cell for cell in cells if cell.id == "blobs/prototype/k1/s0"]
    run_here(cells, tmp_path / "first")
    write_report(config, tmp_path / "first", tmp_path / "first" / "report")
    run_here([repeated], tmp_path / "second")
    assert len(list((tmp_path / "first" / "cells").rglob("scores.csv"))) == 4
    first, second = (repeated.folder(tmp_path / run) / "scores.csv" for run in ("first", "second"))
    assert without_seconds(first) == without_seconds(second)
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
