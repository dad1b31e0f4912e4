"""Distinguish label maps from images by their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from io_samples import write_nifti

from medfewshot.errors import InputError
from medfewshot.io import check_is_image, check_is_label_map, read_image, read_label


def smooth_disc(size: int) -> np.ndarray:
    """A disc of value 255 whose edge fades over a few pixels."""
    x, y = np.indices((size, size)) - size / 2
    return np.rint(255 * np.clip((size / 4 - np.hypot(x, y)) / 3 + 0.5, 0, 1)).astype(np.int16)


@pytest.mark.parametrize(
    "values",
    [
        smooth_disc(80),
        smooth_disc(80) // 20,
        np.rint(smooth_disc(80).reshape(40, 2, 40, 2).mean((1, 3)) / 64).astype(np.int16),
        np.clip(np.random.default_rng(0).normal(100, 8, (24, 20, 16)), 0, 255).astype(np.int16),
        np.rint(np.random.default_rng(1).normal(40, 200, (30, 30, 5)) + 1000).astype(np.int16),
    ],
    ids=["smooth mask", "12 levels", "4 levels", "8-bit scan", "CT"],
)
def test_gray_values_are_no_labels(values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"different values, most of them scattered.*; give the label"):
        check_is_label_map(values, "a.png")


@pytest.mark.parametrize(
    "values",
    [
        np.arange(1, 126).reshape(5, 5, 5).repeat(3, 0).repeat(3, 1).repeat(3, 2),
        np.arange(1, 31)[:, None, None].repeat(12, 1).repeat(12, 2),
        np.arange(1, 31)[None, None].repeat(12, 0).repeat(12, 1),
        np.arange(1, 101).reshape(10, 10).repeat(2, 0).repeat(2, 1),
    ],
    ids=["small cubes", "sheets", "sheets across", "2D squares"],
)
def test_many_small_or_thin_structures_are_labels(values: np.ndarray) -> None:
    assert check_is_label_map(values.astype(np.int16), "a.png") == ()


def test_many_specks_are_labels() -> None:
    """Microbleeds: each has a few voxels, and none lies between two others."""
    specks = np.zeros((60, 60, 20), np.int16)
    for number in range(1, 41):
        specks[number % 8 * 7 : number % 8 * 7 + 1 + number % 2, number // 8 * 9, 5] = number
    assert check_is_label_map(specks, "a") == ()


def test_an_edge_of_one_gray_value_is_a_warning() -> None:
    x, y = np.indices((60, 60)) - 30
    far = np.hypot(x, y)
    mask = np.where(far < 15, 255, np.where(far < 15.8, 127, 0)).astype(np.int16)
    (warning,) = check_is_label_map(mask, "a")
    assert "127" in warning


def balls() -> np.ndarray:
    """Three balls with the values 1 to 3."""
    at = np.indices((30, 28, 26))
    return sum(
        value * (((at.T - centre).T ** 2).sum(0) < radius**2)
        for value, centre, radius in ((1, (8, 8, 8), 6), (2, (20, 18, 16), 5), (3, (22, 6, 6), 4))
    ).astype(np.int16)


@pytest.mark.parametrize("labels", [balls(), (balls() > 0) * 255, balls()[:, :, 8]], ids=["balls", "mask", "2D"])
def test_a_label_map_given_as_a_scan_is_refused(tmp_path: Path, labels: np.ndarray) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", labels.astype(np.int16))
    with pytest.raises(InputError, match=r"a\.nii\.gz: is a label map by its values .*; give the scan itself"):
        read_image(path)
    assert np.array_equal(read_label(path).data[0], labels)


def test_scans_are_no_label_maps() -> None:
    rng, labels = np.random.default_rng(0), balls().astype(np.float32)
    for scan in (
        labels * 60 + rng.integers(0, 9, labels.shape),  # an 8-bit scan whose background is not 0
        np.where(labels > 0, labels * 60 + rng.integers(0, 9, labels.shape), 0),  # a skull-stripped one
        labels * 0.4,
        labels * 100 - 1000,
        np.zeros_like(labels),
    ):
        check_is_image(scan[None], "a")
    check_is_image(np.stack([labels, labels + rng.normal(0, 1, labels.shape)]), "a")


def test_an_enlarged_image_of_few_gray_values_is_an_image() -> None:
    ramp = np.add.outer(np.arange(100), np.arange(100)).repeat(8, 0).repeat(8, 1)
    check_is_image(ramp[None].astype(np.uint8), "ultrasound")
    parcellation = np.random.default_rng(0).permutation(199)[ramp]
    with pytest.raises(InputError, match="label map"):
        check_is_image(parcellation[None], "parcellation")
