"""A sample that sees every slice, and one rule for what counts as CT."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from grids import volume_of

from medfewshot.datasets import read_dataset
from medfewshot.inspection import inspect
from medfewshot.intensities import is_constant, looks_like_hounsfield, robust_window, subsample
from medfewshot.planning import make_plan


def test_a_sample_visits_every_slice():
    """With powers of two everywhere, a step that is a power of two would see a few slices only."""
    slices = np.broadcast_to(np.arange(64), (64, 64, 64))
    sample = subsample(slices, 4096)
    assert set(sample.tolist()) == set(range(64))
    assert 0.4 * 4096 <= sample.size <= 2 * 4096


def test_the_window_of_a_preview_sees_every_slice():
    shape = (128, 64, 128)
    planes = np.broadcast_to(np.arange(128.0), shape)
    assert robust_window(planes) == pytest.approx((0, 127), abs=1)


def test_constant_means_all_channels():
    varied = np.arange(8.0).reshape(1, 2, 2, 2)
    assert is_constant(np.ones((2, 3, 3)))
    assert not is_constant(np.concatenate([0 * varied, varied]))


@pytest.mark.parametrize(
    ("low", "high", "modality"),
    [(-1000, 1200, "CT"), (-200, 400, "CT"), (-1000, 60, "MR"), (0, 900, "MR")],
    ids=["a scan", "windowed before export", "air without bone", "no negative value"],
)
def test_planning_and_inspection_agree_on_what_is_ct(low, high, modality, tmp_path):
    image = np.linspace(low, high, 12 * 10 * 8).reshape(12, 10, 8).astype(np.int16)
    image[6, 5, 4] = -600  # one dark voxel is no air
    label = np.zeros(image.shape, np.uint8)
    label[3:6, 3:6, 3:6] = 1
    for name, array in (("images", image), ("labels", label)):
        (tmp_path / name).mkdir()
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / name / "a.nii.gz")
    assert inspect(read_dataset(tmp_path)).cases[0].modality == modality
    plan = make_plan([volume_of(image)], [volume_of(label)])
    assert (plan.normalization[0].kind == "window") == (modality == "CT")
    assert looks_like_hounsfield([image]) == (modality == "CT")
