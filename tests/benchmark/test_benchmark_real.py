"""The benchmarks of the repository find their scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfewshot.benchmark import load_benchmark, plan_cells, prepare_data
from medfewshot.benchmark.cell import find_scans

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "benchmark"

pytestmark = pytest.mark.real


def test_supports_and_queries_of_every_cell(data_root, tmp_path):
    names: dict[str, int] = {}
    queried: dict[str, int] = {}
    cells = plan_cells(load_benchmark(CONFIGS / "learners.yaml"))
    assert prepare_data(cells, data_root, tmp_path) == data_root
    for cell in cells:
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
