"""Every problem that annotated folders bring is found, named, and does not stop the inspection of the others."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import toys

from medfewshot.datasets import read_dataset
from medfewshot.inspection import Inspection, inspect
from medfewshot.synthetic import make_blob_volume

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPE = (20, 12, 12)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def save_case(folder: Path, name: str, image=None, label=None, affine=None, label_affine=None, seed=None) -> None:
    rng = np.random.default_rng(seed if seed is not None else sum(map(ord, name)))
    made_image, made_label = make_blob_volume(rng, SHAPE, 2)
    image = made_image[0] if image is None else image
    label = made_label.astype(np.uint8) if label is None else label
    save(folder / "images" / f"{name}.nii.gz", image, affine)
    save(folder / "labels" / f"{name}.nii.gz", label, affine if label_affine is None else label_affine)


def look(folder: Path, names=None) -> Inspection:
    return inspect(read_dataset(folder, label_names=names))


def texts(inspection: Inspection, severity: str | None = None) -> list[str]:
    return [str(problem) for problem in inspection.problems if severity in (None, problem.severity)]


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate("abc"):
        save_case(tmp_path, name, seed=index)
    return tmp_path


def test_clean_cases_have_no_problems(folder):
    inspection = look(folder, {1: "sphere", 2: "box"})
    assert inspection.problems == ()
    assert inspection.summary == {"cases": 3, "labelled": 3, "usable_supports": 3, "errors": 0, "warnings": 0}
    assert "3 of 3 cases can be used as labelled scans; 0 errors" in inspection.summary_text


def test_numbers_of_a_case_are_those_on_paper(tmp_path):
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[2:6, 2:6, 2:6] = 1
    label[10:14, 0:3, 2:5] = 1
    image = np.linspace(0, 100, label.size, dtype=np.float32).reshape(SHAPE)
    save_case(tmp_path, "a", image, label, affine=np.diag([-2.0, 1.0, 3.0, 1.0]))
    case = look(tmp_path).cases[0]
    (stats,) = case.labels
    assert (case.shape, case.orientation, case.modality) == (SHAPE, "LAS", "MR")
    assert case.spacing_mm == (2.0, 1.0, 3.0)
    assert case.intensity == pytest.approx((0, 1, 50, 99, 100), abs=0.1)
    assert (stats.voxels, stats.components, stats.touches_border) == (100, 2, True)
    assert stats.ml == pytest.approx(0.6)
    assert stats.centroid_mm[1] == pytest.approx((64 * 3.5 + 36 * 1) / 100)


def test_without_millimetres_a_case_has_neither_spacing_nor_ml(tmp_path):
    label = np.zeros((12, 12, 12), np.uint8)
    label[2:6, 2:6, 2:6] = 1
    for name, data in (("images", np.random.default_rng(0).normal(0, 9, label.shape)), ("labels", label)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.raw").write_bytes(data.astype(np.uint8).tobytes())
        header = "ObjectType = Image\nNDims = 3\nDimSize = 12 12 12\nElementType = MET_UCHAR\nElementDataFile = a.raw\n"
        (tmp_path / name / "a.mhd").write_text(header)
    (case,) = look(tmp_path).cases
    assert (case.usable, case.spacing_mm, case.labels[0].ml, case.labels[0].voxels) == (True, None, None, 64)


def test_one_bad_file_does_not_stop_the_others(folder):
    (folder / "images" / "b.nii.gz").write_bytes(b"nonsense")
    (folder / "labels" / "c.nii.gz").write_bytes(b"")
    inspection = look(folder)
    assert [case.usable for case in inspection.cases] == [True, False, False]
    assert {Path(problem.file).name for problem in inspection.errors} == {"b.nii.gz", "c.nii.gz"}
    assert all(problem.way_out for problem in inspection.errors)


@pytest.mark.parametrize(
    ("change", "severity", "words"),
    [
        ({"label_affine": np.diag([1, 1, 2.0, 1])}, "error", "different grids"),
        ({"label": np.zeros(SHAPE, np.uint8)}, "error", "no foreground"),
        ({"label": np.ones(SHAPE, np.uint8)}, "error", "whole image"),
        ({"label": np.full(SHAPE, 0.5, np.float32)}, "error", "no whole numbers"),
        ({"label": np.pad(np.full((9, 9, 9), 255, np.uint8), ((0, 11), (0, 3), (0, 3)))}, "warning", "0/255"),
        ({"label": np.pad(np.ones((3, 3, 3), np.uint8), ((0, 17), (0, 9), (0, 9)))}, "warning", "only 27 voxels"),
        ({"label": np.pad(np.full((9, 9, 9), 7, np.uint8), ((0, 11), (0, 3), (0, 3)))}, "warning", "7 has no name"),
        (
            {"label": np.pad(np.ones((9, 9, 9), np.uint8), ((0, 11), (0, 3), (0, 3)))},
            "warning",
            "box (2) does not occur",
        ),
        ({"affine": np.diag([3.0, 3, 3, 1])}, "warning", "spacing 3x3x3 mm"),
        ({"affine": np.diag([1.0, 1, 6, 1])}, "warning", "very anisotropic"),
        ({"affine": np.diag([-1.0, -1, 1, 1])}, "warning", "orientations differ: RAS (3), LPS (1)"),
        ({"image": np.random.default_rng(1).normal(0, 900, SHAPE)}, "warning", "more than 10 times off"),
        ({"image": np.zeros(SHAPE, np.float32)}, "error", "same value"),
    ],
)
def test_problem_is_found(folder, change, severity, words):
    save_case(folder, "d", seed=9, **change)
    inspection = look(folder, {1: "sphere", 2: "box"})
    found = [text for text in texts(inspection, severity) if words in text]
    assert len(found) == 1, texts(inspection)
    assert inspection.cases[3].usable == (severity != "error")


def test_duplicates_and_unlabelled_images(folder):
    image = np.asanyarray(nib.load(folder / "images" / "a.nii.gz").dataobj)
    save(folder / "images" / "copy.nii.gz", image)
    found = " ".join(texts(look(folder), "warning"))
    assert "the same image as" in found
    assert "case copy without a label" in found


def test_a_named_label_that_occurs_nowhere(folder):
    assert any("named but occurs in no case" in text for text in texts(look(folder, {1: "a", 2: "b", 3: "c"})))


@pytest.mark.parametrize("names", [{1: "left kidney", 2: "right kidney"}, None])
def test_swapped_sides(tmp_path, names):
    for index in range(4):
        label = np.zeros((40, 12, 12), np.uint8)
        values = (2, 1) if index == 3 else (1, 2)
        label[4:10, 3:9, 3:9], label[28:34, 3:9, 3:9] = values
        image = np.random.default_rng(index).normal(size=label.shape)
        save_case(tmp_path, f"c{index}", image, label)
    found = [text for text in texts(look(tmp_path, names)) if "changed sides in case c3" in text]
    assert len(found) == 1


def test_written_files(folder, tmp_path):
    inspection = look(folder, {1: "sphere", 2: "box"})
    table, record = inspection.write(tmp_path / "out")
    rows = list(csv.DictReader(table.open()))
    assert [row["case_id"] for row in rows] == ["a", "b", "c"]
    assert int(rows[0]["sphere (1) voxels"]) == inspection.cases[0].labels[0].voxels
    content = json.loads(record.read_text())
    assert content["summary"]["usable_supports"] == 3
    assert content["cases"][0]["labels"][0]["components"] == 1
    toys.assert_columns_described(tmp_path / "out")


@pytest.mark.real
def test_real_mr_with_left_and_right_kidneys():
    root = Path(os.environ.get("MEDFEWSHOT_DATA") or REPOSITORY.parent / "shared" / "data") / "abd-mr-chaos"
    if not root.is_dir():
        pytest.skip(f"real scans not found at {root}; set MEDFEWSHOT_DATA")
    dataset = read_dataset(root)
    some = type(dataset)(**{**vars(dataset), "cases": dataset.cases[:4]})
    inspection = inspect(some)
    assert inspection.summary["usable_supports"] == 4
    assert not any("changed sides" in text for text in texts(inspection))


def test_a_label_on_another_grid_is_not_called_empty(tmp_path):
    image, label = toys.make_scan(0)
    toys.save_nifti(tmp_path / "a.nii.gz", image)
    toys.save_nifti(tmp_path / "a_seg.nii.gz", label, toys.AFFINE + np.diag([0, 0, 1.0, 0]))
    found = inspect(read_dataset(tmp_path))
    assert len(found.errors) == 1
    assert "grid" in found.errors[0].text
    assert [stats.value for stats in found.cases[0].labels] == [205, 420]


@pytest.mark.parametrize("frames", [3, 1], ids=["label with frames", "label of an unknown frame"])
def test_a_film_is_usable_if_its_labelled_frames_are_known(tmp_path, frames):
    image, label = toys.make_scan(1)
    toys.save_nifti(tmp_path / "images/a.nii.gz", np.stack([image] * 3, -1))
    unknown = np.full_like(label, 255)
    toys.save_nifti(tmp_path / "labels/a.nii.gz", np.stack([unknown, label, unknown], -1) if frames == 3 else label)
    row = inspect(read_dataset(tmp_path)).cases[0]
    assert row.usable == (frames == 3)
    assert [stats.value for stats in row.labels] == ([205, 420] if frames == 3 else [])
