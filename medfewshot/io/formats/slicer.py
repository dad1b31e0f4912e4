"""3D Slicer's segmentations, ``.seg.nrrd``: segments with names, colours and layers, often on a part of the scan.

Source: ``Libs/vtkSegmentationCore`` and ``vtkMRMLSegmentationStorageNode`` of 3D Slicer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.base import add_segment, check_names
from medfewshot.io.formats.itk import NRRD, metadata_of, read_volume
from medfewshot.types import Volume

_FIELD = re.compile(r"Segment(\d+)_(\w+)")


@dataclass(frozen=True)
class _Segment:
    """One segment.

    Attributes:
        layer: Channel of the file.
        value: Its value in that channel; None if every value but 0 counts, as old versions wrote it.
        colour: Red, green and blue from 0 to 1, or None.
    """

    name: str
    layer: int
    value: int | None
    colour: tuple[float, float, float] | None


def read_segmentation(path: Path) -> Volume:
    """Read a segmentation as one label map ``(1, *S)`` with the names and colours of its segments.

    Label values stay as they are, unless two segments in different layers have the same value. Then the segments are
    numbered from 1.

    Raises:
        InputError: Two segments have one name, one value or a common voxel; names both.
    """
    volume = read_volume(path, None, has_layers=True)
    segments = _segments(path, len(volume.data))
    data = volume.data
    if not segments:
        return volume
    numbers = [segment.value for segment in segments if segment.value is not None]
    if len(data) > 1 or len(numbers) < len(segments):
        if len(set(numbers)) < len(segments):
            numbers = [*range(1, len(segments) + 1)]
        data = _merged(path, data, segments, numbers)
    found = sorted(zip(numbers, segments, strict=True), key=lambda pair: pair[0])
    return replace(
        volume,
        data=data,
        names={number: segment.name for number, segment in found},
        colours={number: segment.colour for number, segment in found if segment.colour is not None},
    )


def _segments(path: Path, layers: int) -> list[_Segment]:
    """Return the segments in the order of the file. Segments without a name and a value are none."""
    fields: dict[int, dict[str, str]] = {}
    for key, text in metadata_of(path).items():
        if match := _FIELD.fullmatch(key):
            fields.setdefault(int(match[1]), {})[match[2]] = text.strip()
    segments: list[_Segment] = []
    seen: dict[tuple[int, int | None], str] = {}
    for number, field in sorted(fields.items()):
        if "Name" not in field:
            continue
        is_old = "LabelValue" not in field
        if is_old and layers == 1 and len(fields) > 1:
            continue
        segment = _Segment(
            name=field["Name"],
            layer=int(field.get("Layer", number if is_old else 0)) if layers > 1 else 0,
            value=None if is_old else int(field["LabelValue"]),
            colour=_colour(field.get("Color", "")),
        )
        if segment.layer >= layers:
            raise InputError(
                f"{path}: segment '{segment.name}' is in layer {segment.layer}, and the file has {layers}",
                "export the segmentation again",
            )
        other = seen.setdefault((segment.layer, segment.value), segment.name)
        if other != segment.name:
            raise InputError(
                f"{path}: names label {segment.value} both '{other}' and '{segment.name}'", "keep one name"
            )
        segments.append(segment)
    check_names(path, [segment.name for segment in segments], "segments")
    return segments


def _colour(text: str) -> tuple[float, float, float] | None:
    try:
        red, green, blue = (float(part) for part in text.split())
    except ValueError:
        return None
    return red, green, blue


def _merged(path: Path, layers: np.ndarray, segments: Sequence[_Segment], numbers: Sequence[int]) -> np.ndarray:
    """Return one label map ``(1, *S)`` of all layers ``(L, *S)``."""
    merged = np.zeros(layers.shape[1:], dtype=np.int32)
    names = {number: segment.name for number, segment in zip(numbers, segments, strict=True)}
    for segment, number in zip(segments, numbers, strict=True):
        layer = layers[segment.layer]
        mask = layer != 0 if segment.value is None else layer == segment.value
        add_segment(path, merged, mask, number, names)
    unnamed = np.count_nonzero((layers != 0).any(axis=0) & (merged == 0))
    if unnamed:
        raise InputError(f"{path}: {unnamed} marked voxels belong to no segment", "name every segment")
    return merged[None]


SEG_NRRD = replace(
    NRRD,
    name="3D Slicer's segmentation",
    suffixes=(".seg.nrrd", ".seg.nhdr"),
    writes=(".seg.nrrd",),
    labels_only=True,
    crops_labels=True,
    read_label=read_segmentation,
)
