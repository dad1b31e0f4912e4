"""nnU-Net as a peer: what goes to its environment and what comes back; by a stand-in, and for real where it is."""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from boards import only_cell, write_board

from lab.peers import nnunet
from lab.peers.cells import adapt_any
from lab.protocols import load_volume
from medfewshot.benchmark import prepare_data
from medfewshot.benchmark.adaptation import KEPT
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.errors import InputError
from medfewshot.types import Progress, Volume

LEARNER = {"name": "peer", "learner": "nnunet", "steps": 3, "budget_seconds": 60}
FAKE = Path(__file__).with_name("fake_nnunet.py")


@pytest.fixture
def fake(tmp_path, monkeypatch) -> None:
    """An interpreter that plays nnU-Net's part."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv(nnunet.PYTHON, str(script))


def run(tmp_path, folder="cell", stop_at=None, **changes):
    cell = only_cell(learners=[LEARNER], queries=2, **changes)
    data = prepare_data([cell], None, tmp_path)
    seen = []

    def report(event):
        seen.append(event.text)
        if event.text == stop_at:
            raise KeyboardInterrupt

    run_cell(cell, data, tmp_path / folder, "cpu", Progress(report), adapt=adapt_any)
    return json.loads((tmp_path / folder / "cell.json").read_text()), seen


def volume(values: np.ndarray) -> Volume:
    return Volume(values[None], np.diag([1.0, 2.0, 3.0, 1.0]))


def test_it_is_scored_as_any_learner_is(tmp_path, fake):
    record, seen = run(tmp_path)
    assert (record["steps"], record["stopped_by"]) == (3, "steps")
    assert record["learner"]["versions"] == {"nnunetv2": "0"}
    assert record["learner"]["channel"] == "MRI"
    assert (record["seconds"]["plan"], record["seconds"]["adapt"]) == (1.5, 2.5)
    assert record["plan"] == {"spacing_mm": [1.0, 1.0, 1.0], "patch_size": [8, 8, 8]}
    assert record["queries"] == 2
    assert 0 < record["dice"] < 1
    assert "loss 0.50" in seen
    assert not (tmp_path / "cell" / KEPT).exists()


def test_a_cell_that_was_stopped_is_not_trained_again(tmp_path, fake):
    whole, _ = run(tmp_path, "whole")
    noted = tmp_path / "parts" / KEPT / "requests.jsonl"
    for stop_at, asked in (("segmenting blob_003", ["predict"]), ("writing scores", ["predict"] * 2)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "parts", stop_at)
        assert [json.loads(line)["do"] for line in noted.read_text().splitlines()] == ["train", *asked]
    parts, _ = run(tmp_path, "parts")
    assert parts["dice"] == whole["dice"]


def test_what_is_written_for_it(tmp_path):
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    label = np.zeros((2, 3, 4), dtype=np.int16)
    label[0], label[1, 0], label[1, 1] = 7, 3, 9
    nnunet.write_raw(tmp_path / "raw", [volume(image)], [volume(label)], {7: "liver", 3: "spleen"}, "CT")
    description = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}  # the name by which nnU-Net normalises by HU
    assert description["labels"] == {"background": 0, "label 7": 1, "label 3": 2}
    assert description["numTraining"] == 1
    files = description["dataset"]["support0"]
    written = nnunet.read_label(tmp_path / "raw" / files["label"])
    assert np.array_equal(written.data[0][0], np.ones((3, 4)))
    assert written.data[0][1, :, 0].tolist() == [2, 0, 0]  # 9 was not asked for
    assert written.spacing_mm == (1.0, 2.0, 3.0)
    assert nnunet.read_label(tmp_path / "raw" / files["images"][0]).data[0][1, 2, 3] == 23


def test_label_values_come_back(tmp_path, fake):
    label = np.zeros((4, 4, 4), dtype=np.int16)
    label[:2], label[2] = 7, 3
    image = (label * 10).astype(np.float32)
    learner = nnunet.NnUnet(steps=1)
    segmenter = learner.adapt_scans(
        [volume(image)], [volume(label)], {7: "liver", 3: "spleen"}, "CT", tmp_path / "kept"
    )
    assert not (tmp_path / "kept" / "raw").exists()
    assert np.array_equal(segmenter.segment(volume(image)).labels, label)
    assert segmenter.plan.labels == {7: "liver", 3: "spleen"}


def test_its_process_ends_with_it(tmp_path, fake):
    driver = nnunet.Driver(tmp_path / "kept", "cpu")
    process = driver._process
    assert process.poll() is None
    del driver
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("python", "mode", "told"),
    [
        (None, "", "needs nnU-Net in a Python environment of its own; set MEDFEWSHOT_NNUNET_PYTHON"),
        ("/nowhere/python", "", "MEDFEWSHOT_NNUNET_PYTHON: /nowhere/python cannot be started"),
        ("fake", "fails", "learner nnunet: ValueError: no good; see "),
        ("fake", "dies", "learner nnunet: its process ended with 7; see "),
    ],
)
def test_what_is_missing_or_fails_is_told_in_one_line(tmp_path, fake, monkeypatch, python, mode, told):
    monkeypatch.setenv("FAKE_NNUNET", mode)
    if python is None:
        monkeypatch.delenv(nnunet.PYTHON)
    elif python != "fake":
        monkeypatch.setenv(nnunet.PYTHON, python)
    with pytest.raises(InputError) as error:
        run(tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_an_environment_without_nnunet_says_so(tmp_path, monkeypatch):
    """The driver itself, in this environment, which must never have nnU-Net."""
    monkeypatch.setenv(nnunet.PYTHON, sys.executable)
    with pytest.raises(InputError, match="nnU-Net cannot be imported there"):
        nnunet.Driver(tmp_path / "kept", "cpu").ask({"do": "train", "steps": 1, "budget_seconds": None, "seed": 0})


def test_settings_that_it_makes_itself_are_refused(tmp_path):
    for name, value in (("patch_voxels", 4096), ("spacing_mm", 2.0), ("quality", "draft")):
        with pytest.raises(InputError, match=f"learners: peer: nnunet plans for itself, without {name}"):
            load_volume(write_board(tmp_path, {**LEARNER, name: value}))
    with pytest.raises(InputError, match="learners: peer: learner nnunet: takes no weights"):
        load_volume(write_board(tmp_path, {**LEARNER, "weights": "default"}))
    with pytest.raises(InputError, match="has no setting width"):
        load_volume(write_board(tmp_path, {**LEARNER, "width": 8}))
    with pytest.raises(InputError, match="takes whole scans"):
        nnunet.NnUnet().adapt(None)
    with pytest.raises(InputError, match="steps of 1 or more"):
        nnunet.NnUnet(steps=0).adapt_scans([], [], {}, None, Path("x"))
    flat = Volume(np.zeros((1, 4, 4), dtype=np.float32), np.eye(4))
    with pytest.raises(InputError, match="3D scans of one channel"):
        nnunet.NnUnet().adapt_scans([flat], [flat], {1: "a"}, None, Path("x"))


def test_the_driver_needs_nothing_of_this_package():
    tree = ast.parse(nnunet.DRIVER.read_text())
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in names if name and name.startswith("medfewshot")]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(nnunet.PYTHON), reason="needs MEDFEWSHOT_NNUNET_PYTHON")
def test_nnunet_itself_plans_trains_and_predicts(tmp_path):
    record, _ = run(tmp_path, datasets=[{"name": "blobs", "blobs": {"cases": 4, "labels": 2, "shape": [40, 36, 32]},
                                         "pool": [0, 2], "queries": [2, 4]}])  # fmt: skip
    assert record["steps"] == 3
    assert record["learner"]["versions"]["nnunetv2"].startswith("2.")
    assert record["learner"]["final_loss"] is not None
    assert record["queries"] == 2
