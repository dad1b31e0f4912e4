"""Leave-out tests: what is learned and scored, what is resumed, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import toys

from medfewshot.errors import InputError
from medfewshot.learners import LEARNERS
from medfewshot.settings import AdaptSettings, CurveSettings
from medfewshot.types import Cancelled, Case, Progress
from medfewshot.workflow import find_supports, learning_curve
from medfewshot.workflow.curve import plan_cells

TOY = {**LEARNERS, "toy": toys.TOY}
SETTINGS = AdaptSettings(learner="toy", device="cpu")
ONE = CurveSettings(shots=(1, 2, 3), draws=1)


def cases(count: int, subjects: int | None = None) -> list[Case]:
    return [Case(f"c{i}", f"s{i % (subjects or count)}", None, ()) for i in range(count)]


def curve(root, curve=ONE, settings=SETTINGS, progress=None):
    source = find_supports(root / "annotated")
    return learning_curve(source, root / "out", settings, curve, progress=progress, learners=TOY)


def test_choices_are_nested_and_never_score_what_they_learned_from():
    cells = plan_cells(cases(9), CurveSettings(), seed=0)
    assert [cell.shots for cell in cells] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 5, 5, 5, 8, 8, 8]
    for cell in cells:
        assert sorted((*cell.learned, *cell.tested)) == list(range(9))
    first = {cell.shots: set(cell.learned) for cell in cells if cell.draw == 1}
    assert first[1] < first[2] < first[3] < first[5] < first[8]
    assert len({cell.learned for cell in cells if cell.shots == 1}) == 3
    assert all(len(cell.tested) == 1 for cell in plan_cells(cases(9), CurveSettings(tests=1), seed=0))


def test_scans_of_one_subject_are_never_on_both_sides():
    for cell in plan_cells(cases(8, subjects=4), CurveSettings(shots=(1, 2)), seed=1):
        assert not {one % 4 for one in cell.learned} & {one % 4 for one in cell.tested}


def test_a_copy_of_a_scan_under_another_name_is_never_on_the_other_side(tmp_path):
    root = toys.make_folders(tmp_path, supports=4)
    for folder in (root / "annotated").iterdir():
        shutil.copy(folder / "s0.nii.gz", folder / "twin.nii.gz")
    found = curve(root, CurveSettings(shots=(1, 2), draws=5))
    assert {score.subject for score in found.scores if score.case in ("s0", "twin")} == {"s0"}


def test_too_few_scans_and_too_many_shots():
    with pytest.raises(InputError, match="at least 3"):
        plan_cells(cases(2), CurveSettings(), seed=0)
    with pytest.raises(InputError, match="leave none"):
        plan_cells(cases(4), CurveSettings(shots=(1, 4)), seed=0)
    with pytest.raises(InputError, match="same subject"):
        plan_cells(cases(4, subjects=1), CurveSettings(), seed=0)
    with pytest.raises(InputError, match="3 labelled scans leave no other subject"):
        plan_cells(cases(4, subjects=2), CurveSettings(shots=(1, 3)), seed=0)
    assert {cell.shots for cell in plan_cells(cases(4, subjects=2), CurveSettings(), seed=0)} <= {1, 2}


def test_each_labelled_frame_of_a_film_is_scored_as_itself(tmp_path):
    """Values 1 and 2 of scan n are visible as intensities, so a frame scored against another one has a low Dice."""
    for patient in range(3):
        images, labels = zip(*(toys.make_scan(3 * patient + frame) for frame in range(3)), strict=True)
        film = nib.Nifti1Image(np.stack(images, -1), toys.AFFINE)
        film.header.set_xyzt_units("mm", "sec")
        for folder in ("imagesTr", "labelsTr"):
            (tmp_path / "annotated" / folder).mkdir(parents=True, exist_ok=True)
        nib.save(film, tmp_path / f"annotated/imagesTr/p{patient}.nii.gz")
        toys.save_nifti(tmp_path / f"annotated/labelsTr/p{patient}.nii.gz", np.stack(labels, -1))
    found = curve(tmp_path, CurveSettings(shots=(1,), draws=1))
    tested = {(score.case, score.subject) for score in found.scores}
    assert len(tested) == 6
    assert len({subject for _, subject in tested}) == 2
    assert {name.split(" frame ")[0] for name, _ in tested} == {subject for _, subject in tested}
    assert found.labelled == 9


def test_a_curve_is_written_and_resumed_after_the_last_finished_model(tmp_path, monkeypatch):
    toys.make_folders(tmp_path, supports=4, queries=0)
    toys.install(monkeypatch)
    stopped = Progress(cancelled=lambda: toys.ToyLearner.adapted == 2 and (tmp_path / "out/curve_scores.csv").exists())
    with pytest.raises(Cancelled):
        curve(tmp_path, progress=stopped)
    before = toys.ToyLearner.adapted
    found = curve(tmp_path)
    assert (before, toys.ToyLearner.adapted - before) == (2, 2), "the first model is kept, the second is made again"
    assert [(point.shots, point.tests, point.dice) for point in found.overall] == [(1, 3, 1), (2, 2, 1), (3, 1, 1)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "curve.csv", "curve_scores.csv", "curve.png", "curve.json", "data_dictionary.csv",
    }  # fmt: skip
    toys.assert_columns_described(tmp_path / "out")
    assert "help little" in json.loads((tmp_path / "out" / "curve.json").read_text())["sentence"]
    with pytest.raises(InputError, match="other scans or settings"):
        curve(tmp_path, settings=SETTINGS.replace(seed=1))
    assert curve(tmp_path, ONE.replace(overwrite=True), SETTINGS.replace(seed=1)).overall


def test_a_structure_that_the_chosen_scans_do_not_show_counts_as_missed(tmp_path):
    toys.make_folders(tmp_path, supports=3, queries=0)
    for number in (0, 1):
        path = tmp_path / "annotated" / "labels" / f"s{number}.nii.gz"
        label = np.asarray(nib.load(path).dataobj)
        toys.save_nifti(path, np.where(label == 420, 0, label).astype(np.int16))
    found = curve(tmp_path, CurveSettings(shots=(1,), draws=3))
    learned = {draw: [one.dice for one in found.scores if (one.draw, one.case) == (draw, "s2")] for draw in (1, 2, 3)}
    assert sorted(learned.values()) == [[], [1, 0], [1, 0]]


def test_a_label_to_ignore_is_no_structure(tmp_path):
    toys.make_folders(tmp_path, supports=3, queries=0)
    for path in (tmp_path / "annotated" / "labels").iterdir():
        label = np.asarray(nib.load(path).dataobj).astype(np.int16)
        label[:1] = 255
        toys.save_nifti(path, label)
    found = curve(tmp_path, CurveSettings(shots=(1,), draws=1), SETTINGS.replace(ignore=255))
    assert {one.structure for one in found.scores} == {"label 205", "label 420"}


def test_a_curve_is_not_resumed_with_other_subjects_or_names_of_structures(tmp_path):
    toys.make_folders(tmp_path, supports=3, queries=0)
    one = CurveSettings(shots=(1,), draws=1)
    source = find_supports(tmp_path / "annotated")
    curve(tmp_path, one)
    renamed = replace(source, cases=tuple(replace(case, subject_id=f"new {case.case_id}") for case in source.cases))
    with pytest.raises(InputError, match="other scans or settings"):
        learning_curve(renamed, tmp_path / "out", SETTINGS, one, learners=TOY)
    for names in ("kidney", "spleen"), ("spleen", "kidney"):
        rows = [f'{v} 255 0 0 1 1 1 "{name}"\n' for v, name in zip(toys.VALUES, names, strict=True)]
        text = "".join(["# ITK-SnAP Label Description File\n", *rows])
        (tmp_path / "annotated" / "labels" / "labels.txt").write_text(text)
        with pytest.raises(InputError, match="other scans or settings"):
            curve(tmp_path, one)
        found = curve(tmp_path, one.replace(overwrite=True))
        assert {score.structure for score in found.scores} == set(names)
