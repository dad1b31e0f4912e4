"""A project on disk: every save whole, no version lost, drafts beside masks, reviews kept."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfewshot.datasets import read_dataset
from medfewshot.errors import InputError
from medfewshot.io import read_examples, read_label
from medfewshot.workbench import IGNORE_VALUE, PROJECT_FILE, Project, Structure, VersionConflict

SHAPE = (6, 7, 5)
LIVER, SPLEEN = Structure("liver", 1, "#ff0000"), Structure("spleen", 2, "#00ff00")


def save_scan(path: Path, affine: np.ndarray | None = None) -> Path:
    voxels = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "scans").mkdir()
    for name in ("a", "b", "c"):
        save_scan(tmp_path / "scans" / f"{name}.nii.gz")
    return Project.create(tmp_path / "project", [tmp_path / "scans"], structures=(LIVER, SPLEEN))


def block(value: int = 1) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:5, 1:4] = value
    return labels


def test_a_new_project_lists_every_scan_as_unlabelled_and_opens_again(project: Project) -> None:
    assert [(case.name, case.status, case.version) for case in project.cases()] == [
        ("a", "unlabelled", 0), ("b", "unlabelled", 0), ("c", "unlabelled", 0),
    ]  # fmt: skip
    again = Project.open(project.folder)
    assert again.cases() == project.cases()
    assert again.structures == (LIVER, SPLEEN)


def test_a_mask_comes_back_as_it_was_drawn_on_the_grid_of_the_scan(tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 7], [0, 0, -3, 9], [0, 0, 0, 1]])
    scan = save_scan(tmp_path / "a.nii.gz", affine)
    project = Project.create(tmp_path / "project", [scan], structures=(LIVER,))
    assert project.save_mask("a", block(), version=0) == 1
    path = project.mask_path("a")
    assert path is not None
    stored = nib.load(path)
    assert np.array_equal(np.asarray(stored.dataobj), block())
    assert np.allclose(stored.affine, affine, atol=1e-5)
    shown = Project.open(project.folder).read_labels("a")
    assert shown is not None
    assert np.array_equal(shown, block())


def test_the_second_of_two_saves_of_one_version_is_refused_and_changes_nothing(project: Project) -> None:
    project.save_mask("a", block(1), version=0)
    with pytest.raises(VersionConflict) as refused:
        project.save_mask("a", block(2), version=0)
    assert refused.value.current == 1
    assert np.array_equal(project.read_labels("a"), block(1))
    assert project.save_mask("a", block(2), version=1) == 2
    assert sorted(path.name for path in (project.folder / "history" / "a").glob("*.nii.gz")) == [
        "0001.nii.gz", "0002.nii.gz",
    ]  # fmt: skip


def test_slices_that_are_not_drawn_are_ignored_on_disk_and_background_on_the_page(project: Project) -> None:
    project.save_mask("a", block(), version=0, drawn=[2, 4], axis=2)
    stored = read_label(project.folder / "labels" / "a.nii.gz").data[0]
    assert np.array_equal(stored[:, :, [2, 4]], block()[:, :, [2, 4]])
    others = stored[:, :, [0, 1, 3]]
    painted = block()[:, :, [0, 1, 3]] == 1
    assert (others[~painted] == IGNORE_VALUE).all()
    assert (others[painted] == 1).all()
    assert np.array_equal(project.read_labels("a"), block())
    facts = Project.open(project.folder).facts("a")
    assert (facts.drawn, facts.axis, facts.complete, facts.teaches) == ((2, 4), 2, False, True)


@pytest.mark.parametrize(
    ("labels", "more"),
    [
        (np.zeros((2, 2, 2), np.uint8), {}),
        (np.zeros(SHAPE, np.float32), {}),
        (np.full(SHAPE, 9, np.uint8), {}),
        (np.full(SHAPE, 257, np.int16), {}),
        (np.full(SHAPE, -1, np.int16), {}),
        (np.zeros(SHAPE, np.uint8), {"drawn": [5], "axis": 2}),
        (np.zeros(SHAPE, np.uint8), {"drawn": [1], "axis": 3}),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(project: Project, labels: np.ndarray, more: dict[str, object]) -> None:
    with pytest.raises(InputError):
        project.save_mask("a", labels, version=0, **more)  # type: ignore[arg-type]
    assert project.mask_path("a") is None


def test_a_draft_never_replaces_a_mask_and_a_complete_mask_keeps_the_draft_that_it_came_from(project: Project) -> None:
    assert project.write_draft("a", block(2), confidence=0.6, reason="spleen is far larger", distance=0.2)
    case = project.case("a")
    assert (case.status, case.reason, case.confidence) == ("needs review", "spleen is far larger", 0.6)
    assert np.array_equal(project.read_labels("a"), block(2))
    project.save_mask("a", block(1), version=0)
    assert not project.write_draft("a", block(2), confidence=0.9)
    assert np.array_equal(project.read_labels("a"), block(1))
    assert project.case("a").draft == 1
    assert project.case("a").status == "example"


def test_a_mask_that_is_partly_drawn_gets_a_draft_beside_it(project: Project) -> None:
    project.save_mask("a", block(1), version=0, drawn=[2], axis=2)
    assert project.write_draft("a", block(2), confidence=0.9)
    assert np.array_equal(project.read_labels("a"), block(1))
    assert np.array_equal(project.read_draft("a"), block(2))


def test_accepting_a_draft_freezes_it_and_makes_no_example_of_it(project: Project) -> None:
    project.write_draft("a", block(1), confidence=0.9)
    project.review("a", status="accepted", note="good")
    again = Project.open(project.folder)
    case = again.case("a")
    assert (case.status, case.note, case.version) == ("accepted", "good", 1)
    assert again.examples() == []
    assert not again.write_draft("a", block(2), confidence=0.9)
    assert [(review.dice, review.status) for review in again.reviews()] == [(1.0, "accepted")]


def test_a_draft_that_was_accepted_and_then_rejected_gets_a_new_one(project: Project) -> None:
    project.write_draft("a", block(1), confidence=0.9)
    project.review("a", status="accepted")
    project.review("a", status="rejected")
    assert project.case("a").status == "rejected"
    assert np.array_equal(project.read_labels("a"), block(1))
    assert read_dataset(project.folder).labelled == ()
    assert project.write_draft("a", block(2), confidence=0.9)
    assert project.case("a").status == "draft"
    assert np.array_equal(Project.open(project.folder).read_labels("a"), block(2))


def test_accepting_a_partly_drawn_mask_fills_the_rest_from_the_draft(project: Project) -> None:
    drawn, draft = np.zeros(SHAPE, np.uint8), block(2)
    drawn[:, :, 2] = block(1)[:, :, 2]
    project.save_mask("a", drawn, version=0, drawn=[2], axis=2)
    project.write_draft("a", draft, confidence=0.9)
    project.review("a", status="accepted")
    expected = draft.copy()
    expected[:, :, 2] = drawn[:, :, 2]
    assert np.array_equal(project.read_labels("a"), expected)
    assert project.facts("a").complete
    assert [case.case_id for case in project.examples()] == ["a"]


def test_a_review_counts_until_the_mask_or_draft_changes(project: Project) -> None:
    project.write_draft("a", block(1), confidence=0.9)
    project.review("a", status="rejected", note="wrong side")
    assert project.case("a").status == "rejected"
    project.write_draft("a", block(2), confidence=0.9)
    assert project.case("a").status == "draft"
    project.save_mask("b", block(1), version=0)
    project.review("b", status="accepted")
    assert project.case("b").status == "accepted"
    project.save_mask("b", block(2), version=1)
    assert project.case("b").status == "example"
    with pytest.raises(InputError):
        project.review("c", status="accepted")


def test_a_mask_that_was_rejected_is_no_example_until_it_is_drawn_again(project: Project) -> None:
    project.save_mask("a", block(), version=0)
    project.save_mask("b", block(), version=0, drawn=[2], axis=0)
    project.write_draft("b", block(), confidence=0.5)
    for name in "ab":
        project.review(name, status="rejected")
    project.review("a", note="too large")
    assert [case.case_id for case in project.examples()] == ["b"]  # there the draft was rejected
    dataset = read_dataset(project.folder)
    assert [case.case_id for case in dataset.labelled] == ["b"]
    assert any("rejected" in note for note in dataset.notes)
    project.save_mask("a", block(2), version=1)
    assert [case.case_id for case in project.examples()] == ["b", "a"]


def test_a_mask_in_which_all_was_undone_is_none(project: Project) -> None:
    for name in "ab":
        project.save_mask(name, np.zeros(SHAPE, np.uint8), version=0, drawn=[], axis=0)
    project.write_draft("a", block(), confidence=0.9)
    again = Project.open(project.folder)
    assert [again.case(name).status for name in "ab"] == ["draft", "unlabelled"]
    assert np.array_equal(again.read_labels("a"), block())
    assert again.read_labels("b") is None
    with pytest.raises(InputError, match="neither a mask nor a draft"):
        again.review("b", status="accepted")
    again.review("a", status="rejected")
    assert again.write_draft("a", block(2), confidence=0.9)
    assert again.case("a").status == "draft"
    again.review("a", status="accepted")
    assert again.facts("a").source == "draft"
    assert np.array_equal(again.read_labels("a"), block(2))


def test_a_correction_is_scored_against_its_draft(project: Project) -> None:
    project.write_draft("a", block(1), confidence=0.9)
    corrected = block(1)
    corrected[1, 2:5, 1:4] = 0  # a third of the block
    project.save_mask("a", corrected, version=0)
    assert project.agreement("a") == pytest.approx(2 * 18 / (18 + 27), abs=1e-4)


def test_what_to_label_next_is_uncertain_and_far_from_the_examples(project: Project) -> None:
    project.write_draft("a", block(), confidence=0.9, distance=0.3)
    project.write_draft("b", block(), confidence=0.5, distance=0.3)
    project.write_draft("c", block(), confidence=0.7, distance=0.1)
    assert [case.name for case in project.cases()] == ["b", "c", "a"]
    project.review("b", status="accepted")
    assert project.cases()[-1].name == "b"


def change_elsewhere(project: Project, labels: np.ndarray, *, seconds: int = 1) -> None:
    """Save the mask of ``a`` as another program does, whose clock may be late."""
    path = project.folder / "labels" / "a.nii.gz"
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + seconds * 10**9))


@pytest.mark.parametrize("seconds", [1, -1000])
def test_a_mask_that_another_program_changed_becomes_a_version(project: Project, seconds: int) -> None:
    project.save_mask("a", block(1), version=0)
    change_elsewhere(project, block(2), seconds=seconds)
    again = Project.open(project.folder)
    assert again.facts("a").version == 2
    assert np.array_equal(again.read_labels("a"), block(2))
    assert np.array_equal(read_label(project.folder / "history" / "a" / "0001.nii.gz").data[0], block(1))
    assert Project.open(project.folder).facts("a").version == 2


def test_a_change_by_another_program_is_kept_while_the_project_is_open(project: Project) -> None:
    project.save_mask("a", block(1), version=0)
    change_elsewhere(project, block(5))
    with pytest.raises(VersionConflict) as refused:
        project.save_mask("a", block(1), version=1)
    assert refused.value.current == 2
    assert [one.value for one in project.structures] == [1, 2, 5]
    assert np.array_equal(project.read_labels("a"), block(5))
    assert project.save_mask("a", block(1), version=2) == 3
    assert np.array_equal(read_label(project.folder / "history" / "a" / "0002.nii.gz").data[0], block(5))


@pytest.mark.parametrize("is_open", [False, True])
def test_a_mask_that_another_program_flipped_is_turned_back(project: Project, is_open: bool) -> None:
    project.save_mask("a", block(1), version=0)
    drawn = block(2)
    drawn[5, 0, 0] = 1
    path = project.folder / "labels" / "a.nii.gz"
    nib.save(nib.Nifti1Image(drawn[::-1], np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])), path)
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    if is_open:
        with pytest.raises(VersionConflict):
            project.save_mask("a", block(1), version=1)
    again = project if is_open else Project.open(project.folder)
    assert again.facts("a").version == 2
    assert np.array_equal(again.read_labels("a"), drawn)
    assert np.array_equal(nib.load(again.mask_path("a")).affine, np.eye(4))


def test_a_mask_of_another_program_that_cannot_be_kept_is_named_and_stays(project: Project) -> None:
    project.save_mask("a", block(1), version=0)
    path = project.folder / "labels" / "a.nii.gz"
    change_elsewhere(project, 300 * block(1).astype(np.int16))
    with pytest.raises(InputError, match=r"labels/a\.nii\.gz: has the value 300"):
        Project.open(project.folder)
    nib.save(nib.Nifti1Image(block(1), np.diag([1, 1, 2.0, 1])), path)
    with pytest.raises(InputError, match="lie on different grids"):
        Project.open(project.folder)
    path.unlink()
    assert np.array_equal(Project.open(project.folder).read_labels("a"), block(1))


def test_accepting_a_draft_does_not_replace_a_mask_of_another_program(project: Project) -> None:
    project.write_draft("a", block(1), confidence=0.9)
    change_elsewhere(project, block(2))
    with pytest.raises(VersionConflict):
        project.review("a", status="accepted")
    assert not project.reviews()
    project.review("a", status="accepted")
    assert np.array_equal(project.read_labels("a"), block(2))


def test_an_earlier_version_that_is_put_back_with_its_time_is_kept(project: Project) -> None:
    for version in range(2):
        project.save_mask("a", block(1 + version), version=version)
        time.sleep(0.02)
    shutil.copy2(project.folder / "history/a/0001.nii.gz", project.folder / "labels/a.nii.gz")
    again = Project.open(project.folder)
    assert again.facts("a").version == 3
    assert np.array_equal(again.read_labels("a"), block(1))
    assert np.array_equal(read_label(project.folder / "history/a/0002.nii.gz").data[0], block(2))


def test_a_save_that_was_interrupted_after_the_version_was_written_is_completed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.save_mask("a", block(1), version=0)
    time.sleep(0.02)  # a tick of the clock of files
    with monkeypatch.context() as patch:
        patch.delattr("medfewshot.workbench.mask_store.MaskStore._publish")
        with pytest.raises(AttributeError):
            project.save_mask("a", block(2), version=1)
    assert np.array_equal(read_label(project.folder / "labels/a.nii.gz").data[0], block(1))
    (project.folder / "labels" / ".0123.nii.gz").write_bytes(b"half")
    again = Project.open(project.folder)
    assert np.array_equal(again.read_labels("a"), block(2))
    assert sorted(path.name for path in (project.folder / "labels").iterdir()) == ["a.nii.gz"]


def save_forever(folder: Path, told: int) -> None:
    """Save versions, drafts and notes without end, and write the number of each version to the file ``told``."""
    project = Project.open(folder)
    version = project.facts("a").version
    while True:
        labels = np.full(SHAPE, 1 + version % 2, np.uint8)
        labels[0, 0, 0] = 0
        version = project.save_mask("a", labels, version=version, drawn=[version % 5], axis=2)
        project.write_draft("b", labels, confidence=0.5)
        project.review("b", note=str(version))
        os.write(told, f"{version} ".encode())


def killed_after(folder: Path, seconds: float) -> int:
    """Let another process save into ``folder`` and kill it; the last version that it told of."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            save_forever(folder, writer)
        os._exit(1)
    os.close(writer)
    first = os.read(reader, 64).decode()
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    with open(reader, "rb") as rest:
        told = int((first + rest.read().decode()).split()[-1])
    os.waitpid(child, 0)
    return told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")
@pytest.mark.parametrize("seconds", np.linspace(0, 0.06, 20))
def test_killing_a_program_while_it_saves_loses_no_version_and_leaves_every_file_whole(
    project: Project, seconds: float
) -> None:
    told = killed_after(project.folder, seconds)
    again = Project.open(project.folder)
    version = again.facts("a").version
    assert version in (told, told + 1)  # a save that was not told of may be complete
    labels = again.read_labels("a")
    assert labels is not None
    assert int(labels[1, 1, 1]) == 1 + (version - 1) % 2
    assert again.facts("a").drawn == ((version - 1) % 5,)
    for path in project.folder.rglob("*.nii.gz"):
        nib.load(path).get_fdata()
    for path in project.folder.rglob("*.json"):
        json.loads(path.read_text())
    notes = [int(review.note) for review in again.reviews()]
    assert notes == list(range(1, notes[-1] + 1))
    assert told <= notes[-1] <= version


def test_a_folder_that_refuses_to_be_written_hides_no_mask(project: Project) -> None:
    """Otherwise the next save would be version 1 again, over the mask that is there."""
    for name in "ab":
        project.save_mask(name, block(), version=0)
    labels = project.folder / "labels"
    shutil.rmtree(labels)
    labels.write_text("in the way")  # as root, permissions would not stop us
    again = Project.open(project.folder)
    assert [again.facts(name).version for name in "abc"] == [1, 1, 0]


def test_a_scan_is_read_once(project: Project) -> None:
    scan, path = project.read_scan("a"), project.case("a").scan
    found = path.stat()
    path.write_bytes(bytes(found.st_size))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert project.save_mask("a", block(), version=0) == 1
    assert project.grid("a").spatial_shape == scan.spatial_shape


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "[" * 100_000])
def test_a_project_file_that_is_damaged_is_one_line(project: Project, text: str) -> None:
    (project.folder / PROJECT_FILE).write_text(text)
    with pytest.raises(InputError):
        Project.open(project.folder)


def test_a_missing_scan_is_named_and_stops_nothing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "scans" / "b.nii.gz").unlink()
    again = Project.open(project.folder)
    assert "missing" in again.case("b").reason
    assert again.case("a").reason == ""
    again.save_mask("a", block(), version=0)


def test_a_project_can_be_moved_together_with_its_scans(project: Project, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "scans").rename(moved / "scans")
    project.folder.rename(moved / "project")
    assert all(case.scan.exists() for case in Project.open(moved / "project").cases())


def test_a_structure_that_is_drawn_cannot_be_removed(project: Project) -> None:
    project.save_mask("a", block(2), version=0)
    with pytest.raises(InputError):
        project.set_structures((LIVER,))
    project.set_structures((LIVER, SPLEEN, Structure("kidney", 3, "#0000ff")))
    assert [one.name for one in Project.open(project.folder).structures] == ["liver", "spleen", "kidney"]


def test_no_new_structure_takes_over_what_drafts_contain_of_a_removed_one(project: Project) -> None:
    draft = block(1)
    draft[5] = 2
    for name in "ab":
        project.write_draft(name, draft, confidence=0.9)
    project.set_structures((LIVER,))
    project = Project.open(project.folder)
    with pytest.raises(InputError, match="value 2"):
        project.set_structures((LIVER, Structure("tumour", 2, "#0000ff")))
    project.set_structures((LIVER, Structure("tumour", 0, "#0000ff")))
    assert [(one.name, one.value) for one in project.structures] == [("liver", 1), ("tumour", 3)]
    project.save_mask("b", block(3), version=0, drawn=[0], axis=0)
    project.review("a", status="accepted")
    project.review("b", status="accepted")
    assert np.array_equal(project.read_draft("a"), block(1))
    assert np.array_equal(project.read_labels("a"), block(1))
    assert (project.facts("a").voxels, project.facts("b").voxels) == ({1: 27}, {3: 27})
    project.save_mask("a", project.read_labels("a"), version=1)


def test_a_mask_of_another_program_is_copied_with_its_values(project: Project, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(block(3), np.eye(4)), mask)
    project.import_mask("a", mask)
    assert np.array_equal(project.read_labels("a"), block(3))
    assert [(one.name, one.value) for one in project.structures] == [("liver", 1), ("spleen", 2), ("label 3", 3)]
    assert project.case("a").status == "example"


def test_structures_that_a_mask_names_get_their_values_in_the_project(project: Project) -> None:
    labels = block(1)
    labels[5, 0] = 2
    named = replace(project.grid("a"), data=labels[None].astype(np.int16), names={1: "spleen", 2: "tumour"})
    project.import_mask("a", named)
    assert project.facts("a").voxels == {2: 27, 3: 5}
    assert [(one.name, one.value) for one in project.structures] == [("liver", 1), ("spleen", 2), ("tumour", 3)]


def test_old_versions_go_and_reviewed_ones_stay(project: Project) -> None:
    project.save_mask("a", block(1), version=0)
    project.review("a", status="accepted")
    for version in range(1, 35):
        project.save_mask("a", block(1 + version % 2), version=version)
    kept = sorted(int(path.name[:4]) for path in (project.folder / "history" / "a").glob("*.nii.gz"))
    assert kept == [1, *range(6, 36)]


def test_each_frame_of_a_film_is_a_case_with_its_own_mask(tmp_path: Path) -> None:
    frames = np.stack([np.full(SHAPE, 10 * number, np.float32) + block() for number in range(11)], -1)
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    image = nib.Nifti1Image(frames, affine)
    image.header.set_xyzt_units("mm", "sec")
    (tmp_path / "scans").mkdir()
    nib.save(image, tmp_path / "scans" / "cine.nii.gz")
    save_scan(tmp_path / "scans" / "still.nii.gz")
    project = Project.create(tmp_path / "project", [tmp_path / "scans"], structures=(LIVER,))
    names = [f"cine frame {number:02d}" for number in range(11)]
    assert [(case.name, case.frame) for case in project.cases()] == [
        *zip(names, range(11), strict=True),
        ("still", None),
    ]
    assert np.array_equal(project.read_scan(names[7]).data[0], frames[..., 7])
    project.save_mask(names[7], block(), version=0)
    again = Project.open(project.folder)
    stored = nib.load(again.mask_path(names[7]))
    assert np.array_equal(np.asarray(stored.dataobj), block())
    assert np.allclose(stored.affine, affine)
    assert [case.status for case in again.cases() if case.frame == 7] == ["example"]
    (labelled,) = read_dataset(project.folder).labelled
    assert labelled.subject_id == "cine.nii.gz"
    for case in (*again.examples(), labelled):
        ((image, label),) = read_examples(case)
        assert (image.frame, label.frame) == (7, 7)
        assert np.array_equal(image.data[0], frames[..., 7])


def test_volumes_without_a_time_are_frames_with_a_warning_and_a_lost_film_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cine.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 3), np.float32), np.eye(4)), path)
    project = Project.create(tmp_path / "project", [path])
    assert "the 3 volumes of its file are taken as frames" in project.read_scan("cine frame 0").warnings[0]
    save_scan(path)
    with pytest.raises(InputError, match="contains one volume now"):
        project.read_scan("cine frame 1")
    content = json.loads((project.folder / PROJECT_FILE).read_text())
    content["scans"][0]["frame"] = -1
    (project.folder / PROJECT_FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match="has the frame -1"):
        Project.open(project.folder)


def test_a_scan_that_is_named_like_a_frame_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(np.zeros((*SHAPE, 2), np.float32), np.eye(4)), tmp_path / "scans" / "cine.nii.gz")
    save_scan(tmp_path / "scans" / "cine frame 1.nii.gz")
    with pytest.raises(InputError, match="cine frame 1: is a frame of a film, and another scan"):
        Project.create(tmp_path / "project", [tmp_path / "scans"])
    assert not (tmp_path / "project").exists()


def test_a_mask_is_refused_if_the_scan_was_replaced_by_one_that_is_turned(project: Project) -> None:
    project.save_mask("a", block(), version=0)
    project.write_draft("b", block(), confidence=0.9)
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    for name in ("a", "b"):
        save_scan(project.folder.parent / "scans" / f"{name}.nii.gz", flipped)
    again = Project.open(project.folder)
    with pytest.raises(InputError, match="replaced"):
        again.read_labels("a")
    with pytest.raises(InputError, match="replaced"):
        again.review("b", status="accepted")
    assert again.read_labels("b") is None
    assert again.facts("b").version == 0


def test_a_scan_in_micrometres_has_the_grid_of_its_mask(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), np.diag([500.0, 500, 500, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii.gz")
    project = Project.create(tmp_path / "project", [tmp_path / "a.nii.gz"], structures=(LIVER,))
    project.save_mask("a", block(), version=0)
    assert np.array_equal(Project.open(project.folder).read_labels("a"), block())


def test_reviews_of_another_program_stay(project: Project) -> None:
    other = Project.open(project.folder)
    project.review("a", note="mine")
    other.review("b", note="theirs")
    assert [review.note for review in Project.open(project.folder).reviews()] == ["mine", "theirs"]


def test_only_what_the_reviewer_saw_is_accepted(project: Project) -> None:
    project.write_draft("a", block(), confidence=0.9)
    project.write_draft("a", block(2), confidence=0.9)
    with pytest.raises(VersionConflict):
        project.review("a", status="accepted", seen=(0, 1))
    project.review("a", status="accepted", seen=(0, 2))
    assert project.case("a").status == "accepted"
