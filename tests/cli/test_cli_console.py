"""What the commands print: results to review, lists that stop at ten, the stage in the progress bar."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from medfewshot.cli.console import Console
from medfewshot.errors import counted
from medfewshot.workflow import CaseResult, RunResult


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def result(case: str, *, dice=(0.9, 0.8), review=("", ""), status="done") -> CaseResult:
    sizes = (1500.0, 0.5)
    rows = tuple(
        {"label": n + 1, "name": name, "volume_ml": sizes[n], "area_mm2": None, "voxels": 9, "predicted_dice": dice[n],
         "review": review[n]}
        for n, name in enumerate(("liver", "lesion"))
    )  # fmt: skip
    return CaseResult(case, (case,), status, statistics=rows if status == "done" else ())


def table(capsys, *results: CaseResult) -> list[str]:
    Console().results_table(RunResult(results, Path("out")))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_every_structure_has_size_confidence_and_reason(capsys):
    lines = table(capsys, result("a"), result("b", dice=(0.9, 0.3), review=("", "low confidence")))
    assert lines[0] == "scan structure ml confidence review"
    assert lines[2:6] == [
        "b lesion 0.50 0.30 low confidence", "liver 1500.0 0.90", "a lesion 0.50 0.80", "liver 1500.0 0.90",
    ]  # fmt: skip
    assert lines[6].startswith("confidence: expected Dice")


def test_of_many_scans_ten_are_shown_and_failed_ones_first(capsys):
    good = [result(f"good{n:02}") for n in range(12)]
    unlike = result("unlike", review=("voxels unlike labelled scans",) * 2)
    lines = table(capsys, *good, unlike, result("broken", status="failed"))
    assert lines[2] == "broken - - - failed"
    assert lines[3] == "unlike lesion 0.50 0.80 voxels unlike labelled scans"
    assert sum(line.startswith("good") for line in lines) == 8
    assert "all structures of all scans are in out/statistics.csv" in lines


def test_a_scan_unlike_the_others_of_the_run_is_to_review():
    results = [result(f"c{n}", dice=(0.9 + n / 1000, 0.8)) for n in range(9)]
    odd = result("odd", dice=(0.6, 0.8))
    assert RunResult((*results, odd), Path("out")).review == {("odd", 1): "low confidence"}
    assert RunResult(tuple(results), Path("out")).review == {}


def test_lists_stop_at_ten(capsys):
    Console().warnings([f"warning {n}" for n in range(13)], "in run.json")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 11
    assert told[-1] == "and 3 more warnings in run.json"
    assert [counted(1, "scan"), counted(0, "scan")] == ["1 scan", "0 scans"]


def test_the_bar_names_the_stage_and_the_file():
    console = Console()
    console.err = RichConsole(force_terminal=True, file=io.StringIO(), width=80)
    with console.progress("Adapting") as progress:
        progress.at("comparing the labelled scans").update(1, 2, "/data/far/away/" * 9 + "s0.nii.gz")
    told = console.err.file.getvalue()
    assert "Comparing the labelled scans" in told
    assert "s0.nii.gz" in told
