"""The names that users may rely on; and three functions on paths, arrays, tensors, MetaTensors and Volumes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import toys
from monai.data import MetaTensor

import medfewshot
from medfewshot import GridMismatchError, InputError, Volume
from medfewshot.api import as_volume

NAMES = {
    "__version__", "adapt", "segment_film",
    "segment", "evaluate", "load_segmenter", "VolumeSegmenter", "Segmentation", "LEARNERS",
    "METRICS", "InputError", "GridMismatchError", "Case", "Episode", "Learner", "Plan", "Query", "Segmenter", "Support",
    "Volume",
}  # fmt: skip
"""Adding one is a decision; removing one breaks somebody's script."""


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toys.install(monkeypatch)


@pytest.fixture
def pairs():
    return [toys.make_scan(number) for number in (0, 1)]


def test_arrays(pairs):
    segmenter = medfewshot.adapt(pairs, learner="toy", labels={205: "block"}, seed=5)
    assert segmenter.plan.labels == {205: "block"}
    assert segmenter.record["seed"] == 5
    image, label = toys.make_scan(9)
    result = medfewshot.segment(image, segmenter, uncertainty=True, probabilities=True)
    assert np.array_equal(result.labels == 205, label == 205)
    assert result.uncertainty.shape == toys.SHAPE
    assert result.probabilities.shape == (2, *toys.SHAPE)
    assert medfewshot.segment(image, pairs, learner="toy", labels=[205, 420]).labels.dtype == np.uint16
    evaluation = medfewshot.evaluate(result.labels, label, labels={205: "block"}, spacing_mm=(1, 1, 1))
    assert [(score.label_name, score.dice, score.values["hd95_mm"]) for score in evaluation.scores] == [("block", 1, 0)]


def test_paths_and_a_saved_segmenter(tmp_path):
    root = toys.make_folders(tmp_path)
    segmenter = medfewshot.adapt(root / "annotated", learner="toy")
    segmenter.save(root / "seg")
    for given in (segmenter, root / "seg", str(root / "seg")):
        labels = medfewshot.segment(str(root / "cohort" / "q0.nii.gz"), given).labels
        assert np.array_equal(labels, toys.make_scan(10)[1])
    assert medfewshot.segment(root / "cohort" / "q0.nii.gz", root / "annotated", learner="toy").labels.any()
    scores = medfewshot.evaluate(root / "reference", root / "reference").scores
    assert {score.dice for score in scores} == {1.0}
    named = medfewshot.evaluate(root / "reference", root / "reference", labels={205: "block"}).scores
    assert {score.label_name for score in named} == {"block"}
    assert len(scores) == 6
    with pytest.raises(medfewshot.InputError, match="files state their voxel size"):
        medfewshot.evaluate(root / "reference", root / "reference", spacing_mm=(1, 1, 1))
    file = root / "reference" / "q0.nii.gz"
    with pytest.raises(medfewshot.InputError, match=r"q0\.nii\.gz: states its voxel size"):
        medfewshot.evaluate(file, toys.make_scan(10)[1], spacing_mm=(1, 1, 1))
    image = MetaTensor(torch.tensor(toys.make_scan(10)[1])[None], affine=torch.tensor(toys.AFFINE))
    with pytest.raises(medfewshot.InputError, match="array: states its voxel size"):
        medfewshot.evaluate(image, image, spacing_mm=(1, 1, 1))
    with pytest.raises(TypeError, match="steps"):
        medfewshot.segment(root / "cohort" / "q0.nii.gz", segmenter, steps=4)


def test_meta_tensors_carry_their_grid(pairs):
    affine = torch.tensor(toys.AFFINE)
    tensors = [
        (MetaTensor(torch.tensor(i)[None], affine=affine), MetaTensor(torch.tensor(m)[None], affine=affine))
        for i, m in pairs
    ]
    segmenter = medfewshot.adapt(tensors, learner="toy")
    assert sorted(segmenter.plan.spacing_mm) == [1.25, 1.5, 2.0]
    image, label = toys.make_scan(9)
    turned = MetaTensor(torch.tensor(image)[None], affine=affine)
    assert np.array_equal(medfewshot.segment(turned, segmenter).labels, label)
    score = medfewshot.evaluate(tensors[0][1], tensors[0][1]).scores[0]
    assert score.volume_ml == pytest.approx(int((pairs[0][1] == 205).sum()) * 3.75 / 1000)


@pytest.mark.parametrize("labels", [None, [205, 9], {420: "block", 7: "cyst"}])
@pytest.mark.parametrize("empty", [False, True])
def test_label_maps_in_memory_are_scored_like_their_files(tmp_path, pairs, labels, empty):
    maps = [(0 if empty else 1) * label.astype(np.int16) for _, label in pairs]
    files = [toys.save_nifti(tmp_path / name / "array.nii.gz", one) for name, one in zip("pr", maps, strict=True)]
    images = [MetaTensor(torch.tensor(one)[None], affine=torch.tensor(toys.AFFINE)) for one in maps]
    expected, found = medfewshot.evaluate(*files, labels=labels), medfewshot.evaluate(*images, labels=labels)
    assert [str(one) for one in found.scores] == [str(one) for one in expected.scores]
    told = (re.sub(r"^/.*/array\.nii\.gz", "array", text) for text in expected.warnings)
    assert found.warnings == tuple(dict.fromkeys(told))
    if empty or labels:
        assert found.warnings


def test_arrays_without_a_spacing_have_no_volumes(pairs):
    arrays = [label for _, label in pairs]
    found, spaced = medfewshot.evaluate(*arrays), medfewshot.evaluate(*arrays, spacing_mm=(1, 2, 3))
    assert np.isnan(found.scores[0].volume_ml)
    assert ["no voxel size in mm" in text for text in found.warnings] == [True]
    assert spaced.scores[0].volume_ml == pytest.approx((arrays[0] == found.scores[0].label).sum() * 6 / 1000)
    assert not spaced.warnings
    with pytest.raises(InputError, match="3 entries in 3D"):
        medfewshot.evaluate(*arrays, spacing_mm=(1, 2))


def test_arrays_that_cannot_be_are_refused():
    huge = np.random.default_rng(0).normal(size=(8, 8, 8))
    huge[0, 0, 0] = -1.7e308  # no number of single precision
    with pytest.raises(medfewshot.InputError, match="infinite"), np.errstate(over="ignore"):
        as_volume(huge)
    with pytest.raises(medfewshot.InputError, match="one channel and this has 8"):
        as_volume(medfewshot.Volume(np.ones((8, 8, 8), np.int16), np.eye(4)), label=True)


def test_planar_arrays():
    pairs = [toys.make_scan(number, (40, 30)) for number in (0, 1)]
    image, label = toys.make_scan(9, (40, 30))
    assert np.array_equal(medfewshot.segment(image, pairs, learner="toy").labels, label)
    flat = MetaTensor(torch.tensor(image)[None], affine=torch.diag(torch.tensor([2.0, 3.0, 1.0])))
    assert as_volume(flat).spacing_mm == (2, 3)


def test_channels_come_first():
    image, label = toys.make_scan(0)
    both = np.stack([image, image // 2])
    segmenter = medfewshot.adapt([(both, label)], learner="toy")
    assert segmenter.channels == 2
    assert np.array_equal(medfewshot.segment(torch.tensor(both), segmenter).labels, label)
    with pytest.raises(InputError, match="1 channel"):
        medfewshot.segment(image, segmenter)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.zeros(3), "shape"),
        (np.zeros((1, 2, 3, 4, 5)), "shape"),
        (np.zeros((0, 3)), "shape"),
        (np.full((3, 3), np.nan), "NaN"),
        (np.full((3, 3), 0.5), "whole numbers"),
        (np.full((3, 3), -1), "whole numbers"),
        (np.zeros((2, 3, 3, 3)), "one channel"),
    ],
)
def test_labels_that_are_none(value, told):
    with pytest.raises(InputError, match=told):
        as_volume(value, label=True)


def test_voxels_that_are_not_annotated_are_counted_in_a_warning(pairs):
    image, label = (medfewshot.Volume(array[None], np.eye(4)) for array in pairs[0])
    assert not as_volume(label, label=True).warnings
    label.data[0, :2] = -1
    told = f"{2 * label.data[0, 0].size} voxel(s) have the label -1 and count as not annotated"
    assert as_volume(label, label=True).warnings == (told,)
    assert any(told in one for one in medfewshot.adapt([(image, label)], learner="toy").record["warnings"])


def test_a_volume_stays_itself():
    volume = Volume(np.zeros((1, 2, 2), np.float32), np.eye(4))
    assert as_volume(volume) is volume


@pytest.mark.parametrize("entry", ["a.nii.gz", {"image": "a.nii.gz", "label": "b.nii.gz"}, np.zeros((3, 4, 5))])
def test_a_labelled_scan_is_a_pair(entry):
    with pytest.raises(InputError, match=r"is no labelled scan; give a list of pairs: \[\(image, label\)"):
        medfewshot.adapt([entry])


def test_inputs_that_cannot_be_used(pairs, tmp_path):
    with pytest.raises(GridMismatchError, match="differ in shape"):
        medfewshot.adapt([(pairs[0][0], pairs[0][1][:-1])], learner="toy")
    with pytest.raises(InputError, match="empty"):
        medfewshot.adapt([], learner="toy")
    with pytest.raises(InputError, match="does not exist"):
        medfewshot.segment(tmp_path / "no.nii.gz", pairs, learner="toy")
    with pytest.raises(InputError, match="does not exist"):
        medfewshot.adapt(tmp_path / "nowhere", learner="toy")
    with pytest.raises(InputError, match="unknown"):
        medfewshot.adapt(pairs, learner="oracle")
    with pytest.raises(GridMismatchError):
        medfewshot.evaluate(pairs[0][1], pairs[0][1][:-1])


def test_public_names():
    assert set(medfewshot.__all__) == NAMES
    assert len(medfewshot.__all__) == len(NAMES)
    assert dir(medfewshot) == sorted(NAMES)


def test_every_public_name_is_there():
    for name in NAMES:
        assert getattr(medfewshot, name) is not None
    assert not hasattr(medfewshot, "nonsense")
