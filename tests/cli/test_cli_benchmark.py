"""``medfewshot benchmark``: plan, run, report, and wrong words."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml

from medfewshot import benchmark
from medfewshot.benchmark.processes import write_failure
from medfewshot.benchmark.run_cell import run_cell


def run_with(monkeypatch, runner) -> None:
    """Cells of the command line run with this runner, in this process."""
    monkeypatch.setattr(benchmark, "run_benchmark", partial(RUN, runner=runner))


RUN = benchmark.run_benchmark


@pytest.fixture
def board(tmp_path, monkeypatch, run) -> Path:
    """A benchmark of two cells that run in this process."""
    run_with(monkeypatch, run_cell)
    monkeypatch.chdir(tmp_path)
    content = {
        "datasets": [
            {"name": "blobs", "blobs": {"cases": 5, "shape": [14, 10, 8]}, "pool": [0, 2], "queries": [2, 5]},
        ],
        "learners": [{"name": "toy", "learner": "toy"}],
        "shots": [1],
        "seeds": [0, 1],
    }
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_run_list_report(run, board, tmp_path):
    done = run("benchmark", board, "--list")
    assert done.out.splitlines() == ["not run  blobs/toy/k1/s0", "not run  blobs/toy/k1/s1", "2 not run"]
    assert not (tmp_path / "runs").exists()
    done = run("benchmark", board, "--seeds", "1", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["done"] == ["blobs/toy/k1/s1"]
    assert "blobs/toy/k1/s1: Dice 0." in done.err
    assert "1 of 2" in (tmp_path / "runs" / "board" / "report" / "tables.md").read_text()
    done = run("benchmark", board, "--device", "cpu")
    assert "cells: 1 done, 1 done earlier" in done.out
    assert "2 of 2" in (tmp_path / "runs" / "board" / "report" / "tables.md").read_text()
    done = run("benchmark", board, "--report", tmp_path / "elsewhere")
    assert done.code == 0
    assert (tmp_path / "elsewhere" / "tables.tex").is_file()
    done = run("benchmark", board, "--seeds", "1", "--report", tmp_path / "one")
    text = (tmp_path / "one" / "tables.md").read_text()
    assert "drawn with the seeds 1;" in text
    assert "Cells: 1 done (of 1)" in text


def test_failed_cells_end_in_code_1(run, board, monkeypatch):
    def fail(cell, data, folder, device, progress):
        write_failure(folder, cell, "out of luck")

    run_with(monkeypatch, fail)
    done = run("benchmark", board, "--shard", "2/2")
    assert done.code == 1
    assert "blobs/toy/k1/s1 failed: out of luck" in done.err
    assert "s0" not in done.err


def test_an_empty_shard_says_so(run, board, monkeypatch):
    run_with(monkeypatch, None)
    done = run("benchmark", board, "--shard", "3/3")
    assert done.code == 0
    assert "this shard is empty: there are fewer cells than shards" in done.err


def test_an_interruption_says_how_to_go_on(run, board, monkeypatch):
    def stop(*words):
        raise KeyboardInterrupt

    run_with(monkeypatch, stop)
    done = run("benchmark", board)
    assert done.code == 130
    assert "the same command continues from there" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "nothing"], "no cell matches"),
        (["--seeds", "a"], "a: cannot be read; give e.g. 0,1 (option: --seeds)"),
        (["--shard", "3"], "3: cannot be read; give e.g. 1/4 (option: --shard)"),
        (["--shard", "3/2"], "give i/n with i from 1 to n"),
        (["--device", "toaster"], "unknown device"),
    ],
)
def test_wrong_words(run, board, words, told):
    done = run("benchmark", board, *words)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
