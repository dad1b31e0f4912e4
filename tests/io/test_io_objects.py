"""Images of other packages keep their affine, or are refused by type."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from io_samples import OBLIQUE, ramp, write_itk, write_nifti
from monai.data import MetaTensor
from monai.transforms import LoadImage

from medfewshot.errors import InputError
from medfewshot.io import NO_SPACING, as_volume, read_image, read_label
from medfewshot.types import IGNORED, Volume

DATA = ramp((9, 8, 10))


class ScalarImage:
    """The contract of TorchIO's images: ``data (C, X, Y, Z)``, an affine to RAS, and a way to become an array."""

    data = torch.tensor(DATA)[None]
    affine = OBLIQUE

    def __array__(self, dtype=None, copy=None):
        return self.data.numpy()


def objects(folder: Path) -> dict[str, object]:
    nifti, nrrd = write_nifti(folder / "a.nii.gz", DATA), write_itk(folder / "a.nrrd", DATA)
    lps = np.diag([-1.0, -1, 1, 1]) @ OBLIQUE
    return {
        "nibabel": nib.load(nifti),
        "SimpleITK": sitk.ReadImage(str(nrrd)),
        "TorchIO's contract": ScalarImage(),
        "MONAI, no channel axis": LoadImage(reader="NibabelReader", image_only=True)(nifti),
        "MONAI, channel first": LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=True)(nifti),
        "MONAI, LPS": MetaTensor(torch.tensor(DATA)[None], affine=lps, meta={"space": "left-posterior-superior"}),
    }


@pytest.mark.parametrize(
    "kind",
    ["nibabel", "SimpleITK", "TorchIO's contract", "MONAI, no channel axis", "MONAI, channel first", "MONAI, LPS"],
)
def test_the_affine_is_kept(tmp_path: Path, kind: str) -> None:
    volume = as_volume(objects(tmp_path)[kind])
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)
    assert np.array_equal(volume.data[0], DATA)
    assert volume.has_spacing
    assert volume.warnings == ()


@pytest.mark.parametrize(
    "value",
    [DATA, torch.tensor(DATA), DATA.tolist(), nib.Nifti1Image(DATA, None)],
    ids=["numpy", "torch", "list", "nibabel without affine"],
)
def test_an_array_has_no_spacing(value: object) -> None:
    volume = as_volume(value)
    assert (volume.has_spacing, volume.warnings) == (False, (NO_SPACING,))
    assert np.array_equal(volume.data[0], DATA)


class WithAffine:
    affine = OBLIQUE

    def __array__(self, dtype=None, copy=None):
        return DATA


@pytest.mark.parametrize("value", [WithAffine(), {"image": DATA}, b"abc", object()])
def test_what_would_lose_its_affine_is_refused_by_type(value: object) -> None:
    with pytest.raises(InputError, match=f"type .*{type(value).__name__} cannot be read as an image; give a path"):
        as_volume(value)


def test_units_of_images_become_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(DATA, np.diag([50.0, 50, 50, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, path := tmp_path / "a.nii")
    for given in (path, image, LoadImage(reader="NibabelReader")(path)):
        assert as_volume(given).spacing_mm == pytest.approx((0.05, 0.05, 0.05))


def test_a_tensor_that_is_no_dense_array_is_refused() -> None:
    for tensor in (torch.tensor(DATA).to_sparse(), torch.empty(4, 4, 4, device="meta")):
        with pytest.raises(InputError, match=r"Tensor is no image: .*; give a dense tensor of numbers"):
            as_volume(tensor)


@pytest.mark.parametrize("code", [0, 1])
def test_warnings_of_the_orientation_are_those_of_the_file(tmp_path: Path, code: int) -> None:
    image = nib.Nifti1Image(DATA, OBLIQUE)
    image.set_sform(OBLIQUE, code)
    image.set_qform(np.diag([-1, 1, 1, 1]) @ OBLIQUE, code)
    nib.save(image, path := tmp_path / "a.nii")
    (expected,) = read_image(path).warnings
    assert as_volume(nib.load(path)).warnings == (expected,)
    assert as_volume(LoadImage(reader="NibabelReader")(path)).warnings == (expected,)


@pytest.mark.parametrize("value", [0, 255])
def test_warnings_of_a_label_are_those_of_the_file(tmp_path: Path, value: int) -> None:
    label = np.zeros((9, 8, 10), np.uint8)
    label[2:5, 2:5] = value
    expected = read_label(path := write_nifti(tmp_path / "a.nii", label)).warnings
    assert len(expected) == 1
    for given in (nib.load(path), LoadImage(reader="NibabelReader")(path), Volume(label[None], OBLIQUE)):
        assert as_volume(given, label=True).warnings == expected
    assert as_volume(label, label=True).warnings == (NO_SPACING, *expected)


def test_labels_of_a_volume_become_whole_numbers() -> None:
    marked = np.zeros((1, 4, 4, 4))
    marked[0, 0], marked[0, 1] = 1 + 1e-4, IGNORED
    for data in (marked, marked > 0, np.rint(marked).astype(np.int64)):
        label = as_volume(Volume(data, np.eye(4, dtype=int).tolist()), label=True)
        assert (label.data.dtype, label.affine.dtype) == (np.int16, np.float64)
        assert np.array_equal(label.data, np.rint(data))


@pytest.mark.parametrize(
    ("label", "affine", "told"),
    [
        (-2, np.eye(4), "negative label -2"),
        (0.5, np.eye(4), "no whole numbers"),
        (1, np.diag([1.0, 1, 0, 1]), "zero is no spacing"),
        (1, np.eye(4) + np.eye(4, k=1) * [0, 0.3, 0, 0], "the grid is sheared"),
    ],
)
def test_volumes_that_cannot_be_used_are_refused(label: float, affine: np.ndarray, told: str) -> None:
    data = np.zeros((1, 4, 4, 4))
    data[0, 0] = label
    with pytest.raises(InputError, match=told):
        as_volume(Volume(data, affine), label=True)


class Planar(ScalarImage):
    affine = np.eye(3)


@pytest.mark.parametrize("value", [Planar(), Volume(DATA[None], np.eye(3)), Volume(DATA[None], None)])
def test_an_affine_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"array: the affine has the shape \(.*\), not \(4, 4\)"):
        as_volume(value)


@pytest.mark.parametrize("data", [torch.tensor(DATA)[None], DATA[None].tolist()], ids=["tensor", "list"])
def test_data_of_a_volume_become_an_array(data: object) -> None:
    assert np.array_equal(as_volume(Volume(data, OBLIQUE)).data[0], DATA)
    label = as_volume(Volume(torch.tensor([[[0, IGNORED], [1, 2]]]), OBLIQUE), label=True)
    assert label.data.tolist() == [[[0, IGNORED], [1, 2]]]


@pytest.mark.parametrize("value", [["a.nii.gz"], [Path("a"), Path("b")], [[1], [2, 3]]])
def test_a_list_of_paths_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="a list of other things than numbers is no image; give one path or image"):
        as_volume(value)


def test_a_label_that_was_read_is_not_checked_again(tmp_path: Path) -> None:
    label = read_label(write_nifti(tmp_path / "a.nii", np.zeros((9, 8, 10), np.int16)))
    assert as_volume(label, label=True) is label


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.masked_array(DATA, DATA > 9)
    for value in (masked, nib.Nifti1Image(masked, OBLIQUE), Volume(masked[None], OBLIQUE)):
        for label in (False, True):
            with pytest.raises(InputError, match=r"is a masked array; fill it first: array\.filled\(value\)"):
                as_volume(value, label=label)
    assert np.array_equal(as_volume(np.ma.masked_array(DATA)).data[0], DATA)


@pytest.mark.parametrize("shape", [(9, 8, 10, 3), (9, 8, 10, 9)])
def test_a_film_with_its_frames_last_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = write_nifti(tmp_path / "film.nii", ramp(shape))
    assert as_volume(LoadImage(reader="NibabelReader", ensure_channel_first=True)(path)).data.shape == (
        shape[3],
        *shape[:3],
    )
    with pytest.raises(InputError, match="has its channels or frames last; use MONAI's EnsureChannelFirst"):
        as_volume(LoadImage(reader="NibabelReader")(path))


def test_messages_about_a_meta_tensor_name_its_file() -> None:
    broken = MetaTensor(torch.full((1, 4, 4, 4), torch.nan), meta={"filename_or_obj": "scans/a.nii.gz"})
    with pytest.raises(InputError, match=r"^scans/a\.nii\.gz: contains NaN"):
        as_volume(broken)
    broken.meta["filename_or_obj"] = ["of", "a", "batch"]
    with pytest.raises(InputError, match=r"^array: contains NaN"):
        as_volume(broken)
