"""Write label maps as RT structure sets (DICOM PS3.3, A.19) that refer to their source series, through pydicom.

A written file names the patient and the study of its source, because a PACS needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot import __version__
from medfewshot.io.contours import outlines
from medfewshot.io.dicom_files import STRUCTURE_SET
from medfewshot.io.dicom_source import NEEDED_TEXT, series_number, source_headers, source_of
from medfewshot.io.files import atomic_path
from medfewshot.io.geometry import LPS_TO_RAS
from medfewshot.io.terminology import check_available, long_strings, side_of, term_of
from medfewshot.types import Colour, Volume


def write_rtstruct(
    path: Path, labels: np.ndarray, names: Mapping[int, str], source: Volume, colours: Mapping[int, Colour]
) -> tuple[str, ...]:
    """Write the contours of every structure: see ``Export.write``. The label value becomes the ROI number.

    Raises:
        InputError: The series cannot be read, or pydicom is not installed.
    """
    check_available("rtstruct")
    images, warnings = source_headers(source, names)
    references = _references(images, source)
    dataset = _structure_set(images)
    dataset.ReferencedFrameOfReferenceSequence = [_referenced_series(images[0], references)]
    dataset.StructureSetROISequence = [_roi(value, name, images[0]) for value, name in long_strings(names).items()]
    dataset.ROIContourSequence = [
        _contours(labels == value, value, source, references, colours.get(value)) for value in names
    ]
    dataset.RTROIObservationsSequence = [_observation(value, name) for value, name in names.items()]
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)
    return warnings


def _references(images: Sequence[Any], source: Volume) -> list[Any]:
    """Return one reference a slice, in the order of the volume's last axis."""
    found = source_of(source)
    frames = found.frames if found is not None else []
    if not frames:
        return [_item(ReferencedSOPClassUID=i.SOPClassUID, ReferencedSOPInstanceUID=i.SOPInstanceUID) for i in images]
    only = {"ReferencedSOPClassUID": images[0].SOPClassUID, "ReferencedSOPInstanceUID": images[0].SOPInstanceUID}
    return [_item(**only, ReferencedFrameNumber=frame + 1) for frame in frames]


def _structure_set(images: Sequence[Any]) -> Any:
    """Return the data set without its structures: patient, study and a series of its own."""
    import highdicom as hd
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    first, now = images[0], datetime.now()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = STRUCTURE_SET, hd.UID()
    for name in ("SpecificCharacterSet", "StudyInstanceUID", *NEEDED_TEXT):
        if name in first:
            setattr(dataset, name, first[name].value)
    dataset.Modality, dataset.SeriesInstanceUID = "RTSTRUCT", hd.UID()
    dataset.SeriesNumber, dataset.InstanceNumber = series_number(first) + 101, 1
    dataset.SeriesDescription = "medfewshot segmentation, for research only"
    dataset.Manufacturer = dataset.ManufacturerModelName = "medfewshot"
    dataset.SoftwareVersions, dataset.OperatorsName = __version__, ""
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = first.FrameOfReferenceUID, ""
    dataset.StructureSetLabel = "SEGMENTATION"
    dataset.InstanceCreationDate = dataset.StructureSetDate = now.strftime("%Y%m%d")
    dataset.InstanceCreationTime = dataset.StructureSetTime = now.strftime("%H%M%S")
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _referenced_series(image: Any, references: Sequence[Any]) -> Any:
    series = _item(SeriesInstanceUID=image.SeriesInstanceUID, ContourImageSequence=list(references))
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=image.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=image.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _roi(value: int, name: str, image: Any) -> Any:
    return _item(
        ROINumber=value,
        ReferencedFrameOfReferenceUID=image.FrameOfReferenceUID,
        ROIName=name,
        ROIGenerationAlgorithm="AUTOMATIC",
    )


def _contours(mask: np.ndarray, value: int, source: Volume, references: Sequence[Any], colour: Colour | None) -> Any:
    to_lps = LPS_TO_RAS @ source.affine
    contours = []
    for place in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        for outline in outlines(mask[:, :, place]):
            points = np.column_stack([outline, np.full(len(outline), place)]) @ to_lps[:3, :3].T + to_lps[:3, 3]
            contours.append(
                _item(
                    ContourImageSequence=[references[place]],
                    ContourGeometricType="CLOSED_PLANAR",
                    NumberOfContourPoints=len(points),
                    ContourData=[f"{number:.4f}" for number in points.ravel()],
                )
            )
    item = _item(ReferencedROINumber=value, ContourSequence=contours)
    if colour is not None:
        item.ROIDisplayColor = [round(255 * part) for part in colour]
    return item


def _observation(value: int, name: str) -> Any:
    code = term_of(value, name).coded()
    side = side_of(name)
    if side is not None:
        code.SegmentedPropertyTypeModifierCodeSequence = [side.coded()]
    return _item(
        ObservationNumber=value,
        ReferencedROINumber=value,
        RTROIIdentificationCodeSequence=[code],
        RTROIInterpretedType="ORGAN",
        ROIInterpreter="",
    )


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset
