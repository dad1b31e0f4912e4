"""Onto the plan's grid and back: images, labels and the maps between them agree on where everything lies."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from grids import (
    ALL_ORIENTATIONS,
    affine_of,
    axes_of,
    plan_of,
    points_mm,
    reoriented,
    soft_ball,
    volume_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd, Spacingd

from medfewshot.errors import InputError
from medfewshot.planning import labels_to_plan, sample_axis, to_plan
from medfewshot.types import Plan, Volume


@st.composite
def grids(draw, dims: int = 3) -> tuple[tuple[int, ...], np.ndarray, Plan, np.ndarray]:
    """A original shape and affine, a plan with some other spacing, and how the original axes are stored."""
    shape = tuple(draw(st.lists(st.integers(4, 13), min_size=dims, max_size=dims)))
    lengths = st.floats(0.3, 5.0)
    spacing = draw(st.lists(lengths, min_size=3, max_size=3))
    affine = affine_of(spacing, [draw(st.floats(-180, 180)) for _ in range(3)], [draw(st.floats(-300, 300))] * 3)
    ratios = draw(st.lists(st.one_of(st.just(1.0), st.floats(0.6, 4.5)), min_size=dims, max_size=dims))
    plan = plan_of([s * r for s, r in zip(spacing, ratios, strict=False)], axes=axes_of(affine))
    return shape, affine, plan, draw(st.sampled_from(ALL_ORIENTATIONS))


def stored(data: np.ndarray, affine: np.ndarray, orientation: np.ndarray) -> Volume:
    volume = volume_of(data, affine)
    return volume if data.ndim == 2 else reoriented(volume, orientation)


def check_maps(volume: Volume, planned) -> None:
    """Original voxel -> planned index -> mm is where the original affine puts the voxel."""
    original = points_mm(volume.affine, volume.spatial_shape).reshape(3, -1)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.spatial_shape], indexing="ij"))
    index = index.reshape(volume.spatial_dims, -1)
    at = np.zeros((3, index.shape[1]))
    for axis, axis_map in enumerate(planned.maps):
        at[axis] = axis_map.offset + axis_map.step * index[axis_map.original_axis]
    np.testing.assert_allclose(planned.affine[:3, :3] @ at + planned.affine[:3, 3:], original, atol=1e-8)


def check_ramp(shape, affine, plan, orientation) -> None:
    """An image whose intensity is a coordinate in mm keeps it: each planned voxel holds its own position."""
    for coordinate in range(3):
        ramp = points_mm(affine, shape)[coordinate]
        offset = ramp.mean()
        planned = to_plan(stored(ramp - offset, affine, orientation), plan)
        image = planned.image[0].numpy()
        expected = points_mm(planned.affine, image.shape)[coordinate] - offset
        # The last block of voxels may be a partial one, which lies elsewhere than its grid point.
        inner = tuple(slice(0, max(1, n - 2)) for n in image.shape)
        np.testing.assert_allclose(image[inner], expected[inner], atol=2e-3)


@settings(max_examples=40)
@given(grids())
def test_maps_lead_back_exactly(grid):
    shape, affine, plan, orientation = grid
    volume = stored(np.zeros(shape), affine, orientation)
    check_maps(volume, to_plan(volume, plan))


@settings(max_examples=25)
@given(grids())
def test_planned_voxels_lie_where_the_affine_says(grid):
    check_ramp(*grid)


@settings(max_examples=25)
@given(grids(dims=2))
def test_planar_slices_may_lie_in_any_plane(grid):
    shape, affine, plan, orientation = grid
    check_maps(volume_of(np.zeros(shape), affine), to_plan(volume_of(np.zeros(shape), affine), plan))
    check_ramp(shape, affine, plan, orientation)


def test_a_sagittal_planar_slice_is_planned():
    """Its first two columns have no x component: the upper left (2, 2) of its affine is singular."""
    affine = np.array([[0.0, 0, 1, 0], [0.5, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1]])
    planned = to_plan(volume_of(np.ones((20, 16)), affine), plan_of((0.8, 0.8)))
    assert planned.image.shape == (1, 13, 10)
    np.testing.assert_allclose(np.linalg.norm(planned.affine[:3, :2], axis=0), 0.8)


def test_a_header_that_is_a_little_sheared_keeps_its_shear():
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[0, 2] = 9e-4  # what reading tolerates
    plan = plan_of((1.5, 1.5, 1.5))
    volume = volume_of(np.zeros((8, 8, 60)), affine)
    check_maps(volume, to_plan(volume, plan))


def test_micrometres_are_resampled_like_millimetres():
    data = np.random.default_rng(0).normal(size=(12, 12))
    coarse = to_plan(volume_of(data, affine_of((1, 1, 1))), plan_of((1.5, 1.5)))
    fine = to_plan(volume_of(data, affine_of((1e-4, 1e-4, 1e-4))), plan_of((1.5e-4, 1.5e-4)))
    np.testing.assert_allclose(fine.image, coarse.image, atol=1e-5)


@settings(max_examples=40)
@given(grids())
def test_images_and_labels_share_one_grid(grid):
    shape, affine, plan, orientation = grid
    label = stored(np.zeros(shape, dtype=np.uint8), affine, orientation)
    image = to_plan(stored(np.zeros(shape), affine, orientation), plan).image
    assert labels_to_plan(label, plan).shape == image.shape[1:]


@settings(max_examples=30)
@given(
    spacing=st.lists(st.floats(0.5, 3.0), min_size=3, max_size=3),
    ratios=st.lists(st.one_of(st.just(1.0), st.floats(0.7, 4.2)), min_size=3, max_size=3),
    degrees=st.lists(st.floats(-180, 180), min_size=3, max_size=3),
    orientation=st.sampled_from(ALL_ORIENTATIONS),
    seed=st.integers(0, 99),
)
def test_a_planned_label_lies_where_the_native_one_does(spacing, ratios, degrees, orientation, seed):
    """Centroids of a box agree within half a planned voxel, and the planned image of the box overlaps it."""
    shape = (23, 22, 21)
    rng = np.random.default_rng(seed)
    affine = affine_of(spacing, degrees, (50, -90, 10))
    label = np.zeros(shape, dtype=np.uint8)
    start = rng.integers(1, 7, 3)
    stop = start + rng.integers(12, 14, 3)
    label[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = 1
    plan = plan_of(np.multiply(spacing, ratios), axes=axes_of(affine))
    planned_label = labels_to_plan(stored(label, affine, orientation), plan).numpy()
    planned = to_plan(stored(label.astype(float), affine, orientation), plan)

    original_mm = affine[:3, :3] @ ((start + stop - 1) / 2) + affine[:3, 3]
    expected = np.linalg.inv(planned.affine) @ [*original_mm, 1]
    centroid = np.argwhere(planned_label == 1).mean(axis=0)
    assert np.abs(centroid - expected[:3]).max() <= 0.5 + 1e-6

    # The box may be three planned voxels wide, with edges inside of two of them; its image is about half there.
    image = planned.image[0].numpy()
    assert image[planned_label == 1].mean() > 0.6
    assert image[planned_label == 0].mean() < 0.15


@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_labels_are_not_shifted_where_planned_voxels_lie_midway_between_original_ones(ratio):
    """A ball in the middle of the grid stays there, and from behind it looks the same."""
    ball, plan = (np.square(np.indices((40, 40, 40)) - 19.5).sum(0) < 12**2).astype(np.uint8), plan_of((ratio,) * 3)
    planned = labels_to_plan(volume_of(ball), plan).numpy()
    np.testing.assert_allclose(np.argwhere(planned).mean(0), (40 / ratio - 1) / 2, atol=1e-6)
    backwards = reoriented(volume_of(ball), np.array([[0, -1], [1, -1], [2, 1]]))
    np.testing.assert_array_equal(labels_to_plan(backwards, plan), planned)


def test_labels_without_resampling_are_untouched():
    label = np.random.default_rng(0).integers(0, 3, (6, 7, 5)).astype(np.uint16)
    values = np.array([0, 420, 205], dtype=np.uint16)[label]
    plan = plan_of((1, 1, 1), labels={420: "a", 205: "b"})
    planned = labels_to_plan(volume_of(values), plan)
    assert planned.dtype == torch.int64
    np.testing.assert_array_equal(planned, label)


def test_labels_outside_the_plan_become_background():
    label = np.array([[0, 1, 2], [3, 2, 1]], dtype=np.uint8)
    planned = labels_to_plan(volume_of(label), plan_of((1, 1), labels={2: "two"}))
    np.testing.assert_array_equal(planned, (label == 2).astype(int))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("dims", [2, 3])
def test_tiny_structures_survive_coarse_grids(size, dims):
    """From one voxel to 27, wherever they fall on a grid four times as coarse, and in the right place."""
    shape = (17, 18, 19)[:dims]
    plan = plan_of((4.0,) * dims)
    rng = np.random.default_rng(0)
    for _ in range(40):
        start = rng.integers(0, np.array(shape) - size + 1)
        label = np.zeros(shape, dtype=np.uint8)
        label[tuple(slice(s, s + size) for s in start)] = 1
        planned = labels_to_plan(volume_of(label), plan)
        found = np.argwhere(planned.numpy() == 1)
        assert len(found) >= 1
        maps = to_plan(volume_of(label.astype(float)), plan).maps
        expected = [m.offset + m.step * (start[m.original_axis] + (size - 1) / 2) for m in maps]
        limits = np.clip(expected, 0, np.array(planned.shape) - 1)
        assert np.abs(found.mean(axis=0) - limits).max() <= 0.75


def test_a_tiny_structure_beside_a_large_one_survives():
    label = np.zeros((24, 24, 24), dtype=np.uint8)
    label[4:20, 4:20, 4:20] = 1
    label[10, 11, 13] = 2
    planned = labels_to_plan(volume_of(label), plan_of((4, 4, 4), labels={1: "organ", 2: "lesion"}))
    assert (planned == 2).sum() == 1
    assert (planned == 1).sum() > 30


# The way back


def test_sample_axis_by_hand():
    values = torch.tensor([[0.0, 10.0, 40.0]])
    got = sample_axis(values, np.array([-3.0, 0.0, 0.25, 1.0, 1.5, 2.0, 9.0]), 1)
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.0, 2.5, 10.0, 25.0, 40.0, 40.0]]))
    torch.testing.assert_close(values, torch.tensor([[0.0, 10.0, 40.0]]))


def test_sample_axis_of_one_voxel():
    got = sample_axis(torch.tensor([[7.0]]), np.array([-1.0, 0.0, 0.4, 3.0]), 1)
    torch.testing.assert_close(got, torch.full((1, 4), 7.0))


@pytest.mark.parametrize("orientation", [ALL_ORIENTATIONS[i] for i in (0, 5, 13, 22, 31, 47)])
@pytest.mark.parametrize("target", [(1.4, 1.9, 2.0), (1.0, 1.0, 2.0), (0.7, 1.3, 1.1)])
def test_both_ways_agree_with_monai(orientation, target):
    """Where no blocks are averaged, planning is ``Orientationd`` and ``Spacingd``, and the way back is ``Invertd``."""
    rng = np.random.default_rng(0)
    original = reoriented(volume_of(rng.normal(size=(12, 10, 8)), affine_of((1, 1, 2), origin=(9, -7, 3))), orientation)
    planned = to_plan(original, plan_of(target))

    forward = Compose(
        [
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=target, mode="bilinear", padding_mode="border"),
        ]
    )
    data = {"image": MetaTensor(torch.from_numpy(original.data.copy()), affine=torch.from_numpy(original.affine))}
    there = forward(data)
    torch.testing.assert_close(planned.image, there["image"].as_tensor(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(planned.affine, there["image"].affine.numpy(), atol=1e-6)

    field = torch.from_numpy(rng.normal(size=(2, *planned.image.shape[1:])).astype(np.float32))
    there["field"] = MetaTensor(field.clone()).copy_meta_from(there["image"])
    invert = Invertd("field", forward, orig_keys="image", nearest_interp=False, to_tensor=True)
    expected = invert(there)["field"].as_tensor()

    values = field
    for axis, axis_map in enumerate(planned.maps):
        at = axis_map.coordinates(0, original.spatial_shape[axis_map.original_axis])
        values = sample_axis(values, at, axis + 1)
    original_axes = [m.original_axis for m in planned.maps]
    values = values.permute(0, *[original_axes.index(axis) + 1 for axis in range(3)])
    torch.testing.assert_close(values, expected, atol=1e-3, rtol=0)


def test_averaging_suppresses_noise():
    """Reading every fourth voxel would keep the noise; averaging 4^3 of them leaves an eighth of it."""
    noise = np.random.default_rng(0).normal(size=(32, 32, 32))
    planned = to_plan(volume_of(noise), plan_of((4, 4, 4)))
    assert planned.image.shape == (1, 8, 8, 8)
    assert float(planned.image.std()) == pytest.approx(1 / 8, rel=0.2)
    np.testing.assert_allclose(planned.image[0, 0, 0, 0], noise[:4, :4, :4].mean(), atol=1e-5)


def test_planning_leaves_the_volume_alone():
    volume = volume_of(soft_ball(np.eye(4), (9, 9, 9), 3))
    before = volume.data.copy()
    to_plan(volume, plan_of((1, 1, 1)))
    to_plan(volume, plan_of((2.5, 1, 1)))
    volume.data.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of a read-only array that it could change
        to_plan(volume, plan_of((1, 1, 1)))
    np.testing.assert_array_equal(volume.data, before)


def test_volumes_of_another_kind_are_refused():
    plan = plan_of((1, 1, 1))
    with pytest.raises(InputError, match=r"array: is 2D but the support is 3D"):
        to_plan(volume_of(np.zeros((4, 4))), plan)
    two_channels = Volume(np.zeros((2, 4, 4, 4), dtype=np.float32), np.eye(4))
    with pytest.raises(InputError, match=r"has 2 channel\(s\) but the support has 1"):
        to_plan(two_channels, plan)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_may_be_stored_the_other_way_round(axis):
    """NumPy leaves a flipped axis of one voxel with a negative stride, which torch refuses."""
    shape = tuple(1 if a == axis else 5 for a in range(3))
    data = np.arange(25, dtype=np.float32).reshape(shape)
    flip = np.eye(4)
    flip[axis, axis] = -1
    plan = plan_of((1.0, 1.0, 1.0))
    straight, flipped = (to_plan(volume_of(data, affine), plan).image for affine in (np.eye(4), flip))
    assert torch.equal(straight, flipped)
