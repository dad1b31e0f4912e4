"""Time series: their frames, their time axis and their grid, read and written again."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import affine_of, ramp, signed_permutations

from medfewshot.errors import InputError
from medfewshot.io import labelled_frames, open_film, read_examples, read_image, write_label_film
from medfewshot.types import Case

FRAMES = ramp((4, 5, 6, 3))


def write_film(path: Path, data: np.ndarray = FRAMES, affine: np.ndarray | None = None, unit: str = "msec") -> Path:
    image = nib.Nifti1Image(data, affine_of(np.eye(3)) if affine is None else affine)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = 40
    nib.save(image, path)
    return path


def write_itk_film(path: Path) -> Path:
    image = sitk.GetImageFromArray(np.ascontiguousarray(FRAMES.T), isVector=False)
    image.SetSpacing((0.7, 1.5, 5.0, 0.04))
    image.SetOrigin((1, 2, 3, 0.5))
    image.SetDirection(np.diag([-1.0, 1.0, -1.0, 1.0]).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("unit", ["sec", "msec", "usec", "unknown"])
def test_time_has_the_unit_of_the_header(tmp_path, unit):
    film = open_film(write_film(tmp_path / "film.nii.gz", unit=unit))
    scale = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}.get(unit)
    assert film.times_s == pytest.approx(() if scale is None else (0, 40 * scale, 80 * scale))


@pytest.mark.parametrize("name", ["film.nii.gz", "film.nii", "film.nrrd", "film.mha", "film.mhd"])
def test_every_frame_is_read(tmp_path, name):
    path = write_film(tmp_path / name) if ".nii" in name else write_itk_film(tmp_path / name)
    film = open_film(path)
    assert film.count == 3
    for number, volume in enumerate(film.frames()):
        assert np.array_equal(volume.data[0], FRAMES[..., number])
        assert volume.data.dtype == np.float32
        assert volume.name == f"{path} frame {number}"
    assert film.frame(2).data[0, 0, 0, 0] == FRAMES[0, 0, 0, 2]


def test_one_time_point_is_one_volume(tmp_path):
    path = write_film(tmp_path / "one.nii.gz", FRAMES[..., :1])
    assert open_film(path) is None
    assert np.array_equal(read_image(path).data[0], FRAMES[..., 0])


def test_a_film_of_pictures_is_2d(tmp_path):
    film = open_film(write_film(tmp_path / "us.nii.gz", FRAMES[:, :, :1]))
    assert film.count == 3
    assert film.first.spatial_shape == (4, 5, 1)


def test_all_48_orders_and_the_time_axis_come_back(tmp_path):
    for axes in signed_permutations():
        source = write_film(tmp_path / "film.nii", affine=affine_of(axes))
        film = open_film(source)
        labels = np.stack([volume.data[0] > 100 for volume in film.frames()]).astype(np.uint8)
        write_label_film(tmp_path / "labels.nii", labels, film.first)
        before, after = nib.load(source), nib.load(tmp_path / "labels.nii")
        assert np.array_equal(np.asarray(after.dataobj), FRAMES > 100)
        assert np.array_equal(after.affine, before.affine)
        assert after.header.get_zooms() == before.header.get_zooms()
        assert after.header.get_xyzt_units() == ("mm", "msec")
        # SimpleITK agrees with nibabel on the grid.
        ours, theirs = sitk.ReadImage(str(tmp_path / "labels.nii")), sitk.ReadImage(str(source))
        assert ours.GetSpacing() == theirs.GetSpacing()
        assert ours.GetDirection() == theirs.GetDirection()


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_the_time_axis_of_itk_comes_back(tmp_path, suffix):
    source = write_itk_film(tmp_path / f"film{suffix}")
    film = open_film(source)
    write_label_film(tmp_path / f"labels{suffix}", np.moveaxis(FRAMES > 9, -1, 0).astype(np.uint8), film.first)
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(tmp_path / f"labels{suffix}"))
    assert np.array_equal(sitk.GetArrayFromImage(after), sitk.GetArrayFromImage(before) > 9)
    assert after.GetSpacing() == pytest.approx(before.GetSpacing())
    assert after.GetOrigin() == pytest.approx(before.GetOrigin())
    assert after.GetDirection() == before.GetDirection()


def test_a_nan_names_its_frame(tmp_path):
    data = FRAMES.astype(np.float32)
    data[0, 0, 0, 1] = np.nan
    film = open_film(write_film(tmp_path / "film.nii.gz", data))
    with pytest.raises(InputError, match=r"film\.nii\.gz frame 1: 1 of 120 voxels are NaN"):
        list(film.frames())


def test_a_film_cut_short_is_refused(tmp_path):
    path = write_film(tmp_path / "film.nii.gz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"film\.nii\.gz: cannot be read"):
        list(open_film(path).frames())


def test_a_frame_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="has no frame 3, its frames are 0 to 2"):
        open_film(write_film(tmp_path / "film.nii.gz")).frame(3)


@pytest.mark.parametrize("blank", [0, 255, -1, 7])
def test_frames_without_labels_are_found(tmp_path, blank):
    labels = np.full(FRAMES.shape, blank, np.int16)
    labels[..., 1] = FRAMES[..., 1] > 200
    film = open_film(write_film(tmp_path / "labels.nii.gz", labels), is_label=True)
    found = labelled_frames(film, ignore=7)
    assert list(found) == [1]
    assert np.array_equal(found[1].data[0], FRAMES[..., 1] > 200)
    told = "2 frame(s) are empty (all 0) and count as not labelled: 0, 2"
    assert (told in found[1].warnings) == (blank == 0)


def test_a_film_without_labels(tmp_path):
    film = open_film(write_film(tmp_path / "labels.nii.gz", np.zeros_like(FRAMES)), is_label=True)
    with pytest.raises(InputError, match="no frame is labelled"):
        labelled_frames(film)


def test_a_volume_has_no_frame_that_a_table_could_name(tmp_path):
    scan = write_film(tmp_path / "scan.nii.gz", FRAMES[..., 0])
    label = write_film(tmp_path / "label.nii.gz", (FRAMES[..., 0] > FRAMES.mean()).astype(np.uint8))
    with pytest.raises(InputError, match="is one volume and has no frame 2"):
        read_examples(Case("a", "a", None, (scan,), label, frame=2))
    assert read_examples(Case("a", "a", None, (scan,), label, frame=0))
