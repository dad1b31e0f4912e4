"""The DICOM series that a segmentation refers to, read or to be written. Needs the extra ``dicom``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medfewshot.io.dicom_files import has_image, is_dicom_file
from medfewshot.io.dicom_stack import DicomSource
from medfewshot.io.formats.base import kept_header, reading
from medfewshot.io.terminology import check_available
from medfewshot.types import Volume

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SOP_CLASSES = {"CT": f"{_STORAGE}2", "MR": f"{_STORAGE}4", "PT": f"{_STORAGE}128"}
_SECONDARY_CAPTURE = f"{_STORAGE}7"
NEEDED_TEXT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName"
)  # fmt: skip


def series_of(folder: Path) -> str:
    """Return the UID of the series in a folder, from its first image; "" if it states none.

    Raises:
        InputError: The file cannot be read, or pydicom is not installed.
    """
    image = next((file for file in sorted(folder.iterdir()) if is_dicom_file(file) and has_image(file)), None)
    return "" if image is None else str(_header(image, ["SeriesInstanceUID"]).get("SeriesInstanceUID", ""))


def referenced_series(label: Path) -> frozenset[str]:
    """Return the UIDs of the series that a DICOM segmentation or structure set was drawn on.

    Raises:
        InputError: The file cannot be read, or pydicom is not installed.
    """
    dataset = _header(label, ["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"])
    series = list(dataset.get("ReferencedSeriesSequence") or ())
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            series += study.get("RTReferencedSeriesSequence") or ()
    return frozenset(str(one.get("SeriesInstanceUID", "")) for one in series) - {""}


def source_of(volume: Volume) -> DicomSource | None:
    """Return the series whose grid the volume is on, if a segmentation can refer to it."""
    source = kept_header(volume, DicomSource)
    if source is None or not source.slices or (source.frames and len(source.files) > 1):
        return None
    return source


def source_headers(volume: Volume, names: Mapping[int, str]) -> tuple[list[Any], tuple[str, ...]]:
    """Read the headers of the series, one data set a file, and complete those that were stripped.

    Returns:
        The data sets in the order of :attr:`DicomSource.files`, and warnings: a source that was stripped of its UIDs
        gets new ones, which no archive knows. The data sets state UTF-8 if a structure's name needs it.

    Raises:
        InputError: A file cannot be read.
    """
    source = source_of(volume)
    if source is None:
        raise ValueError(f"{volume.name}: a DICOM segmentation needs a series that it refers to, on the same grid")
    images = [_header(file) for file in source.files]
    _state_geometry(images, source, volume.spacing_mm[2])
    warnings = _fill_in(images, volume.name)
    plain = "".join(names.values()).isascii()
    for image in images:
        if not plain or not image.get("SpecificCharacterSet", True):  # empty, which highdicom refuses
            image.SpecificCharacterSet = "ISO_IR 192"
    return images, warnings


def series_number(image: Any) -> int:
    """Return the number of a series, 0 if it states none."""
    try:
        return max(0, int(image.SeriesNumber))
    except (AttributeError, TypeError, ValueError):
        return 0


def _header(path: Path, names: list[str] | None = None) -> Any:
    """Read the elements of these names, or all of them, without the pixels."""
    check_available()
    from pydicom import dcmread

    with reading(path):
        return dcmread(path, force=True, stop_before_pixels=True, specific_tags=names)


def _state_geometry(images: Sequence[Any], source: DicomSource, step_mm: float) -> None:
    """State the grid of the volume in all headers. Some lack a part of it or round it differently."""
    import highdicom as hd
    from pydicom.dataset import Dataset

    first = source.slices[0]
    measures = hd.PixelMeasuresSequence(first.spacing_mm[::-1], first.thickness_mm or step_mm, step_mm)
    orientation = hd.PlaneOrientationSequence("PATIENT", first.placed[1:].ravel().tolist())
    for image in images:
        if source.frames:
            shared = (image.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
            shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = measures, orientation
            image.SharedFunctionalGroupsSequence = [shared]
        else:
            image.PixelSpacing, image.SliceThickness = measures[0].PixelSpacing, measures[0].SliceThickness
            image.ImageOrientationPatient = orientation[0].ImageOrientationPatient


def _fill_in(images: Sequence[Any], name: str) -> tuple[str, ...]:
    """Add to anonymised slices, in memory, what the standard demands of a reference."""
    import highdicom as hd
    from pydicom.valuerep import DA, TM

    missing, odd = set[str](), set[str]()
    kinds = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM, "PatientSex": hd.PatientSexValues}
    shared = {key: hd.UID() for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for image in images:
        for key in NEEDED_TEXT:
            try:
                kinds.get(key, str)(image[key].value)
            except (KeyError, ValueError):  # absent, or in a form of some anonymiser
                odd |= {key} if image.get(key) else set()
                setattr(image, key, "")
        kind = _SOP_CLASSES.get(str(image.get("Modality", "")), _SECONDARY_CAPTURE)
        for key, uid in {**shared, "SOPInstanceUID": hd.UID(), "SOPClassUID": kind}.items():
            if not image.get(key):
                setattr(image, key, uid)
                missing.add(key)
    warnings = [f"{name}: {', '.join(sorted(odd))} not valid, so left out of the segmentation"] if odd else []
    if missing:
        texts = ", ".join(sorted(missing))
        warnings.append(f"{name}: has no {texts}; the segmentation refers to new ones that no archive knows")
    return tuple(warnings)
