"""Every export of a project, read back by another library where there is one; and the quality curve."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toys
from PIL import Image
from typer.testing import CliRunner

from medfewshot.cli.app import app
from medfewshot.datasets import read_dataset
from medfewshot.errors import InputError
from medfewshot.settings import AdaptSettings
from medfewshot.types import Progress
from medfewshot.workbench import Project, Structure
from medfewshot.workbench.curve import advice, curve
from medfewshot.workbench.export import EXPORTS, export
from medfewshot.workbench.learn import Learning
from medfewshot.workbench.surface import surface_of
from medfewshot.workflow import prepare, read_run, read_supports
from medfewshot.workflow.report import run_page
from medfewshot.workflow.reviews import read_review_status

SHAPE = (12, 11, 10)
LIVER, SPLEEN = Structure("liver", 3, "#ff0000"), Structure("left kidney", 7, "#00ff80")
AFFINE = np.diag([2.0, 1.5, 3.0, 1.0])


def labels() -> np.ndarray:
    result = np.zeros(SHAPE, np.uint8)
    result[2:6, 3:7, 2:8] = 3
    result[8:10, 2:5, 3:6] = 7
    return result


@pytest.fixture
def project(tmp_path: Path) -> Project:
    noise = np.random.default_rng(0).normal(size=SHAPE)
    for name in "abcd":
        path = tmp_path / "scans" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image((labels() * 9 + noise).astype(np.float32), AFFINE), path)
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=(LIVER, SPLEEN))
    project.save_mask("a", labels(), version=0)
    project.save_mask("b", labels(), version=0, drawn=[4, 6], axis=2)
    project.write_draft("c", labels(), confidence=0.9)
    project.review("c", status="accepted", note="good")
    project.write_draft("d", labels(), confidence=0.9)
    return project


def test_masks_and_statistics_hold_what_is_labelled_or_accepted(project: Project, tmp_path: Path) -> None:
    result = export(project, ["nifti", "statistics"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "nifti").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    stored = nib.load(tmp_path / "out" / "nifti" / "a.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj), labels())
    assert np.allclose(stored.affine, AFFINE)
    rows = list(csv.DictReader((tmp_path / "out" / "statistics.csv").open()))
    assert [(row["case"], row["status"], row["name"], row["note"]) for row in rows] == [
        ("a", "example", "liver", ""), ("a", "example", "left kidney", ""),
        ("c", "accepted", "liver", "good"), ("c", "accepted", "left kidney", "good"),
    ]  # fmt: skip
    toys.assert_columns_described(tmp_path / "out")
    assert float(rows[0]["volume_ml"]) == pytest.approx(4 * 4 * 6 * 9 / 1000)
    assert any("b" in note and "partly" in note for note in result.notes)
    assert all(path.is_file() for path in result.files)


def test_masks_of_an_earlier_export_that_are_rejected_now_are_named(project: Project, tmp_path: Path) -> None:
    export(project, ["nifti", "nnunet"], tmp_path / "out")
    project.review("c", status="rejected")
    notes = export(project, ["nifti", "nnunet"], tmp_path / "out").notes
    assert any("nifti: 1 file(s) of an earlier export" in note and "c.nii.gz" in note for note in notes)
    assert any("nnunet: 2 file(s)" in note for note in notes)


def test_an_nnunet_data_set_has_a_file_for_each_channel(tmp_path: Path) -> None:
    one = np.random.default_rng(0).integers(0, 999, SHAPE)
    two = np.stack([one, 2 * one], -1).astype(np.int16).transpose(2, 1, 0, 3)
    (tmp_path / "scans").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(two, isVector=True), str(tmp_path / "scans/a.nrrd"))
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=(LIVER,))
    project.save_mask("a", np.where(labels() == 3, 3, 0).astype(np.uint8), version=0)
    export(project, ["nnunet"], tmp_path / "out")
    (folder,) = (tmp_path / "out" / "nnunet").iterdir()
    images = [np.asarray(nib.load(path).dataobj) for path in sorted((folder / "imagesTr").iterdir())]
    assert len(images) == 2
    assert np.array_equal(2 * images[0], images[1])
    names = json.loads((folder / "dataset.json").read_text())["channel_names"]
    assert names == {"0": "channel 0", "1": "channel 1"}
    project.change_settings({"modality": "CT"})
    export(project, ["nnunet"], tmp_path / "ct")
    (table,) = (tmp_path / "ct").rglob("dataset.json")
    assert json.loads(table.read_text())["channel_names"] == {"0": "CT", "1": "CT"}


def test_the_status_of_each_review_travels_with_an_export(project: Project, tmp_path: Path) -> None:
    changed = labels()
    changed[2:4] = 0
    project.save_mask("d", changed, version=0)
    project.review("d", status="accepted")
    project.write_draft("b", labels(), confidence=0.9)
    project.review("b", status="rejected")
    export(project, ["nifti", "statistics"], tmp_path / "out")
    wanted = {"a": "example", "b": "rejected", "c": "accepted", "d": "corrected"}
    assert read_review_status(tmp_path / "out") == read_review_status(tmp_path / "out" / "nifti") == wanted
    rows = list(csv.DictReader((tmp_path / "out" / "statistics.csv").open()))
    assert {(row["case"], row["review_status"]) for row in rows} == {(c, wanted[c]) for c in "acd"}


def test_an_nnunet_data_set_has_consecutive_values_and_ignores_what_is_not_drawn(
    project: Project, tmp_path: Path
) -> None:
    export(project, ["nnunet"], tmp_path / "out")
    (folder,) = (tmp_path / "out" / "nnunet").iterdir()
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "liver": 1, "left kidney": 2, "ignore": 3}
    assert content["numTraining"] == 3
    dataset = read_dataset(folder)
    assert (dict(dataset.labels), dataset.ignore, len(dataset.labelled)) == ({1: "liver", 2: "left kidney"}, 3, 3)
    partly = np.asarray(nib.load(folder / "labelsTr" / "b.nii.gz").dataobj)
    assert np.array_equal(partly[:, :, 4], np.searchsorted([0, 3, 7], labels()[:, :, 4]))
    assert (partly[:, :, 0] == 3).all()
    assert prepare(read_supports(dataset)).plan.label_values == (1, 2)


def test_surfaces_are_closed_and_enclose_the_volume_of_the_mask(project: Project, tmp_path: Path) -> None:
    files = export(project, ["stl"], tmp_path / "out").files
    assert [path.name for path in files if path.parent.name == "a"] == ["003_liver.stl", "007_left_kidney.stl"]
    content = files[0].read_bytes()
    count = int(np.frombuffer(content[80:84], "<u4")[0])
    assert len(content) == 84 + 50 * count
    assert b"SPACE=LPS" in content[:80]
    for affine in (AFFINE, np.diag([-2.0, 1.5, 3.0, 1.0])):  # right- and left-handed
        corners, triangles = surface_of(labels() == 3, affine, rounds=0)
        edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        a, b, c = (corners[triangles[:, i]] for i in range(3))
        assert float((a * np.cross(b, c)).sum() / 6) == pytest.approx(4 * 4 * 6 * 9)  # positive: seen from outside
    corners, triangles = surface_of(labels() == 3, AFFINE)
    a, b, c = (corners[triangles[:, i]] for i in range(3))
    assert float((a * np.cross(b, c)).sum() / 6) == pytest.approx(4 * 4 * 6 * 9, rel=0.15)
    middle = (corners.min(0) + corners.max(0)) / 2
    assert np.allclose(middle, [-(2 + 5) / 2 * 2, -(3 + 6) / 2 * 1.5, (2 + 7) / 2 * 3], atol=1e-6)


def test_sizes_of_a_scan_without_a_voxel_size_are_counted(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    picture = np.arange(600, dtype=np.uint8).reshape(20, 30)
    Image.fromarray(picture).save(tmp_path / "scans" / "a.png")
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=(Structure("x", 1, "#ff0000"),))
    mask = np.zeros((30, 20), np.uint8)
    mask[2:5, 2:5] = 1
    project.save_mask("a", mask, version=0)
    export(project, ["statistics"], tmp_path / "out")
    with (tmp_path / "out" / "statistics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["voxels"], row["area_mm2"], row["size_x_mm"], row["centroid_voxel_x"]) == ("9", "", "", "3.0")


def test_a_slicer_segmentation_has_names_and_colours(project: Project, tmp_path: Path) -> None:
    files = export(project, ["seg_nrrd", "dicom_seg"], tmp_path / "out")
    header = files.files[0].read_bytes()[:4000].decode("latin1")
    assert "Segment1_Name:=left kidney" in header
    assert "Segment1_Color:=0 1 0.50" in header
    assert any("DICOM series" in note for note in files.notes)


def test_model_and_report_follow_a_first_learning(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(export(project, ["bundle", "report"], tmp_path / "none").notes) == 3  # no model; one is partly drawn
    toys.install(monkeypatch)
    project.change_settings({"learner": "toy"})
    Learning(
        project, open_case=None, progress=Progress(), device="cpu", instant=AdaptSettings(learner="toy")
    ).run()  # fmt: skip
    files = {path.name for path in export(project, ["bundle", "report"], tmp_path / "out").files}
    assert {"segmenter.json", "weights.safetensors", "report.html"} <= files
    assert "accepted" in (tmp_path / "out" / "report" / "report.html").read_text()


def test_the_report_shows_each_frame_of_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = labels()[..., None] * 9 + np.random.default_rng(0).normal(size=(*SHAPE, 3))
    nib.save(nib.Nifti1Image(frames.astype(np.float32), AFFINE), tmp_path / "cine.nii.gz")
    project = Project.create(tmp_path / "project", [tmp_path / "cine.nii.gz"], structures=(LIVER, SPLEEN))
    names = [case.name for case in project.cases()]
    for name in names:
        project.save_mask(name, labels(), version=0)
    project.review(names[1], status="accepted")
    toys.install(monkeypatch)
    project.change_settings({"learner": "toy"})
    instant = AdaptSettings(learner="toy")
    Learning(project, open_case=None, progress=Progress(), device="cpu", instant=instant).run()
    tumour = Structure("tumour", 8, "#0000ff")
    project.set_structures((Structure("hepar", 3, "#ff0000"), SPLEEN, tumour))  # since the model learned
    drawn = labels()
    drawn[0, 0, 0] = 8
    project.save_mask(names[0], drawn, version=1)
    export(project, ["report"], tmp_path / "out")
    _, results = read_run(tmp_path / "out" / "report")
    page = run_page(tmp_path / "out" / "report")
    assert page.structures == {3: "hepar", 7: "left kidney", 8: "tumour"}
    assert [row.size for case in page.cases for row in case.structures if row.label == 8] == pytest.approx(
        [0.009, 0, 0]
    )
    assert sorted(result.case for result in results) == sorted(names)
    rows = list(csv.DictReader((tmp_path / "out" / "report" / "statistics.csv").open()))
    assert {row["case"]: row["review_status"] for row in rows} == dict.fromkeys(names, "example") | {
        names[1]: "accepted"
    }


def test_what_cannot_be_exported_is_one_line(project: Project, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stl"):
        export(project, ["stll"], tmp_path / "out")
    empty = Project.create(tmp_path / "empty", [tmp_path / "scans"])
    with pytest.raises(InputError):
        export(empty, ["nifti"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    log = (project.folder / "reviews.csv").read_text()
    with pytest.raises(InputError, match="project"):
        export(project, ["nifti"], project.folder)
    assert (project.folder / "reviews.csv").read_text() == log
    (project.folder / "segmenters" / "one").mkdir(parents=True)
    (project.folder / "segmenters" / "current.json").write_text('{"segmenter": "one"}')
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    (tmp_path / "out" / "bundle" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="earlier export"):
        export(project, ["bundle"], tmp_path / "out")
    assert (tmp_path / "out" / "bundle" / "thesis.txt").read_text() == "mine"


def test_the_command_writes_what_it_says(project: Project, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(project.folder), "-o", str(tmp_path / "out"), "--json", "-q"])
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["files"]) == 4
    assert set(EXPORTS) >= {"nifti", "seg_nrrd", "dicom_seg", "rtstruct", "nnunet", "stl", "statistics", "bundle"}


def test_the_curve_says_when_further_labels_help_little(project: Project) -> None:
    assert [point["dice"] for point in curve(project)] == [1.0]
    assert advice(project) == ""
    names = [f"s{n}" for n in range(6)]
    for rising, word in (((0.5, 0.5, 0.5, 0.7, 0.7, 0.7), "still"), ((0.9,) * 6, "stop"), ((0.5,) * 6, "no longer")):
        fake = _Reviewed(tuple(zip(names, rising, strict=True)))
        assert word in advice(fake)  # type: ignore[arg-type]


class _Reviewed:
    """Stands for a project of which only the reviews matter."""

    def __init__(self, scores: tuple[tuple[str, float], ...]) -> None:
        from medfewshot.workbench import Review

        self._rows = [Review(str(n), case, "accepted", 1, 1, dice) for n, (case, dice) in enumerate(scores)]

    def reviews(self) -> list[object]:
        return list(self._rows)


def test_a_structure_named_background_or_very_long_is_exported_right(project: Project, tmp_path: Path) -> None:
    project.set_structures((Structure("脾" * 200, 3, "#ff0000"), Structure("background", 7, "#00ff80")))
    with pytest.raises(InputError, match="background"):
        export(project, ["nnunet"], tmp_path / "out")
    assert len(export(project, ["stl"], tmp_path / "out").files) == 5


def test_masks_of_a_scan_that_was_replaced_are_not_exported(project: Project, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=labels().shape).astype(np.float32)
    nib.save(nib.Nifti1Image(noise, AFFINE @ np.diag([-1, 1, 1, 1])), project.case("a").scan)
    result = export(Project.open(project.folder), ["nifti"], tmp_path / "out")
    assert result.unread == ["a"]
    assert "not exported: a" in result.notes[0]
    assert "replaced" in result.notes[0]
    assert [path.name for path in (tmp_path / "out" / "nifti").iterdir()] == ["c.nii.gz"]


def test_export_writes_the_others_if_a_scan_is_missing_and_ends_with_1(project: Project, tmp_path: Path) -> None:
    project.case("a").scan.unlink()
    words = ["export", str(project.folder), "-o", str(tmp_path / "out"), "--formats"]
    done = CliRunner().invoke(app, [*words, "nifti,nnunet,statistics"])
    assert done.exit_code == 1, done.output
    assert "not exported: a (" in done.output
    assert [path.name for path in (tmp_path / "out" / "nifti").iterdir()] == ["c.nii.gz"]
    for name in "bc":
        project.case(name).scan.unlink()
    done = CliRunner().invoke(app, [*words, "nifti", "-o", str(tmp_path / "none")])
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "none").exists()


def test_export_names_a_scan_that_was_replaced_by_another_on_the_same_grid(project: Project, tmp_path: Path) -> None:
    for name in "ac":
        nib.save(nib.Nifti1Image(np.random.default_rng(5).random(SHAPE, np.float32), AFFINE), project.case(name).scan)
    result = export(Project.open(project.folder), ["nifti"], tmp_path / "out")
    assert result.notes[0] == "the scan was replaced after the mask was saved: a, c; check the masks"
    assert not result.unread


def test_the_exported_model_has_the_names_of_the_project(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.install(monkeypatch)
    project.change_settings({"learner": "toy"})
    (project.folder / "segmenters" / "segmenter-0007 copy").mkdir(parents=True)  # by hand
    instant = AdaptSettings(learner="toy")
    Learning(project, open_case=None, progress=Progress(), device="cpu", instant=instant).run()
    project.set_structures((Structure("hepar", 3, "#ff0000"), SPLEEN))
    export(project, ["bundle"], tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "bundle" / "segmenter.json").read_text())["plan"]
    assert plan["labels"] == {"3": "hepar", "7": "left kidney"}
