"""Bad input: exit code 2, one line that names the file and a way out, and nothing is written."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import toys


def broken_volume(kind: str, folder: Path) -> Path:
    path = folder / "bad.nii.gz"
    image = toys.make_scan(3)[0]
    if kind in ("nan", "inf"):
        data = image.astype(np.float32)
        data[0, 0, 0] = float(kind)
        return toys.save_nifti(path, data)
    if kind == "5D":
        return toys.save_nifti(path, np.stack([np.stack([image, image], -1)] * 2, -1))
    if kind == "sheared":
        affine = np.eye(4)
        affine[0, 1] = 0.3
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(image, affine), path)
        return path
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        whole = gzip.compress(gzip.decompress(toys.save_nifti(path, image).read_bytes()))
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "no image":
        path.write_bytes(b"hello " * 100)
    elif kind == "RGB":
        path = toys.save_itk(folder / "bad.png", np.zeros((9, 8), np.uint8))
        import SimpleITK as sitk

        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 9, 3), np.uint8), isVector=True), str(path))
    elif kind == "flat":
        toys.save_itk(path := folder / "bad.png", toys.make_scan(3, (20, 15))[0].astype(np.uint8))
    return path


BROKEN = ["nan", "inf", "5D", "sheared", "empty", "truncated", "no image", "RGB", "flat", "missing"]


def check_refused(done, *names: str) -> None:
    assert done.code == 2, done
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("medfewshot: ")
    assert "Traceback" not in done.err
    assert done.out == ""
    for name in names:
        assert name in done.err, done.err


@pytest.mark.parametrize("kind", BROKEN)
def test_a_lone_bad_volume_is_refused_before_adaptation(run, scans, support, kind):
    path = broken_volume(kind, scans)
    done = run("segment", path, *support, "-o", scans / "out")
    check_refused(done, str(path))
    assert toys.ToyLearner.adapted == 0
    assert not (scans / "out").exists()


def test_so_it_is_with_a_saved_segmenter(run, scans, support):
    assert run("adapt", *support, "-o", scans / "seg").code == 0
    for kind in ("flat", "nan", "missing"):
        path = broken_volume(kind, scans)
        check_refused(run("segment", path, "--segmenter", scans / "seg", "-o", scans / "out"), str(path))
        path.unlink(missing_ok=True)
    assert not (scans / "out").exists()


@pytest.mark.parametrize("kind", [k for k in BROKEN if k != "flat"])
def test_a_bad_support_image(run, scans, kind):
    path = broken_volume(kind, scans)
    pair = f"{path}={scans}/annotated/labels/s0.nii.gz"
    done = run("adapt", "--support", pair, "--learner", "toy", "-o", scans / "out")
    check_refused(done, path.name)
    assert not (scans / "out").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda label: label + 0.5, "whole numbers"),
        (lambda label: label * 0, "no structure is marked"),
        (lambda label: -label, "negative"),
        (lambda label: label[:-1], "differ in shape, 16x15x14 and 15x15x14"),
    ],
)
def test_a_bad_support_label(run, scans, support, change, told):
    path = scans / "annotated" / "labels" / "s1.nii.gz"
    toys.save_nifti(path, change(toys.make_scan(1)[1].astype(np.float32)))
    check_refused(run("segment", scans / "cohort", *support, "-o", scans / "out"), str(path), told)
    assert not (scans / "out").exists()


def test_another_grid_names_both_files_and_the_difference(run, scans, support):
    label, image = scans / "annotated" / "labels" / "s1.nii.gz", scans / "annotated" / "images" / "s1.nii.gz"
    affine = toys.AFFINE.copy()
    affine[2, 3] += 4
    toys.save_nifti(label, toys.make_scan(1)[1], affine)
    done = run("segment", scans / "cohort", *support, "-o", scans / "out")
    check_refused(done, str(label), str(image), "4 mm")


def test_a_difference_that_rounding_makes_passes(run, scans, support):
    affine = toys.AFFINE + 1e-7
    affine[3] = toys.AFFINE[3]
    toys.save_nifti(scans / "annotated" / "labels" / "s1.nii.gz", toys.make_scan(1)[1], affine)
    assert run("adapt", *support, "-o", scans / "out").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--learner", "oracle"], ["oracle", "finetune"]),
        (["--device", "abacus"], ["abacus", "auto"]),
        (["--device", "cuda:99"], ["cuda:99"]),
        (["--steps", "-1"], ["steps -1", "(option: --steps)"]),
        (["--seed", "-1"], ["seed -1", "--seed"]),
        (["--budget", "-3"], ["budget_seconds -3", "(option: --budget)"]),
        (["--spacing", "0"], ["spacing_mm 0", "(option: --spacing)"]),
        (["--labels", "9"], ["label 9", "205, 420"]),
        (["--labels", "0,1"], ["--labels", "background"]),
        (["--labels", "205,205"], ["--labels", "once"]),
        (["--labels", "liver"], ["label liver", "label values"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--segmenter", "somewhere"], ["--segmenter", "only one"]),
    ],
)
def test_a_setting_that_cannot_be(run, scans, support, words, told):
    done = run("segment", scans / "cohort", *support, *words, "-o", scans / "out")
    check_refused(done, *told)
    assert not (scans / "out").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: [1", "line 1"),
        ("steps: many", "steps"),
        ("stpes: 5", "stpes"),
        ("- 1", "name: value"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
        ("labels: [0, 1]", "labels"),
    ],
)
def test_a_bad_config(run, scans, support, text, told):
    path = scans / "settings.yaml"
    path.write_text(text)
    done = run("adapt", *support, "--config", path, "-o", scans / "out")
    check_refused(done, str(path), told)
    assert not (scans / "out").exists()


def test_where_the_knowledge_comes_from(run, scans):
    check_refused(run("segment", scans / "cohort", "-o", scans / "out"), "--support")
    check_refused(run("segment", scans / "cohort", "--segmenter", scans, "-o", scans / "out"), str(scans), "adapt")
    check_refused(run("segment", scans / "cohort", "--support", "a.nii=b.nii", "-o", scans / "out"), "a.nii", "b.nii")
    check_refused(run("adapt", "--support-dir", scans / "cohort", "-o", scans / "out"), str(scans / "cohort"))


@pytest.mark.parametrize("file", ["segmenter.json", "weights.safetensors"])
@pytest.mark.parametrize("how", ["cut", "gone", "other"])
def test_a_damaged_segmenter(run, scans, support, file, how):
    assert run("adapt", *support, "-o", scans / "seg").code == 0
    path = scans / "seg" / file
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if how == "cut" else b'{"format_version": 1}')
    done = run("segment", scans / "cohort", "--segmenter", scans / "seg", "-o", scans / "out")
    check_refused(done, str(scans / "seg"), "medfewshot adapt")
    assert not (scans / "out").exists()


def test_settings_that_a_saved_segmenter_would_ignore(run, scans, support):
    assert run("adapt", *support, "-o", scans / "seg").code == 0
    words = ("segment", scans / "cohort", "--segmenter", scans / "seg", "-o", scans / "out")
    check_refused(run(*words, "--steps", 9, "--labels", "205"), "steps", "--segmenter")


@pytest.mark.parametrize("command", ["segment", "adapt", "evaluate", "inspect", "demo"])
def test_the_output_is_a_file(run, scans, support, command):
    (scans / "taken").write_text("mine")
    words = {
        "segment": ("segment", scans / "cohort", *support),
        "adapt": ("adapt", *support),
        "evaluate": ("evaluate", scans / "reference", "-r", scans / "reference"),
        "inspect": ("inspect", scans / "annotated"),
        "demo": ("demo", "--steps", "1"),
    }[command]
    for output in (scans / "taken", scans / "taken" / "below"):
        check_refused(run(*words, "-o", output), str(scans / "taken"))
    assert (scans / "taken").read_text() == "mine"


def test_no_file_of_the_user_is_overwritten(run, scans, support):
    before = {path: path.read_bytes() for path in scans.rglob("*.nii.gz")}
    for output in (scans / "cohort", scans / "reference"):
        check_refused(run("segment", scans / "cohort", *support, "-o", output), str(output))
    check_refused(run("segment", scans / "cohort", *support, "-o", scans / "cohort", "--overwrite"), "scans themselves")
    assert {path: path.read_bytes() for path in scans.rglob("*.nii.gz")} == before
    assert run("adapt", *support, "-o", scans / "seg").code == 0
    check_refused(run("adapt", *support, "-o", scans / "seg"), "--overwrite")
    for name in ("LICENSE", "configs/inference.json", "statistics.csv", "report.html"):
        mine = scans / "mine" / name
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
        words = ("segment", scans / "cohort") if "." in mine.name and mine.parent == scans / "mine" else ("adapt",)
        check_refused(run(*words, *support, "-o", scans / "mine"), str(mine))
        assert mine.read_text() == "mine"
        mine.unlink()


def test_the_disk_is_full(run, scans, support, monkeypatch):
    toys.fill_disk(monkeypatch, "segmenter.json")
    done = run("adapt", *support, "-q", "-o", scans / "seg")
    assert (done.code, done.err.count("\n")) == (1, 1), "2 promises that nothing was written"
    assert "No space left" in done.err
    assert not (scans / "seg" / "segmenter.json").exists()


@pytest.mark.parametrize(
    "words", [["evaluate"], ["segment", "x", "--frobnicate"], ["frobnicate"], ["adapt", "--steps", "x"]]
)
def test_usage_errors_exit_with_2(run, words):
    assert run(*words).code == 2


def test_one_folder_of_supports(run, scans):
    folders = ("--support-dir", scans / "annotated") * 2
    check_refused(run("adapt", *folders, "-o", scans / "seg"), "give one --support-dir")


def test_a_segmenter_has_a_folder_of_its_own(run, scans):
    images = scans / "annotated" / "images"
    check_refused(
        run("adapt", "--support-dir", scans / "annotated", "-o", images), "contains the labelled scans themselves"
    )


def test_scores_and_the_demo_replace_nothing_of_others(run, scans):
    mine = scans / "mine" / "summary.csv"
    mine.parent.mkdir()
    mine.write_text("mine")
    words = ("evaluate", scans / "reference", "-r", scans / "reference", "-o")
    check_refused(run(*words, mine.parent), str(mine))
    assert mine.read_text() == "mine"
    for _ in range(2):  # its own tables are made anew
        assert run(*words, scans / "scores").code == 0
    run_folder = scans / "run"
    run_folder.mkdir()
    (run_folder / "report.html").write_text("mine")
    check_refused(run(*words, run_folder), "report.html")
    (run_folder / "run.json").write_text("{}")  # the page of a run is made anew with its scores
    assert run(*words, run_folder).code == 0
    for name in ("report.html", "run.json", "data/dataset.json"):
        other = scans / name.replace("/", "_") / name
        other.parent.mkdir(parents=True)
        other.write_text("mine")
        check_refused(run("demo", "--steps", "1", "-o", scans / name.replace("/", "_")), str(other))


def test_a_folder_of_folders_names_the_one_with_the_scans(run, scans, support):
    check_refused(run("segment", scans / "annotated", *support, "-o", scans / "out"), str(scans / "annotated/images"))
