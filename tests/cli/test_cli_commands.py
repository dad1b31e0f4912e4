"""The other commands, and one run through everything with a real learner and in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import toys

import medfewshot
from medfewshot import synthetic
from medfewshot.learners import LEARNERS


def test_learners_are_listed(run):
    listed = json.loads(run("learners", "--json").out)["learners"]
    assert [row["learner"] for row in listed] == list(LEARNERS)
    assert all(row["what it does"] for row in listed)


def test_version(run):
    assert run("--version").out == f"medfewshot {medfewshot.__version__}\n"


def test_inspect_says_what_is_there_and_what_is_wrong(run, scans):
    done = run("inspect", scans / "annotated", "-o", scans / "report")
    assert done.code == 0
    assert "2 of 2 cases can be used as labelled scans" in done.out
    assert sorted(path.name for path in (scans / "report").iterdir()) == [
        "data_dictionary.csv", "inspection.csv", "inspection.json",
    ]  # fmt: skip
    run("inspect", scans / "annotated", "--ignore", "420", "-o", scans / "without")
    counted = [
        len(json.loads((scans / name / "inspection.json").read_text())["labels"]) for name in ("report", "without")
    ]
    assert counted == [2, 1]
    toys.save_nifti(scans / "annotated" / "labels" / "s1.nii.gz", np.zeros(toys.SHAPE, np.int16))
    done = run("inspect", scans / "annotated", "--json")
    assert done.code == 1
    assert json.loads(done.out)["summary"]["usable_supports"] == 1
    assert run("inspect", scans / "nowhere").code == 2


def test_file_names_are_no_markup(run, scans, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # wide enough that no name is folded
    for kind in ("images", "labels"):
        (scans / "annotated" / kind / "s0.nii.gz").rename(scans / "annotated" / kind / "s0[red]:smile:.nii.gz")
    assert "s0[red]:smile:" in run("inspect", scans / "annotated").out


def test_evaluate_takes_names_from_the_references(run, scans):
    table = {"labels": {"0": "background", "205": "left block"}, "training": [
        {"image": "cohort/q0.nii.gz", "label": "reference/q0.nii.gz"}]}  # fmt: skip
    (scans / "dataset.json").write_text(json.dumps(table))
    done = run("evaluate", scans / "reference", "-r", scans / "reference", "--json")
    assert [row["label_name"] for row in json.loads(done.out)["summary"]] == ["left block", "all labels"]
    done = run("evaluate", scans / "reference", "-r", scans / "reference", "--labels", "420", "--json")
    assert json.loads(done.out)["summary"][0]["label_name"] == "label 420"
    assert run("evaluate", scans / "reference", "-r", scans / "nowhere").code == 2


def test_compare_prints_differences_and_refuses_with_one_line(run, scans):
    for name, shift in (("a", 1), ("b", 0)):
        for number in range(3):
            toys.save_nifti(scans / name / f"q{number}.nii.gz", np.roll(toys.make_scan(10 + number)[1], shift, axis=0))
    done = run("compare", scans / "a", scans / "b", "-r", scans / "reference")
    assert done.code == 0, done.err
    assert "HD95 mm" in done.out
    assert "no corrected p-value can be below 0.05" in done.err
    rows = json.loads(run("compare", scans / "a", scans / "b", "--json").out)["differences"]
    assert [(row["structure"], row["measure"]) for row in rows] == [("205", "volume_ml"), ("420", "volume_ml")]
    done = run("compare", scans / "a", scans / "a")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_curve_prints_points_and_what_they_say(run, tmp_path):
    toys.make_folders(tmp_path, supports=3, queries=0)
    words = ("curve", tmp_path / "annotated", "--learner", "toy", "-o", tmp_path / "curve")
    done = run(*words, "--shots", "1,2", "--draws", 1)
    assert done.code == 0, done.err
    assert "With 2 labelled scans, the mean Dice on other scans is 1.000" in done.out
    done = run(*words, "--shots", "3")
    assert done.code == 2
    assert "(option: --shots)" in done.err


def test_demo(run, tmp_path):
    data = synthetic.make_ct_cohort(tmp_path / "data", 2, shape=(28, 26, 22), spacing_mm=12.0)
    words = ("demo", "-o", tmp_path / "demo", "--data", data, "--steps", 1)
    done = run(*words, "--shots", 1, "--queries", 1, "--json")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert "liver" in [row["label_name"] for row in content["summary"]]
    assert (tmp_path / "demo" / "report.html").is_file()
    done = run(*words, "--shots", 5)
    assert done.code == 2
    assert "(option: --shots)" in done.err


def test_a_process_of_its_own(tmp_path):
    toys.make_folders(tmp_path, supports=1, queries=1)
    (tmp_path / "fast.yaml").write_text("width: 4\nsteps: 2\nlabels: {205: block}\n")
    words = [sys.executable, "-m", "medfewshot", "segment", "cohort", "--support-dir", "annotated", "-o", "out",
             "--config", "fast.yaml", "--json", "--no-previews"]  # fmt: skip
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["case"] == "q0"
    assert "Warning" not in done.stderr
    assert set(np.unique(nib.load(tmp_path / "out" / "q0.nii.gz").get_fdata())) <= {0, 205}
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["adaptation"]["settings"]["steps"] == 2
    assert record["command"][:3] == ["medfewshot", "segment", "cohort"]
    assert record["plan"]["labels"] == {"205": "block"}
