"""Which series a DICOM segmentation or structure set refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medfewshot.io.dicom_files import has_image, is_dicom_file
from medfewshot.io.formats.base import reading
from medfewshot.io.terminology import check_available


def series_of(folder: Path) -> str:
    """Return the UID of the series in a folder, from its first image; "" if it states none.

    Raises:
        InputError: The file cannot be read, or pydicom is not installed.
    """
    image = next((file for file in sorted(folder.iterdir()) if is_dicom_file(file) and has_image(file)), None)
    return "" if image is None else str(_read(image, ["SeriesInstanceUID"]).get("SeriesInstanceUID", ""))


def referenced_series(label: Path) -> frozenset[str]:
    """Return the UIDs of the series that a DICOM segmentation or structure set was drawn on.

    Raises:
        InputError: The file cannot be read, or pydicom is not installed.
    """
    dataset = _read(label, ["ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"])
    series = list(dataset.get("ReferencedSeriesSequence") or ())
    for frame in dataset.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            series += study.get("RTReferencedSeriesSequence") or ()
    return frozenset(str(one.get("SeriesInstanceUID", "")) for one in series) - {""}


def _read(path: Path, names: list[str]) -> Any:
    check_available()
    from pydicom import dcmread

    with reading(path):
        return dcmread(path, force=True, stop_before_pixels=True, specific_tags=names)
