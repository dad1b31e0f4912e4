"""nibabel, SimpleITK and this package agree on affine and voxels; where they do not, a warning says so."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import LPS, OBLIQUE, affine_of, ramp, rotation, signed_permutations, write_itk, write_nifti

from medfewshot.io import read_image

DATA = ramp((9, 8, 10))


def of_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    affine, direction = np.eye(4), np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:3, :3]
    affine[:3, :3], affine[:3, 3] = direction * image.GetSpacing()[:3], image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image).T.reshape(image.GetSize()[:3]), LPS @ affine


def of_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asanyarray(image.dataobj).reshape(image.shape[:3]), image.affine


def agrees(path: Path, other: Callable[[Path], tuple[np.ndarray, np.ndarray]]) -> bool:
    volume, (data, affine) = read_image(path), other(path)
    return np.array_equal(volume.data[0], data.astype(np.float32)) and np.allclose(volume.affine, affine, atol=1e-3)


AXES = [*signed_permutations()[::5], rotation((0.2, -0.35, 0.6)), rotation((0.01, 0.4, 0))]
GRIDS = [affine_of(axes, spacing) for axes, spacing in product(AXES, [(1, 1, 1), (0.7, 1.5, 5), (0.3, 0.3, 0.25)])]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_readers_agree_on_ordinary_files(tmp_path: Path, suffix: str) -> None:
    for number, affine in enumerate(GRIDS):
        path = tmp_path / f"{number}{suffix}"
        (write_nifti if suffix.startswith(".nii") else write_itk)(path, DATA, affine)
        assert agrees(path, of_itk), affine
        assert not suffix.startswith(".nii") or agrees(path, of_nibabel), affine
        assert read_image(path).warnings == ()


def scaled(path: Path) -> Path:
    image = nib.Nifti1Image(DATA, OBLIQUE)
    image.header.set_slope_inter(0.5, -100)
    nib.save(image, path)
    return path


def with_qform(path: Path, qform: np.ndarray) -> Path:
    image = nib.Nifti1Image(DATA, OBLIQUE)
    image.set_sform(OBLIQUE, 1)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return path


def with_sizes(path: Path, sizes: tuple[float, ...], codes: tuple[int, int]) -> Path:
    """Voxel sizes in ``pixdim`` that are not those of the sform."""
    content = bytearray(write_nifti(path, DATA, codes=codes).read_bytes())
    struct.pack_into("<3f", content, 80, *sizes)
    path.write_bytes(content)
    return path


def edited(path: Path, pattern: bytes, text: bytes) -> Path:
    """A file of ITK with a part of its header replaced."""
    write_itk(path, DATA)
    path.write_bytes(re.sub(pattern, text, path.read_bytes(), count=1))
    return path


ODD: dict[str, Callable[[Path], Path]] = {
    "scaled.nii": scaled,
    "no_codes.nii": lambda path: write_nifti(path, DATA, codes=(0, 0)),
    "forms_differ.nii": lambda path: with_qform(path, np.diag([1.0, 1, 1, 1])),
    "qform_only.nii": lambda path: write_nifti(path, DATA, codes=(0, 1)),
    "sform_only.nii": lambda path: write_nifti(path, DATA, codes=(1, 0)),
    "sizes_differ.nii": lambda path: with_sizes(path, (1, 1, 2), (1, 0)),
    "negative_size.nii": lambda path: with_sizes(path, (-0.7, 1.5, 5), (1, 1)),
    "no_size.nii": lambda path: with_sizes(path, (0, 1.5, 5), (0, 1)),
    "no_space.nrrd": lambda path: edited(path, b"space: left-posterior-superior\n", b"space dimension: 3\n"),
    "scanner_space.nrrd": lambda path: edited(path, b"space: left-posterior-superior", b"space: scanner-xyz"),
    "ras.nrrd": lambda path: edited(path, b"space: left-posterior-superior", b"space: right-anterior-superior"),
    "microns.nrrd": lambda path: edited(path, b"kinds:", b'space units: "um" "um" "um"\nkinds:'),
    "centimetres.mha": lambda path: edited(path, b"ElementSpacing", b"DistanceUnits = cm\nElementSpacing"),
    "unknown_unit.mha": lambda path: edited(path, b"ElementSpacing", b"DistanceUnits = ?\nElementSpacing"),
    "no_matrix.mha": lambda path: edited(path, rb"TransformMatrix = [^\n]*\n", b""),
    "no_spacing.mha": lambda path: edited(path, rb"ElementSpacing = [^\n]*\n", b""),
}
GUESSES = {"no_codes.nii", "no_space.nrrd", "scanner_space.nrrd", "no_matrix.mha"}
"""Orientation is a guess: a warning even if two readers guess the same."""


@pytest.mark.parametrize("name", ODD)
def test_where_readers_disagree_a_warning_says_so(tmp_path: Path, name: str) -> None:
    path = ODD[name](tmp_path / name)
    same = agrees(path, of_itk) and (path.suffix != ".nii" or agrees(path, of_nibabel))
    assert same or read_image(path).warnings, "readers disagree, and nothing says so"
    assert name not in GUESSES or any("are a guess" in text for text in read_image(path).warnings)
    assert name != "no_size.nii" or "0 counts as 1 mm" in read_image(path).warnings[0]


@pytest.mark.parametrize(
    ("name", "factor"), [("microns.nrrd", 0.001), ("centimetres.mha", 10), ("unknown_unit.mha", 1)]
)
def test_other_units_become_millimetres(tmp_path: Path, name: str, factor: float) -> None:
    volume = read_image(ODD[name](tmp_path / name))
    np.testing.assert_allclose(volume.affine[:3], OBLIQUE[:3] * factor, rtol=1e-4, atol=1e-6)
    assert any(("converted" if factor != 1 else "not known") in text for text in volume.warnings)


def test_a_header_without_voxel_size_has_no_spacing(tmp_path: Path) -> None:
    volume = read_image(ODD["no_spacing.mha"](tmp_path / "a.mha"))
    assert not volume.has_spacing
    assert any("no voxel size" in text for text in volume.warnings)
