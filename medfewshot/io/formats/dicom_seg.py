"""DICOM segmentation objects (DICOM PS3.3, A.51), through highdicom: read as label maps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.dicom_files import SEGMENTATIONS, has_image, is_dicom_file, sop_class
from medfewshot.io.formats.base import Format, Refuse, add_segment, check_names
from medfewshot.io.geometry import LPS_TO_RAS
from medfewshot.io.terminology import OWN_TRACKING, check_available
from medfewshot.types import Colour, Volume


def recognises(path: Path) -> bool:
    """Return whether a file is a DICOM segmentation, by its class."""
    return is_dicom_file(path) and sop_class(path).startswith(SEGMENTATIONS)


def read_label(path: Path) -> Volume:
    """Read the segments as one label map ``(1, *S)``, which covers the slices from the first frame to the last.

    Label values are segment numbers. Those of our own files are the values that were written.

    Raises:
        InputError: Segments overlap or have one name, values are fractions, the frames are no regular stack of slices,
            or highdicom is not installed.
    """
    check_available()
    import highdicom as hd

    segmentation = hd.seg.segread(path)
    try:
        geometry = segmentation.get_volume_geometry()
    except (RuntimeError, ValueError):
        geometry = None
    if geometry is None:
        raise InputError(f"{path}: its frames are no regular stack of slices", "convert it to a label map")
    segments = {n: segmentation.get_segment_description(n) for n in segmentation.segment_numbers if n}
    values = _values(segments)
    named = {n: str(segment.get("SegmentLabel", "")).strip() for n, segment in segments.items()}
    names = {values[n]: name or f"segment {n}" for n, name in named.items()}
    check_names(path, names.values(), "segments")
    labels = np.zeros(geometry.spatial_shape[::-1], dtype=np.int32)
    for number, value in values.items():
        add_segment(path, labels, _mask(path, segmentation, number), value, names)
    affine = LPS_TO_RAS @ geometry.affine[:, [2, 1, 0, 3]]
    if np.linalg.det(affine) < 0:  # highdicom sorts slices the other way than a series is sorted
        labels = np.ascontiguousarray(labels[:, :, ::-1])
        affine[:3, 3] += affine[:3, 2] * (labels.shape[2] - 1)
        affine[:3, 2] *= -1
    frame_of_reference = str(segmentation.get("FrameOfReferenceUID", ""))
    return Volume(labels[None], affine, frame_of_reference, names=names, colours=_colours(segments, values))


def _values(segments: Mapping[int, Any]) -> dict[int, int]:
    """Segment number -> label value."""
    own = re.compile(rf"{OWN_TRACKING} (\d+)")
    stated = {number: own.fullmatch(str(segment.get("TrackingID", ""))) for number, segment in segments.items()}
    values = {number: int(found[1]) for number, found in stated.items() if found}
    return values if len(set(values.values())) == len(segments) else {number: number for number in segments}


def _mask(path: Path, segmentation: Any, number: int) -> np.ndarray:
    """Return where a segment is: ``(X, Y, Z)`` bool."""
    array = segmentation.get_volume(segment_numbers=[number], combine_segments=False).array[..., 0].T
    if array.dtype.kind == "f" and ((array > 0) & (array < 1)).any():
        raise InputError(f"{path}: segment {number} has fractions between 0 and 1", "threshold it at 0.5")
    return array != 0


def _colours(segments: Mapping[int, Any], values: Mapping[int, int]) -> dict[int, Colour]:
    import highdicom as hd

    colours: dict[int, Colour] = {}
    for number, segment in segments.items():
        stored: Sequence[int] | None = segment.get("RecommendedDisplayCIELabValue")
        if stored is not None and len(stored) == 3:
            red, green, blue = hd.color.CIELabColor.from_dicom_value(stored).to_rgb()
            colours[values[number]] = (red / 255, green / 255, blue / 255)
    return colours


DICOM_SEG = Format(
    name="DICOM segmentation",
    suffixes=(),
    read=Refuse("is a DICOM segmentation and no scan"),
    read_label=read_label,
    recognises=recognises,
    has_image=has_image,
    labels_only=True,
    crops_labels=True,
)
