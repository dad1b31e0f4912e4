"""The literature's protocol finds its scans."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.oracle2d import plan_oracle_cells
from lab.oracle2d.cell import find_fold
from lab.protocols import load_oracle
from medfewshot.benchmark import prepare_data

CONFIG = Path(__file__).resolve().parents[2] / "lab/configs/oracle-2d.yaml"

pytestmark = pytest.mark.real


def test_the_classes_of_the_literature(data_root, tmp_path):
    found = {}
    cells = plan_oracle_cells(load_oracle(CONFIG))
    assert prepare_data(cells, data_root, tmp_path) == data_root
    for cell in cells:
        names, _, fold = find_fold(cell, data_root)
        found[cell.dataset.name] = (set(names.values()), len(fold.query))
    abdomen = {"liver", "spleen", "left kidney", "right kidney"}
    assert found["abd-mr-chaos"] == (abdomen, 4)
    assert found["abd-ct-sabs"] == (abdomen, 6)
    assert found["card-mr-mscmr"][1] == 7
