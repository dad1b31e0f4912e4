"""Write labels as a DICOM segmentation object (DICOM PS3.3, A.51) that refers to its source series.

Needs the extra ``dicom`` (highdicom, pydicom). The object names the patient and the study of its source, because a PACS
needs them. Unlike every other result, it is as confidential as the scan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot import __version__
from medfewshot.errors import InputError
from medfewshot.io.files import atomic_path
from medfewshot.io.formats.base import Header, reading
from medfewshot.io.formats.dicom import DICOM, slice_files
from medfewshot.types import Volume

OWN_SCHEME = "99MEDFEWSHOT"
"""Scheme for codes of structures whose name is not in DICOM's part of SNOMED CT. 99 marks private schemes."""
_SIDES = re.compile(r"\b(left|right|l|r)\b")
_LONGEST = 64
"""Characters of a DICOM long string."""
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SOP_CLASSES = {"CT": f"{_STORAGE}2", "MR": f"{_STORAGE}4", "PT": f"{_STORAGE}128"}
_SECONDARY_CAPTURE = f"{_STORAGE}7"
_NEEDED_TEXT = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName"
)  # fmt: skip


def check_available() -> None:
    """Raise InputError if the extra is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise InputError(
            "highdicom is not installed", "run: pip install 'medfewshot[dicom]'", setting="dicom_seg"
        ) from None


def can_refer_to(volume: Volume) -> bool:
    """Whether the volume came from a DICOM series of slices."""
    return isinstance(volume.header, Header) and volume.header.format == DICOM and volume.spatial_dims == 3


def write_dicom_seg(path: Path, labels: np.ndarray, names: Mapping[int, str], source: Volume) -> tuple[str, ...]:
    """Write a DICOM segmentation. The file appears whole or not at all.

    Args:
        path: Of the file.
        labels: ``(X, Y, Z)`` on the grid of ``source``.
        names: Label value -> name. Each becomes one segment, numbered from 1 in this order.
        source: A DICOM series, see :func:`can_refer_to`.

    Returns:
        Warnings: a source that was stripped of its UIDs gets new ones, which no archive knows.

    Raises:
        InputError: The series cannot be read, or the extra is not installed.
    """
    check_available()
    import highdicom as hd
    from pydicom import dcmread

    if source.path is None or not can_refer_to(source) or labels.shape != source.spatial_shape:
        raise ValueError(f"{source.name}: a DICOM segmentation needs the series that it refers to, on the same grid")
    images = []
    for file in slice_files(source.path):
        with reading(file):
            images.append(dcmread(file, force=True, stop_before_pixels=True))
    warnings = _fill_in(images, source)
    masks = np.stack([value == labels.T for value in names], axis=-1)  # (frames, rows, columns, segments)
    segmentation = hd.seg.Segmentation(
        source_images=images,
        pixel_array=masks.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(n, v, name) for n, (v, name) in enumerate(names.items(), start=1)],
        series_instance_uid=hd.UID(),
        series_number=_number(images[0]) + 100,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="medfewshot",
        manufacturer_model_name="medfewshot",
        software_versions=__version__,
        device_serial_number="none",
        series_description="medfewshot segmentation, for research only",
        content_label="SEGMENTATION",
    )
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)
    return warnings


def _fill_in(images: list[Any], source: Volume) -> tuple[str, ...]:
    """Add to anonymised slices, in memory, what the standard demands of a reference."""
    import highdicom as hd

    missing: set[str] = set()
    shared = {name: hd.UID() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for image in images:
        for name in _NEEDED_TEXT:
            if name not in image:
                setattr(image, name, "")
        for name, uid in {**shared, "SOPInstanceUID": hd.UID()}.items():
            if not image.get(name):
                setattr(image, name, uid)
                missing.add(name)
        if not image.get("SOPClassUID"):
            image.SOPClassUID = _SOP_CLASSES.get(str(image.get("Modality", "")), _SECONDARY_CAPTURE)
            missing.add("SOPClassUID")
    if not missing:
        return ()
    names = ", ".join(sorted(missing))
    return (f"{source.name}: has no {names}; the DICOM segmentation refers to new ones that no archive knows",)


def _number(image: Any) -> int:
    try:
        return max(0, int(image.SeriesNumber))
    except (AttributeError, TypeError, ValueError):
        return 0


def _describe(number: int, value: int, name: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:_LONGEST],
        segmented_property_category=hd.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=_concept(value, name),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="medfewshot", version=__version__, family=codes.cid7162.ArtificialIntelligence
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"medfewshot label {value}",
    )


def _concept(value: int, name: str) -> Any:
    """SNOMED CT's code if DICOM lists the structure by this name (the label states its side), else a private one."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    words = _SIDES.sub(" ", name.lower().replace("_", " ")).split()
    try:
        return getattr(codes.SCT, "".join(word.capitalize() for word in words))
    except AttributeError:
        return hd.sr.CodedConcept(str(value), OWN_SCHEME, name[:_LONGEST] or f"label {value}")
