"""Segmenters whose result is known on paper: it comes back at the right place, however the work is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from grids import (
    ALL_ORIENTATIONS,
    affine_of,
    axes_of,
    dice,
    distance_mm,
    plan_of,
    points_mm,
    reoriented,
    soft_ball,
    volume_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import Tensor

from medfewshot.errors import InputError
from medfewshot.inference import LabelTracker, MemoryLimits, Segmentation, segment_volume
from medfewshot.inference.windows import cut_slabs, predict_slab
from medfewshot.learners.base import FunctionSegmenter, Segmenter
from medfewshot.planning import to_plan
from medfewshot.quality import predicted_dice
from medfewshot.settings import InferenceSettings
from medfewshot.types import Progress, Volume

EVERYTHING = InferenceSettings(probabilities=True, uncertainty=True, keep_largest=False)


def threshold(at: float = 0.5, gain: float = 20.0):
    """Foreground where the image is brighter than ``at``: probability sigmoid(gain (x - at)), voxel by voxel."""

    def segment(image: Tensor) -> Tensor:
        return torch.cat([gain * (at - image) / 2, gain * (image - at) / 2], dim=1)

    return FunctionSegmenter(segment)


def by_value(values: list[float], gain: float = 40.0):
    """The class whose grey value is nearest; the first is background."""

    def segment(image: Tensor) -> Tensor:
        return torch.cat([-gain * (image - value).abs() for value in values], dim=1)

    return FunctionSegmenter(segment)


class Windowed(Segmenter):
    """A random network whose output at a voxel depends on where the window lies around it."""

    def __init__(self, dims: int, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = torch.nn.Conv3d if dims == 3 else torch.nn.Conv2d
        self.conv = conv(1, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        ramp = torch.linspace(0, 1, x.shape[2]).view(-1, *[1] * (x.ndim - 3))
        return self.conv(x) * 3 + ramp + x.mean()


class Whole(Segmenter):
    """Needs the whole field of view, and returns the same tensor again and again; ``part`` works in windows."""

    whole_volume = True

    def __init__(self, logits: Tensor, part: Segmenter | None = None) -> None:
        super().__init__()
        self.logits, self.part = logits, part
        self.shapes: list[tuple[int, ...]] = []

    @property
    def windowed(self) -> Segmenter | None:
        return self.part

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        return self.logits


# The right place


@pytest.mark.parametrize("orientation", [ALL_ORIENTATIONS[i] for i in (0, 7, 18, 29, 40, 47)])
@pytest.mark.parametrize("target", [(1.0, 1.2, 3.0), (1.5, 1.5, 3.0), (2.4, 2.2, 3.0), (0.8, 0.8, 1.5)])
def test_an_oblique_ball_comes_back_where_it_was(orientation, target):
    """Permuted axes, anisotropic voxels, the plan's grid finer or coarser: the ball is on the original grid again."""
    affine = affine_of((1.0, 1.2, 3.0), (25, -40, 70), (-120, 33, 80))
    ball = volume_of(soft_ball(affine, (44, 40, 15), 15, width_mm=3), affine)
    original = reoriented(ball, orientation)
    plan = plan_of(target, axes=axes_of(affine))
    result = segment_volume(original, plan, threshold())
    assert result.labels.shape == original.spatial_shape
    truth = distance_mm(original.affine, original.spatial_shape) <= 15
    assert dice(result.labels == 1, truth) > 0.97


def test_on_its_own_grid_the_result_is_the_segmenter_itself():
    affine = affine_of((1.0, 1.2, 3.0), (25, -40, 70))
    data = np.random.default_rng(0).uniform(size=(21, 18, 9))
    original = reoriented(volume_of(data, affine), ALL_ORIENTATIONS[23])
    result = segment_volume(original, plan_of((1.0, 1.2, 3.0), axes=axes_of(affine)), threshold(), EVERYTHING)
    np.testing.assert_array_equal(result.labels, original.data[0] > 0.5)


def test_an_asymmetric_shape_is_not_mirrored():
    """A wedge is brightest in one corner alone."""
    affine = affine_of((1.5, 1.0, 2.0), (10, 20, 30))
    mm = points_mm(affine, (24, 30, 16))
    wedge = (mm * np.array([0.02, -0.03, 0.05]).reshape(3, 1, 1, 1)).sum(axis=0)
    for orientation in ALL_ORIENTATIONS[::5]:
        original = reoriented(volume_of(wedge, affine), orientation)
        result = segment_volume(original, plan_of((2.0, 2.0, 2.0), axes=axes_of(affine)), threshold(0.3))
        assert dice(result.labels == 1, original.data[0] > 0.3) > 0.97


def test_planar_images_come_back_too():
    affine = np.array([[0.0, 0, 1, 0], [0.5, 0, 0, 0], [0, -0.7, 0, 0], [0, 0, 0, 1]])
    data = soft_ball(affine, (60, 44), 10, width_mm=2)
    result = segment_volume(volume_of(data, affine), plan_of((1.0, 1.0)), threshold())
    assert result.labels.shape == (60, 44)
    assert dice(result.labels == 1, distance_mm(affine, (60, 44)) <= 10) > 0.97


@pytest.mark.parametrize(
    ("values", "dtype"), [((205, 420), np.uint16), ((3, 7), np.uint8), ((1, 70000), np.int32), ((255, 2), np.uint8)]
)
def test_labels_keep_the_values_of_the_files(values, dtype):
    data = np.zeros((20, 12, 12))
    data[2:8, 2:10, 2:10] = 1
    data[12:18, 2:10, 2:10] = 2
    plan = plan_of((1, 1, 1), labels={values[0]: "a", values[1]: "b"})
    result = segment_volume(volume_of(data), plan, by_value([0, 1, 2]))
    assert result.labels.dtype == dtype
    np.testing.assert_array_equal(result.labels, np.array([0, *values])[data.astype(int)])
    assert not result.warnings


@pytest.mark.parametrize("shape", [(5, 4, 3), (40, 30, 1), (1, 1, 1), (3, 50, 2), (9, 7), (1, 30)])
def test_volumes_smaller_than_the_patch(shape):
    data = np.random.default_rng(0).uniform(size=shape)
    result = segment_volume(volume_of(data), plan_of((1.0,) * len(shape)), threshold())
    np.testing.assert_array_equal(result.labels, (data > 0.5).astype(np.uint8))


def test_a_single_slice_on_a_coarser_plan():
    affine = affine_of((0.5, 0.5, 6.0), (5, 10, 15))
    data = soft_ball(affine, (80, 60, 1), 10, width_mm=2)
    result = segment_volume(volume_of(data, affine), plan_of((1.2, 1.2, 6.0), axes=axes_of(affine)), threshold())
    assert dice(result.labels == 1, data > 0.5) > 0.97


@pytest.mark.parametrize("kind", ["window", "zscore"])
def test_a_constant_volume_is_background_with_a_warning(kind):
    plan = plan_of((1, 1, 1), labels={4: "organ"})
    plan = replace(plan, normalization=(replace(plan.normalization[0], kind=kind),))
    result = segment_volume(volume_of(np.zeros((12, 10, 8))), plan, threshold(), EVERYTHING)
    assert not result.labels.any()
    assert result.warnings == ("organ (label 4) was not found; check whether the scan shows it",)
    assert result.confidence == {}
    assert np.isfinite(result.probabilities).all()
    assert np.isfinite(result.uncertainty).all()


def test_volumes_of_another_kind_are_refused_by_name(tmp_path):
    path = tmp_path / "scan.nii.gz"
    plan = plan_of((1, 1, 1))
    for data, reason in ((np.zeros((1, 5, 5)), "is 2D"), (np.zeros((3, 5, 5, 5)), "has 3 channel")):
        with pytest.raises(InputError, match=rf"scan\.nii\.gz: {reason}"):
            segment_volume(Volume(data.astype(np.float32), np.eye(4), path=path), plan, threshold())


# However it is cut


def assert_same(first: Segmentation, second: Segmentation) -> None:
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(first.uncertainty, second.uncertainty)
    assert_same_numbers(first, second)


def assert_same_numbers(first: Segmentation, second: Segmentation) -> None:
    """Exactly: neither the cuts nor the maps that were asked for may show in a number."""
    assert first.confidence == second.confidence
    assert first.predicted_dice == second.predicted_dice
    assert first.voxels == second.voxels


@pytest.mark.parametrize(
    "segmenter", [by_value([0.2, 0.5, 0.8], gain=5), Windowed(3, 3)], ids=["pointwise", "windowed"]
)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("slab_values", [20_000, 9_000, 4_000, 1])
def test_the_cuts_leave_no_trace(segmenter, overlap, slab_values):
    """Whatever the segmenter does at the edges of its windows, one slab and many give the same numbers."""
    affine = affine_of((1.0, 1.0, 2.0), (10, 20, 30))
    data = np.random.default_rng(0).uniform(size=(14, 41, 9))
    original = reoriented(volume_of(data, affine), ALL_ORIENTATIONS[21])
    plan = plan_of((1.4, 1.2, 2.0), axes=axes_of(affine), patch_size=(8, 12, 4), labels={1: "a", 2: "b"})
    options = EVERYTHING.model_copy(update={"overlap": overlap})
    whole = segment_volume(original, plan, segmenter, options)
    assert len(np.unique(whole.labels)) == 3
    assert_same(segment_volume(original, plan, segmenter, options, limits=MemoryLimits(slab_values, 5_000)), whole)
    foreground = options.model_copy(update={"probabilities": False, "uncertainty": False})
    cut = segment_volume(original, plan, segmenter, foreground, limits=MemoryLimits(slab_values, 700))
    np.testing.assert_array_equal(cut.labels, whole.labels)
    assert_same_numbers(cut, whole)


def test_predicted_dice_is_that_of_the_whole_volume():
    """Faint foreground far away counts, although no voxel is interpolated there unless maps are asked for."""
    affine = affine_of((1.0, 1.0, 2.0), (10, 20, 30))
    data = np.full((60, 20, 16), 0.42)  # probability 0.019 at gain 50: below the floor of what is interpolated
    data[4:10, 4:10, 4:10] = 0.9
    original, plan = volume_of(data, affine), plan_of((1.3, 1.2, 2.0), axes=axes_of(affine), labels={1: "a"})
    boxed = segment_volume(original, plan, threshold(gain=50))
    maps = segment_volume(original, plan, threshold(gain=50), EVERYTHING)
    assert_same_numbers(boxed, maps)
    probability = maps.probabilities[1].astype(float)
    inside, voxels = probability[maps.labels == 1].sum(), (maps.labels == 1).sum()
    assert boxed.predicted_dice[1] == pytest.approx(predicted_dice(inside, voxels, probability.sum()), abs=2e-3)


@settings(max_examples=40)
@given(
    length=st.integers(1, 60),
    patch=st.integers(1, 24),
    overlap=st.floats(0, 0.9),
    slabs=st.integers(1, 12),
)
def test_slabs_cover_everything_once_with_the_windows_of_the_whole(length, patch, overlap, slabs):
    image = torch.randn(1, length, 1, generator=torch.Generator().manual_seed(0))
    plan = plan_of((1, 1), patch_size=(patch, 1))
    segmenter = Windowed(2, 2)
    limits = MemoryLimits(slab_values=max(1, 2 * length // slabs))
    with torch.no_grad():
        whole = sliding_window_inference(
            image[None], plan.patch_size, 1, segmenter, overlap=overlap, mode="gaussian", padding_mode="replicate"
        )[0].softmax(0)  # fmt: skip
        cuts = list(cut_slabs(image.shape[1:], plan, segmenter, overlap=overlap, limits=limits))
        assert [c.start for c in cuts] == [0, *[c.stop for c in cuts[:-1]]]
        assert cuts[-1].stop == length
        for cut in cuts:
            assert 0 <= cut.low <= cut.start < cut.stop <= cut.high <= length
            got, _ = predict_slab(image, plan, segmenter, cut, overlap=overlap)
            last = min(cut.stop + 1, length)  # interpolation reads one beyond
            torch.testing.assert_close(got[:, cut.start - cut.low : last - cut.low], whole[:, cut.start : last])


class Doubting(Whole):
    """Doubts its only structure."""

    def examine(self, image, *, overlap=0.5):
        return self(image), [(1, "unsure: so it says")]


@pytest.mark.parametrize(("level", "flags"), [(0.5, ("one (label 1) is unsure: so it says",)), (2.0, ())])
def test_what_a_segmenter_doubts_becomes_a_flag_of_what_it_found(level, flags):
    data = np.random.default_rng(0).uniform(size=(8, 6, 5))
    logits = torch.cat([torch.zeros(1, 1, 8, 6, 5), torch.from_numpy(data).float()[None, None] - level], dim=1)
    assert segment_volume(volume_of(data), plan_of((1, 1, 1)), Doubting(logits)).flags == flags


def test_a_segmenter_of_the_whole_field_gets_no_windows():
    data = np.random.default_rng(0).uniform(size=(40, 30, 20))
    logits = torch.cat([torch.zeros(1, 1, 40, 30, 20), torch.from_numpy(data).float()[None, None] - 0.5], dim=1)
    segmenter, before = Whole(logits), logits.clone()
    for _ in range(2):
        result = segment_volume(volume_of(data), plan_of((1, 1, 1)), segmenter, limits=MemoryLimits(100, 1_000))
        np.testing.assert_array_equal(result.labels, data > 0.5)
    assert segmenter.shapes == [(1, 1, 40, 30, 20)] * 2
    assert torch.equal(logits, before)  # what is the segmenter's stays as it is


def test_what_memory_does_not_hold_as_a_whole_goes_in_windows():
    data = np.random.default_rng(0).uniform(size=(20, 15, 10))
    segmenter = Whole(torch.zeros(1, 2, 20, 15, 10), threshold())
    enough, less = (MemoryLimits(whole_values=values) for values in (2 * 20 * 15 * 10, 2 * 20 * 15 * 10 - 1))
    assert not segment_volume(volume_of(data), plan_of((1, 1, 1)), segmenter, limits=enough).labels.any()
    result = segment_volume(volume_of(data), plan_of((1, 1, 1)), segmenter, limits=less)
    np.testing.assert_array_equal(result.labels, data > 0.5)
    assert "network alone" in result.warnings[0]


@pytest.mark.parametrize("classes", [1, 3])
def test_a_network_with_other_classes_than_the_plan_is_refused(classes):
    data = np.random.default_rng(0).uniform(size=(8, 6, 5))
    network = FunctionSegmenter(lambda image: image.repeat(1, classes, 1, 1, 1))
    with pytest.raises(InputError, match=f"network has {classes} classes and the plan 2"):
        segment_volume(volume_of(data), plan_of((1, 1, 1)), network)


def test_any_network_serves_as_segmenter():
    """Gradients are off while it runs, and its training mode stays."""
    network = torch.nn.Conv3d(1, 2, 3, padding=1).train()
    segmenter = FunctionSegmenter(network)
    result = segment_volume(volume_of(np.random.default_rng(0).normal(size=(20, 9, 9))), plan_of((1, 1, 1)), segmenter)
    assert result.labels.dtype == np.uint8
    assert network.training
    assert list(segmenter.parameters())
    assert torch.is_grad_enabled()


# What comes with the labels


def test_probabilities_and_uncertainty_belong_to_the_labels():
    affine = affine_of((1.0, 1.0, 2.0))
    data = np.random.default_rng(0).uniform(size=(24, 20, 10))
    plan = plan_of((1.3, 1.3, 2.0), labels={205: "a", 420: "b"})
    result = segment_volume(volume_of(data, affine), plan, by_value([0.1, 0.5, 0.9], gain=8), EVERYTHING)
    assert result.probabilities.dtype == np.float16
    assert result.probabilities.shape == (3, 24, 20, 10)
    np.testing.assert_allclose(result.probabilities.astype(float).sum(axis=0), 1, atol=2e-3)
    best = np.sort(result.probabilities, axis=0)
    clear = best[-1] - best[-2] > 2e-3
    chosen = np.array([0, 205, 420])[result.probabilities.argmax(axis=0)]
    np.testing.assert_array_equal(chosen[clear], result.labels[clear])
    entropy = -(result.probabilities.astype(float) * np.log(result.probabilities.astype(float) + 1e-9)).sum(axis=0)
    np.testing.assert_allclose(result.uncertainty, entropy / np.log(3), atol=5e-3)
    for index, value in enumerate((205, 420), start=1):
        expected = result.probabilities[index].astype(float)[result.labels == value].mean()
        assert result.confidence[value] == pytest.approx(expected, abs=2e-3)


def test_uncertainty_is_high_at_the_edge_and_low_elsewhere():
    affine = np.eye(4)
    ball = volume_of(soft_ball(affine, (40, 40, 40), 12, width_mm=4), affine)
    result = segment_volume(ball, plan_of((1, 1, 1)), threshold(gain=20), EVERYTHING)
    distance = distance_mm(affine, (40, 40, 40))
    assert result.uncertainty.dtype == np.float32
    assert result.uncertainty.min() >= 0
    assert result.uncertainty.max() <= 1
    assert result.uncertainty[np.abs(distance - 12) < 0.05].min() > 0.8
    assert result.uncertainty[np.abs(distance - 12) > 4].max() < 0.02


@pytest.mark.parametrize("corner", [(0, 0, 0), (3, 3, 2), (7, 7, 4)])
@pytest.mark.parametrize("orientation", [ALL_ORIENTATIONS[i] for i in (0, 19, 47)])
def test_work_is_saved_only_where_there_is_nothing(corner, orientation):
    """Without maps only a box around the foreground is interpolated, which reaches to the next planned voxels."""
    data = np.zeros((24, 24, 5))
    x, y, z = corner
    data[3 * x : 3 * x + 3, 3 * y : 3 * y + 3, z] = 1  # one voxel of the planned grid
    original = reoriented(volume_of(data), orientation)
    plan = plan_of((3, 3, 1))
    boxed = segment_volume(original, plan, threshold(0.4, gain=1000))
    whole = segment_volume(original, plan, threshold(0.4, gain=1000), EVERYTHING)
    np.testing.assert_array_equal(boxed.labels, whole.labels)
    # Two thirds along each of two axes are four ninths: a corner of the planned voxel may go, its cross may not.
    assert boxed.labels[original.data[0] == 1].sum() >= 5


def test_nothing_is_made_that_was_not_asked_for():
    result = segment_volume(volume_of(np.zeros((6, 6, 6))), plan_of((1, 1, 1)), threshold())
    assert result.probabilities is None
    assert result.uncertainty is None
    assert set(result.seconds) == {"plan", "predict", "restore"}


def test_only_the_largest_component_stays_where_the_plan_says_so():
    data = np.zeros((30, 12, 12))
    data[2:10, 2:10, 2:10] = 1  # large
    data[12:15, 2:5, 2:5] = 1  # stray
    data[15, 5, 5] = 1  # joined to the stray one by a corner
    data[18:24, 2:8, 2:8] = 2
    data[26:28, 2:4, 2:4] = 2
    labels = {1: "one", 2: "two"}
    kept = segment_volume(volume_of(data), plan_of((1, 1, 1), labels=labels, keep_largest=(1,)), by_value([0, 1, 2]))
    assert (kept.labels == 1).sum() == 8**3
    assert (kept.labels == 2).sum() == 6**3 + 2**3
    off = InferenceSettings(keep_largest=False)
    plan = plan_of((1, 1, 1), labels=labels, keep_largest=(1, 2))
    np.testing.assert_array_equal(segment_volume(volume_of(data), plan, by_value([0, 1, 2]), off).labels, data)


def test_progress_is_told_slab_by_slab():
    told = []
    limits = MemoryLimits(slab_values=2 * 12 * 12 * 10)
    progress = Progress(lambda event: told.append((event.done, event.total)))
    segment_volume(volume_of(np.zeros((40, 12, 12))), plan_of((1, 1, 1)), threshold(), progress=progress, limits=limits)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_volume_stays_as_it_is():
    volume = volume_of(np.random.default_rng(0).uniform(size=(20, 20, 20)))
    before = volume.data.copy()
    segment_volume(volume, plan_of((1, 1, 1)), threshold(), EVERYTHING)
    np.testing.assert_array_equal(volume.data, before)


def test_labels_of_another_frame_replace_the_votes_of_the_supports():
    affine = affine_of((1.0, 1.2, 3.0), (0, 0, 0))
    volume = volume_of(np.random.default_rng(0).uniform(size=(16, 14, 6)), affine)
    plan = plan_of((1.0, 1.2, 3.0), axes=axes_of(affine))
    frame = to_plan(volume, plan).image
    labels = torch.zeros(frame.shape[1:], dtype=torch.long)
    labels[4:9, 4:9, 2:4] = 1
    tracker = LabelTracker(frame, labels, classes=2, spacing_mm=plan.spacing_mm)
    whole = Whole(torch.zeros(1, 2, *labels.shape), threshold())
    found = segment_volume(volume, plan, whole, tracker=tracker).labels
    assert not whole.shapes
    assert np.array_equal(found, segment_volume(volume, plan, threshold(), tracker=tracker).labels)


def test_a_small_planned_lesion_comes_back():
    """Nine original voxels in the middle of a coarser planned grid are not lost between arg max and dtype."""
    data = np.zeros((32, 32, 8))
    data[14:17, 14:17, 4] = 4
    planned = to_plan(volume_of(data), plan_of((2, 2, 1)))
    assert float(planned.image.max()) > 0.5
    result = segment_volume(volume_of(data), plan_of((2, 2, 1)), threshold())
    assert 4 <= (result.labels == 1).sum() <= 25
    assert result.labels[15, 15, 4] == 1


MEMORY = """
import resource
import numpy as np
import torch
torch.set_num_threads(1)
from grids import plan_of, volume_of
from medfewshot.inference import MemoryLimits, segment_volume
from medfewshot.learners.base import FunctionSegmenter
from medfewshot.settings import InferenceSettings

CLASSES = 13
segment = FunctionSegmenter(lambda image: torch.cat([-(image - value).abs() for value in range(CLASSES)], dim=1))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

limits = MemoryLimits(slab_values=1_000_000, original_values=500_000)
plan = plan_of((1, 1, 1), patch_size=(32, 32, 32), labels={v: str(v) for v in range(1, CLASSES)})
segment_volume(volume_of(np.zeros((8, 8, 8))), plan, segment)  # what is loaded once is not counted
data = np.random.default_rng(0).integers(0, CLASSES, (64, 64, 400), dtype=np.int8).astype(np.float32)
volume = volume_of(data)
before = peak()
result = segment_volume(volume, plan, segment, InferenceSettings(overlap=0.0), limits=limits)
assert (result.labels == data).all()
print(round(peak() - before))
"""


def test_memory_is_bounded():
    """64 x 64 x 400 voxels at 13 classes are 85 MB of probabilities; MONAI's whole-volume way holds several such.

    With slabs of 4 MB, most of the memory is the windows of one slab and copies of the volume.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    megabytes = int(done.stdout)
    assert megabytes < 80, f"{megabytes} MB"
