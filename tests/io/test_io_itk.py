"""NRRD, MetaImage and pictures."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import OBLIQUE, SHAPE, ramp, write_itk, write_nifti, write_picture

from medfewshot.errors import InputError
from medfewshot.io import channels_in_file, read_image, read_label, write_array, write_label

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd"])
def test_every_volume_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    volume = read_image(write_itk(tmp_path / f"a{suffix}"))
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.data[0], ramp())
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-6)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_vector_images_are_channels(tmp_path: Path, suffix: str) -> None:
    volume = read_image(write_itk(tmp_path / f"a{suffix}"))
    probabilities = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
    write_array(tmp_path / f"p{suffix}", probabilities, volume)
    again = read_image(tmp_path / f"p{suffix}")
    assert np.array_equal(again.data, probabilities)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-9)
    with pytest.raises(InputError, match=f"p{suffix}: a label needs one channel"):
        read_label(tmp_path / f"p{suffix}")


def test_2d_metaimage_keeps_its_spacing(tmp_path: Path) -> None:
    affine = np.diag([-0.5, -0.8, 1.0, 1.0])
    volume = read_image(write_itk(tmp_path / "a.mha", ramp((4, 5)), affine))
    assert volume.spatial_shape == (4, 5)
    assert volume.spacing_mm == pytest.approx((0.5, 0.8))
    write_label(tmp_path / "b.mha", ramp((4, 5)), volume)
    np.testing.assert_allclose(read_label(tmp_path / "b.mha").affine, affine)


def test_a_tilted_2d_slice_needs_nifti(tmp_path: Path) -> None:
    volume = read_image(write_nifti(tmp_path / "flat.nii", ramp((4, 5))))
    with pytest.raises(InputError, match=r"flat\.nii: this format cannot hold a tilted 2D slice"):
        write_label(tmp_path / "b.nrrd", ramp((4, 5)), volume)


def test_colour_volumes_and_sequences_are_refused(tmp_path: Path) -> None:
    rgb = sitk.GetImageFromArray(np.zeros((6, 5, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(rgb, str(tmp_path / "rgb.nrrd"))
    with pytest.raises(InputError, match=r"rgb\.nrrd: is a colour"):
        read_image(tmp_path / "rgb.nrrd")
    sitk.WriteImage(sitk.Image([3, 4, 5, 6], sitk.sitkInt16), str(tmp_path / "cine.nrrd"))
    with pytest.raises(InputError, match=r"cine\.nrrd: has 4 axes"):
        read_image(tmp_path / "cine.nrrd")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_pictures_are_2d_and_know_no_millimetres(tmp_path: Path, suffix: str) -> None:
    volume = read_image(write_picture(tmp_path / f"a{suffix}", GREY))
    assert volume.data.shape == (1, 4, 5)
    assert np.array_equal(volume.data[0], GREY)
    assert volume.spacing_mm == (1.0, 1.0)


def test_jpeg_is_read(tmp_path: Path) -> None:
    volume = read_image(write_picture(tmp_path / "a.jpg", np.repeat(GREY, 4, axis=0)))
    assert volume.data.shape == (1, 16, 5)


def test_grey_in_colour_channels_is_grey(tmp_path: Path) -> None:
    for name, channels in (("rgb", 3), ("rgba", 4)):
        data = np.repeat(GREY[..., None], channels, axis=-1)
        data[..., 3:] = 255
        volume = read_image(write_picture(tmp_path / f"{name}.png", data, is_vector=True))
        assert np.array_equal(volume.data[0], GREY)
        assert "read as grey" in volume.warnings[0]


@pytest.mark.parametrize("alpha", [False, True])
def test_a_colour_picture_has_three_channels(tmp_path: Path, alpha: bool) -> None:
    data = np.stack([GREY, GREY, GREY[::-1], np.full_like(GREY, 255)][: 4 if alpha else 3], axis=-1)
    file = write_picture(tmp_path / "rgb.png", data, is_vector=True)
    volume = read_image(file)
    assert np.array_equal(volume.data, [GREY, GREY, GREY[::-1]])
    assert volume.warnings == (("alpha channel ignored",) if alpha else ())
    assert channels_in_file(file) == 3
    with pytest.raises(InputError, match=r"rgb\.png: is a colour picture"):
        read_label(file)


def test_a_stack_of_pages_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(ramp().T.astype(np.uint16)), str(tmp_path / "stack.tif"))
    with pytest.raises(InputError, match=r"stack\.tif: has 6 pages"):
        read_image(tmp_path / "stack.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_labels_as_pictures(tmp_path: Path, suffix: str) -> None:
    volume = read_image(write_picture(tmp_path / "a.png", GREY))
    for factor, dtype in ((1, np.uint8), (100, np.uint16)):
        labels = GREY.astype(np.int64) * factor
        write_label(tmp_path / f"b{suffix}", labels, volume)
        assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"b{suffix}"))).dtype == dtype
        assert np.array_equal(read_label(tmp_path / f"b{suffix}").data[0], labels)


def test_a_float_map_fits_tiff_and_not_png(tmp_path: Path) -> None:
    volume = read_image(write_picture(tmp_path / "a.png", GREY))
    write_array(tmp_path / "p.tif", GREY / 7, volume)
    np.testing.assert_allclose(read_image(tmp_path / "p.tif").data[0], GREY / 7, rtol=1e-6)
    with pytest.raises(InputError, match=r"p\.png: PNG cannot hold float32"):
        write_array(tmp_path / "p.png", GREY / 7, volume)


def test_a_damaged_metaimage_prints_nothing_of_the_library(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_itk(tmp_path / "a.mha")
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = x").replace(b"DimSize", b"DimSixe"))
    with pytest.raises(InputError):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_standard_error_is_back_after_reading_in_several_threads(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_itk(tmp_path / "a.mha")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_image, [path] * 40))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
