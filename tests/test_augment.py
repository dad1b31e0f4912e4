"""Patches are read where they should be, vary as they should, and come again with the same seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from grids import affine_of, distance_mm, soft_ball
from hypothesis import given, settings
from hypothesis import strategies as st

from medfewshot.augment import NO_AUGMENTATION, Augmentation, patch_grid, read_at, vary_intensity
from medfewshot.errors import InputError
from medfewshot.learners import patches
from medfewshot.learners.patches import PatchSampler
from medfewshot.types import Support, Warp

ONLY_WARPED = replace(NO_AUGMENTATION, probability=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(9))


def crop(volume: torch.Tensor, start, size) -> torch.Tensor:
    """``volume (C, *S)`` from ``start`` on; beyond an edge the last voxel repeats."""
    for axis, (s, n) in enumerate(zip(start, size, strict=True), start=1):
        index = torch.arange(s, s + n).clamp(0, volume.shape[axis] - 1)
        volume = volume.index_select(axis, index)
    return volume


def starts_of(points: torch.Tensor) -> list[int]:
    first = points.flatten(1)[:, 0]
    assert torch.equal(first, first.round())
    return [int(v) for v in first]


# Reading


@settings(max_examples=30)
@given(shape=st.lists(st.integers(1, 17), min_size=2, max_size=3), channels=st.integers(1, 3))
def test_reading_at_every_voxel_gives_the_volume(shape, channels):
    volume = noise(channels, *shape)
    points = torch.stack(torch.meshgrid(*[torch.arange(n).float() for n in shape], indexing="ij"))
    assert torch.equal(read_at(volume, points, "nearest"), volume)
    torch.testing.assert_close(read_at(volume, points, "bilinear"), volume, atol=2e-5, rtol=0)


def test_reading_between_voxels_is_linear():
    volume = torch.arange(24).float().view(1, 2, 3, 4)  # 12 x + 4 y + z
    points = torch.tensor([[0.25], [1.5], [2.75]]).view(3, 1, 1, 1)
    assert float(read_at(volume, points, "bilinear")) == pytest.approx(3 + 6 + 2.75, abs=1e-4)


def test_reading_beyond_the_edge_repeats_it():
    volume = torch.tensor([[[1.0, 2.0, 3.0]]])
    points = torch.stack([torch.zeros(1, 2), torch.tensor([[-5.0, 9.0]])])
    torch.testing.assert_close(read_at(volume, points, "bilinear"), torch.tensor([[[1.0, 3.0]]]))


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(3, 20), min_size=2, max_size=3),
    patch=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    centre=st.lists(st.floats(0, 20), min_size=3, max_size=3),
)
def test_without_augmentation_a_patch_is_a_plain_crop(shape, patch, centre):
    dims = len(shape)
    patch, spacing = patch[:dims], torch.tensor([1.0, 2.0, 5.0][:dims])
    points = patch_grid(patch, torch.tensor(centre[:dims]), spacing, NO_AUGMENTATION, generator())
    volume, label = noise(2, *shape), (noise(1, *shape) > 0).float()
    start = starts_of(points)
    expected_start = np.array(centre[:dims]) - (np.array(patch) - 1) / 2
    assert np.abs(start - expected_start).max() <= 0.5 + 1e-5
    torch.testing.assert_close(read_at(volume, points, "bilinear"), crop(volume, start, patch), atol=2e-5, rtol=0)
    assert torch.equal(read_at(label, points, "nearest"), crop(label, start, patch))


def test_without_augmentation_intensities_stay():
    images = noise(2, 1, 6, 6, 6)
    assert torch.equal(vary_intensity(images, NO_AUGMENTATION, generator()), images)


# Warping


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.2, 2.5), (0.7, 0.7, 4.0), (1.0, 2.0)])
def test_a_rotated_sphere_is_a_sphere(spacing, seed):
    """Lengths are turned in mm: with turned voxels, an anisotropic sphere would become an ellipsoid."""
    dims = len(spacing)
    shape = tuple(int(40 / s) | 1 for s in spacing)
    affine = affine_of((*spacing, 1.0)[:3])
    ball = torch.from_numpy(soft_ball(affine, shape, 12, width_mm=8)).float()[None]
    centre = (torch.tensor(shape).float() - 1) / 2
    config = replace(ONLY_WARPED, rotation_rad=1.0)
    points = patch_grid(shape, centre, torch.tensor(spacing), config, generator(seed))
    still = patch_grid(shape, centre, torch.tensor(spacing), NO_AUGMENTATION, generator(seed))
    assert float((points - still).abs().max()) > 1  # it did turn
    turned = read_at(ball, points, "bilinear")
    assert float((turned - ball).abs().max()) < 0.12
    assert float(turned.sum() / ball.sum()) == pytest.approx(1, abs=0.02)
    distances = torch.linalg.vector_norm(
        (points - centre.view(dims, *[1] * dims)) * torch.tensor(spacing).view(dims, *[1] * dims), dim=0
    )
    np.testing.assert_allclose(distances, distance_mm(affine, shape), atol=1e-3)


def test_thick_slices_are_tilted_little_but_turned_freely():
    """The plane of acquisition may turn by the full angle, its normal by a quarter of it."""
    spacing, config = torch.tensor([1.0, 1.0, 5.0]), replace(ONLY_WARPED, rotation_rad=0.8)
    in_plane, tilt = [], []
    for seed in range(60):
        points = patch_grid((3, 3, 3), torch.zeros(3), spacing, config, generator(seed))
        normal = (points[:, 1, 1, 2] - points[:, 1, 1, 1]) * spacing
        along = (points[:, 2, 1, 1] - points[:, 1, 1, 1]) * spacing
        tilt.append(float(torch.acos((normal[2] / normal.norm()).clamp(-1, 1))))
        in_plane.append(abs(float(torch.atan2(along[1], along[0]))))
    assert max(tilt) <= 0.8 / 4 * 2**0.5 + 1e-3
    assert max(in_plane) > 0.6


@pytest.mark.parametrize("seed", range(5))
def test_zoom_stays_within_its_bounds(seed):
    config = replace(ONLY_WARPED, scale=0.2)
    points = patch_grid((9, 9, 9), torch.zeros(3), torch.tensor([1.0, 1.0, 3.0]), config, generator(seed))
    extent = points.flatten(1).amax(1) - points.flatten(1).amin(1)
    assert (extent / 8 <= 1.2 ** (4 / 3) + 1e-4).all()
    assert (extent / 8 >= 1.2 ** (-4 / 3) - 1e-4).all()


def test_elastic_displacement_has_its_strength():
    """Half of the patches are bent, by at most the stated share of their extent (as a standard deviation)."""
    config, patch = replace(ONLY_WARPED, elastic=0.05), (40, 40)
    still = patch_grid(patch, torch.zeros(2), torch.ones(2), ONLY_WARPED, generator())
    moved = [patch_grid(patch, torch.zeros(2), torch.ones(2), config, generator(seed)) - still for seed in range(60)]
    shifts = torch.stack([m.square().mean().sqrt() / 40 for m in moved])
    bent = shifts > 1e-4
    assert 0.3 < float(bent.float().mean()) < 0.7
    assert float(shifts.max()) < 0.05 * 1.5
    assert float(shifts[bent].mean()) > 0.01


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 4.0), (1.0, 1.0)])
def test_labels_and_images_warp_together(spacing):
    shape = tuple(int(48 / s) for s in spacing)
    ball = torch.from_numpy(soft_ball(affine_of((*spacing, 1.0)[:3]), shape, 14, width_mm=6)).float()[None]
    label = (ball > 0.5).float()
    config = replace(Augmentation(), intensity_probability=0.0, blur_probability=0.0, probability=1.0)
    for seed in range(6):
        centre = (torch.tensor(shape).float() - 1) / 2
        patch = [max(1, n * 3 // 4) for n in shape]
        points = patch_grid(patch, centre, torch.tensor(spacing), config, generator(seed))
        image, warped = read_at(ball, points, "bilinear"), read_at(label, points, "nearest")
        sure = (image - 0.5).abs() > 0.35
        assert torch.equal((image > 0.5)[sure], (warped > 0.5)[sure])
        # Nearest neighbour may be off by half a voxel on the edge itself, but in no direction on the whole.
        middles = [(mask[0] > 0.5).nonzero().float().mean(0) for mask in (image, warped)]
        assert float((middles[0] - middles[1]).abs().max()) < 0.2


# Intensities


def test_intensity_changes_are_modest_and_each_patch_has_its_own():
    images = noise(1, 1, 12, 12, 12).expand(8, -1, -1, -1, -1).contiguous()
    before = images.clone()
    varied = vary_intensity(images, Augmentation(), generator())
    assert torch.equal(images, before)
    assert varied.shape == images.shape
    assert torch.isfinite(varied).all()
    assert len({round(float(v.sum()), 3) for v in varied}) > 4
    corner = [float(np.corrcoef(a.flatten(), b.flatten())[0, 1]) for a, b in zip(varied, images, strict=True)]
    assert min(corner) > 0.3


@pytest.mark.parametrize("shape", [(1, 1, 9, 9), (1, 2, 20, 3, 1), (2, 1, 1, 1, 1)])
def test_odd_and_constant_patches_stay_finite(shape):
    config = replace(Augmentation(), intensity_probability=1.0, blur_probability=1.0)
    for images in (torch.full(shape, 3.0), noise(*shape)):
        varied = vary_intensity(images, config, generator())
        assert varied.shape == shape
        assert torch.isfinite(varied).all()


# The sampler


def support(dims: int = 3, shots: int = 2, channels: int = 1) -> Support:
    shapes = [(18, 16, 8)[:dims], (15, 20, 9)[:dims]][:shots]
    images = tuple(noise(channels, *shape) for shape in shapes)
    labels = tuple((image[0] > 1).long() + (image[0] > 1.8).long() for image in images)
    return Support(images, labels, 3, (12, 12, 8)[:dims], (1.0, 1.0, 3.0)[:dims])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_seed_gives_the_same_patches_whatever_the_global_state(dims):
    torch.manual_seed(1)
    first = PatchSampler(support(dims), Augmentation(), generator(3)).batch(4)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = PatchSampler(support(dims), Augmentation(), generator(3)).batch(4)
    other = PatchSampler(support(dims), Augmentation(), generator(4)).batch(4)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], other[0])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn from it


@pytest.mark.parametrize("dims", [2, 3])
def test_patches_have_the_stated_types(dims):
    given = support(dims, channels=2)
    copies = [t.clone() for t in (*given.images, *given.labels)]
    image, label = PatchSampler(given, Augmentation(), generator()).batch(3)
    assert image.shape == (3, 2, *given.patch_size)
    assert image.dtype == torch.float32
    assert label.shape == (3, *given.patch_size)
    assert label.dtype == torch.int64
    assert set(label.unique().tolist()) <= {0, 1, 2}
    assert all(torch.equal(a, b) for a, b in zip(copies, (*given.images, *given.labels), strict=True))


def test_unaugmented_patches_are_crops_of_a_support():
    given = support()
    sampler = PatchSampler(given, NO_AUGMENTATION, generator())
    for _ in range(10):
        patch, label = sampler.sample()
        places = [
            (i, x, y, z)
            for i, image in enumerate(given.images)
            for x in range(image.shape[1] - 11)
            for y in range(image.shape[2] - 11)
            for z in range(image.shape[3] - 7)
            if torch.equal(given.labels[i][x : x + 12, y : y + 12, z : z + 8], label)
        ]
        assert len(places) == 1
        i, *start = places[0]
        torch.testing.assert_close(patch, crop(given.images[i], start, (12, 12, 8)), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"images": (noise(1, 8, 8),) * 2}, "do not fit; give images"),
        ({"labels": (torch.zeros(4, 8).long(),)}, "do not fit"),
        ({"images": (noise(8, 8),)}, "do not fit"),
        ({"patch_size": (8, 8, 8)}, r"patch size \(8, 8, 8\) do not fit"),
        ({"images": (noise(1, 8, 8) * float("nan"),)}, "contains NaN"),
        ({"labels": (torch.full((8, 8), 5),)}, "a label is above 1"),
    ],
)
def test_supports_that_do_not_fit_are_refused(wrong, told):
    right = {"images": (noise(1, 8, 8),), "labels": (torch.ones(8, 8).long(),), "classes": 2}
    PatchSampler(Support(**right), Augmentation(), generator())
    with pytest.raises(InputError, match=told):
        PatchSampler(Support(**right | wrong), Augmentation(), generator())


def test_small_classes_are_looked_at_as_often_as_large_ones():
    label = torch.zeros(40, 40, dtype=torch.int64)
    label[:, :20] = 1
    label[30, 35] = 2
    sampler = PatchSampler(Support((noise(1, 40, 40),), (label,), 3, (8, 8)), NO_AUGMENTATION, generator())
    seen = np.mean([bool((sampler.sample(1.0)[1] == 2).any()) for _ in range(100)])
    assert 0.4 < seen < 0.65
    assert any(not bool((sampler.sample(0.0)[1] == 2).any()) for _ in range(20))


def test_a_volume_smaller_than_the_patch_sits_in_its_middle():
    label = torch.ones(3, 5, dtype=torch.int64)
    given = Support((noise(1, 3, 5),), (label,), 2, (7, 9))
    patch, _ = PatchSampler(given, NO_AUGMENTATION, generator()).sample()
    torch.testing.assert_close(patch[:, 2:5, 2:7], given.images[0], atol=2e-5, rtol=0)


def test_without_a_patch_size_the_patch_is_the_field_of_view():
    given = replace(support(), patch_size=None)
    assert PatchSampler(given, NO_AUGMENTATION, generator()).patch == (18, 20, 9)


def test_intensity_curves_rise_and_keep_the_range():
    config = replace(NO_AUGMENTATION, intensity_probability=1.0, gamma=0.8)
    image = noise(1, 1, 10, 10, 10)
    order = image.flatten().argsort()
    curves = [vary_intensity(image, config, generator(seed)).flatten() for seed in range(6)]
    for curve in curves:
        assert float(curve[order].diff().min()) >= -1e-5
        torch.testing.assert_close(curve[order[[0, -1]]], image.flatten()[order[[0, -1]]], atol=1e-4, rtol=0)
    assert float((curves[0] - curves[1]).abs().max()) > 0.05


def test_a_warp_reads_one_example_where_it_puts_the_points_of_another(monkeypatch):
    images, labels = (noise(1, 9, 9), noise(1, 9, 9)), (torch.zeros(9, 9).long(), torch.zeros(9, 9).long())
    given = Support(images, labels, 2, (9, 9), warps=(Warp(0, 1, lambda points: points.flip(0)),))
    monkeypatch.setattr(patches, "WARPED_FRACTION", 1.0)
    drawn = [PatchSampler(given, NO_AUGMENTATION, generator(seed)).sample()[0] for seed in range(6)]
    expected = (images[0].mT, images[1])  # the first one has a warp, the second one has none
    assert {[torch.allclose(one, image, atol=1e-5) for image in expected].index(True) for one in drawn} == {0, 1}
