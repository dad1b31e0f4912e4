"""Films as labelled scans and as scans to segment, with a learner that needs no time."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import toys
from PIL import Image
from typer.testing import CliRunner

import medfewshot
from medfewshot.cli.app import app
from medfewshot.datasets import Dataset
from medfewshot.errors import InputError
from medfewshot.io import open_film
from medfewshot.settings import AdaptSettings, SegmentSettings
from medfewshot.types import Case
from medfewshot.workflow import adapt, open_batch, read_supports, report, segment
from medfewshot.workflow.own_frames import trackers_of

NAMES = {205: "left ventricle", 420: "myocardium"}


def make_film(folder: Path, *, frames: int = 3, labelled: tuple[int, ...] = (0, 2)) -> tuple[Path, Path, np.ndarray]:
    """Write a film and its label map; the first structure loses a slice of 36 voxels in each frame."""
    images, truth = [], []
    for frame in range(frames):
        image, label = toys.make_scan(1)
        lost = (label == 205) & (np.arange(toys.SHAPE[0]) > 6 - frame)[:, None, None]
        images.append(np.where(lost, 100, image).astype(np.int16))
        truth.append(np.where(lost, 0, label))
    known = np.stack(truth, -1)
    labels = np.where(np.isin(np.arange(frames), labelled), known, 255).astype(np.int16)
    film, path = (toys.save_nifti(folder / name, data) for name, data in (("film.nii.gz", np.stack(images, -1)),
                                                                          ("film_seg.nii.gz", labels)))  # fmt: skip
    image = nib.load(film)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 0.5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), film)
    return film, path, known


def learn(pairs, **more):
    settings = AdaptSettings(learner="toy", device="cpu", labels=NAMES)
    return adapt(read_supports(pairs, **more), settings, learners={"toy": toys.TOY})


def test_each_labelled_frame_is_an_example(tmp_path):
    film, labels, truth = make_film(tmp_path)
    scans = read_supports([(film, labels)])
    assert [image.frame for image in scans.images] == [0, 2]
    for image, label in zip(scans.images, scans.labels, strict=True):
        assert np.array_equal(label.data[0], truth[..., image.frame])


def test_a_label_of_one_volume_belongs_to_the_named_frame(tmp_path):
    film, _, truth = make_film(tmp_path)
    label = toys.save_nifti(tmp_path / "one.nii.gz", truth[..., 1])
    scans = read_supports([(film, label)], frame=1)
    assert [image.frame for image in scans.images] == [1]
    assert np.array_equal(scans.images[0].data[0], np.asarray(nib.load(film).dataobj)[..., 1])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("frame not named", "not known whether they are frames or channels"),
        ("no such frame", "has no frame 3, its frames are 0 to 2"),
        ("fewer frames", "has 2 frames, but .* has 3"),
        ("label of a film for a volume", "is a label map of 3 frames, but .* is one volume"),
        ("frame of a volume", "a frame is named, but no labelled scan is a film"),
        ("no labels", "no frame is labelled"),
        ("frames that differ in size", "different grids|differ"),
    ],
)
def test_a_labelled_film_that_is_refused(tmp_path, kind, message):
    film, labels, truth = make_film(tmp_path, labelled=() if kind == "no labels" else (0, 2))
    one = toys.save_nifti(tmp_path / "one.nii.gz", truth[..., 1])
    scan = toys.save_nifti(tmp_path / "scan.nii.gz", toys.make_scan(1)[0])
    fewer = toys.save_nifti(tmp_path / "fewer.nii.gz", truth[..., :2])
    smaller = toys.save_nifti(tmp_path / "smaller.nii.gz", truth[1:])
    pair, frame = {
        "frame not named": ((film, one), None),
        "no such frame": ((film, one), 3),
        "fewer frames": ((film, fewer), None),
        "label of a film for a volume": ((scan, labels), None),
        "frame of a volume": ((scan, one), 0),
        "no labels": ((film, labels), None),
        "frames that differ in size": ((film, smaller), None),
    }[kind]
    with pytest.raises(InputError, match=message):
        read_supports([pair], frame=frame)


def test_volumes_without_a_time_are_frames_with_a_warning(tmp_path):
    """They could also be channels. And a cavity that a frame lacks has no ejection fraction."""
    film, labels, _ = make_film(tmp_path)
    segmenter = learn([(film, labels)])
    image = np.asarray(nib.load(film).dataobj)
    assert not any("no time" in text for text in medfewshot.segment_film(film, segmenter).segmentation.warnings)
    empty = toys.save_nifti(tmp_path / "empty.nii.gz", np.stack([image[..., 0], np.full_like(image[..., 0], 100)], -1))
    found = medfewshot.segment_film(empty, segmenter)
    assert any("read as frames" in text and "no time" in text for text in found.segmentation.warnings)
    assert any("ejection fraction is not known" in text for text in found.segmentation.warnings)
    assert [one.fraction_percent for one in found.ejections] == [None]


def test_a_film_from_its_own_first_frame(tmp_path):
    film, labels, truth = make_film(tmp_path, labelled=(0,))
    segmenter = learn([(film, labels)])
    plain = SegmentSettings(previews=False, report=False)
    result = segment(open_batch([film], tmp_path / "out", plain), segmenter).results[0]
    written = nib.load(tmp_path / "out/film.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), truth)
    assert written.header.get_zooms()[3] == 0.5
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert any("frame 0 is labelled" in warning for warning in result.warnings)
    ml = 36 * 1.25 * 1.5 * 2 / 1000
    rows = list(csv.DictReader((tmp_path / "out/films/film.csv").open()))
    sizes = [(row["frame"], row["time_s"], float(row["volume_ml"])) for row in rows if row["label"] == "205"]
    voxels = [int((truth[..., n] == 205).sum()) for n in range(3)]
    assert sizes == [(str(n), str(n / 2), pytest.approx(voxels[n] / 36 * ml)) for n in range(3)]
    beat = next(csv.DictReader((tmp_path / "out/ejection.csv").open()))
    assert (beat["case"], beat["name"], beat["ed_frame"], beat["es_frame"]) == ("film", "left ventricle", "0", "2")
    assert float(beat["ejection_fraction_percent"]) == pytest.approx(100 * (1 - voxels[2] / voxels[0]))
    assert (tmp_path / "out/films/film.png").stat().st_size > 1000
    described = list(csv.DictReader((tmp_path / "out/data_dictionary.csv").open()))
    assert {one["column"] for one in described if one["file"] == "films/*.csv" and one["meaning"]} >= set(rows[0])
    again = segment(open_batch([film], tmp_path / "out", plain.replace(resume=True)), segmenter)
    assert again.resumed == 1
    other = segment(
        open_batch([film], tmp_path / "out", plain.replace(resume=True, cavities=("Myocardium",))), segmenter
    )
    assert other.resumed == 0
    assert [row["name"] for row in other.results[0].ejections] == ["myocardium"]


@pytest.mark.parametrize("corrected", [False, True])
def test_the_report_plays_the_film_and_shows_the_reference_of_its_frame(tmp_path, corrected):
    film, labels, truth = make_film(tmp_path)
    segment(open_batch([film], tmp_path / "out", SegmentSettings(previews=False)), learn([(film, labels)]))
    if corrected:  # then the report reads the film again
        toys.save_nifti(tmp_path / "out/film.nii.gz", truth.astype(np.uint16))
    page = report(tmp_path / "out", tmp_path / "page.html", reference=labels).read_text()
    assert '"frames": [0, 1, 2]' in page
    assert '"reference": true' in page
    assert "no viewer" not in page


def test_the_same_in_python(tmp_path):
    film, labels, truth = make_film(tmp_path, labelled=(0,))
    result = medfewshot.segment_film(film, learn([(film, labels)]))
    assert np.array_equal(np.moveaxis(result.labels, 0, -1), truth)
    assert [one.name for one in result.ejections] == ["left ventricle"]
    with pytest.raises(InputError, match="contains one volume"):
        medfewshot.segment_film(toys.save_nifti(tmp_path / "one.nii.gz", truth[..., 0]), learn([(film, labels)]))


def test_a_film_of_one_slice_has_no_ejection_fraction(tmp_path):
    film, labels, _ = make_film(tmp_path)
    for path in (film, labels):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:, :, 5:6], image.affine, image.header), path)
    result = medfewshot.segment_film(film, learn([(film, labels)]))
    assert result.labels.shape == (3, *toys.SHAPE[:2], 1)
    assert result.ejections == ()


def test_what_a_film_cannot_have_is_said(tmp_path):
    film, labels, _ = make_film(tmp_path)
    settings = SegmentSettings(probabilities=True, previews=False, report=False, cavities=("myocardium",))
    result = segment(open_batch([film], tmp_path / "out", settings), learn([(film, labels)])).results[0]
    assert any("probabilities: not written for films" in warning for warning in result.warnings)
    assert [one["name"] for one in result.ejections] == ["myocardium"]


def test_a_cavity_that_is_no_structure_is_refused_before_anything_is_written(tmp_path):
    film, labels, _ = make_film(tmp_path)
    batch = open_batch([film], tmp_path / "out", SegmentSettings(cavities=("aorta",)))
    with pytest.raises(InputError, match="aorta: is no structure of the labelled scans"):
        segment(batch, learn([(film, labels)]))
    assert not (tmp_path / "out").exists()


def test_a_cavity_that_is_no_structure_is_refused_before_the_adaptation(tmp_path, monkeypatch):
    toys.install(monkeypatch)
    film, labels, _ = make_film(tmp_path)
    words = ["--support", f"{film}={labels}", "--learner", "toy", "--cavities", "aorta", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["segment", str(film), *words])
    assert (done.exit_code, "aorta: is no structure" in done.output) == (2, True), done.output
    assert toys.ToyLearner.adapted == 0
    assert not (tmp_path / "out").exists()


def test_as_many_volumes_as_channels_are_channels(tmp_path):
    film, _, _ = make_film(tmp_path, frames=2)
    batch = open_batch([film], tmp_path / "out", channels=2)
    assert batch.query.data.shape == (2, *toys.SHAPE)


@pytest.mark.parametrize("alpha", [False, True])
def test_pictures_in_colour_are_segmented_in_colour(tmp_path, alpha):
    for number in range(3):
        image, label = toys.make_scan(number, (20, 16))
        grey = (image - image.min() + 1).astype(np.float64) / 2
        rgb = np.stack([grey, grey + 5, 200 - grey, 0 * grey + 255], -1).clip(0, 255).astype(np.uint8)
        rgb = rgb if alpha else rgb[..., :3]
        for name, data in ((f"img_{number:04}.png", rgb), (f"lab_{number:04}.png", (label // 200).astype(np.uint8))):
            Image.fromarray(data.swapaxes(0, 1)).save(tmp_path / name)
    pairs = [(tmp_path / f"img_{number:04}.png", tmp_path / f"lab_{number:04}.png") for number in (0, 1)]
    settings = AdaptSettings(learner="toy", device="cpu")
    segmenter = adapt(read_supports(pairs), settings, learners={"toy": toys.TOY})
    assert segmenter.channels == 3
    plain = SegmentSettings(previews=False, report=False)
    batch = open_batch([tmp_path / "img_0001.png", tmp_path / "img_0002.png"], tmp_path / "out", plain, channels=3)
    assert len(batch.cases) == 2, "numbered colour pictures are no channels of one case"
    result = segment(batch, segmenter)
    assert not result.failed
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out/img_0002.png")))) == {0, 1, 2}


def test_a_label_whose_ignored_value_the_data_set_names_helps_other_frames(tmp_path):
    film, labels, truth = make_film(tmp_path, labelled=(1,))
    drawn = np.where(np.arange(truth.shape[0])[:, None, None, None] < 2, 7, np.asarray(nib.load(labels).dataobj))
    toys.save_nifti(labels, np.where(np.asarray(nib.load(labels).dataobj) == 255, 255, drawn).astype(np.int16))
    case = Case("film", "film", None, (film,), labels)
    segmenter = learn(Dataset("films", None, NAMES, (case,), ignore=7))
    assert sorted(trackers_of(open_film(film), segmenter)[0]) == [1]


def test_a_label_file_that_changed_does_not_help_other_frames(tmp_path):
    film, labels, truth = make_film(tmp_path, labelled=(1,))
    segmenter = learn([(film, labels)])
    assert sorted(trackers_of(open_film(film), segmenter)[0]) == [1]
    again = medfewshot.segment_film(film, segmenter)
    assert np.array_equal(np.moveaxis(again.labels, 0, -1), truth)  # the frame before the labelled one too
    toys.save_nifti(labels, np.where(truth == 205, 420, truth).astype(np.int16))
    changed = medfewshot.segment_film(film, segmenter).segmentation.warnings
    labels.unlink()
    missing = medfewshot.segment_film(film, segmenter).segmentation.warnings
    for warnings in (changed, missing):
        assert any("frame 1: its label file" in text and "missing or has changed" in text for text in warnings)
