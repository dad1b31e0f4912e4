"""Write label maps as DICOM segmentation objects (DICOM PS3.3, A.51) that refer to their source series.

Needs the extra ``dicom`` (highdicom, pydicom). The object names the patient and the study of its source, because a PACS
needs them. Unlike every other result, it is as confidential as the scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot import __version__
from medfewshot.io.dicom_source import series_number, source_headers, source_of
from medfewshot.io.files import atomic_path
from medfewshot.io.terminology import ANATOMY, OWN_TRACKING, check_available, long_strings, side_of, term_of
from medfewshot.types import Colour, Volume


def write_dicom_seg(
    path: Path, labels: np.ndarray, names: Mapping[int, str], source: Volume, colours: Mapping[int, Colour]
) -> tuple[str, ...]:
    """Write a DICOM segmentation: see ``Export.write``. Segments are numbered from 1 in the order of ``names``.

    Raises:
        InputError: The series cannot be read, or highdicom is not installed.
    """
    check_available("dicom_seg")
    import highdicom as hd

    images, warnings = source_headers(source, names)
    titles = long_strings(names)
    planes = _stored_order(labels.T, source)
    masks = np.stack([value == planes for value in names], axis=-1)  # (frames, rows, columns, segments)
    segmentation = hd.seg.Segmentation(
        source_images=images,
        pixel_array=masks.astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _describe(number, value, name, titles[value], colours.get(value))
            for number, (value, name) in enumerate(names.items(), start=1)
        ],
        series_instance_uid=hd.UID(),
        series_number=series_number(images[0]) + 100,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="medfewshot",
        manufacturer_model_name="medfewshot",
        software_versions=__version__,
        device_serial_number="none",
        series_description="medfewshot segmentation, for research only",
        content_label="SEGMENTATION",
    )
    segmentation.walk(lambda *_: None)  # decodes the source's texts in sequences: pydicom would copy their bytes
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)
    return warnings


def _stored_order(planes: np.ndarray, source: Volume) -> np.ndarray:
    """Planes ``(Z, Y, X)`` of the volume in the order of the frames in the source's file."""
    found = source_of(source)
    frames = found.frames if found is not None else []
    return planes[np.argsort(frames)] if frames else planes


def _describe(number: int, value: int, name: str, title: str, colour: Colour | None) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=title,
        segmented_property_category=ANATOMY.coded(),
        segmented_property_type=term_of(value, name).coded(),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="medfewshot", version=__version__, family=codes.cid7162.ArtificialIntelligence
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"{OWN_TRACKING} {value}",
        display_color=None if colour is None else hd.color.CIELabColor.from_rgb(*(round(255 * one) for one in colour)),
    )
    side = side_of(name)
    if side is not None:
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side.coded()]
    return segment
