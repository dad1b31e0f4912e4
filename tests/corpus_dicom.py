"""DICOM as it leaves a PACS, written by pydicom: one function a kind, as in ``corpus_volumes``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from corpus_volumes import Build, scan, told_in
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

REFUSED: dict[str, tuple[Build, str]] = {}
ACCEPTED: dict[str, Build] = {}
ROOT = "1.2.826.0.1.3680043.8.498"
SPACING = (1.25, 1.5, 2.0)


refused = told_in(REFUSED)


def accepted(build: Build) -> Build:
    ACCEPTED[build.__name__] = build
    return build


def one_slice(plane: np.ndarray, index: int, syntax: str = ExplicitVRLittleEndian, **changes: Any) -> Dataset:
    """``plane (X, Y)`` int16 -> one CT slice; ``changes`` by keyword, None deletes."""
    ds = Dataset()
    ds.preamble, ds.file_meta = bytes(128), FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in (RLELossless, JPEGLSLossless) else syntax
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"{ROOT}.1.{index + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.9", f"{ROOT}.1", f"{ROOT}.8"
    ds.PatientName, ds.PatientID = "PLANTED^NAME", "PLANTED-PID-83041"
    ds.PatientBirthDate, ds.PatientSex = "19010203", "O"
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "CT", 1, index + 1
    ds.Manufacturer, ds.SeriesDescription = "none", "synthetic"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, SPACING[2] * index], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness = [SPACING[1], SPACING[0]], SPACING[2]
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.Rows, ds.Columns, ds.SamplesPerPixel = plane.shape[1], plane.shape[0], 1
    ds.PhotometricInterpretation, ds.BitsAllocated, ds.BitsStored, ds.HighBit = "MONOCHROME2", 16, 16, 15
    ds.PixelRepresentation = 1
    order = ">i2" if syntax == ExplicitVRBigEndian else "<i2"
    ds.PixelData = np.ascontiguousarray(plane.T).astype(order).tobytes()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.1.{index + 1}"
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, ds, enforce_file_format=False)
    return path


def series(
    folder: Path,
    keep: Sequence[int] | None = None,
    syntax: str = ExplicitVRLittleEndian,
    name: str = "odd",
    data: np.ndarray | None = None,
    **changes: Any,
) -> Path:
    data = scan() if data is None else data
    for number, index in enumerate(range(data.shape[2]) if keep is None else keep):
        ds = one_slice(data[:, :, index], index, syntax, **changes)
        if syntax in (RLELossless, JPEGLSLossless):
            ds.compress(syntax)
        save(ds, folder / name / f"{number:03}.dcm")
    return folder / name


# --- refused ---------------------------------------------------------------------------------------------------------


@refused("mixed series")
def mixed_series(folder):
    series(folder)
    save(one_slice(scan()[:, :, 0], 99, SeriesInstanceUID=f"{ROOT}.2"), folder / "odd" / "x.dcm")
    return folder / "odd"


@refused("missing")
def missing_slices(folder):
    return series(folder, keep=[0, 1, 2, 5, 6, 7, 8])


@refused("positions")
def two_time_points(folder):
    series(folder, keep=range(4))
    save(one_slice(scan()[:, :, 3] + 7, 2), folder / "odd" / "x.dcm")
    return folder / "odd"


@refused("sheared")
def gantry_tilt(folder):
    for index in range(8):
        tilted = [0, 0.5 * index, 2.0 * index]
        save(one_slice(scan()[:, :, index], index, ImagePositionPatient=tilted), folder / "odd" / f"{index}.dcm")
    return folder / "odd"


@refused("turned or scaled")
def a_localizer_among_them(folder):
    series(folder)
    scout = one_slice(scan()[:, :, 0], 50, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    save(scout, folder / "odd" / "scout.dcm")
    return folder / "odd"


@refused("differ in size")
def two_matrix_sizes(folder):
    series(folder, keep=range(7))
    save(one_slice(scan()[:8, :8, 7], 7), folder / "odd" / "x.dcm")
    return folder / "odd"


@refused("no position")
def slices_without_a_position(folder):
    return series(folder, ImagePositionPatient=None, ImageOrientationPatient=None)


@refused("is 2D but the support is 3D")
def a_film(folder):
    ds = one_slice(scan()[:, :, 0], 0, NumberOfFrames=3)
    ds.PixelData = ds.PixelData * 3
    return save(ds, folder / "film.dcm")


@refused("colour")
def a_colour_series(folder):
    for index in range(3):
        ds = one_slice(scan()[:, :, 0], index, SamplesPerPixel=3, PhotometricInterpretation="RGB")
        ds.PlanarConfiguration, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 0, 8, 8, 7
        ds.PixelRepresentation = 0
        ds.PixelData = np.arange(16 * 15 * 3, dtype=np.uint8).tobytes()
        save(ds, folder / "odd" / f"{index}.dcm")
    return folder / "odd"


@refused("003.dcm")
def a_slice_cut_short(folder):
    path = series(folder) / "003.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    return folder / "odd"


@refused("x.dcm")
def text_among_the_slices(folder):
    (series(folder) / "x.dcm").write_text("dear colleague")
    return folder / "odd"


@refused("no DICOM images")
def segmentations_only(folder):
    return series(folder, keep=range(3), Modality="SEG")


@refused("odd")
def absurd_matrix(folder):
    return series(folder, keep=range(3), Rows=65535, Columns=65535)


@refused("odd")
def pixel_spacing_of_zero(folder):
    return series(folder, PixelSpacing=[0, 0])


@refused("odd")
def an_unknown_transfer_syntax(folder):
    path = series(folder)
    for file in path.iterdir():
        file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    return path


# --- accepted --------------------------------------------------------------------------------------------------------


@accepted
def a_plain_series(folder):
    return series(folder)


@accepted
def one_file_of_a_series(folder):
    return series(folder) / "004.dcm"


@accepted
def a_slice_sent_twice(folder):
    return series(folder, keep=[*range(14), 2])


@accepted
def blank_instance_uids(folder):
    return series(folder, SOPInstanceUID="", StudyInstanceUID="", FrameOfReferenceUID="")


@accepted
def blank_series_uid(folder):
    return series(folder, SeriesInstanceUID="")


@accepted
def no_patient_at_all(folder):
    return series(folder, PatientName=None, PatientID=None, PatientBirthDate=None, PatientSex=None)


@accepted
def implicit_little_endian(folder):
    return series(folder, syntax=ImplicitVRLittleEndian)


@accepted
def explicit_big_endian(folder):
    return series(folder, syntax=ExplicitVRBigEndian)


@accepted
def deflated(folder):
    return series(folder, syntax=DeflatedExplicitVRLittleEndian)


@accepted
def run_length_encoded(folder):
    return series(folder, syntax=RLELossless)


@accepted
def jpeg_ls(folder):
    return series(folder, syntax=JPEGLSLossless)


@accepted
def numbered_backwards(folder):
    for index in range(14):
        ds = one_slice(scan()[:, :, index], index, InstanceNumber=99 - index)
        save(ds, folder / "odd" / f"{99 - index}.dcm")
    return folder / "odd"


@accepted
def without_suffix_and_with_a_dicomdir(folder):
    path = series(folder)
    for file in list(path.iterdir()):
        file.rename(path / f"IM{file.stem}")
    (path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (path / "viewer.exe").write_bytes(b"MZ")
    return path


@accepted
def without_a_preamble(folder):
    return series(folder, preamble=None)


@accepted
def without_a_preamble_and_suffix(folder):
    path = series(folder, preamble=None)
    for file in list(path.iterdir()):
        file.rename(path / f"IM{file.stem}")
    return path


@accepted
def low_values_in_white(folder):
    return series(folder, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)


@accepted
def below_three_folders(folder):
    return series(folder, name="PAT/STUDY/SERIES").parents[1]


@accepted
def twelve_bits_unsigned(folder):
    return series(folder, PixelRepresentation=0, BitsStored=12, HighBit=11)


@accepted
def rescaled(folder):
    return series(folder, RescaleIntercept=-1024, RescaleSlope=2)
