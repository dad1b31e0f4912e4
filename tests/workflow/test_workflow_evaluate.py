"""Evaluation takes names where it can have them, and numbers where not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toys

from medfewshot.errors import InputError
from medfewshot.settings import EvaluateSettings
from medfewshot.workflow import evaluate
from medfewshot.workflow.scoring import FAILED, LEARNED

NNUNET = {"channel_names": {"0": "CT"}, "numTraining": 2, "file_ending": ".nii.gz"}


def files(root: Path, labels: object) -> tuple[Path, Path]:
    """Predictions, and references whose images are elsewhere."""
    for number in range(2):
        _, label = toys.make_scan(number)
        toys.save_nifti(root / "pred" / f"p_{number:03}.nii.gz", label)
        toys.save_nifti(root / "set" / "labelsTr" / f"p_{number:03}.nii.gz", label)
    text = labels if isinstance(labels, str) else json.dumps({**NNUNET, "labels": labels})
    (root / "set" / "dataset.json").write_text(text)
    return root / "pred", root / "set" / "labelsTr"


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"background": 0, "liver": 205, "spleen": 420}, ["liver", "spleen"]),
        ({"background": 0, "whole": [205, 420], "core": [420]}, ["whole outside core", "core"]),
        ({"background": 0, "liver": 205, "spleen": 420, "ignore": 421}, ["liver", "spleen"]),
    ],
    ids=["images elsewhere", "regions", "ignore"],
)
def test_names_are_used(tmp_path: Path, labels: object, names: list[str]) -> None:
    pred, reference = files(tmp_path, labels)
    for settings in (None, EvaluateSettings(labels=(205, 420))):
        evaluation = evaluate(pred, reference, settings)
        assert [(row.label_name, row.dice_mean) for row in evaluation.summaries[:-1]] == [(n, 1.0) for n in names]


@pytest.mark.parametrize("labels", ["{ broken", {"liver": "one"}], ids=["broken JSON", "no values"])
def test_numbers_are_used_with_a_warning_where_names_cannot_be_read(tmp_path: Path, labels: object) -> None:
    pred, reference = files(tmp_path, labels)
    evaluation = evaluate(pred, reference)
    assert [(row.label_name, row.dice_mean) for row in evaluation.summaries[:-1]] == [("205", 1.0), ("420", 1.0)]
    assert any("scored by number" in text for text in evaluation.warnings)


def test_what_a_run_learned_to_ignore_is_not_scored(tmp_path: Path) -> None:
    pred, reference = files(tmp_path, {"background": 0})
    (tmp_path / "set" / "dataset.json").unlink()
    for number in range(2):
        _, label = toys.make_scan(number)
        label[:, :, :5] = 255
        toys.save_nifti(reference / f"p_{number:03}.nii.gz", label)
    names = {"205": "liver", "420": "spleen"}
    run = {"finished": "now", "outputs": [], "supports": [], "plan": {"labels": names}}
    for ignore, perfect in ((None, False), (255, True)):
        (pred / "run.json").write_text(json.dumps(run | {"adaptation": {"settings": {"ignore": ignore}}}))
        assert (evaluate(pred, reference).summaries[-1].dice_mean == 1) == perfect


def test_the_newest_review_of_a_scan_is_in_its_scores(tmp_path: Path) -> None:
    pred, reference = files(tmp_path, {"background": 0, "liver": 205, "spleen": 420})
    log = ["time,case,status,dice,note", "1,p_000,rejected,0.5,", "2,p_000,accepted,0.9,", "3,p_000,,,only a note"]
    (pred / "reviews.csv").write_text("\n".join(log))
    rows = evaluate(pred, reference).score_rows()
    assert {(row["case_id"], row["review_status"]) for row in rows} == {("p_000", "corrected"), ("p_001", None)}
    (pred / "reviews.csv").write_text("case\nx\n")
    with pytest.raises(InputError, match=r"reviews.csv: cannot be read"):
        evaluate(pred, reference)


def test_a_scan_given_as_a_reference_is_refused(tmp_path: Path) -> None:
    image, label = toys.make_scan(0)
    scan = toys.save_nifti(tmp_path / "scan" / "a.nii.gz", image)
    mask = toys.save_nifti(tmp_path / "mask" / "a.nii.gz", label)
    for pair in ((mask, scan), (scan, mask)):
        with pytest.raises(InputError, match="different values, most of them scattered") as caught:
            evaluate(*pair)
        assert len(str(caught.value)) < 500


def test_a_run_that_is_not_finished_is_scored_with_a_warning(tmp_path: Path) -> None:
    pred, reference = files(tmp_path, {"background": 0, "liver": 205, "spleen": 420})
    record = {"finished": None, "plan": {"labels": {"205": "liver", "420": "spleen"}}, "outputs": []}
    for finished, warned in ((None, True), ("2026-01-01T00:00:00+00:00", False)):
        (pred / "run.json").write_text(json.dumps({**record, "finished": finished}))
        warnings = evaluate(pred, reference).warnings
        assert any("this run is not finished" in text for text in warnings) == warned


def test_results_scored_against_themselves_are_named(tmp_path: Path) -> None:
    pred, reference = files(tmp_path, {"background": 0, "liver": 205, "spleen": 420})
    for true, told in ((pred / ".." / "pred", True), (reference, False)):
        assert any("against itself" in text for text in evaluate(pred, true).warnings) == told


def test_no_plot_and_no_film_of_an_earlier_evaluation_stays(tmp_path: Path) -> None:
    pred, reference = files(tmp_path, {"background": 0, "liver": 205, "spleen": 420})
    scores = tmp_path / "scores"
    evaluate(pred, reference, folder=scores)
    assert {"dice.png", "bland_altman.png"} < {path.name for path in scores.iterdir()}
    (scores / "films.csv").touch()
    for folder in (pred, reference):
        for path in folder.glob("*.nii.gz"):
            toys.save_nifti(path, 0 * toys.make_scan(0)[1])
    evaluate(pred, reference, folder=scores)
    expected = {"scores.csv", "summary.csv", "summary.json", "data_dictionary.csv"}
    assert {path.name for path in scores.iterdir()} == expected


def test_scans_that_the_model_learned_from_and_failed_ones_are_named(tmp_path: Path) -> None:
    pred, reference = files(tmp_path, {"background": 0, "liver": 205, "spleen": 420})
    outputs = [
        {"case": "p_000", "inputs": ["/a/s0.nii.gz"], "status": "done"},
        {"case": "p_001", "inputs": ["/a/s1.nii.gz"], "status": "failed"},
        {"case": "p_002", "inputs": ["/a/s2.nii.gz"], "status": "failed"},
    ]
    names = {"205": "liver", "420": "spleen"}
    run = {"finished": "now", "outputs": outputs, "supports": [{"image": "/a/s0.nii.gz"}], "plan": {"labels": names}}
    (pred / "run.json").write_text(json.dumps(run))
    assert evaluate(pred, reference).warnings[:2] == (f"p_000: {LEARNED}", f"p_001: {FAILED}")
    (pred / "run.json").write_text(json.dumps(run | {"outputs": [], "supports": []}))
    assert not evaluate(pred, reference).warnings
