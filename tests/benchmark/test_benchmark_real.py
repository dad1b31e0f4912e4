"""The benchmarks of the repository find their scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfewshot.benchmark import load_benchmark, plan_cells, prepare_data
from medfewshot.benchmark.cell import find_scans
from medfewshot.benchmark.oracle2d.cell import find_fold
from medfewshot.learners import LEARNERS, Finetune

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "benchmark"

pytestmark = pytest.mark.real


def cells_of(name: str, data_root: Path, tmp_path: Path):
    cells = plan_cells(load_benchmark(CONFIGS / name))
    assert prepare_data(cells, data_root, tmp_path) == data_root
    return cells


def test_supports_and_queries_of_every_cell(data_root, tmp_path, monkeypatch):
    for learner in {"atlas", "hybrid"} - LEARNERS.keys():
        monkeypatch.setitem(LEARNERS, learner, Finetune)
    names: dict[str, int] = {}
    queried: dict[str, int] = {}
    for cell in cells_of("learners.yaml", data_root, tmp_path):
        if cell.learner.name != "random-100":
            continue
        labels, supports, queries = find_scans(cell, data_root)
        assert len({case.subject_id for case in supports}) == cell.shots
        names[cell.dataset.name], queried[cell.dataset.name] = len(labels), len(queries)
    assert names == {
        "abd-mr-chaos": 4, "abd-ct-sabs": 4, "abd-ct-sabs-13": 13, "card-mr-mscmr": 3, "Task04_Hippocampus": 2,
        "lung-nodule-lidc": 1,
    }  # fmt: skip
    assert queried == {
        "abd-mr-chaos": 10, "abd-ct-sabs": 15, "abd-ct-sabs-13": 15, "card-mr-mscmr": 20, "Task04_Hippocampus": 60,
        "lung-nodule-lidc": 30,
    }  # fmt: skip


def test_the_classes_of_the_literature(data_root, tmp_path):
    found = {}
    for cell in cells_of("oracle-2d.yaml", data_root, tmp_path):
        names, _, fold = find_fold(cell, data_root)
        found[cell.dataset.name] = (set(names.values()), len(fold.query))
    abdomen = {"liver", "spleen", "left kidney", "right kidney"}
    assert found["abd-mr-chaos"] == (abdomen, 4)
    assert found["abd-ct-sabs"] == (abdomen, 6)
    assert found["card-mr-mscmr"][1] == 7
