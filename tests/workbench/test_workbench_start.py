"""What a user names becomes a project: scans, data sets with labels, results of a run, projects."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfewshot.errors import InputError
from medfewshot.io import claimed
from medfewshot.workbench import open_folder
from medfewshot.workbench.start import HALF

SHAPE = (6, 7, 5)


def save(path: Path, data: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def scan() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def test_a_folder_of_scans_gets_a_project_beside_it_that_opens_again(tmp_path: Path) -> None:
    save(tmp_path / "scans" / "a.nii.gz", scan())
    project = open_folder(tmp_path / "scans")
    assert project.folder == tmp_path / "scans_project"
    assert [case.status for case in project.cases()] == ["unlabelled"]
    project.review("a", note="seen")
    assert open_folder(tmp_path / "scans").case("a").note == "seen"
    assert open_folder(project.folder).case("a").note == "seen"


def test_a_data_set_brings_its_labels_names_and_what_is_not_annotated(tmp_path: Path) -> None:
    root = tmp_path / "set"
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5] = 2
    partly = np.full(SHAPE, 3, np.uint8)
    partly[:, :, [0, 2]] = labels[:, :, [0, 2]]
    for name, mask in (("a", labels), ("b", partly), ("c", None)):
        save(root / "imagesTr" / f"{name}_0000.nii.gz", scan())
        if mask is not None:
            save(root / "labelsTr" / f"{name}.nii.gz", mask)
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}}
    (root / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    project = open_folder(root, tmp_path / "project")
    assert [(one.name, one.value) for one in project.structures] == [("liver", 1), ("spleen", 2)]
    assert {case.name: case.status for case in project.cases()} == {"a": "example", "b": "example", "c": "unlabelled"}
    assert np.array_equal(project.read_labels("a"), labels)
    assert (project.facts("b").drawn, project.facts("b").axis) == ((0, 2), 2)
    assert project.facts("a").complete


def test_a_broken_data_set_is_an_error_and_no_folder_of_scans(tmp_path: Path) -> None:
    save(tmp_path / "set" / "a.nii.gz", scan())
    (tmp_path / "set" / "dataset.json").write_text("{")
    with pytest.raises(InputError):
        open_folder(tmp_path / "set")


def test_results_of_a_run_become_drafts(tmp_path: Path) -> None:
    image = save(tmp_path / "scans" / "a.nii.gz", scan())
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5] = 6
    save(tmp_path / "out" / "a.nii.gz", labels)
    result = {
        "case": "a", "inputs": [str(image)], "status": "done", "labels": "a.nii.gz", "predicted_dice": {"6": 0.8},
        "flags": ["liver is small"],
    }  # fmt: skip
    record = {"format_version": 1, "plan": {"labels": {"6": "liver"}}, "outputs": [result]}
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    project = open_folder(tmp_path / "out", tmp_path / "project")
    case = project.case("a")
    assert (case.status, case.reason, case.confidence) == ("needs review", "liver is small", 0.8)
    assert np.array_equal(project.read_draft("a"), labels)


def test_files_that_are_channels_of_one_scan_are_refused_and_numbered_scans_are_not(tmp_path: Path) -> None:
    for name in ("p1_0000", "p1_0001", "p2_0000", "p2_0001"):
        save(tmp_path / "channels" / f"{name}.nii.gz", scan())
    with pytest.raises(InputError, match="2 channels, as files"):
        open_folder(tmp_path / "channels")
    for name in ("scan_0000", "scan_0001"):
        save(tmp_path / "numbered" / f"{name}.nii.gz", scan())
    assert len(open_folder(tmp_path / "numbered").cases()) == 2


def test_labelled_frames_of_a_film_are_masks_of_its_frames(tmp_path: Path) -> None:
    labels = np.full((*SHAPE, 3), 255, np.uint8)
    labels[..., 1] = 0
    labels[1:3, 2:5, :, 1] = 4
    save(tmp_path / "set" / "images" / "cine.nii.gz", np.stack([scan()] * 3, -1))
    save(tmp_path / "set" / "labels" / "cine.nii.gz", labels)
    project = open_folder(tmp_path / "set", tmp_path / "project")
    states = {case.name: case.status for case in project.cases()}
    assert states == {"cine frame 0": "unlabelled", "cine frame 1": "example", "cine frame 2": "unlabelled"}
    assert np.array_equal(project.read_labels("cine frame 1"), labels[..., 1])


def test_the_result_of_a_film_gives_each_frame_a_draft(tmp_path: Path) -> None:
    image = save(tmp_path / "scans" / "cine.nii.gz", np.stack([scan()] * 2, -1))
    labels = np.zeros((*SHAPE, 2), np.uint8)
    labels[1:3, 2:5, :, 1] = 6
    save(tmp_path / "out" / "cine.nii.gz", labels)
    result = {"case": "cine", "inputs": [str(image)], "status": "done", "labels": "cine.nii.gz", "predicted_dice": {}}
    record = {"format_version": 1, "plan": {"labels": {"6": "liver"}}, "outputs": [{**result, "flags": []}]}
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    project = open_folder(tmp_path / "out", tmp_path / "project")
    for number in range(2):
        assert np.array_equal(project.read_draft(f"cine frame {number}"), labels[..., number])


def test_masks_of_a_data_set_that_number_structures_differently_are_matched_by_name(tmp_path: Path) -> None:
    liver, aorta = np.zeros((2, *SHAPE), np.uint8)
    liver[1:3, 2:5], aorta[5, 6] = 1, 1
    for case, masks in (("a", {"aorta": aorta, "liver": liver}), ("b", {"liver": liver})):
        save(tmp_path / "set" / case / "ct.nii.gz", scan())
        for name, mask in masks.items():
            save(tmp_path / "set" / case / "segmentations" / f"{name}.nii.gz", mask)
    project = open_folder(tmp_path / "set")
    assert [(one.name, one.value) for one in project.structures] == [("aorta", 1), ("liver", 2)]
    assert np.array_equal(project.read_labels("b_ct"), 2 * liver)


def test_an_import_that_fails_leaves_no_project(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5] = 1
    for name, mask in (("a", labels), ("b", labels[:-1]), ("c", labels)):
        save(tmp_path / "set" / "imagesTr" / f"{name}.nii.gz", scan())
        save(tmp_path / "set" / "labelsTr" / f"{name}.nii.gz", mask)
    for _ in range(2):
        with pytest.raises(InputError, match="labelsTr/b"):
            open_folder(tmp_path / "set")
    assert not (tmp_path / "set_project" / "project.json").exists()
    save(tmp_path / "set" / "labelsTr" / "b.nii.gz", labels)
    assert [case.status for case in open_folder(tmp_path / "set").cases()] == ["example"] * 3


def test_an_import_that_was_killed_begins_again(tmp_path: Path) -> None:
    save(tmp_path / "scans" / "a.nii.gz", scan())
    project = open_folder(tmp_path / "scans").folder
    (project / HALF).touch()
    save(tmp_path / "scans" / "b.nii.gz", scan())
    with pytest.raises(InputError, match="interrupted"):
        open_folder(project)
    assert [case.name for case in open_folder(tmp_path / "scans").cases()] == ["a", "b"]
    assert not (project / HALF).exists()


def test_a_folder_without_scans_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        open_folder(tmp_path / "empty")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_channels_in_one_file_are_no_frames(tmp_path: Path) -> None:
    pair = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    save(tmp_path / "set" / pair["image"], np.stack([scan()] * 2, -1))
    save(tmp_path / "set" / pair["label"], np.ones(SHAPE, np.uint8))
    content = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "tumour"}, "training": [pair]}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(content))
    for _ in range(2):
        with pytest.raises(InputError, match="2 channels"):
            open_folder(tmp_path / "set")


def test_a_result_of_frames_that_are_not_shown_is_one_line(tmp_path: Path) -> None:
    image = save(tmp_path / "scans" / "a.nii.gz", scan())
    save(tmp_path / "out" / "a.nii.gz", np.ones((*SHAPE, 2), np.uint8))
    result = {"case": "a", "inputs": [str(image)], "status": "done", "labels": "a.nii.gz", "predicted_dice": {}}
    record = {"format_version": 1, "plan": {"labels": {"1": "liver"}}, "outputs": [result]}
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    for _ in range(2):
        with pytest.raises(InputError, match="frames"):
            open_folder(tmp_path / "out", tmp_path / "project")


def test_scans_that_came_since_are_added_and_moved_ones_found_again(tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    save(scans / "a.nii.gz", scan())
    save(scans / "b.nii.gz", scan())
    project = open_folder(scans)
    project.review("a", note="seen")
    save(scans / "c.nii.gz", scan())
    with claimed(project.folder):  # by another workbench, which would not know of the scan
        assert sorted(case.name for case in open_folder(scans).cases()) == ["a", "b"]
    assert sorted(case.name for case in open_folder(scans).cases()) == ["a", "b", "c"]
    moved = save(tmp_path / "disk" / "a.nii.gz", scan())
    (scans / "a.nii.gz").unlink()
    again = open_folder(moved, project.folder).case("a")
    assert (again.scan, again.reason, again.note) == (moved, "", "seen")
    with pytest.raises(InputError, match="another scan"):
        open_folder(save(tmp_path / "other" / "b.nii.gz", scan()), project.folder)
    with pytest.raises(InputError, match="does not exist"):
        open_folder(tmp_path / "typo", project.folder)
    scans.rename(tmp_path / "elsewhere")
    moved.unlink()
    assert not any(case.scan.exists() for case in open_folder(scans, project.folder).cases())
    open_folder(tmp_path / "elsewhere", project.folder)
    assert open_folder(project.folder).case("b").scan == tmp_path / "elsewhere" / "b.nii.gz"


def test_a_case_that_a_data_set_gained_brings_its_labels(tmp_path: Path) -> None:
    root, labels = tmp_path / "set", np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5] = 1
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    for name in "ab":
        save(root / "imagesTr" / f"{name}_0000.nii.gz", scan())
        save(root / "labelsTr" / f"{name}.nii.gz", labels)
        (root / "dataset.json").write_text(json.dumps(content))
        project = open_folder(root)
    assert [project.facts(name).version for name in "ab"] == [1, 1]
    assert np.array_equal(project.read_labels("b"), labels)


def test_a_later_label_whose_values_mean_other_structures_is_refused_until_it_is_corrected(tmp_path: Path) -> None:
    root, labels = tmp_path / "set", np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5], labels[4, 2:5] = 1, 3
    for name, names in {"a": ("liver", "spleen"), "b": ("spleen", "liver")}.items():
        save(root / "imagesTr" / f"{name}.nii.gz", scan())
        save(root / "labelsTr" / f"{name}.nii.gz", labels)
        cases = [{"image": f"imagesTr/{one.name}", "label": f"labelsTr/{one.name}"} for one in root.glob("labelsTr/*")]
        content = {"labels": {"0": "background", "1": names[0], "3": names[1]}, "training": cases}
        (root / "dataset.json").write_text(json.dumps(content))
        if name == "a":
            assert [one.name for one in open_folder(root).structures] == ["liver", "spleen"]
    with pytest.raises(InputError, match="label 1 is 'spleen', but 'liver' in the project"):
        open_folder(root)
    content["labels"] |= {"1": "liver", "2": "kidney", "3": "spleen"}
    (root / "dataset.json").write_text(json.dumps(content))
    labels[3, 2:5] = 2
    save(root / "labelsTr" / "b.nii.gz", labels)
    project = open_folder(root)
    assert {one.value: one.name for one in project.structures} == {1: "liver", 3: "spleen", 2: "kidney"}
    assert np.array_equal(project.read_labels("b"), labels)
