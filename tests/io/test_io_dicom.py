"""DICOM series: sorted by position, refused when a slice would silently be wrong."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import corpus_dicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import OBLIQUE, SHAPE, affine_of, place, ramp, rotation, signed_permutations, write_dicom, write_itk
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medfewshot.errors import InputError
from medfewshot.io import is_series_folder, open_film, read_image, read_label


def right_handed(axes: np.ndarray) -> np.ndarray:
    """DICOM slices grow along row x column, so a left-handed grid has no DICOM form of its own."""
    axes = axes.copy()
    axes[:, 2] *= np.sign(np.linalg.det(axes))
    return axes


@settings(max_examples=15)
@given(st.sampled_from(signed_permutations()), st.tuples(*[st.floats(-3.1, 3.1)] * 3), st.permutations(range(6)))
def test_slices_are_sorted_by_position_whatever_their_names(
    tmp_path_factory: pytest.TempPathFactory, axes: np.ndarray, angles: tuple[float, ...], order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    affine = affine_of(right_handed(rotation(angles) @ axes))
    write_dicom(folder, affine, keep=order)
    volume = read_image(folder)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    assert np.array_equal(volume.data[0], ramp())
    assert volume.modality == "MR"


def test_names_without_suffix_and_stray_files(tmp_path: Path) -> None:
    write_dicom(tmp_path, names=[f"1.2.{i}" for i in range(6)])
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "preview.jpg").touch()
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    volume = read_image(tmp_path)
    assert volume.data.shape == (1, *SHAPE)
    assert volume.warnings == ()


def test_files_without_an_image_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write_dicom(tmp_path)
    uid = b"1.2.840.10008.5.1.4.1.1.88.11\0"
    report = bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI" + len(uid).to_bytes(2, "little") + uid
    (tmp_path / "report").write_bytes(report)
    volume = read_image(tmp_path)
    assert volume.spatial_shape == SHAPE
    assert "1 DICOM file(s) without an image ignored, such as report" in volume.warnings[0]


def test_rescale_slope_and_intercept(tmp_path: Path) -> None:
    # ITK's writer divides the slope out again, so whole stored values need a multiple of it.
    write_dicom(tmp_path, data=ramp() * 2, tags={"0008|0060": "CT", "0028|1052": "-1024", "0028|1053": "2"})
    volume = read_image(tmp_path)
    assert volume.modality == "CT"
    assert np.array_equal(volume.data[0], ramp() * 2)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes().replace(b"-1024", b"-1000"))
    assert np.array_equal(read_image(tmp_path).data[0], ramp() * 2 + 24)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize("first", [0, -5], ids=["unsigned", "signed"])
def test_a_modality_lut_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str, first: int) -> None:
    table = np.arange(3000, 3130, dtype=np.uint16)[::-1]
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "SS", [len(table), first, 16])
    lut.add_new("LUTData", "OW", table.tobytes())
    lut.ModalityLUTType = "OD"
    tags = {"ModalityLUTSequence": [lut], "RescaleSlope": None, "RescaleIntercept": None}
    folder = corpus_dicom.series(tmp_path, data=ramp() + np.int16(first), syntax=syntax, **tags)
    assert np.array_equal(read_image(folder).data[0], table[ramp()])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="pip install contourpy highdicom pydicom"):
        read_image(folder)


@pytest.mark.parametrize(
    ("keep", "words"), [([0, 1, 3, 4, 5], "1 slice"), ([0, 1, 2, 5], "2 slice"), ([0, 1, 3], "1 ")]
)
def test_missing_slices_name_their_neighbours(tmp_path: Path, keep: list[int], words: str) -> None:
    files = write_dicom(tmp_path / "ct", keep=keep)
    at = next(i for i, (a, b) in enumerate(itertools.pairwise(keep)) if b - a > 1)
    with pytest.raises(InputError, match=f"ct: {words}.*missing.* mm, usually 5 mm") as caught:
        read_image(tmp_path / "ct")
    assert f"between {files[at].name} and {files[at + 1].name}" in str(caught.value)


def test_every_second_slice_missing_is_a_warning(tmp_path: Path) -> None:
    write_dicom(tmp_path, keep=[0, 2, 4], tags={"0018|0088": "5"})
    volume = read_image(tmp_path)
    assert volume.spacing_mm[2] == pytest.approx(10)
    assert "slices lie 10 mm apart but the files state 5 mm" in volume.warnings[0]


def test_varying_spacing(tmp_path: Path) -> None:
    write_dicom(tmp_path / "ct", keep=range(4))
    write_dicom(tmp_path / "ct", keep=[4], names=["x.dcm"], tags=place(OBLIQUE, 4.4))
    with pytest.raises(InputError, match="slice spacing varies from 5 to 7 mm"):
        read_image(tmp_path / "ct")


def test_rounded_positions_pass(tmp_path: Path) -> None:
    for index in range(6):
        write_dicom(tmp_path, keep=[index], names=[f"{index}.dcm"], tags=place(OBLIQUE, index + 0.004 * (-1) ** index))
    assert read_image(tmp_path).spacing_mm[2] == pytest.approx(5, abs=0.02)


def test_a_tilted_gantry_is_a_shear(tmp_path: Path) -> None:
    for index in range(6):
        write_dicom(
            tmp_path / "ct", keep=[index], names=[f"{index}.dcm"], tags=place(OBLIQUE, index, shift=1.3 * index)
        )
    with pytest.raises(InputError, match=r"ct: the grid is sheared, its axes are 10.* degrees"):
        read_image(tmp_path / "ct")


def test_slices_that_wander_sideways(tmp_path: Path) -> None:
    for index in range(6):
        shift = 5.0 if index == 3 else 0.0
        write_dicom(tmp_path / "ct", keep=[index], names=[f"{index}.dcm"], tags=place(OBLIQUE, index, shift=shift))
    with pytest.raises(InputError, match="off a straight line"):
        read_image(tmp_path / "ct")


def test_one_slice_keeps_its_thickness(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", keep=[2], tags={"0018|0050": "3.5", "0018|0088": "4.5"})
    volume = read_image(tmp_path / "mr")
    assert volume.spacing_mm == pytest.approx((0.7, 1.5, 3.5))
    assert volume.warnings == ()
    corpus_dicom.series(tmp_path, keep=[2], SliceThickness=None)
    volume = read_image(tmp_path / "odd")
    assert volume.spacing_mm == pytest.approx((1.25, 1.5, 1.0))
    assert volume.warnings == ("a single slice that states no thickness: 1 mm is a guess",)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless], ids=["explicit", "implicit", "RLE"]
)
@pytest.mark.parametrize(
    "bits",
    [{}, {"BitsStored": 12, "HighBit": 11}, {"PixelRepresentation": 0}],
    ids=["16 bits", "12 bits", "unsigned"],
)
def test_hounsfield_units_whatever_the_photometric_interpretation(
    tmp_path: Path, syntax: str, bits: dict[str, int]
) -> None:
    data = ramp((16, 15, 2))
    folder = corpus_dicom.series(
        tmp_path, data=data, syntax=syntax, PhotometricInterpretation="MONOCHROME1", RescaleIntercept=-1024,
        RescaleSlope=2, **bits,
    )  # fmt: skip
    assert np.array_equal(read_image(folder).data[0], data * 2 - 1024)


def test_low_values_in_white_that_cannot_be_told_to_the_reader_are_refused(tmp_path: Path) -> None:
    folder = corpus_dicom.series(
        tmp_path, data=ramp(), syntax=DeflatedExplicitVRLittleEndian, PhotometricInterpretation="MONOCHROME1"
    )
    with pytest.raises(InputError, match=r"000\.dcm: stores low values as white \(MONOCHROME1\); convert it"):
        read_image(folder)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize("has_meta", [True, False], ids=["with a meta header", "without"])
def test_files_without_preamble_and_suffix(tmp_path: Path, syntax: str, has_meta: bool) -> None:
    folder = corpus_dicom.series(tmp_path, data=ramp(), syntax=syntax, preamble=None)
    for file in list(folder.iterdir()):
        content = file.read_bytes()
        start = 0 if has_meta else content.index(b"\x08\x00\x16\x00")
        file.with_suffix("").write_bytes(content[start:])
        file.unlink()
    (folder / "counts.bin").write_bytes(np.arange(8, 40, dtype="<i4").tobytes())
    assert is_series_folder(folder)
    volume = read_image(folder)
    assert np.array_equal(volume.data[0], ramp())
    assert volume.warnings == ()


def test_mixed_series_are_listed_and_one_file_picks_its_own(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mix")
    other = write_dicom(
        tmp_path / "mix",
        data=ramp()[:, :, :3] + 500,
        series="1.2.826.0.1.3680043.2.1125.2",
        names=["x", "y", "z"],
        tags={"0008|103e": "scout"},
    )
    with pytest.raises(InputError, match=r"mix: mixed series.*'synthetic' \(6 files\), 'scout' \(3 files\)"):
        read_image(tmp_path / "mix")
    volume = read_image(other[1])
    assert np.array_equal(volume.data[0], ramp()[:, :, :3] + 500)


def test_a_localizer_in_the_same_series(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr")
    write_dicom(tmp_path / "mr", affine_of(rotation((1.5, 0, 0))), keep=[0], names=["scout.dcm"])
    with pytest.raises(InputError, match=r"mr: .*turned or scaled.*\(a localizer\?\)"):
        read_image(tmp_path / "mr")


def test_slices_of_two_sizes(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", keep=range(5))
    write_dicom(tmp_path / "mr", data=ramp((8, 9, 6)), keep=[5], names=["big.dcm"])
    with pytest.raises(InputError, match="mr: the slices differ in size, 4x5, 8x9"):
        read_image(tmp_path / "mr")


def test_one_slice_is_a_volume_and_a_projection_is_2d(tmp_path: Path) -> None:
    write_dicom(tmp_path / "one", keep=[2])
    assert read_image(tmp_path / "one").spatial_shape == (4, 5, 1)
    (file,) = write_dicom(tmp_path / "xray", keep=[2], tags={"0008|0060": "CR"})
    forget_position(file)
    xray = read_image(tmp_path / "xray")
    assert xray.spatial_shape == (4, 5)
    assert xray.spacing_mm == pytest.approx((0.7, 1.5))
    assert np.array_equal(xray.data[0], ramp()[:, :, 2])


def test_a_slice_without_position_among_others_is_named(tmp_path: Path) -> None:
    forget_position(write_dicom(tmp_path)[4])
    with pytest.raises(InputError, match=r"004\.dcm: states no position"):
        read_image(tmp_path)


def forget_position(file: Path) -> None:
    """ITK always writes a position, so its tag becomes the retired one that nobody reads."""
    content = file.read_bytes()
    content = content.replace(b"\x20\0\x32\0", b"\x20\0\x30\0").replace(b"\x20\0\x37\0", b"\x20\0\x35\0")
    file.write_bytes(content)


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    files = write_dicom(tmp_path / "mr", data=ramp((40, 50, 3)))
    content = files[1].read_bytes()
    files[1].write_bytes(content[: len(content) - 3000])
    with pytest.raises(InputError, match=r"001\.dcm: cannot be read"):
        read_image(tmp_path / "mr")


def test_objects_without_grey_images(tmp_path: Path) -> None:
    write_dicom(tmp_path / "seg", tags={"0008|0060": "SEG"})
    with pytest.raises(InputError, match=r"seg: no DICOM images here \(SEG\); convert it to NIfTI"):
        read_label(tmp_path / "seg")


def test_frames_with_positions_are_slices_in_every_class(tmp_path: Path) -> None:
    """ITK writes a volume as multi-frame secondary capture."""
    file = write_itk(tmp_path / "a.dcm", ramp().astype(np.uint8), affine_of(np.diag([-1.0, -1, 1])))
    assert open_film(file) is None
    volume = read_image(file)
    assert np.array_equal(volume.data[0], ramp())
    np.testing.assert_allclose(volume.affine, affine_of(np.diag([-1.0, -1, 1])), atol=1e-4)


@pytest.mark.parametrize("tags", [{"RescaleSlope": "2", "RescaleIntercept": "-5"}, {}], ids=["rescaled", "as stored"])
def test_frames_without_a_slope_of_their_own_have_that_of_the_file(tmp_path: Path, tags: dict[str, str]) -> None:
    dataset = pydicom.dcmread(write_itk(tmp_path / "a.dcm", ramp().astype(np.uint8), OBLIQUE))
    for group in (*dataset.SharedFunctionalGroupsSequence, *dataset.PerFrameFunctionalGroupsSequence):
        group.pop("PixelValueTransformationSequence", None)
    for name in ("RescaleSlope", "RescaleIntercept"):
        dataset.pop(name, None)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(tmp_path / "a.dcm")
    assert np.array_equal(read_image(tmp_path).data[0], ramp() * 2 - 5 if tags else ramp())


def test_slices_of_spect_are_no_film(tmp_path: Path) -> None:
    plane = np.arange(80, dtype=np.int16).reshape(8, 10)
    dataset = corpus_dicom.one_slice(
        plane, 0, SOPClassUID="1.2.840.10008.5.1.4.1.1.20", Modality="NM", NumberOfFrames=6,
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"], ImagePositionPatient=None,
        PixelData=6 * plane.T.tobytes(),
    )  # fmt: skip
    file = corpus_dicom.save(dataset, tmp_path / "a.dcm")
    assert open_film(file) is None
    with pytest.raises(InputError, match=r"a\.dcm has 6 frames without slice positions"):
        read_image(file)


def test_the_pixel_spacing_counts_in_every_class(tmp_path: Path) -> None:
    for kind in ("1.1", "1.2", "12.1", "20"):  # radiography, mammography, angiography, nuclear medicine
        uid = f"1.2.840.10008.5.1.4.1.1.{kind}"
        options = {"SOPClassUID": uid, "ImagePositionPatient": None, "ImageOrientationPatient": None}
        dataset = corpus_dicom.one_slice(ramp()[:, :, 0], 0, **options)
        dataset.file_meta.MediaStorageSOPClassUID = uid
        volume = read_image(corpus_dicom.save(dataset, tmp_path / kind / "a.dcm"))
        assert (volume.has_spacing, *volume.spacing_mm) == (True, 1.25, 1.5), kind


def test_enhanced_multi_frame_of_another_writer(tmp_path: Path) -> None:
    """ITK writes no enhanced MR, but its multi-frame secondary capture becomes one if its class is replaced."""
    file = tmp_path / "a.dcm"
    sitk.WriteImage(sitk.GetImageFromArray(ramp().T.astype(np.uint8)), str(file))
    content = file.read_bytes()
    assert content.count(b"1.2.840.10008.5.1.4.1.1.7.2") == 2
    file.write_bytes(content.replace(b"1.2.840.10008.5.1.4.1.1.7.2", b"1.2.840.10008.5.1.4.1.1.4.1"))
    volume = read_image(tmp_path)
    assert np.array_equal(volume.data[0], ramp())
    assert volume.warnings == ()


def test_a_mosaic_is_refused(tmp_path: Path) -> None:
    write_dicom(tmp_path, keep=[0], tags={"0008|0008": "ORIGINAL\\PRIMARY\\M\\ND\\MOSAIC"})
    with pytest.raises(InputError, match=r"000\.dcm: is a mosaic.*; convert it with dcm2niix"):
        read_image(tmp_path)


@pytest.mark.real
@pytest.mark.parametrize("name", ["t1post", "t2reg"])
def test_a_real_oblique_series(data_root: Path, tmp_path: Path, name: str) -> None:
    folder = data_root / "dicom" / name
    if not folder.is_dir():
        pytest.skip(f"dicom/{name} is not among the real scans")
    volume = read_image(folder)
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    corner = [n - 1 for n in image.GetSize()]
    expected = np.array(image.TransformIndexToPhysicalPoint(corner)) * (-1, -1, 1)
    assert volume.spatial_shape == (280, 320, 22)
    assert volume.spacing_mm == pytest.approx((0.6875, 0.6875, 6.5), abs=1e-4)
    assert volume.modality == "MR"
    np.testing.assert_allclose((volume.affine @ [*corner, 1])[:3], expected, atol=1e-3)
    assert np.array_equal(volume.data[0], sitk.GetArrayFromImage(image).T)


@pytest.mark.real
def test_a_real_series_with_one_slice_taken_out(data_root: Path, tmp_path: Path) -> None:
    source = data_root / "dicom" / "t1post"
    if not source.is_dir():
        pytest.skip("dicom/t1post is not among the real scans")
    stack = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(source))
    for file in [*stack[:9], *stack[10:]]:
        shutil.copy(file, tmp_path)
    with pytest.raises(InputError, match=r"1 slice\(s\) missing.* 13 mm, usually 6.5 mm"):
        read_image(tmp_path)
