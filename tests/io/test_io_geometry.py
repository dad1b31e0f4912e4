"""Where each voxel lies, through every format, as nibabel and SimpleITK see it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import (
    OBLIQUE,
    SHAPE,
    affine_of,
    itk_points,
    nibabel_points,
    points_of,
    ramp,
    rotation,
    signed_permutations,
    write_itk,
    write_nifti,
    write_picture,
)

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.io import check_same_grid, in_frame_of, read_image, read_label, write_label
from medfewshot.io.geometry import check_affine, complete_2d, corner_distance_mm
from medfewshot.types import Volume

ALL_AXES = [*(affine_of(axes) for axes in signed_permutations()), OBLIQUE]

affines = st.builds(
    lambda axes, angles, spacing, origin: affine_of(rotation(angles) @ axes, spacing, origin),
    st.sampled_from(signed_permutations()),
    st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    st.tuples(*[st.floats(0.2, 8.0)] * 3),
    st.tuples(*[st.floats(-300.0, 300.0)] * 3),
)


def write_input(folder: Path, suffix: str, affine: np.ndarray) -> Path:
    write = write_nifti if suffix.startswith(".nii") else write_itk
    return write(folder / f"in{suffix}", affine=affine)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_all_48_axis_orders_come_back_on_the_same_grid(tmp_path: Path, suffix: str) -> None:
    for affine in ALL_AXES:
        volume = read_image(write_input(tmp_path, suffix, affine))
        result = tmp_path / f"out{suffix}"
        write_label(result, ramp(), volume)
        assert np.array_equal(volume.data[0], ramp())
        assert np.array_equal(read_label(result).data[0], ramp())
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        np.testing.assert_allclose(itk_points(result), points_of(affine, SHAPE), atol=1e-3)
        if suffix == ".nii.gz":
            np.testing.assert_allclose(nibabel_points(result), itk_points(result), atol=1e-3)
            assert np.array_equal(nib.load(result).affine, nib.load(tmp_path / "in.nii.gz").affine)


@settings(max_examples=25)
@given(affine=affines, pair=st.sampled_from([(".nii", ".nrrd"), (".nrrd", ".nii"), (".mha", ".nii"), (".nii", ".mha")]))
def test_any_grid_survives_a_change_of_format(
    tmp_path_factory: pytest.TempPathFactory, affine: np.ndarray, pair: tuple[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("grid")
    volume = read_image(write_input(folder, pair[0], affine))
    result = folder / f"out{pair[1]}"
    write_label(result, ramp(), volume)
    again = read_label(result)
    assert corner_distance_mm(volume.affine, again.affine, SHAPE) < 2e-3
    assert np.array_equal(again.data[0], ramp())
    np.testing.assert_allclose(itk_points(result), points_of(affine, SHAPE), atol=2e-3)


def test_both_libraries_give_the_same_volume_for_a_nifti_file(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz")
    volume = read_image(path)
    np.testing.assert_allclose(itk_points(path), points_of(volume.affine, SHAPE), atol=1e-3)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, volume.data[0])


def grid(affine: np.ndarray = OBLIQUE, shape: tuple[int, ...] = SHAPE, name: str = "a.nii") -> Volume:
    return Volume(np.zeros((1, *shape), np.float32), affine, path=Path(name))


def test_rounding_passes_as_the_same_grid() -> None:
    check_same_grid(grid(), grid(OBLIQUE + 1e-7))


def test_a_shift_names_both_files_and_the_distance() -> None:
    shifted = OBLIQUE.copy()
    shifted[2, 3] += 3
    with pytest.raises(GridMismatchError, match=r"a\.nii and b\.nii .* 3 mm apart"):
        check_same_grid(grid(), grid(shifted, name="b.nii"))
    shifted[2, 3] = OBLIQUE[2, 3] + 0.03  # less than 5 % of the smallest edge, 0.7 mm
    check_same_grid(grid(), grid(shifted))


def test_two_voxels_of_a_microscope_are_another_grid() -> None:
    small = np.diag([0.005, 0.005, 0.005, 1.0])
    shifted = small.copy()
    shifted[0, 3] += 0.0099
    with pytest.raises(GridMismatchError, match=r"0\.0099 mm apart"):
        check_same_grid(grid(small), grid(shifted))


def test_a_flip_is_another_grid() -> None:
    with pytest.raises(GridMismatchError):
        check_same_grid(grid(), grid(OBLIQUE @ np.diag([-1.0, 1, 1, 1])))


def test_shapes_are_compared_first() -> None:
    with pytest.raises(GridMismatchError, match=r"a\.nii and b\.nii differ in shape, 4x5x6 and 4x5x7"):
        check_same_grid(grid(), grid(shape=(4, 5, 7), name="b.nii"))


def test_a_nan_affine_is_never_the_same_grid() -> None:
    with pytest.raises(GridMismatchError):
        check_same_grid(grid(), grid(OBLIQUE * np.nan))


def test_pictures_are_compared_by_shape_alone(tmp_path: Path) -> None:
    picture = read_image(write_picture(tmp_path / "a.png", ramp((4, 5)).astype(np.uint8)))
    check_same_grid(picture, replace(grid(shape=(4, 5)), affine=OBLIQUE))


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (OBLIQUE * np.nan, "NaN"),
        (np.diag([1.0, 0.0, 1.0, 1.0]), "zero is no spacing"),
        (np.diag([1500.0, 1500.0, 3000.0, 1.0]), "another unit"),
        (OBLIQUE @ np.array([[1.0, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "sheared"),
        (np.ones((4, 4)), "sheared"),
    ],
)
def test_unusable_affines(affine: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=f"scan: .*{words}"):
        check_affine(affine, "scan")


def test_the_third_axis_of_a_2d_grid_is_its_normal() -> None:
    flat = np.diag([2.0, 3.0, 0.0, 1.0])
    np.testing.assert_array_equal(complete_2d(flat), np.diag([2.0, 3.0, 1.0, 1.0]))


def test_a_mask_without_millimetres_lies_in_the_frame_of_its_scan(tmp_path: Path) -> None:
    scan = replace(grid(shape=(4, 5)), affine=OBLIQUE)
    mask = read_label(write_picture(tmp_path / "a.png", np.eye(4, 5, dtype=np.uint8)))
    assert not np.allclose(mask.affine, OBLIQUE)
    np.testing.assert_array_equal(in_frame_of(scan, mask).affine, OBLIQUE)
    np.testing.assert_array_equal(in_frame_of(scan, mask).data, mask.data)
    with pytest.raises(GridMismatchError):
        in_frame_of(replace(grid(shape=(5, 5)), affine=OBLIQUE), mask)
