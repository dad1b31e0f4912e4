"""Metrics against what is known on paper, and against MONAI where MONAI is defined."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from medfewshot import metrics
from medfewshot.errors import InputError
from medfewshot.metrics import METRICS, Metric

SPACING = (0.7, 1.3, 2.5)


def box(shape: tuple[int, ...], *bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def sphere(
    shape: tuple[int, ...], centre: tuple[float, ...], radius_mm: float, spacing: tuple[float, ...]
) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    squared = [((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing, strict=True)]
    return np.asarray(sum(squared) <= radius_mm**2)


def monai_values(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> list[float]:
    pair = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (prediction, reference)]
    common = {"include_background": True, "spacing": [float(s) for s in spacing]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = (
            compute_hausdorff_distance(*pair, percentile=95, **common),
            compute_average_surface_distance(*pair, symmetric=True, **common),
            compute_surface_dice(*pair, class_thresholds=[tolerance], **common),
        )
    return [float(result) for result in results]


def our_values(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance: float
) -> list[float]:
    pair = prediction, reference, spacing
    distances = hd95_mm(*pair), asd_mm(*pair)
    return [*distances, surface_dice(*pair, tolerance_mm=tolerance)]


dice, hd95_mm, asd_mm, surface_dice, rvd = METRICS.values()


# --- known on paper -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 1.0, 3.0), (2, 1.5, 1)])
def test_identical_masks_are_perfect(spacing: tuple[float, ...]) -> None:
    mask = sphere((20, 20, 20), (10, 9, 11), 6, (1, 1, 1))
    assert dice(mask, mask, spacing) == 1
    assert our_values(mask, mask, spacing, 0.0) == [0, 0, 1]
    assert rvd(mask, mask, spacing) == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [1, 2, 3])
def test_plate_shifted_along_its_normal(axis: int, shift: int) -> None:
    """One-voxel plates are all surface, and every voxel of one has its counterpart ``shift`` voxels away."""
    bounds = [(2, 8)] * 3
    first = box((12, 12, 12), *[(4, 5) if a == axis else b for a, b in enumerate(bounds)])
    second = box((12, 12, 12), *[(4 + shift, 5 + shift) if a == axis else b for a, b in enumerate(bounds)])
    distance = shift * SPACING[axis]
    assert hd95_mm(first, second, SPACING) == pytest.approx(distance)
    assert asd_mm(first, second, SPACING) == pytest.approx(distance)
    assert surface_dice(first, second, SPACING, tolerance_mm=distance) == 1
    assert surface_dice(first, second, SPACING, tolerance_mm=distance - 0.01) == 0
    assert dice(first, second, SPACING) == 0


def test_square_shifted_by_one_pixel() -> None:
    """Rings of a 5 x 5 square: 16 pixels each, of which 8 lie on the other ring and 8 are one pixel from it."""
    first, second = box((12, 12), (2, 7), (2, 7)), box((12, 12), (3, 8), (2, 7))
    assert asd_mm(first, second, (2.0, 2.0)) == pytest.approx(8 / 16 * 2.0)
    assert surface_dice(first, second, (2.0, 2.0), tolerance_mm=0) == pytest.approx(8 / 16)
    assert hd95_mm(first, second, (2.0, 2.0)) == pytest.approx(2.0)
    assert dice(first, second, (2.0, 2.0)) == pytest.approx(20 / 25)


def test_concentric_spheres_are_their_radii_apart() -> None:
    spacing = (0.5, 0.5, 0.5)
    inner, outer = (sphere((64, 64, 64), (32, 32, 32), radius, spacing) for radius in (8.0, 12.0))
    assert hd95_mm(inner, outer, spacing) == pytest.approx(4.0, abs=0.5)
    assert asd_mm(inner, outer, spacing) == pytest.approx(4.0, abs=0.25)
    assert dice(inner, outer, spacing) == pytest.approx(2 * 8**3 / (8**3 + 12**3), abs=0.01)
    assert rvd(inner, outer, spacing) == pytest.approx((8 / 12) ** 3 - 1, abs=0.01)


def test_distances_scale_with_the_spacing_and_overlap_does_not() -> None:
    first, second = box((16,) * 3, (2, 9), (3, 9), (4, 10)), box((16,) * 3, (4, 12), (3, 10), (2, 10))
    scaled = tuple(3 * s for s in SPACING)
    assert hd95_mm(first, second, scaled) == pytest.approx(3 * hd95_mm(first, second, SPACING))
    assert dice(first, second, scaled) == dice(first, second, SPACING)


def test_tolerance_counts_a_distance_that_equals_it_on_paper() -> None:
    first, second = box((9, 9), (1, 2), (1, 8)), box((9, 9), (4, 5), (1, 8))
    assert surface_dice(first, second, (0.7, 0.7), tolerance_mm=2.1) == 1
    assert surface_dice(first, second, (0.1, 0.1), tolerance_mm=0.3) == 1


# --- definition of a surface ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(7, 9), (6, 7, 8), (1, 5, 5)]))
def test_surface_is_the_eroded_rim_also_at_the_image_border(seed: int, shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.8
    np.testing.assert_array_equal(metrics.surface(mask), mask ^ ndimage.binary_erosion(mask))


def test_tree_and_transform_give_the_same_distances() -> None:
    rng = np.random.default_rng(3)
    pair = rng.random((14, 15, 16)) < 0.1, rng.random((14, 15, 16)) < 0.1
    transform, tree = (metrics.nearest_mm(*pair, SPACING, dense=dense) for dense in (-1.0, 2.0))
    np.testing.assert_allclose(transform, tree, rtol=1e-6)


# --- agreement with MONAI -------------------------------------------------------------------------------------------


def blobs(seed: int, shape: tuple[int, ...], cover: float) -> tuple[np.ndarray, np.ndarray]:
    """Two smooth random masks that have much in common, each with at least one voxel."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=shape)
    fields = [ndimage.gaussian_filter(shared + 0.5 * rng.normal(size=shape), 1.5) for _ in range(2)]
    first, second = (field >= np.quantile(field, 1 - cover) for field in fields)
    return first, second


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(17, 21), (12, 13, 14), (9, 20, 6)]),
    cover=st.sampled_from([0.02, 0.2, 0.6]),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (0.31, 1.27, 2.0)]),
    tolerance=st.sampled_from([0.0, 0.7, 2.0]),
)
def test_agrees_with_monai_on_blobs(
    seed: int, shape: tuple[int, ...], cover: float, spacing: tuple[float, ...], tolerance: float
) -> None:
    pair = blobs(seed, shape, cover)
    spacing = spacing[: len(shape)]
    expected = monai_values(*pair, spacing, tolerance)
    assert our_values(*pair, spacing, tolerance) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_percentile_agrees_with_torch_where_neighbours_lie_a_slice_apart() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 999, 40_001, 60_000):
        values = rng.choice([0.0, 5.0], size, p=[0.949, 0.051]).astype(np.float32)
        values[: size // 20 + 1] = np.arange(size // 20 + 1, dtype=np.float32)
        expected = float(torch.quantile(torch.from_numpy(values), 0.95))
        assert metrics.percentile(values, 0.95) == pytest.approx(expected, rel=1e-6)


SHAPE = (24, 26, 20)
PAIRS = {
    "spheres": (sphere(SHAPE, (12, 12, 10), 8, (1, 1, 1)), sphere(SHAPE, (13, 11, 10), 7, (1, 1, 1))),
    "boxes": (box(SHAPE, (3, 12), (4, 20), (5, 9)), box(SHAPE, (5, 12), (4, 22), (3, 9))),
    "at the border": (box(SHAPE, (0, 9), (0, 26), (12, 20)), box(SHAPE, (0, 7), (3, 26), (10, 20))),
    "whole image": (np.ones(SHAPE, bool), box(SHAPE, (0, 24), (0, 26), (0, 18))),
    "one voxel far away": (box(SHAPE, (0, 1), (0, 1), (0, 1)), box(SHAPE, (20, 24), (20, 26), (18, 20))),
    "apart": (box(SHAPE, (0, 4), (2, 5), (1, 9)), box(SHAPE, (15, 20), (18, 22), (11, 14))),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
def test_agrees_with_monai_on_shapes(name: str, spacing: tuple[float, ...]) -> None:
    expected = monai_values(*PAIRS[name], spacing, 2.0)
    assert our_values(*PAIRS[name], spacing, 2.0) == pytest.approx(expected, rel=1e-6, abs=1e-6)


# --- empty masks and wrong input ------------------------------------------------------------------------------------

FULL, EMPTY = box((6, 6, 6), (1, 4), (1, 4), (1, 4)), np.zeros((6, 6, 6), bool)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (EMPTY, FULL, {"dice": 0, "hd95_mm": None, "asd_mm": None, "surface_dice": 0, "rvd": -1}),
        (FULL, EMPTY, {"dice": 0, "hd95_mm": None, "asd_mm": None, "surface_dice": 0, "rvd": None}),
        (EMPTY, EMPTY, dict.fromkeys(METRICS)),
    ],
    ids=["missed", "false alarm", "both empty"],
)
def test_empty_masks(prediction: np.ndarray, reference: np.ndarray, expected: dict[str, float | None]) -> None:
    values = {name: metric(prediction, reference, (1, 1, 1)) for name, metric in METRICS.items()}
    assert {name: None if np.isnan(value) else value for name, value in values.items()} == expected


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
@pytest.mark.parametrize(
    ("prediction", "spacing"),
    [
        (FULL[1:], (1, 1, 1)),
        (FULL, (1, 1)),
        (FULL, (1, 1, 0)),
        (FULL, (1, -1, 1)),
        (FULL, (1, 1, float("nan"))),
        (FULL.astype(float), (1, 1, 1)),
    ],
)
def test_wrong_input_raises(metric: Metric, prediction: np.ndarray, spacing: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        metric(prediction, FULL, spacing)


def test_wrong_dimensions_and_tolerance_raise() -> None:
    with pytest.raises(InputError, match="2D and 3D"):
        dice(np.ones(4, bool), np.ones(4, bool), (1,))
    with pytest.raises(InputError, match="tolerance"):
        surface_dice(FULL, FULL, (1, 1, 1), tolerance_mm=-1)


def test_mixed_int_and_float_spacing_integer_masks_and_fortran_order() -> None:
    first, second = blobs(5, (12, 13, 14), 0.2)
    expected = our_values(first, second, (1.0, 2.0, 0.5), 1.0)
    assert our_values(first.astype(np.uint8), np.asfortranarray(second), (1, 2, 0.5), 1.0) == expected
