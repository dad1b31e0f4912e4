"""Every kind of odd file: it is segmented, or refused in one line with exit code 2 and nothing written."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import corpus_dicom
import corpus_supports
import corpus_volumes
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toys

from medfewshot.io import find_images, read_image

REFUSED = corpus_volumes.REFUSED | corpus_dicom.REFUSED
PICTURED = {
    "newline_in_the_name", "markup_in_the_name", "broken_formula_in_the_name", "other_scripts_in_the_name",
    "the_longest_name", "one_voxel", "constant_image",
}  # fmt: skip
"""Kinds whose preview is worth a second."""
ACCEPTED = corpus_volumes.ACCEPTED | corpus_dicom.ACCEPTED
VOXELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "constant_image": lambda scan: np.full_like(scan, 7),
    "one_voxel": lambda scan: scan[:1, :1, :1],
    "one_slice": lambda scan: scan[:, :, :1],
    "huge_values": lambda scan: scan * np.float32(1e33),
    "rescaled": lambda scan: 2 * scan - 1024,
}
"""The voxels of kinds that do not have those of ``corpus_volumes.scan``."""


def files_under(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def check_refusal(done, told: str) -> None:
    assert done.code == 2, done
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("medfewshot: ")
    assert told in done.err, done.err
    assert "Traceback" not in done.err
    assert re.search(r"; \w|\. [A-Z]|: (give|expected) ", done.err), f"no way out: {done.err}"
    assert len(done.err) < 900, "one line that nobody reads"


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory) -> Path:
    """A saved toy segmenter, made once."""
    from medfewshot.settings import AdaptSettings
    from medfewshot.workflow import adapt, read_supports

    with pytest.MonkeyPatch.context() as patch:
        toys.install(patch)
        root = toys.make_folders(tmp_path_factory.mktemp("toy"))
        settings = AdaptSettings(learner="toy", device="cpu")
        adapt(read_supports(root / "annotated"), settings).save(root / "segmenter")
    return root / "segmenter"


def test_the_corpus_is_large():
    assert len(REFUSED) + len(ACCEPTED) + len(corpus_supports.REFUSED) + len(corpus_supports.ACCEPTED) >= 150
    assert set(ACCEPTED) > PICTURED


@pytest.mark.parametrize("kind", REFUSED)
def test_a_volume_that_cannot_be_segmented(run, tmp_path, segmenter, kind):
    build, told = REFUSED[kind]
    (tmp_path / "in").mkdir()
    path = build(tmp_path / "in")
    before = files_under(tmp_path)
    done = run("segment", path, "--segmenter", segmenter, "-o", tmp_path / "out", "--device", "cpu")
    check_refusal(done, told)
    assert path.name.splitlines()[0] in done.err or str(path.parent) in done.err
    assert files_under(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ACCEPTED)
def test_an_odd_volume_that_can(run, tmp_path, segmenter, kind):
    (tmp_path / "in").mkdir()
    path = ACCEPTED[kind](tmp_path / "in")
    previews = () if kind in PICTURED else ("--no-previews",)
    out = tmp_path / "out"
    done = run("segment", path, "--segmenter", segmenter, "-o", out, "--device", "cpu", *previews)
    assert done.code == 0, done
    assert "Traceback" not in done.err
    (result,) = (path for path in out.iterdir() if path.name.endswith((".nii.gz", ".nrrd", ".mha")))
    if result.name.endswith(".nii.gz"):
        labels = np.asanyarray(nib.load(result).dataobj)
    else:
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(result)))
    assert set(np.unique(labels)) <= {0, *toys.VALUES}
    (image,) = find_images(path)
    expected = VOXELS.get(kind, np.asarray)(corpus_volumes.scan().astype(np.float32))
    np.testing.assert_array_equal(read_image(image).data[0], expected)


@pytest.fixture
def scans_here(scans, monkeypatch) -> Path:
    monkeypatch.chdir(scans)
    return scans


@pytest.mark.parametrize("kind", corpus_supports.REFUSED)
def test_a_support_that_cannot_be_adapted_to(run, scans_here, kind):
    build, told = corpus_supports.REFUSED[kind]
    words = build(scans_here)
    before = files_under(scans_here)
    done = run("adapt", *words, "--learner", "toy", "-o", scans_here / "out", "--device", "cpu")
    check_refusal(done, told)
    assert files_under(scans_here) == before
    assert toys.ToyLearner.adapted == 0


@pytest.mark.parametrize("kind", corpus_supports.ACCEPTED)
def test_an_odd_support_that_can(run, scans_here, kind):
    build, told = corpus_supports.ACCEPTED[kind]
    done = run("adapt", *build(scans_here), "--learner", "toy", "-o", scans_here / "out", "--device", "cpu")
    assert done.code == 0, done
    assert told in done.err
    assert bool(told) == ("warning" in done.err), done.err
    assert (scans_here / "out" / "segmenter.json").is_file()


def test_a_support_among_the_queries_is_told(run, scans):
    image, label = corpus_supports.image(scans), corpus_supports.label(scans)
    words = ("--support", f"{image}={label}", "--learner", "toy", "-o", scans / "out", "--no-previews")
    done = run("segment", image, scans / "cohort", *words)
    assert done.code == 0
    assert done.err.count("is one of the labelled scans") == 1


def test_a_copy_of_a_support_among_the_queries_is_told_and_not_judged(run, scans):
    image, label = corpus_supports.image(scans), corpus_supports.label(scans)
    for folder, path in (("cohort", image), ("truth", label)):
        (scans / folder).mkdir(exist_ok=True)
        shutil.copy(path, scans / folder / "copy.nii.gz")
    words = ("--support", f"{image}={label}", "--learner", "toy", "-o", scans / "out", "--no-previews")
    done = run("segment", scans / "cohort", *words)
    assert done.err.count("copy.nii.gz: has the same voxels as one of the labelled scans") == 1
    assert "copy: the model learned from it" in run("evaluate", scans / "out", "-r", scans / "truth").err
    assert "No segmented scan is in the support set" not in run("describe", scans / "out").out


def test_a_file_that_may_not_be_read(run):
    """As another user where this one may read everything."""
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()
    image, label = toys.make_scan(3)
    path, mask = toys.save_nifti(folder / "secret.nii.gz", image), toys.save_nifti(folder / "mask.nii.gz", label)
    try:
        folder.chmod(0o755)
        path.chmod(0)
        if user == 0:
            os.seteuid(65534)
        done = run("adapt", "--support", f"{path}={mask}", "--learner", "toy", "-o", folder / "out", "--device", "cpu")
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)
    check_refusal(done, "Permission denied")
    assert str(path) in done.err
