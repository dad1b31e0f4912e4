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
from medfewshot.io import NO_SPACING, as_volume, read_image

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


def test_units_of_nibabel_images_become_millimetres(tmp_path: Path) -> None:
    image = nib.Nifti1Image(DATA, np.diag([50.0, 50, 50, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    assert as_volume(image).spacing_mm == pytest.approx(read_image(tmp_path / "a.nii").spacing_mm)
