"""NIfTI headers: read by nibabel's rules, given back as they came."""

from __future__ import annotations

import bz2
import gzip
import logging
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from io_samples import OBLIQUE, SHAPE, ramp, write_nifti

from medfewshot.errors import InputError
from medfewshot.io import read_image, read_label, write_array, write_label
from medfewshot.io.formats.nifti_header import quiet_nibabel


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (2, 1), (4, 3)])
def test_codes_and_both_forms_come_back(tmp_path: Path, codes: tuple[int, int]) -> None:
    source = write_nifti(tmp_path / "a.nii.gz", codes=codes)
    write_label(tmp_path / "b.nii.gz", ramp(), read_image(source))
    before: Any = nib.load(source)
    after: Any = nib.load(tmp_path / "b.nii.gz")
    assert np.array_equal(before.affine, after.affine)
    for key in ("sform_code", "qform_code", "srow_x", "quatern_b", "qoffset_x", "pixdim", "xyzt_units"):
        assert np.array_equal(before.header[key], after.header[key]), key


def test_no_codes_is_a_warning(tmp_path: Path) -> None:
    volume = read_image(write_nifti(tmp_path / "a.nii", codes=(0, 0)))
    assert "left and right are a guess" in volume.warnings[0]


def test_forms_that_disagree_are_a_warning_and_the_sform_wins(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), OBLIQUE)
    image.set_sform(OBLIQUE, 1)
    image.set_qform(np.diag([1.0, 1, 1, 1]), 1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)
    assert "the sform is used" in volume.warnings[0]


def test_slope_and_intercept_apply_to_the_image_and_not_to_the_result(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), OBLIQUE)
    image.header.set_slope_inter(0.5, -100)
    image.header["cal_max"] = 7
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(volume.data[0], nib.load(tmp_path / "a.nii.gz").get_fdata())
    assert volume.data.dtype == np.float32
    write_label(tmp_path / "b.nii.gz", ramp(), volume)
    result: Any = nib.load(tmp_path / "b.nii.gz")
    assert result.get_data_dtype() == np.uint8
    assert result.header.get_slope_inter() in ((None, None), (1.0, 0.0))
    assert float(result.header["cal_max"]) == 0
    assert np.array_equal(np.asarray(result.dataobj), ramp())


def test_what_the_header_says_of_the_patient_is_not_passed_on(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), OBLIQUE)
    image.header["descrip"] = b"Jane Doe"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(image, tmp_path / "a.nii")
    write_label(tmp_path / "b.nii", ramp(), read_image(tmp_path / "a.nii"))
    assert b"Jane" not in (tmp_path / "b.nii").read_bytes()


def test_microns_become_millimetres_and_go_back(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ramp(), np.diag([50.0, 50, 50, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.spacing_mm, 0.05)
    write_label(tmp_path / "b.nii", ramp(), volume)
    result: Any = nib.load(tmp_path / "b.nii")
    assert np.array_equal(result.affine, image.affine)
    assert result.header.get_xyzt_units()[0] == "micron"


def test_a_volume_moved_to_another_grid_gets_that_grid(tmp_path: Path) -> None:
    volume = read_image(write_nifti(tmp_path / "a.nii"))
    moved = replace(volume, affine=np.diag([2.0, 2, 2, 1]))
    write_label(tmp_path / "b.nii", ramp(), moved)
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii").affine, moved.affine)


def test_nifti2_stays_nifti2(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(ramp(), OBLIQUE), tmp_path / "a.nii")
    write_label(tmp_path / "b.nii", ramp(), read_image(tmp_path / "a.nii"))
    assert isinstance(nib.load(tmp_path / "b.nii"), nib.Nifti2Image)


def test_trailing_axes_of_length_1_are_dropped(tmp_path: Path) -> None:
    volume = read_image(write_nifti(tmp_path / "a.nii", ramp()[..., None]))
    assert volume.data.shape == (1, *SHAPE)


def test_2d_stays_2d_and_a_single_slice_stays_3d(tmp_path: Path) -> None:
    flat = read_image(write_nifti(tmp_path / "flat.nii", ramp((4, 5))))
    assert flat.spatial_shape == (4, 5)
    assert flat.spacing_mm == pytest.approx((0.7, 1.5), abs=1e-4)
    write_label(tmp_path / "flat_out.nii", ramp((4, 5)), flat)
    assert nib.load(tmp_path / "flat_out.nii").shape == (4, 5)
    write_array(tmp_path / "flat_p.nii", np.zeros((2, 4, 5)), flat)
    assert nib.load(tmp_path / "flat_p.nii").shape == (4, 5, 1, 2)
    assert read_image(write_nifti(tmp_path / "one.nii", ramp((4, 5, 1)))).spatial_shape == (4, 5, 1)


def test_probabilities_are_4d_with_the_class_last(tmp_path: Path) -> None:
    volume = read_image(write_nifti(tmp_path / "a.nii.gz"))
    probabilities = np.random.default_rng(0).random((3, *SHAPE))
    write_array(tmp_path / "p.nii.gz", probabilities, volume)
    result: Any = nib.load(tmp_path / "p.nii.gz")
    assert result.get_data_dtype() == np.float32
    np.testing.assert_allclose(result.get_fdata(), np.moveaxis(probabilities, 0, -1), rtol=1e-6)
    assert np.array_equal(result.affine, nib.load(tmp_path / "a.nii.gz").affine)


def test_time_series_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "fmri.nii.gz", ramp((4, 5, 6, 7)))
    with pytest.raises(InputError, match=r"fmri\.nii\.gz: has 4 axes .* extract one volume"):
        read_image(path)


def test_colour_and_complex_are_refused(tmp_path: Path) -> None:
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, OBLIQUE), tmp_path / "rgb.nii")
    with pytest.raises(InputError, match=r"rgb\.nii: is a colour"):
        read_image(tmp_path / "rgb.nii")
    nib.save(nib.Nifti1Image(ramp().astype(np.complex64), OBLIQUE), tmp_path / "c.nii")
    with pytest.raises(InputError, match=r"c\.nii: contains complex"):
        read_image(tmp_path / "c.nii")


def test_same_bytes_for_the_same_labels(tmp_path: Path) -> None:
    volume = read_image(write_nifti(tmp_path / "a.nii.gz"))
    for name in ("b.nii.gz", "c.nii.gz"):
        write_label(tmp_path / name, ramp(), volume)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()


def test_a_volume_travels_to_a_spawned_worker(tmp_path: Path) -> None:
    volume = pickle.loads(pickle.dumps(read_image(write_nifti(tmp_path / "a.nii", codes=(2, 1)))))
    write_label(tmp_path / "b.nii", ramp(), volume)
    assert int(nib.load(tmp_path / "b.nii").header["sform_code"]) == 2


@pytest.mark.real
@pytest.mark.parametrize("case", ["cmr_01", "cmr_11", "cmr_28"])
def test_cardiac_scans_of_odd_orientation_keep_their_grid(data_root: Path, tmp_path: Path, case: str) -> None:
    folder = data_root / "card-mr-mscmr"
    if not folder.is_dir():
        pytest.skip("card-mr-mscmr is not among the real scans")
    image_path, label_path = folder / "imagesTr" / f"{case}.nii.gz", folder / "labelsTr" / f"{case}.nii.gz"
    image, label = read_image(image_path), read_label(label_path)
    write_label(tmp_path / "out.nii.gz", label.data[0], image)
    before: Any = nib.load(image_path)
    after: Any = nib.load(tmp_path / "out.nii.gz")
    assert nib.aff2axcodes(image.affine) in {("P", "S", "R"), ("L", "S", "P")}
    assert np.array_equal(before.affine, after.affine)
    assert np.array_equal(np.asarray(after.dataobj), np.asarray(nib.load(label_path).dataobj))


def packed(path: Path, offset: int, code: str, *values: float) -> Path:
    """A file with some bytes of its header overwritten."""
    write_nifti(path)
    content = bytearray(path.read_bytes())
    struct.pack_into(f"<{code}", content, offset, *values)
    path.write_bytes(content)
    return path


def test_voxels_that_begin_at_byte_0_by_the_header_are_not_shifted(tmp_path: Path) -> None:
    volume = read_image(packed(tmp_path / "a.nii", 108, "f", 0))
    assert np.array_equal(volume.data[0], ramp())
    assert volume.warnings == ("the header says that the voxels begin at byte 0; byte 352 is taken",)


def test_a_quaternion_off_by_rounding_is_read(tmp_path: Path) -> None:
    volume = read_image(packed(tmp_path / "a.nii", 256, "3f", 0.6, 0.6, 0.5292))
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)
    write_label(tmp_path / "b.nii", ramp(), volume)
    np.testing.assert_allclose(read_image(tmp_path / "b.nii").affine, OBLIQUE, atol=1e-4)


def test_content_and_not_the_name_says_how_a_file_is_compressed(tmp_path: Path) -> None:
    plain = write_nifti(tmp_path / "plain.nii").read_bytes()
    for name, content in (
        ("not_gzipped.nii.gz", plain),
        ("gzipped.nii", gzip.compress(plain)),
        ("a.nii.bz2", bz2.compress(plain)),
    ):
        (tmp_path / name).write_bytes(content)
        volume = read_image(tmp_path / name)
        assert np.array_equal(volume.data[0], ramp())
        np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)


def test_a_pair_and_a_volume_of_freesurfer(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(ramp(), OBLIQUE), tmp_path / "a.img")
    nib.save(nib.MGHImage(ramp(), OBLIQUE), tmp_path / "a.mgz")
    for name in ("a.hdr", "a.mgz"):
        volume = read_image(tmp_path / name)
        assert np.array_equal(volume.data[0], ramp())
        np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-3)


def test_nibabel_is_silent_in_the_reading_thread_only(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("nibabel.global")
    with ThreadPoolExecutor(1) as pool, quiet_nibabel():
        logger.warning("reading")
        pool.submit(logger.warning, "elsewhere").result()
    logger.warning("afterwards")
    assert [record.message for record in caplog.records] == ["elsewhere", "afterwards"]
