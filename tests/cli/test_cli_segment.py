"""``medfewshot segment``: what is written, on which grid, and what the record says."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toys

from medfewshot.io import read_image, read_label
from medfewshot.learners import LEARNERS

PLAIN = "--no-previews"


def strict(text: str):
    def refuse(name: str):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("sign", ["=", ":"])
def test_pairs_to_labels_on_the_same_grid(run, scans, sign):
    pairs = [f"{scans}/annotated/images/s{k}.nii.gz{sign}{scans}/annotated/labels/s{k}.nii.gz" for k in (0, 1)]
    query, out = scans / "cohort" / "q0.nii.gz", scans / "out"
    words = [w for pair in pairs for w in ("--support", pair)]
    done = run("segment", query, *words, "--learner", "toy", "-o", out)
    assert done.code == 0, done.err
    result, image = nib.load(out / "q0.nii.gz"), nib.load(query)
    truth = nib.load(scans / "reference" / "q0.nii.gz")
    assert result.shape == image.shape
    assert np.array_equal(result.affine, image.affine)
    assert (result.header["sform_code"], result.header["qform_code"]) == (2, 1)
    assert result.get_data_dtype() == np.uint16
    assert np.array_equal(np.asanyarray(result.dataobj), np.asanyarray(truth.dataobj))
    assert (out / "previews" / "q0.png").stat().st_size > 10_000
    assert (out / "segmenter" / "segmenter.json").is_file()
    assert not [path for path in out.rglob(".*") if path.is_file()], "temporary files are left"


def test_the_record_says_how_it_came_about(run, scans, support):
    out = scans / "out"
    assert run("segment", scans / "cohort", *support, "-o", out, PLAIN, "--seed", 7).code == 0
    record = strict((out / "run.json").read_text())
    assert set(record) == {
        "format_version", "command", "started", "finished", "device", "seed", "supports", "plan", "adaptation",
        "options", "seconds", "outputs", "warnings", "versions", "fingerprint",
    }  # fmt: skip
    assert record["command"][:2] == ["medfewshot", "segment"]
    assert record["seed"] == 7
    assert record["device"].startswith("cpu")
    assert record["finished"] >= record["started"]
    assert {"plan", "adapt", "read", "prepare", "predict", "restore", "write"} <= set(record["seconds"])
    assert [{"image": one["image"], "label": one["label"]} for one in record["supports"]] == [
        {"image": f"{scans}/annotated/images/s{k}.nii.gz", "label": f"{scans}/annotated/labels/s{k}.nii.gz"}
        for k in (0, 1)
    ]
    assert record["adaptation"]["settings"]["learner"] == "toy"
    assert record["adaptation"]["learner"]["final_loss"] is None, "NaN must become null"
    assert list(record["plan"]["labels"]) == ["205", "420"]
    assert {"python", "torch", "monai", "medfewshot"} <= set(record["versions"])
    assert [entry["case"] for entry in record["outputs"]] == ["q0", "q1", "q2"]
    for entry in record["outputs"]:
        assert entry["status"] == "done"
        assert (out / entry["labels"]).is_file()
        assert 0.5 < entry["confidence"]["label 205"] <= 1
    rows = list(csv.DictReader((out / "statistics.csv").open()))
    assert [(row["case"], row["label"]) for row in rows][:3] == [("q0", "205"), ("q0", "420"), ("q1", "205")]
    voxels = int((nib.load(out / "q0.nii.gz").get_fdata() == 205).sum())
    assert int(rows[0]["voxels"]) == voxels
    assert float(rows[0]["volume_ml"]) == pytest.approx(voxels * 1.25 * 1.5 * 2 / 1000)


def test_adapt_once_then_segment_and_evaluate(run, scans, support):
    assert run("adapt", *support, "-o", scans / "kidney").code == 0
    done = run("segment", scans / "cohort", "--segmenter", scans / "kidney", "-o", scans / "out", PLAIN)
    assert done.code == 0
    assert "3 scans segmented" in done.out
    done = run("evaluate", scans / "out", "--reference", scans / "reference", "-o", scans / "scores", "--json")
    rows = strict(done.out)["summary"]
    assert [row["label_name"] for row in rows] == ["label 205", "label 420", "all labels"]
    assert [row["dice_mean"] for row in rows] == [1, 1, 1]
    names = {path.name for path in (scans / "scores").iterdir()}
    tables = {"scores.csv", "summary.csv", "data_dictionary.csv"}
    assert names == {*tables, "summary.json", "dice.png", "bland_altman.png", "report.html"}
    toys.assert_columns_described(scans / "scores")
    toys.assert_columns_described(scans / "out")


def test_only_the_labels_asked_for_are_learned_and_scored(run, scans, support):
    assert run("segment", scans / "cohort", *support, "--labels", "420", "-o", scans / "out", PLAIN).code == 0
    assert set(np.unique(nib.load(scans / "out" / "q0.nii.gz").get_fdata())) == {0, 420}
    done = run("evaluate", scans / "out", "-r", scans / "reference", "--json")
    assert [row["label_name"] for row in strict(done.out)["summary"]] == ["label 420", "all labels"]


def test_maps_lie_on_the_native_grid(run, scans, support):
    out = scans / "out"
    done = run(
        "segment", scans / "cohort" / "q0.nii.gz", *support, "-o", out, "--probabilities", "--uncertainty", PLAIN
    )
    assert done.code == 0
    probabilities, uncertainty = (
        nib.load(out / "probabilities" / "q0.nii.gz"),
        nib.load(out / "uncertainty" / "q0.nii.gz"),
    )
    assert probabilities.shape == (*toys.SHAPE, 3)
    assert uncertainty.shape == toys.SHAPE
    assert np.allclose(probabilities.affine, toys.AFFINE)
    assert np.allclose(probabilities.get_fdata().sum(-1), 1, atol=5e-3)
    assert 0 <= uncertainty.get_fdata().min() <= uncertainty.get_fdata().max() <= 1


def test_one_bad_volume_does_not_stop_the_rest(run, scans, support):
    (scans / "cohort" / "q1.nii.gz").write_bytes(b"")
    done = run("segment", scans / "cohort", *support, "-o", scans / "out", PLAIN)
    assert done.code == 1
    assert "q1 failed" in done.err
    assert "0 bytes" in done.err
    assert "2 of 3 scans segmented" in done.out
    entries = strict((scans / "out" / "run.json").read_text())["outputs"]
    assert [entry["status"] for entry in entries] == ["done", "failed", "done"]
    assert not (scans / "out" / "q1.nii.gz").exists()


def test_stopped_in_the_middle_and_resumed(run, scans, support, monkeypatch):
    out, real, saved = scans / "out", nib.save, []

    def save(image, path):
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt
        real(image, path)

    monkeypatch.setattr(nib, "save", save)
    words = ("segment", scans / "cohort", *support, "-o", out, PLAIN)
    done = run(*words)
    assert done.code == 130
    assert done.err.count("\n") == 1
    assert "--resume" in done.err
    assert strict((out / "run.json").read_text())["finished"] is None
    done = run(*words, "--resume", "--json")
    assert done.code == 0, done.err
    assert strict(done.out)["resumed"] == 1
    assert len(saved) == 4, "q0 is not written again"
    assert toys.ToyLearner.adapted == 1, "the segmenter of the first run is there"
    record = strict((out / "run.json").read_text())
    assert [entry["status"] for entry in record["outputs"]] == ["done"] * 3
    assert record["finished"]
    assert len(list(csv.DictReader((out / "statistics.csv").open()))) == 6


def test_results_of_another_segmenter_are_not_mixed_in(run, scans, support):
    out = scans / "out"
    assert run("segment", scans / "cohort", *support, "-o", out, PLAIN).code == 0
    assert run("adapt", *support, "--labels", "205", "-o", scans / "other").code == 0
    words = ("segment", scans / "cohort", "--segmenter", scans / "other", "-o", out, PLAIN)
    for more, told in (((), "already contains results"), (("--resume",), "another model")):
        done = run(*words, *more)
        assert done.code == 2
        assert told in done.err
    assert run("segment", scans / "cohort", *support, "--labels", "205", "--resume", "-o", out).code == 2
    # Replacing takes away what the earlier run left and the new one does not write.
    assert run(*words[:1], scans / "cohort" / "q0.nii.gz", *words[2:], "--overwrite").code == 0
    assert [path.name for path in sorted(out.glob("*.nii.gz"))] == ["q0.nii.gz"]


def test_a_model_in_the_folder_of_results_is_not_replaced(run, scans, support):
    out = scans / "out"
    assert run("adapt", *support, "-o", out / "segmenter").code == 0
    before = (out / "segmenter" / "segmenter.json").read_bytes()
    done = run("segment", scans / "cohort", *support, "--labels", "205", "-o", out, PLAIN)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert (out / "segmenter" / "segmenter.json").read_bytes() == before
    assert run("segment", scans / "cohort", *support, "--labels", "205", "-o", out, PLAIN, "--overwrite").code == 0


def test_the_text_for_a_paper_replaces_no_file(run, scans, support):
    assert run("segment", scans / "cohort", *support, "-o", scans / "out", PLAIN).code == 0
    assert run("describe", scans / "out", "-o", scans / "methods.md").code == 0
    (scans / "methods.md").write_text("my own words")
    assert run("describe", scans / "out", "-o", scans / "methods.md").code == 2
    assert (scans / "methods.md").read_text() == "my own words"


def test_json_is_all_there_is_on_standard_output(run, scans, support):
    done = run("segment", scans / "cohort" / "q0.nii.gz", *support, "-o", scans / "out", PLAIN, "--json")
    assert strict(done.out)["outputs"][0]["labels"] == "q0.nii.gz"
    assert "label 205" in done.err, "tables go to standard error"


def test_quiet_prints_nothing(run, scans, support):
    query, out = scans / "cohort" / "q0.nii.gz", scans / "out"
    for words in (
        ("segment", query, *support, "-o", out, PLAIN),
        ("evaluate", out, "-r", scans / "reference"),
        ("adapt", *support, "-o", scans / "kidney"),
        ("inspect", scans / "annotated"),
    ):
        done = run(*words, "--quiet")
        assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii"])
def test_other_formats(run, scans, support, suffix):
    image = toys.make_scan(20)[0]
    query = scans / "new" / f"scan{suffix}"
    (toys.save_nifti if suffix == ".nii" else toys.save_itk)(query, image)
    done = run("segment", query, *support, "-o", scans / "out", PLAIN)
    assert done.code == 0, done.err
    found = scans / "out" / ("scan.nii.gz" if suffix == ".nii" else query.name)
    result = read_label(found)
    assert np.allclose(result.affine, read_image(query).affine)
    assert set(np.unique(result.data)) <= {0, *toys.VALUES}


def test_a_dicom_series(run, scans, support):
    series = toys.save_dicom(scans / "pacs" / "series7", toys.make_scan(21)[0])
    done = run("segment", series, *support, "-o", scans / "out", PLAIN)
    assert done.code == 0, done.err
    assert np.allclose(nib.load(scans / "out" / "series7.nii.gz").affine, read_image(series).affine)


def test_pictures(run, tmp_path):
    pairs = []
    for number in range(2):
        image, label = toys.make_scan(number, (40, 30), (1, 7))
        toys.save_itk(tmp_path / f"p{number}.png", (image // 2).astype(np.uint8))
        toys.save_itk(tmp_path / f"p{number}_seg.png", label.astype(np.uint8))
        pairs += ["--support", f"{tmp_path}/p{number}.png={tmp_path}/p{number}_seg.png"]
    image, label = toys.make_scan(9, (40, 30), (1, 7))
    query = toys.save_itk(tmp_path / "new" / "photo.png", (image // 2).astype(np.uint8))
    done = run("segment", query, *pairs, "--learner", "toy", "-o", tmp_path / "out", "--uncertainty")
    assert done.code == 0, done.err
    result = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "photo.png"))).T
    assert result.dtype == np.uint8
    assert np.array_equal(result, label)
    row = next(csv.DictReader((tmp_path / "out" / "statistics.csv").open()))
    assert row["voxels"]
    assert row["area_mm2"] == "", "a picture knows no millimetres"
    assert "at a resolution of 1 x 1 pixels" in done.out
    assert "confidence" in done.out.split(" pixels ")[1], "the sizes too"
    assert re.search(r"p0 .* 1: \d+ pixels", run("inspect", tmp_path).out)
    assert (tmp_path / "out" / "previews" / "photo.png").is_file()


def test_channels_are_grouped(run, tmp_path):
    for number in range(2):
        image, label = toys.make_scan(number)
        for channel in (0, 1):
            toys.save_nifti(tmp_path / "ann" / "imagesTr" / f"c{number}_000{channel}.nii.gz", image + 50 * channel)
            toys.save_nifti(tmp_path / "new" / f"n{number}_000{channel}.nii.gz", image + 50 * channel)
        toys.save_nifti(tmp_path / "ann" / "labelsTr" / f"c{number}.nii.gz", label)
    table = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "left": 205, "right": 420},
             "file_ending": ".nii.gz"}  # fmt: skip
    (tmp_path / "ann" / "dataset.json").write_text(json.dumps(table))
    words = ("--support-dir", tmp_path / "ann", "--learner", "toy", PLAIN)
    done = run("segment", tmp_path / "new", *words, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    record = strict((tmp_path / "out" / "run.json").read_text())
    assert [(entry["case"], len(entry["inputs"])) for entry in record["outputs"]] == [("n0", 2), ("n1", 2)]
    assert record["plan"]["labels"] == {"205": "left", "420": "right"}
    assert "modality MR" in record["plan"]["normalization"][0]["reason"]
    (tmp_path / "new" / "n1_0001.nii.gz").unlink()
    done = run("segment", tmp_path / "new", "--segmenter", tmp_path / "out" / "segmenter", PLAIN, "-o", tmp_path / "o2")
    assert done.code == 1
    assert "n1_0001" in done.err
    done = run("segment", tmp_path / "new" / "n1_0000.nii.gz", *words, "-o", tmp_path / "o3")
    assert done.code == 2
    assert not (tmp_path / "o3").exists()


def test_the_contrast_of_the_scans_to_segment_is_imitated(run, scans, support, monkeypatch):
    monkeypatch.setitem(LEARNERS, "toy", replace(toys.TOY, derived=True))
    for number in range(3):
        image, label = toys.make_scan(10 + number)
        toys.save_nifti(scans / "cohort" / f"q{number}.nii.gz", np.where(label == 205, image - 350, image))
    asked = ("--modality", "MR", "--labels", "205=liver,420=knee", "--json")
    told = json.loads(run("adapt", *support, *asked, "--cohort", scans / "cohort", "-o", scans / "like").out)
    assert told["record"]["learner"]["contrast_copies"] == 3
    assert any(text.startswith("liver") and "imitates" in text for text in told["record"]["warnings"])
    assert run("segment", scans / "cohort", *support, *asked, "-o", scans / "out").code == 0
    written = json.loads((scans / "out" / "run.json").read_text())
    assert written["adaptation"]["learner"]["contrast_copies"] == 3
    told = json.loads(run("adapt", *support, *asked, "-o", scans / "unlike").out)
    assert "contrast_copies" not in told["record"]["learner"]
    assert run("adapt", *support, "--cohort", scans / "nowhere", "-o", scans / "no").code == 2
    monkeypatch.setitem(LEARNERS, "toy", toys.TOY)
    done = run("adapt", *support, "--cohort", scans / "cohort", "-o", scans / "ignored")
    assert "--cohort changed nothing" in " ".join((done.out + done.err).split())
