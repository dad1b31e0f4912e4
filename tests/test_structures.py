"""Label maps whose measurements are known on paper; one connectivity in every room."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from grids import affine_of, volume_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medfewshot.errors import InputError
from medfewshot.inspection.checks import label_stats
from medfewshot.planning import make_plan
from medfewshot.report.tables import structure_statistics
from medfewshot.structures import boxes, dice, keep_largest, structures, voxel_size

DIAGONAL = np.zeros((8, 8, 8), np.uint8)
DIAGONAL[1:3, 1:3, 1:3] = 1
DIAGONAL[3:5, 3:5, 3:5] = 1  # touches the first cube at a corner


def test_a_structure_on_paper() -> None:
    labels = np.zeros((10, 9, 8), np.int16)
    labels[2:6, 3:5, 1:4] = 420
    labels[8, 8, 7] = 420
    (structure,) = structures(labels).values()
    assert structure.value == 420
    assert structure.box == (slice(2, 9), slice(3, 9), slice(1, 8))
    assert (structure.voxels, structure.extent) == (25, (7, 6, 7))
    assert sorted(structure.component_voxels) == [1, 24]
    np.testing.assert_allclose(structure.centroid, [(24 * 3.5 + 8) / 25, (24 * 3.5 + 8) / 25, (24 * 2 + 7) / 25])
    assert structure.centroid_mm(np.diag([2.0, 1, 1, 1]))[0] == pytest.approx(2 * structure.centroid[0])


@pytest.mark.parametrize("offset", [0, 100_000])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_any_value_is_found(offset: int, dtype: type) -> None:
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((7, 6, 5)) < 0.1, 1 + offset, 0)
    found = structures(labels.astype(dtype))
    assert {value: one.voxels for value, one in found.items()} == {1 + offset: np.count_nonzero(labels)}


def test_no_structure_and_no_whole_number() -> None:
    assert structures(np.zeros((3, 4), np.uint8)) == boxes(np.zeros((0, 4), np.uint8)) == {}
    assert list(structures(np.eye(3, dtype=bool))) == [1]
    with pytest.raises(InputError, match="whole numbers"):
        structures(np.array([0.5]))


@pytest.mark.parametrize("labels", [DIAGONAL, DIAGONAL[:, :, 2] + DIAGONAL[:, :, 3]], ids=["3D", "2D"])
def test_every_room_has_one_connectivity(labels: np.ndarray) -> None:
    """Planning, inspection, report and clean-up agree that a corner connects."""
    (structure,) = structures(labels).values()
    assert len(structure.component_voxels) == 1
    image = np.random.default_rng(0).normal(size=labels.shape)
    assert make_plan([volume_of(image)], [volume_of(labels)]).keep_largest == (1,)
    assert label_stats(volume_of(labels))[0].components == 1
    assert structure_statistics(image[None], labels, np.eye(4), {1: "a"})[0]["components"] == 1
    kept = labels.copy()
    keep_largest(kept, [1, 7])
    np.testing.assert_array_equal(kept, labels)


def test_only_the_largest_component_stays() -> None:
    labels = np.zeros((12, 5, 5), np.uint8)
    labels[0:3, 0:3, 0:3], labels[5, 1, 1], labels[7:9, 2:4, 2:4] = 1, 1, 2
    labels[11, 4, 4] = 2
    keep_largest(labels, [1])
    assert np.bincount(labels.ravel())[1:].tolist() == [27, 9]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(7, 9), (6, 7, 8)]))
def test_the_box_of_a_mask_is_the_smallest(seed: int, shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.02
    assert boxes(mask).get(1) == (ndimage.find_objects(mask.astype(int), 1)[0] if mask.any() else None)


def test_a_voxel_has_a_volume_and_a_pixel_an_area() -> None:
    oblique = affine_of((2.0, 3.0, 5.0), (20, -30, 40))
    assert voxel_size(oblique, 3) == pytest.approx(30)
    assert voxel_size(oblique, 2) == pytest.approx(6)
    sheared = np.array([[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert voxel_size(sheared, 3) == pytest.approx(1)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_dice_by_hand(kind) -> None:
    a, b = kind(np.array([0, 1, 1, 1], bool)), kind(np.array([0, 1, 0, 1], bool))
    assert dice(a, b) == pytest.approx(4 / 5)
    assert dice(a, a & ~a) == 0
    assert math.isnan(dice(a & ~a, b & ~b))
