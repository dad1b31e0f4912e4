"""Scores of films whose volumes are known on paper."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import toys

from medfewshot.errors import InputError
from medfewshot.evaluation import evaluate_pairs


def bar(length: int) -> np.ndarray:
    """A bar of value 1, and one voxel of value 2."""
    labels = np.zeros((12, 4, 4), np.uint8)
    labels[:length, 1, 1] = 1
    labels[0, 3, 3] = 2
    return labels


def film(path, lengths, blank=None):
    frames = [np.full((12, 4, 4), blank, np.uint8) if length is None else bar(length) for length in lengths]
    return toys.save_nifti(path, np.stack(frames, -1))


@pytest.mark.parametrize("blank", [0, 255])
def test_labelled_frames_are_scored_and_changes_compared(tmp_path, blank):
    prediction = film(tmp_path / "a.nii.gz", (10, 8, 6, 4))
    reference = film(tmp_path / "a_ref.nii.gz", (10, None, None, 5), blank)
    evaluation = evaluate_pairs([("a", prediction, reference)])
    found = {(score.case_id, score.label): score.dice for score in evaluation.scores}
    assert found == {("a frame 0", 1): 1, ("a frame 0", 2): 1, ("a frame 3", 1): pytest.approx(8 / 9),
                     ("a frame 3", 2): 1}  # fmt: skip
    assert {score.subject_id for score in evaluation.scores} == {"a"}
    first, second = evaluation.films
    assert (first.change_percent, first.reference_change_percent) == (60, 50)
    assert first.consistency == pytest.approx((16 / 18 + 12 / 14 + 8 / 10) / 3)
    assert (second.change_percent, second.consistency, second.labelled_frames) == (0, 1, 2)
    evaluation.write(tmp_path / "scores")
    row = next(csv.DictReader((tmp_path / "scores/films.csv").open()))
    assert (row["case_id"], row["label"], row["frames"], row["change_error_points"]) == ("a", "1", "4", "10.0")


def test_structures_of_a_film_are_compared_by_name_and_ignored_voxels_are_no_structure(tmp_path):
    prediction = film(tmp_path / "a.nii.gz", (10, 8, 6))
    frames = np.stack([bar(length) for length in (10, 8, 6)], -1)
    swapped = np.choose(frames, [0, 2, 1]).astype(np.uint8)
    swapped[:, 0, 0] = 9
    reference = toys.save_nifti(tmp_path / "ref.nii.gz", swapped)
    names = {"names": {1: "bar", 2: "dot"}, "reference_names": {1: "dot", 2: "bar"}}
    found = evaluate_pairs([("a", prediction, reference)], ignore=9, **names).films
    assert [(one.label, one.change_percent, one.reference_change_percent) for one in found] == [(1, 40, 40), (2, 0, 0)]


def test_empty_frames_of_a_reference_are_not_scored_and_named(tmp_path):
    reference = film(tmp_path / "ref.nii.gz", (10, None, 6), 0)
    evaluation = evaluate_pairs([("a", film(tmp_path / "a.nii.gz", (10, 8, 6)), reference)])
    assert {score.case_id for score in evaluation.scores} == {"a frame 0", "a frame 2"}
    assert any("1 frame(s) are empty" in warning for warning in evaluation.warnings)


@pytest.mark.parametrize("lengths", [(10, 8), None], ids=["fewer frames", "one volume"])
def test_films_that_do_not_fit_are_refused(tmp_path, lengths):
    reference = film(tmp_path / "ref.nii.gz", (10, 8, 6))
    prediction = film(tmp_path / "a.nii.gz", lengths) if lengths else toys.save_nifti(tmp_path / "a.nii.gz", bar(4))
    with pytest.raises(InputError, match=r"a\.nii\.gz has [12] frame\(s\), but .* has 3"):
        evaluate_pairs([("a", prediction, reference)])


def test_motion_is_compensated_if_the_scan_is_known(tmp_path):
    """A block moves by two voxels a frame: its label moves along in one prediction, and stays behind in the other."""

    def moved(start: int) -> np.ndarray:
        labels = np.zeros((24, 12, 4), np.uint8)
        labels[start : start + 6, 3:9, 1:3] = 1
        return labels

    truth = [moved(4 + 2 * frame) for frame in range(3)]
    texture = np.random.default_rng(0).normal(0, 3, (24, 12, 4))
    scan = toys.save_nifti(tmp_path / "scan.nii.gz", np.stack([100.0 * one + texture for one in truth], -1))
    reference = toys.save_nifti(tmp_path / "ref.nii.gz", np.stack(truth, -1))
    still = toys.save_nifti(tmp_path / "still.nii.gz", np.stack([truth[0]] * 3, -1))
    for path, steady, moving in ((reference, 2 / 3, 1), (still, 1, 0.75)):
        (score,) = evaluate_pairs([("a", path, reference)], scans={"a": scan}).films
        assert score.consistency == pytest.approx(steady)
        assert (score.motion_consistency > 0.9) if moving == 1 else (score.motion_consistency < moving)
        assert score.curve_error_percent == 0
    (alone,) = evaluate_pairs([("a", reference, reference)]).films
    assert np.isnan(alone.motion_consistency)


def test_the_error_of_a_volume_curve(tmp_path):
    prediction = film(tmp_path / "a.nii.gz", (10, 8, 6, 4))
    reference = film(tmp_path / "a_ref.nii.gz", (8, None, None, 5), 255)
    first, second = evaluate_pairs([("a", prediction, reference)]).films
    assert first.curve_error_percent == pytest.approx(100 * (2 + 1) / 2 / 8)
    assert second.curve_error_percent == 0
