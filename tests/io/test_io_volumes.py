"""Bad input: one line that names the file, what is wrong, and a way out."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from io_samples import OBLIQUE, SHAPE, ramp, write_itk, write_nifti, write_picture

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.io import read_image, read_label
from medfewshot.io.formats.nifti import NIFTI


def refused(path: Path, words: str, read=read_image) -> None:
    with pytest.raises(InputError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert words in message
    assert "\n" not in message
    assert ";" in message, "a way out follows the semicolon"


def cut(path: Path, share: float = 0.6) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def noise(shape: tuple[int, ...] = (12, 12, 12)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)


def test_missing_empty_and_unknown_files(tmp_path: Path) -> None:
    refused(tmp_path / "no.nii.gz", "does not exist")
    (tmp_path / "empty.nii.gz").touch()
    refused(tmp_path / "empty.nii.gz", "is empty (0 bytes)")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path / "notes.txt", "the suffix .txt is not known")
    (tmp_path / "bare").write_text("hello")
    refused(tmp_path / "bare", "the suffix (none) is not known")
    refused(tmp_path, "contains no DICOM files")


@pytest.mark.parametrize("read", [read_image, read_label])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_truncated_nifti(tmp_path: Path, suffix: str, read) -> None:
    refused(cut(write_nifti(tmp_path / f"a{suffix}", noise())), "cannot be read", read)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_truncated_itk(tmp_path: Path, suffix: str) -> None:
    refused(cut(write_itk(tmp_path / f"a{suffix}", noise())), "cannot be read")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_truncated_pictures(tmp_path: Path, suffix: str) -> None:
    refused(cut(write_picture(tmp_path / f"a{suffix}", noise((60, 60)).astype(np.uint8))), "cut short")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".jpg", ".tif", ".bmp", ".dcm"])
def test_garbage_under_a_good_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(InputError, match=f"a\\{suffix}"):
        read_image(tmp_path / f"a{suffix}")


def test_damaged_gzip(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", noise())
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    refused(path, "cannot be read")


def test_a_header_without_its_data_file(tmp_path: Path) -> None:
    path = write_itk(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    refused(path, "its voxels are in a.raw, which is missing")
    for name in (b"b" * 5000, b"\x00\x01.raw"):
        header = path.read_bytes().replace(b"a.raw", name)
        (tmp_path / "damaged.mhd").write_bytes(header)
        refused(tmp_path / "damaged.mhd", "the name of its data file is damaged")


def test_other_formats_under_a_nifti_name(tmp_path: Path) -> None:
    nib.save(nib.MGHImage(ramp().astype(np.float32), OBLIQUE), tmp_path / "a.mgh")
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.mgh").read_bytes())
    refused(tmp_path / "a.nii", "a.nii")
    write_itk(tmp_path / "b.nrrd")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "b.nrrd").read_bytes())
    refused(tmp_path / "b.nii.gz", "its content is NRRD; rename it to .nrrd")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    data = ramp().astype(np.float32)
    data[1, 2, 3] = value
    refused(write_nifti(tmp_path / "a.nii", data), "1 of 120 voxels are NaN or infinite")


def test_zero_spacing_and_shear(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), np.eye(4))
    image.header.set_sform(np.diag([1.0, 0, 1, 1]), 1)
    nib.save(nib.Nifti1Image(ramp(), None, image.header), tmp_path / "flat.nii")
    refused(tmp_path / "flat.nii", "zero is no spacing")
    shear = np.array([[1.0, 0, 0.2, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(ramp(), OBLIQUE @ shear), tmp_path / "tilt.nii")
    refused(tmp_path / "tilt.nii", "sheared")


@pytest.mark.parametrize("spacing", ["0 1 1", "nan 1 1"])
def test_bad_spacing_in_metaimage(tmp_path: Path, spacing: str) -> None:
    path = write_itk(tmp_path / "a.mha", affine=np.diag([-1.0, -1, 1, 1]))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1", f"ElementSpacing = {spacing}".encode()))
    with pytest.raises(InputError, match=r"a\.mha"):
        read_image(path)


def test_no_voxels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 0, 4), np.int16), OBLIQUE), tmp_path / "a.nii")
    refused(tmp_path / "a.nii", "has no voxels")


def test_channels_from_several_files(tmp_path: Path) -> None:
    paths = [write_nifti(tmp_path / f"a_000{i}.nii", ramp() + i) for i in range(2)]
    volume = read_image(paths)
    assert volume.data.shape == (2, *SHAPE)
    assert np.array_equal(volume.data[1], ramp() + 1)
    assert volume.path == paths[0]
    kinds = iter(["CT", "PT", "CT", "CT"])  # the gray values of PET are no Hounsfield units
    stating = [replace(NIFTI, read=lambda *args: replace(NIFTI.read(*args), modality=next(kinds)))]
    assert [read_image(paths, formats=stating).modality for _ in range(2)] == [None, "CT"]
    other = write_nifti(tmp_path / "b.nii", affine=np.eye(4))
    with pytest.raises(GridMismatchError, match=r"a_0000\.nii and .*b\.nii"):
        read_image([*paths, other])
    with pytest.raises(InputError):
        read_image([])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
def test_label_values_come_back_as_they_were(tmp_path: Path, dtype: type) -> None:
    values = np.array([0, 205, 420] if dtype is not np.uint8 else [0, 20, 42])
    data = values[np.arange(120).reshape(SHAPE) % 3].astype(dtype)
    nib.save(nib.Nifti1Image(data, OBLIQUE, dtype=dtype), tmp_path / "a.nii.gz")
    label = read_label(tmp_path / "a.nii.gz")
    assert label.data.dtype == np.int16
    assert np.array_equal(label.data[0], data)
    assert label.warnings == ()


def test_labels_that_a_slope_left_nearly_whole(tmp_path: Path) -> None:
    data = (ramp() % 4).astype(np.float32) + np.float32(4e-4)
    assert np.array_equal(read_label(write_nifti(tmp_path / "a.nii", data)).data[0], ramp() % 4)


def test_large_label_values(tmp_path: Path) -> None:
    label = read_label(write_nifti(tmp_path / "a.nii", ramp().astype(np.int32) * 1000))
    assert label.data.dtype == np.int32
    assert label.data.max() == 119000


def test_bad_labels(tmp_path: Path) -> None:
    refused(write_nifti(tmp_path / "a.nii", ramp() / np.float32(2)), "60 values that are no whole numbers", read_label)
    refused(write_nifti(tmp_path / "b.nii", ramp() - 3), "negative label -3", read_label)
    refused(write_nifti(tmp_path / "c.nii", ramp() * np.float32(np.nan)), "NaN", read_label)
    refused(write_nifti(tmp_path / "d.nii", ramp() * np.float64(1e9)), "more than 32 bits", read_label)
    refused(write_picture(tmp_path / "e.jpg", ramp((4, 5)).astype(np.uint8)), "JPEG", read_label)


@pytest.mark.parametrize("suffix", [".png", ".nii.gz"])
def test_0_255_masks_keep_255_and_warn(tmp_path: Path, suffix: str) -> None:
    mask = (ramp((4, 5)) > 7).astype(np.uint8) * 255
    path = tmp_path / f"a{suffix}"
    label = read_label(write_picture(path, mask) if suffix == ".png" else write_nifti(path, mask))
    assert np.array_equal(label.data[0], mask)
    assert label.warnings == ("0/255 mask: read as one structure with value 255",)


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ((0, 1, 254, 255), True),
        ((0, 254, 255), True),
        ((0, 1, 2, 255), False),
        ((0, 8, 100, 254, 255), False),
        ((250,), False),
    ],
)
def test_a_mask_that_was_a_jpeg_is_a_warning(tmp_path: Path, values: tuple[int, ...], warned: bool) -> None:
    mask = np.resize(np.array(values, np.uint8), (6, 7))
    warnings = read_label(write_picture(tmp_path / "a.png", mask)).warnings
    assert any("was a JPEG" in text for text in warnings) is warned


def test_an_empty_label_is_a_warning(tmp_path: Path) -> None:
    assert "empty" in read_label(write_nifti(tmp_path / "a.nii", ramp() * 0)).warnings[0]


def test_a_gzip_of_nothing_useful(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"no header here"))
    refused(tmp_path / "a.nii.gz", "a.nii.gz")
