"""Cases to rows to summaries: counts of misses and false alarms, intervals, matching of files, and what is written."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.evaluation import (
    CaseScore,
    Evaluation,
    bootstrap_interval,
    evaluate_arrays,
    evaluate_pairs,
    match_cases,
    summarize,
)
from medfewshot.metrics import METRICS, Metric
from medfewshot.types import Progress

SHAPE = (10, 10, 10)
SPACING = (1.0, 1.0, 2.0)


def label_map(*values: int) -> np.ndarray:
    """Each value fills its own 3 x 3 x 3 block, in a corner of its own."""
    corners = {1: (0, 0, 0), 2: (6, 6, 6), 5: (0, 6, 0), 420: (6, 0, 0)}
    labels = np.zeros(SHAPE, np.int16)
    for value in values:
        labels[tuple(slice(c, c + 3) for c in corners[value])] = value
    return labels


def save(path: Path, labels: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.diag([*spacing, 1.0])), path)
    return path


def score(case: str, status: str, dice: float, hd95: float = math.nan, label: int = 1, subject: str = "") -> CaseScore:
    values = {"dice": dice, "hd95_mm": hd95, "asd_mm": hd95, "surface_dice": dice, "rvd": math.nan}
    return CaseScore(case, subject or case, label, f"organ {label}", status, values)  # type: ignore[arg-type]


def defined(row: CaseScore) -> dict[str, float]:
    return {name: value for name, value in row.values.items() if not math.isnan(value)}


# --- one case -------------------------------------------------------------------------------------------------------


def test_status_and_values_of_each_kind() -> None:
    rows = evaluate_arrays(
        label_map(1, 5), label_map(1, 2), SPACING, labels={1: "liver", 2: "spleen", 5: "cyst", 420: "x"}, case_id="a"
    )
    assert [(row.label_name, row.status) for row in rows] == [
        ("liver", "found"),
        ("spleen", "missed"),
        ("cyst", "false_alarm"),
        ("x", "absent"),
    ]
    liver, spleen, cyst, absent = rows
    assert liver.values == {"dice": 1, "hd95_mm": 0, "asd_mm": 0, "surface_dice": 1, "rvd": 0}
    assert liver.volume_ml == liver.reference_volume_ml == pytest.approx(27 * 2 / 1000)
    assert defined(spleen) == {"dice": 0, "surface_dice": 0, "rvd": -1}
    assert defined(cyst) == {"dice": 0, "surface_dice": 0}
    assert defined(absent) == {}
    assert (spleen.volume_ml, cyst.reference_volume_ml) == (0, 0)


def test_default_labels_are_those_of_either_map_without_background() -> None:
    rows = evaluate_arrays(label_map(1, 420), label_map(2), SPACING)
    assert [(row.label, row.label_name) for row in rows] == [(1, "1"), (2, "2"), (420, "420")]
    assert [row.label for row in evaluate_arrays(label_map(1), label_map(1), SPACING, labels=[0, 1])] == [1]


@pytest.mark.parametrize("offset", [0, 100_000])
def test_any_label_value_is_scored_as_the_metrics_do(offset: int) -> None:
    rng = np.random.default_rng(0)
    value = 1 + offset
    prediction, reference = (np.where(rng.random(SHAPE) < 0.1, value, 0).astype(np.int64) for _ in range(2))
    (row,) = evaluate_arrays(prediction, reference, SPACING, tolerance_mm=1.0)
    masks = prediction == value, reference == value
    assert row.label == value
    assert row.values == {name: metric(*masks, SPACING, tolerance_mm=1.0) for name, metric in METRICS.items()}


def test_a_metric_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new row has its column in both tables, the meaning and the mean, and sees the whole masks."""
    toy = Metric("share", "share of the image", lambda pair: float(pair.prediction.mean()), "prediction / image")
    monkeypatch.setitem(METRICS, "share", toy)
    pair = save(tmp_path / "p.nii.gz", label_map(1)), save(tmp_path / "r.nii.gz", label_map(1, 2))
    evaluation = evaluate_pairs([("a", *pair)])
    evaluation.write(tmp_path / "out")
    scores = list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))
    assert [float(row["share"]) for row in scores] == pytest.approx([0.027, 0])
    summary = list(csv.DictReader((tmp_path / "out" / "summary.csv").open()))
    assert float(summary[-1]["share_mean"]) == pytest.approx(0.0135)
    document = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert document["meaning"]["share"] == "prediction / image"
    assert document["all_labels"]["share_mean"] == pytest.approx(0.0135)
    read = CaseScore.from_row(scores[0])
    assert (read.values, read.label) == (evaluation.scores[0].values, 1)
    evaluation.write(tmp_path / "out")  # in place of an earlier one
    (tmp_path / "scores.csv").write_text("of somebody else")
    with pytest.raises(InputError, match=r"scores\.csv: exists already"):
        evaluation.write(tmp_path)


def test_columns_keep_their_names() -> None:
    evaluation = Evaluation(tuple(evaluate_arrays(label_map(1), label_map(1), SPACING, case_id="a")))
    assert list(evaluation.score_rows()[0]) == [
        "case_id", "subject_id", "label", "label_name", "status", "dice", "hd95_mm", "asd_mm", "surface_dice", "rvd",
        "volume_ml", "reference_volume_ml", "tolerance_mm",
    ]  # fmt: skip
    assert set(evaluation.summary_rows()[0]) == {
        "label", "label_name", "cases", "subjects", "found", "missed", "false_alarms", "absent", "dice_mean",
        "dice_ci_low", "dice_ci_high", "dice_median", "surface_dice_mean", "hd95_mm_mean", "asd_mm_mean",
        "distances_left_out", "rvd_mean", "tolerance_mm", "volume_bias_ml", "volume_bias_percent",
        "volume_limit_low_ml", "volume_limit_high_ml", "volume_icc", "volume_icc_low", "volume_icc_high",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("prediction", "spacing"),
    [
        (label_map(1)[1:], SPACING),
        (label_map(1).astype(float), SPACING),
        (label_map(1), (1, 1)),
        (label_map(1), (1, 1, 0)),
    ],
)
def test_arrays_that_do_not_fit_raise(prediction: np.ndarray, spacing: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        evaluate_arrays(prediction, label_map(1), spacing)


def test_2d_maps_have_distances_and_no_volume() -> None:
    (row,) = evaluate_arrays(label_map(1)[:, :, 0], label_map(1)[:, :, 0], (1.0, 1.0))
    assert row.dice == 1
    assert math.isnan(row.volume_ml)


# --- summaries ------------------------------------------------------------------------------------------------------


def test_perfect_missed_and_both_empty() -> None:
    """The mean over these is 0.5 with one case left out and said so, not 0 and not 1."""
    cases = {
        "perfect": (label_map(1), label_map(1)),
        "missed": (label_map(), label_map(1)),
        "empty": (label_map(),) * 2,
    }
    rows = [row for case, maps in cases.items() for row in evaluate_arrays(*maps, SPACING, labels=[1], case_id=case)]
    for summary in summarize(rows):
        assert (summary.cases, summary.found, summary.missed, summary.false_alarms, summary.absent) == (3, 1, 1, 0, 1)
        assert (summary.dice_mean, summary.dice_median, summary.means["surface_dice"]) == (0.5, 0.5, 0.5)
        assert (summary.means["hd95_mm"], summary.means["asd_mm"], summary.distances_left_out) == (0, 0, 1)
        assert summary.means["rvd"] == -0.5


def test_volumes_agree_over_cases_with_the_structure() -> None:
    """2 and 4 ml too much, a miss of 3 ml and a case without the structure: bias 1 ml of 5 ml, so 20 %."""
    rows = [
        replace(score(case, status, 1.0), volume_ml=found, reference_volume_ml=true)
        for case, status, found, true in (
            ("a", "found", 6.0, 4.0), ("b", "found", 12.0, 8.0), ("c", "missed", 0.0, 3.0), ("d", "absent", 0.0, 0.0)
        )
    ]  # fmt: skip
    label, overall = summarize(rows)
    assert (label.volumes.cases, label.volumes.bias, label.volumes.bias_percent) == pytest.approx((3, 1, 20))
    assert label.volumes.limit_high == pytest.approx(1 + 1.96 * 13**0.5)
    assert overall.row()["volume_bias_ml"] is None
    assert Evaluation(tuple(rows)).volumes == {"organ 1": [(6, 4), (12, 8), (0, 3)]}


def test_means_count_misses_and_false_alarms_and_distances_do_not() -> None:
    rows = [
        score("a", "found", 0.9, 2.0),
        score("b", "found", 0.6, 4.0),
        score("c", "missed", 0.0),
        score("d", "false_alarm", 0.0),
        score("e", "absent", math.nan),
    ]
    summary = summarize(rows)[0]
    assert (summary.found, summary.missed, summary.false_alarms, summary.absent) == (2, 1, 1, 1)
    assert summary.dice_mean == pytest.approx(1.5 / 4)
    assert summary.dice_median == pytest.approx(0.3)
    assert summary.means["hd95_mm"] == 3.0
    assert summary.distances_left_out == 2


def test_all_labels_is_the_mean_of_case_means() -> None:
    rows = [score("a", "found", 1.0), score("a", "found", 0.5, label=2), score("b", "found", 0.25)]
    *labels, overall = summarize(rows)
    assert [row.label for row in labels] == [1, 2]
    assert overall.label is None
    assert overall.cases == 2
    assert overall.found == 3
    assert overall.dice_mean == pytest.approx((0.75 + 0.25) / 2)


def test_nothing_to_summarize() -> None:
    assert summarize([]) == ()
    absent = summarize([score("a", "absent", math.nan)])[0]
    assert math.isnan(absent.dice_mean)
    assert math.isnan(absent.dice_ci_low)
    assert absent.absent == 1


def test_bootstrap_is_reproducible_and_nan_for_one_subject() -> None:
    subjects = [str(i) for i in range(12)]
    values = np.random.default_rng(0).random(12).tolist()
    assert bootstrap_interval(values, subjects, seed=1) == bootstrap_interval(values, subjects, seed=1)
    assert bootstrap_interval(values, subjects, seed=1) != bootstrap_interval(values, subjects, seed=2)
    assert all(math.isnan(bound) for bound in bootstrap_interval([0.1, 0.5], ["a", "a"]))


def test_bootstrap_covers_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(40)]
    intervals = [
        bootstrap_interval(rng.normal(0.8, 0.1, 40).tolist(), names, seed=i, resamples=200) for i in range(100)
    ]
    assert 87 <= sum(low <= 0.8 <= high for low, high in intervals) <= 100


def test_bootstrap_draws_whole_subjects() -> None:
    """Ten scans each of four subjects say as little about the mean as four scans, not as much as forty."""
    values, names = [0.2, 0.4, 0.6, 0.8], ["a", "b", "c", "d"]
    once = bootstrap_interval(values, names)
    assert bootstrap_interval(values * 10, names * 10) == pytest.approx(once)


# --- files ----------------------------------------------------------------------------------------------------------


def test_matches_by_case_id_and_names_what_is_left_over(tmp_path: Path) -> None:
    for name in ("ct_1.nii.gz", "ct_2_seg.nii.gz", "ct_9.nii.gz", "ct_1_seg.nii.gz"):
        save(tmp_path / "predictions" / name, label_map(1))
    for name in ("ct_1.nii.gz", "ct_2.nii", "ct_3.nii.gz"):
        save(tmp_path / "dataset" / "labelsTr" / name, label_map(1))
    (tmp_path / "predictions" / "scores.csv").write_text("not an image")
    (tmp_path / "predictions" / "bland_altman.png").write_text("the plot of the scores")
    pairs, warnings = match_cases(tmp_path / "predictions", tmp_path / "dataset")
    assert [(case, a.name, b.name) for case, a, b in pairs] == [
        ("ct_1", "ct_1.nii.gz", "ct_1.nii.gz"),
        ("ct_2", "ct_2_seg.nii.gz", "ct_2.nii"),
    ]
    without_prediction, without_reference = warnings
    assert "1 of 3" in without_prediction
    assert "ct_3.nii.gz" in without_prediction
    assert "2 of 4" in without_reference
    assert "ct_9" in without_reference
    assert "ct_1_seg" in without_reference


def test_scans_beside_their_labels_are_no_references(tmp_path: Path) -> None:
    """``case.nii.gz`` and ``case_seg.nii.gz``: what a folder of supports looks like."""
    save(tmp_path / "p" / "ct_1.nii.gz", label_map(1))
    for name in ("ct_1.nii.gz", "ct_1_seg.nii.gz", "ct_2.nii.gz"):
        save(tmp_path / "r" / name, label_map(1))
    pairs, warnings = match_cases(tmp_path / "p", tmp_path / "r")
    assert [(a.name, b.name) for _, a, b in pairs] == [("ct_1.nii.gz", "ct_1_seg.nii.gz")]
    (told,) = warnings
    assert "1 of 3" in told
    assert "ct_2" in told


def test_cases_may_be_numbered_from_0000(tmp_path: Path) -> None:
    save(tmp_path / "p" / "ct.nii.gz", label_map(1))
    for name in ("ct_0000.nii.gz", "ct_0000_seg.nii.gz"):
        save(tmp_path / "r" / name, label_map(1))
    pairs, warnings = match_cases(tmp_path / "p", tmp_path / "r")
    assert [(a.name, b.name) for _, a, b in pairs] == [("ct.nii.gz", "ct_0000_seg.nii.gz")]
    assert warnings == ()


def test_two_files_match_whatever_their_names(tmp_path: Path) -> None:
    first, second = save(tmp_path / "out.nii.gz", label_map(1)), save(tmp_path / "ct_1_label.nii.gz", label_map(1))
    assert match_cases(first, second)[0] == (("ct_1", first, second),)


def test_nothing_matched_names_both_sides(tmp_path: Path) -> None:
    save(tmp_path / "p" / "one.nii.gz", label_map(1))
    save(tmp_path / "r" / "two.nii.gz", label_map(1))
    with pytest.raises(InputError, match=r"(?s)one\.nii\.gz.*two\.nii\.gz"):
        match_cases(tmp_path / "p", tmp_path / "r")


def test_missing_empty_and_ambiguous_folders_raise(tmp_path: Path) -> None:
    reference = save(tmp_path / "r" / "ct_1.nii.gz", label_map(1)).parent
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such"):
        match_cases(tmp_path / "nowhere", reference)
    with pytest.raises(InputError, match="no image"):
        match_cases(tmp_path / "empty", reference)
    for name in ("ct_1_seg.nii.gz", "ct_1_pred.nii.gz"):
        save(tmp_path / "p" / name, label_map(1))
    with pytest.raises(InputError, match="two files for case ct_1"):
        match_cases(tmp_path / "p", reference)


def test_labels_of_all_cases_are_scored_in_every_case(tmp_path: Path) -> None:
    pairs = [
        ("a", save(tmp_path / "pa.nii.gz", label_map(1)), save(tmp_path / "ra.nii.gz", label_map(1))),
        ("b", save(tmp_path / "pb.nii.gz", label_map(1, 5)), save(tmp_path / "rb.nii.gz", label_map(1, 2))),
    ]
    seen: list[tuple[float, float]] = []
    progress = Progress(lambda event: seen.append((event.done, event.total)))
    evaluation = evaluate_pairs(pairs, progress=progress, subjects={"a": "s1", "b": "s2"})
    assert [(s.case_id, s.subject_id, s.label, s.status) for s in evaluation.scores] == [
        ("a", "s1", 1, "found"),
        ("a", "s1", 2, "absent"),
        ("a", "s1", 5, "absent"),
        ("b", "s2", 1, "found"),
        ("b", "s2", 2, "missed"),
        ("b", "s2", 5, "false_alarm"),
    ]
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_spacing_of_the_file_is_used(tmp_path: Path) -> None:
    first, second = label_map(1), np.roll(label_map(1), 2, axis=2)
    values = []
    for spacing in ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0)):
        pair = save(tmp_path / "p.nii.gz", first, spacing), save(tmp_path / "r.nii.gz", second, spacing)
        values.append(evaluate_pairs([("a", *pair)]).scores[0].values["hd95_mm"])
    assert values == pytest.approx([2.0, 4.0])


def test_bad_pairs_raise(tmp_path: Path) -> None:
    pair = save(tmp_path / "p.nii.gz", label_map(1)), save(tmp_path / "r.nii.gz", label_map(1), (1, 1, 3))
    with pytest.raises(GridMismatchError):
        evaluate_pairs([("a", *pair)])
    with pytest.raises(InputError, match="twice"):
        evaluate_pairs([("a", pair[0], pair[0])] * 2)
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate_pairs([])


def test_warnings_of_unscored_values_unknown_subjects_and_pixels(tmp_path: Path) -> None:
    pair = save(tmp_path / "p.nii.gz", label_map(1, 5)), save(tmp_path / "r.nii.gz", label_map(1))
    evaluation = evaluate_pairs([("a", *pair)], labels={1: "liver"}, subjects={}, ignore=7)
    assert any("7 to ignore" in warning for warning in evaluation.warnings)
    assert any("[5]" in warning for warning in evaluation.warnings)
    assert any("subject" in warning for warning in evaluation.warnings)
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(label_map(1)[:, :, 0].astype(np.uint8)), str(tmp_path / "p.png"))
    flat = evaluate_pairs([("b", tmp_path / "p.png", tmp_path / "p.png")])
    assert any("pixels, not mm" in warning for warning in flat.warnings)
    assert flat.scores[0].dice == 1


def test_nothing_but_background_is_said(tmp_path: Path) -> None:
    empty = save(tmp_path / "p.nii.gz", label_map())
    evaluation = evaluate_pairs([("a", empty, empty)])
    evaluation.write(tmp_path / "out")
    assert evaluation.summaries == ()
    assert any("nothing was scored" in warning for warning in evaluation.warnings)


# --- what is written ------------------------------------------------------------------------------------------------


def test_written_files_are_complete_and_strict(tmp_path: Path) -> None:
    for case, values in {"a": (1,), "b": (), "c": (1, 5)}.items():
        save(tmp_path / "p" / f"{case}.nii.gz", label_map(*values))
        save(tmp_path / "r" / f"{case}.nii.gz", label_map(1, 2))
    save(tmp_path / "r" / "d.nii.gz", label_map(1))
    pairs, warnings = match_cases(tmp_path / "p", tmp_path / "r")
    evaluation = evaluate_pairs(pairs, labels={1: "liver", 2: "spleen"}, tolerance_mm=1.5, warnings=warnings)
    evaluation.write(tmp_path / "out" / "deep")
    folder = tmp_path / "out" / "deep"
    assert sorted(path.name for path in folder.iterdir()) == [
            "data_dictionary.csv", "scores.csv", "summary.csv", "summary.json",
        ]  # fmt: skip

    rows = list(csv.DictReader((folder / "scores.csv").open()))
    assert len(rows) == 6
    assert {row["tolerance_mm"] for row in rows} == {"1.5"}
    missed = next(row for row in rows if row["case_id"] == "b" and row["label_name"] == "liver")
    assert (missed["status"], missed["dice"], missed["hd95_mm"]) == ("missed", "0.0", "")

    document = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert document["tolerance_mm"] == 1.5
    assert document["bootstrap"]["resamples"] == 2000
    liver, spleen = document["labels"]
    assert (liver["found"], liver["missed"], liver["distances_left_out"]) == (2, 1, 1)
    assert spleen["hd95_mm_mean"] is None
    assert spleen["missed"] == 3
    assert document["all_labels"]["label"] is None
    assert any("d.nii.gz" in warning for warning in document["warnings"])
    assert any("[5]" in warning for warning in document["warnings"])
    assert list(csv.DictReader((folder / "summary.csv").open()))[-1]["label_name"] == "all labels"
    assert evaluation.summary_rows()[0]["label_name"] == "liver"


@pytest.mark.parametrize(
    ("predicted", "reference", "scan"),
    [
        ("volume-7", "segmentation-7", "volume-7"),
        ("patient001_frame01", "patient001_frame01_gt", "patient001_frame01"),
        ("Case00", "Case00_segmentation", "Case00"),
        ("c1", "c1-seg", "c1"),
        ("c1", "labels/final/c1", "c1"),
    ],
)
def test_references_under_the_names_of_public_sets(tmp_path, predicted, reference, scan):
    for name in (f"pred/{predicted}", f"ref/{reference}", f"ref/{scan}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    pairs, warnings = match_cases(tmp_path / "pred", tmp_path / "ref")
    assert pairs == ((predicted, tmp_path / f"pred/{predicted}.nii.gz", tmp_path / f"ref/{reference}.nii.gz"),)
    assert warnings == ()


def test_numbered_scans_keep_their_case_ids(tmp_path):
    for name in ("pred/volume-7", "pred/volume-8", "ref/volume-7", "ref/volume-8"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    assert [case for case, _, _ in match_cases(tmp_path / "pred", tmp_path / "ref")[0]] == ["volume-7", "volume-8"]


def test_no_volume_in_ml_without_a_voxel_size(tmp_path: Path) -> None:
    size = "DimSize = 10 10 10\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    header = f"ObjectType = Image\nNDims = 3\nBinaryData = True\n{size}"
    for name in ("a", "b"):
        (tmp_path / f"{name}.mha").write_bytes(header.encode() + label_map(1).astype(np.uint8).tobytes())
    found = evaluate_pairs([("a", tmp_path / "a.mha", tmp_path / "b.mha")])
    assert any("no voxel size" in warning for warning in found.warnings)
    assert [math.isnan(value) for value in (found.scores[0].volume_ml, found.scores[0].dice)] == [True, False]
    assert found.volumes == {}
