"""Enhanced multi-frame DICOM: its functional groups as slices, and its frames with their own rescaling.

A writer may store frames in any order, and give each a slope of its own (DICOM PS3.3, C.7.6.16). GDCM's reader takes
them as stored, so pydicom (extra ``dicom``) reads them here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.dicom_stack import Slice
from medfewshot.io.formats.itk import array_of, read_itk

_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2.1", "2.2", "4.1", "4.4", "130", "128.1"))
"""Enhanced and legacy converted enhanced CT, MR and PET: the classes whose frames are slices of a volume."""
_TAGS = (b"\x00\x52\x30\x92", b"\x20\x00\x13\x91")
"""Per-frame groups and plane positions, in other classes: cone-beam CT, tomosynthesis, volumes written by ITK."""
_PLAIN_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.3"
"""Multi-frame grayscale word secondary capture: the same pixels, with nothing that a reader would apply to them."""

_FACTS = {
    "temporal position": ("FrameContentSequence", "TemporalPositionIndex"),
    "echo time": ("MREchoSequence", "EffectiveEchoTime"),
    "inversion time": ("MRModifierSequence", "InversionTimes"),
    "b-value": ("MRDiffusionSequence", "DiffusionBValue"),
    "convolution kernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "tube voltage": ("CTXRayDetailsSequence", "KVP"),
    "acquisition number": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "acquisition time": ("FrameContentSequence", "FrameAcquisitionDateTime"),
}
"""Where the functional groups state what ``dicom_acquisitions`` compares."""
_RESCALING = "PixelValueTransformationSequence"


def is_enhanced(one: Slice) -> bool:
    """Return whether the frames of a file are slices with positions of their own, by its class or its content."""
    content = one.path.read_bytes() if one.size[2] > 1 and one.sop_class not in _CLASSES else b""
    return one.sop_class in _CLASSES or all(tag in content for tag in _TAGS)


def frames_of(one: Slice) -> list[Slice]:
    """Return one slice a frame, in the stored order. ``one`` is the whole file.

    Raises:
        InputError: pydicom is not installed, the frames belong to several stacks, or only some state a rescaling.
    """
    dataset = _read(one.path, pixels=False)
    shared = _item(dataset, "SharedFunctionalGroupsSequence")
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    count = int(dataset.get("NumberOfFrames") or 1)
    if len(groups) != count:
        raise InputError(
            f"{one.path}: has {count} frames and describes {len(groups)} of them", "export the series again"
        )
    stacks = {str(_item(group, "FrameContentSequence").get("StackID") or "") for group in groups}
    if len(stacks) > 1:
        raise InputError(
            f"{one.path}: its frames belong to {len(stacks)} stacks", "export each stack as a series of its own"
        )
    unscaled = sum(not (group.get(_RESCALING) or shared.get(_RESCALING)) for group in groups)
    if 0 < unscaled < count:
        raise InputError(
            f"{one.path}: {unscaled} of its {count} frames state no rescale slope and intercept, and the others do",
            "export the series again",
        )
    one = replace(one, rescale=(float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)))
    return [_frame(one, index, group, shared) for index, group in enumerate(groups)]


def frame_pixels(frames: Sequence[Slice]) -> np.ndarray:
    """Return ``(columns, rows, N)`` float32 for N frames of one file, each with its own slope and intercept."""
    dataset = _read(frames[0].path, pixels=True)
    stored = _stored(dataset)
    slopes = np.array([one.rescale for one in frames])
    picked = stored[[one.frame for one in frames if one.frame is not None]].T
    return (picked * slopes[:, 0] + slopes[:, 1]).astype(np.float32)


def _read(path: Path, *, pixels: bool) -> Any:
    try:
        from pydicom import dcmread
    except ImportError:
        raise InputError(
            f"{path}: is an enhanced (multi-frame) DICOM object, and pydicom, which reads it, is not installed",
            "run: pip install contourpy highdicom pydicom, or convert it with dcm2niix",
        ) from None
    return dcmread(path, force=True, stop_before_pixels=not pixels)


def _item(dataset: Any, sequence: str) -> Any:
    """Return the first item of a sequence, or an empty mapping."""
    return (dataset.get(sequence) or [{}])[0]


def _frame(one: Slice, index: int, group: Any, shared: Any) -> Slice:
    def of(sequence: str, attribute: str, count: int) -> np.ndarray | None:
        """Return a functional group of the frame itself, or else of all frames."""
        macro = _item(group if group.get(sequence) else shared, sequence)
        value = macro.get(attribute)
        numbers = np.atleast_1d(np.array([] if value is None else value, dtype=np.float64))
        return numbers if len(numbers) == count and np.isfinite(numbers).all() else None

    position = of("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = of("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    pixel_mm = of("PixelMeasuresSequence", "PixelSpacing", 2)
    if position is None or orientation is None or pixel_mm is None or pixel_mm.min() <= 0:
        raise InputError(
            f"{one.path}: frame {index + 1} states no position, orientation or pixel spacing",
            "export the series again, or convert it with dcm2niix",
        )
    thickness, step = (of("PixelMeasuresSequence", name, 1) for name in ("SliceThickness", "SpacingBetweenSlices"))
    slope = of(_RESCALING, "RescaleSlope", 1)
    intercept = of(_RESCALING, "RescaleIntercept", 1)
    axes = [axis / max(float(np.linalg.norm(axis)), 1e-9) for axis in orientation.reshape(2, 3)]
    return replace(
        one,
        frame=index,
        size=(*one.size[:2], 1),
        has_spacing=True,
        spacing_mm=(float(pixel_mm[1]), float(pixel_mm[0])),
        thickness_mm=None if thickness is None else abs(float(thickness[0])),
        step_mm=None if step is None else abs(float(step[0])),
        pose=np.stack([position, *axes]),
        facts={**one.facts, **_facts(group, shared)},
        rescale=(
            one.rescale[0] if slope is None else float(slope[0]),
            one.rescale[1] if intercept is None else float(intercept[0]),
        ),
    )


def _facts(group: Any, shared: Any) -> dict[str, str]:
    """Return what can tell acquisitions apart, of the frame itself or else of all frames."""
    facts = {}
    for name, (sequence, attribute) in _FACTS.items():
        value = _item(group if group.get(sequence) else shared, sequence).get(attribute)
        if value is not None:
            facts[name] = str(value)
    return facts


def _stored(dataset: Any) -> np.ndarray:
    """Return the stored values, ``(N, rows, columns)``."""
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return np.asarray(dataset.pixel_array).reshape(-1, dataset.Rows, dataset.Columns)
    # GDCM knows more codecs than pydicom does. It must not see the functional groups, or it would apply one of them.
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in dataset:
            del dataset[name]
    dataset.PhotometricInterpretation = "MONOCHROME2"  # GDCM would invert the values of MONOCHROME1
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = _PLAIN_MULTI_FRAME
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.dcm"
        dataset.save_as(plain, enforce_file_format=False)
        return np.asarray(array_of(read_itk(plain))[0].T).reshape(-1, dataset.Rows, dataset.Columns)
