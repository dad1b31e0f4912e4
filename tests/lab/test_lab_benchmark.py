"""``python -m lab.benchmark``: its files are valid, and a cell runs in a process that knows the laboratory."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from boards import BLOBS

from lab.benchmark import main
from lab.protocols import protocol_of
from medfewshot.errors import InputError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "lab/configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_file_of_the_laboratory_is_valid(path):
    protocol = protocol_of(path)
    assert protocol.plan(protocol.load(path))


def test_an_unknown_protocol(tmp_path):
    path = tmp_path / "board.yaml"
    path.write_text("protocol: slices")
    with pytest.raises(InputError, match="protocol: slices is unknown; choose volume or oracle-2d"):
        protocol_of(path)


def test_cells_are_listed_run_and_reported(tmp_path, capsys):
    content = {
        "protocol": "oracle-2d",
        "datasets": [{"name": "blobs", "blobs": {**BLOBS, "cases": 10}, "modality": "MR", "groups": [[1]]}],
        "learners": [{"name": "a", "learner": "finetune", "steps": 1, "width": 4}],
        "folds": [1, 2],
    }
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump(content))
    words = [str(path), "-o", str(tmp_path / "run"), "--device", "cpu"]
    assert main([*words, "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["not run  blobs/a/f1/s0", "not run  blobs/a/f2/s0"]
    assert main([*words, "--shard", "1/2"]) == 0
    assert capsys.readouterr().out.startswith("blobs/a/f1/s0: Dice 0.")
    assert "| 1 of 2 |" in (tmp_path / "run/report/oracle-2d.md").read_text()
    assert main([*words, "--only", "nothing"]) == 2
    assert "no cell matches" in capsys.readouterr().err
