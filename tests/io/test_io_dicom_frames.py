"""Enhanced multi-frame DICOM gives the same voxels and the same grid as its slices in single files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import corpus_dicom
import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import LPS, OBLIQUE, affine_of, ramp, rotation, write_dicom
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)

from medfewshot.errors import InputError
from medfewshot.io import read_image
from medfewshot.types import Volume

ROOT = "1.2.826.0.1.3680043.8.498"


def group(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def write_enhanced(
    file: Path,
    affine: np.ndarray = OBLIQUE,
    *,
    order: Sequence[int] = range(6),
    slopes: Sequence[float] = (1.0,),
    sop_class: str = EnhancedCTImageStorage,
    decimals: int = 6,
    repeats: int = 1,
    compress: str | None = None,
    stacks: int = 1,
    is_shared: bool = True,
) -> Path:
    """The ramp as one file: frame ``f`` is slice ``order[f]``, stored divided by its slope; rounded positions.

    Each repeat adds 1 to the values. Orientation and pixel size are stated once if ``is_shared``, else by each frame.
    """
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    ds = group(SOPClassUID=sop_class, SOPInstanceUID=f"{ROOT}.5.1", SeriesInstanceUID=f"{ROOT}.5", Modality="CT")
    ds.preamble, ds.file_meta = bytes(128), FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, ds.SOPInstanceUID
    length, order = len(order), [*order] * repeats
    ds.NumberOfFrames, ds.Columns, ds.Rows = len(order), *ramp().shape[:2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    measures = group(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2])
    orientation = group(ImageOrientationPatient=[round(x, 9) for x in axes[:, :2].T.ravel()])
    common = {"PlaneOrientationSequence": [orientation], "PixelMeasuresSequence": [measures]}
    ds.SharedFunctionalGroupsSequence = [group(**common) if is_shared else group()]
    frames, pixels = [], []
    for number, index in enumerate(order):
        slope = slopes[number % len(slopes)]
        position = np.round(lps[:3, 3] + index * lps[:3, 2], decimals)
        frames.append(
            group(
                PlanePositionSequence=[group(ImagePositionPatient=position.tolist())],
                FrameContentSequence=[
                    group(
                        StackID=str(number % stacks + 1),
                        InStackPositionNumber=index + 1,
                        TemporalPositionIndex=number // length + 1,
                    )
                ],
                **({} if is_shared else common),
                PixelValueTransformationSequence=[group(RescaleSlope=slope, RescaleIntercept=-100.0)],
            )
        )
        pixels.append(np.rint((ramp()[:, :, index].T + number // length + 100.0) / slope).astype("<i2").tobytes())
    ds.PerFrameFunctionalGroupsSequence, ds.PixelData = frames, b"".join(pixels)
    if compress:
        ds.compress(compress)
    file.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(file, ds, enforce_file_format=True)
    return file


def read_or_refuse(folder: Path) -> Volume | str:
    """The volume, or the reason why there is none, without the names of files."""
    try:
        return read_image(folder)
    except InputError as error:
        return error.problem.removeprefix(f"{folder}: ").partition(" between")[0]


@settings(max_examples=15)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8.0)] * 3),
    order=st.permutations(range(6)),
    slopes=st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=6),
    decimals=st.sampled_from([1, 3, 6]),
    sop_class=st.sampled_from(
        [EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage, LegacyConvertedEnhancedCTImageStorage]
    ),
    is_shared=st.booleans(),
    times=st.sampled_from([1, 1, 1, 2]),
)
def test_an_enhanced_object_is_its_single_frame_series(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    order: list[int],
    slopes: list[float],
    decimals: int,
    sop_class: str,
    is_shared: bool,
    times: int,
) -> None:
    folder, affine = tmp_path_factory.mktemp("enhanced"), affine_of(rotation(angles), spacing)
    for time in range(times):
        names = [f"{time}{index}.dcm" for index in range(6)]
        data, tags = ramp() + np.int16(time), {"0020|0100": str(time + 1)}
        write_dicom(folder / "series", affine, data, names=names, tags=tags, decimals=decimals)
    write_enhanced(
        folder / "enhanced" / "a.dcm", affine, order=order, slopes=slopes, sop_class=sop_class, decimals=decimals,
        repeats=times, is_shared=is_shared,
    )  # fmt: skip
    series, enhanced = read_or_refuse(folder / "series"), read_or_refuse(folder / "enhanced")
    if isinstance(series, str) or isinstance(enhanced, str):
        assert series == enhanced
        assert times == 1 or "they differ in temporal position: 1 (6 slices), 2 (6 slices)" in str(series)
        return
    assert times == 1
    assert np.array_equal(enhanced.data, series.data)
    assert np.array_equal(enhanced.data[0], ramp())
    np.testing.assert_allclose(enhanced.affine, series.affine, atol=1e-6)
    assert enhanced.has_spacing
    assert enhanced.warnings == series.warnings == ()


def test_a_converted_series_of_another_writer(tmp_path: Path) -> None:
    folder = corpus_dicom.series(tmp_path)
    files = [dcmread(file) for file in sorted(folder.iterdir())]
    uids = {"series_instance_uid": hd.UID(), "sop_instance_uid": hd.UID()}
    converted = hd.legacy.LegacyConvertedEnhancedCTImage(files[::-1], series_number=1, instance_number=1, **uids)
    converted.save_as(tmp_path / "converted.dcm")
    series, enhanced = read_image(folder), read_image(tmp_path / "converted.dcm")
    assert np.array_equal(enhanced.data, series.data)
    assert np.array_equal(enhanced.affine, series.affine)
    assert enhanced.warnings == ()


def test_rounded_positions_keep_the_spacing(tmp_path: Path) -> None:
    volume = read_image(write_enhanced(tmp_path / "a.dcm", decimals=1))
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=0.1)
    assert volume.spacing_mm[2] == pytest.approx(5, abs=0.04)


def test_compressed_frames_keep_their_own_slope(tmp_path: Path) -> None:
    order, slopes = [0, 2, 4, 1, 3, 5], [0.5, 1.0, 0.25]
    volume = read_image(write_enhanced(tmp_path / "a.dcm", order=order, slopes=slopes, compress=RLELossless))
    assert np.array_equal(volume.data[0], ramp())


@pytest.mark.parametrize(("missing", "expected"), [("RescaleSlope", ramp()), ("RescaleIntercept", ramp() + 100)])
def test_a_slope_or_an_intercept_alone_is_applied(tmp_path: Path, missing: str, expected: np.ndarray) -> None:
    dataset = dcmread(write_enhanced(tmp_path / "a.dcm", slopes=[1.0 if missing == "RescaleSlope" else 0.5]))
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        del frame.PixelValueTransformationSequence[0][missing]
    dataset.save_as(tmp_path / "a.dcm")
    assert np.array_equal(read_image(tmp_path / "a.dcm").data[0], expected)


def test_frames_without_the_rescaling_of_the_others_are_refused(tmp_path: Path) -> None:
    dataset = dcmread(write_enhanced(tmp_path / "a.dcm"))
    for frame in dataset.PerFrameFunctionalGroupsSequence[:2]:
        del frame.PixelValueTransformationSequence
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"a\.dcm: 2 of its 6 frames state no rescale slope and intercept"):
        read_image(tmp_path / "a.dcm")


def test_one_frame_keeps_its_place_and_thickness(tmp_path: Path) -> None:
    volume = read_image(write_enhanced(tmp_path / "a.dcm", order=[0]))
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-4)
    assert volume.spatial_shape == (*ramp().shape[:2], 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"repeats": 2}, "12 slices lie at only 6 positions .they differ in temporal position"),
        ({"order": [0, 1, 3, 4, 5]}, r"1 slice.* missing, the first between frame 2 of a\.dcm and frame 3 of a\.dcm"),
        ({"stacks": 2}, "its frames belong to 2 stacks"),
    ],
    ids=["time points", "a missing slice", "two stacks"],
)
def test_an_enhanced_object_is_refused(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_image(write_enhanced(tmp_path / "a.dcm", **changes))


def test_time_points_in_files_of_their_own_are_refused(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "a.dcm")
    write_enhanced(tmp_path / "b.dcm", slopes=[2.0])
    with pytest.raises(InputError, match="12 slices lie at only 6 positions"):
        read_image(tmp_path)


def test_a_file_that_was_sent_twice_is_read_once(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "a.dcm", order=[3, 1, 0, 2, 5, 4], slopes=[0.5, 1.0])
    shutil.copy(tmp_path / "a.dcm", tmp_path / "b.dcm")
    volume = read_image(tmp_path)
    assert np.array_equal(volume.data[0], ramp())
    assert "6 slice(s) were sent twice and are read once: frame 3 of b.dcm as frame 3 of a.dcm" in volume.warnings[0]


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_enhanced(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"enhanced .*pip install contourpy highdicom pydicom"):
        read_image(file)
