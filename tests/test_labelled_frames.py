"""One labelled frame of a film is one labelled scan, for episodes and for the benchmark too."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import toys
from boards import make_config
from monai.transforms import LoadImage
from typer.testing import CliRunner

import medfewshot
from medfewshot.benchmark import plan_cells
from medfewshot.benchmark.run_cell import run_cell
from medfewshot.cli.app import app
from medfewshot.errors import InputError
from medfewshot.integrations import FewShotSegment
from medfewshot.training.reading import read_tasks
from medfewshot.training.settings import TaskSettings

FRAMES, LABELLED = 3, (0, 2)


def write_films(folder: Path, *, partly: bool = False) -> Path:
    """Write a data set of four films of three frames, two of them labelled."""
    for number in range(4):
        images, labels = zip(*(toys.make_scan(number) for _ in range(FRAMES)), strict=True)
        known = np.stack(labels, -1).astype(np.int16)
        known[..., [n for n in range(FRAMES) if n not in LABELLED]] = 255
        if partly:
            known[0, ..., 0] = 255
        for name, data in (("imagesTr", np.stack(images, -1)), ("labelsTr", known)):
            (folder / "films" / name).mkdir(parents=True, exist_ok=True)
            toys.save_nifti(folder / "films" / name / f"case{number}.nii.gz", data)
    paths = [{side: f"./{side}sTr/case{n}.nii.gz" for side in ("image", "label")} for n in range(4)]
    labels = {"0": "background", "205": "left ventricle", "255": "not labelled (ignore)"}
    content = {"name": "films", "tensorImageSize": "4D", "modality": {"0": "MR"}, "labels": labels, "training": paths}
    (folder / "films" / "dataset.json").write_text(json.dumps(content))
    return folder


def test_the_benchmark_scores_every_labelled_frame(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    dataset = {"name": "films", "pool": [0, 2], "queries": [2, 4], "labels": [205]}
    (cell,) = plan_cells(make_config(datasets=[dataset]))
    run_cell(cell, write_films(tmp_path), tmp_path / "cell", "cpu")
    rows = list(csv.DictReader((tmp_path / "cell/scores.csv").open()))
    assert [row["case_id"] for row in rows] == [f"case{n} frame {t}" for n in (2, 3) for t in LABELLED]
    assert {row["subject_id"] for row in rows} == {"case2", "case3"}


def test_a_frame_is_the_same_in_python_in_a_monai_transform_and_on_disk(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    folder = write_films(tmp_path) / "films"
    image = folder / "imagesTr/case1.nii.gz"
    scans = [(folder / "imagesTr/case0.nii.gz", folder / "labelsTr/case0.nii.gz")]
    words = {"learner": "toy", "device": "cpu", "labels": {205: "left ventricle"}}
    segmenter = medfewshot.adapt(scans, **words)
    film = medfewshot.segment_film(image, segmenter).labels
    command = [
        "segment",
        str(image),
        "--support",
        f"{scans[0][0]}={scans[0][1]}",
        "--learner",
        "toy",
        "--device",
        "cpu",
    ]
    plain = ["--labels", "205=left ventricle", "--no-report", "--no-previews", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*command, *plain]).exit_code == 0
    written = np.asarray(nib.load(tmp_path / "out/case1.nii.gz").dataobj)
    frames = LoadImage(ensure_channel_first=True)(image)  # MONAI takes the last axis as channels: here, time
    transform = FewShotSegment(segmenter=segmenter)
    for number in range(FRAMES):
        found = transform(frames[number : number + 1])[0].numpy()
        assert np.array_equal(film[number], found)
        assert np.array_equal(written[..., number], found)
        assert (found == 205).any()


def test_episodes_take_labelled_frames_of_different_subjects(tmp_path):
    settings = TaskSettings.model_validate({"synthetic_weight": 0, "real": {"datasets": {"films": {"labels": [205]}}}})
    (task,) = read_tasks(settings, write_films(tmp_path))["real"]
    assert [one.subject_id for one in task.examples] == [f"case{n}" for n in range(4) for _ in LABELLED]
    assert all((one.label == 205).any() for one in task.examples)


def test_a_labelled_frame_must_be_labelled_completely(tmp_path):
    settings = TaskSettings.model_validate({"synthetic_weight": 0, "real": {"datasets": {"films": {"labels": [205]}}}})
    with pytest.raises(InputError, match="partly annotated"):
        read_tasks(settings, write_films(tmp_path, partly=True))
