"""RT structure sets (DICOM PS3.3, A.19), through pydicom: contours drawn on the grid of a scan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError, some
from medfewshot.io.contours import filled
from medfewshot.io.dicom_files import STRUCTURE_SET, has_image, is_dicom_file, sop_class
from medfewshot.io.dicom_stack import DicomSource
from medfewshot.io.formats.base import Format, Refuse, check_names, kept_header
from medfewshot.io.geometry import LPS_TO_RAS
from medfewshot.io.terminology import check_available
from medfewshot.types import Colour, Volume

Planes = dict[int, list[tuple[float, np.ndarray]]]
"""Slice -> its contours: how many slices each lies beside it, and its points ``(N, 2)`` in pixels."""
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_TILT = 0.1
"""Most slices that a contour may span and still be parallel to them."""
_ON_BORDER = 0.01
"""How far, in pixels, a contour may lie outside the outer pixels and still be rounded."""
_BESIDE = 0.25
"""Most slices that a contour may lie beside its slice before a warning."""


def recognises(path: Path) -> bool:
    """Return whether a file is an RT structure set, by its class."""
    return is_dicom_file(path) and sop_class(path) == STRUCTURE_SET


def draw(path: Path, image: Volume) -> Volume:
    """Draw the structures as one label map ``(1, *S)`` on the grid of a scan: pixels whose centre a contour encloses.

    Label values are ROI numbers. Where structures overlap, the smaller one keeps its voxels, with a warning.

    Args:
        path: The structure set.
        image: The scan that it was drawn on, ``(C, X, Y, Z)``.

    Raises:
        InputError: The contours are not parallel to the slices of the scan, lie outside it or in another frame of
            reference; two structures have one name; or pydicom is not installed.
    """
    check_available()
    from pydicom import dcmread

    dataset = dcmread(path, force=True)
    if image.spatial_dims != 3 or not image.has_spacing:
        raise InputError(
            f"{path}: {image.name} is no volume with positions in mm", "give the scan that it was drawn on"
        )
    warnings: list[str] = []
    structures = {int(item.ROINumber): item for item in dataset.get("StructureSetROISequence") or ()}
    names = {number: str(item.get("ROIName", "")).strip() or f"ROI {number}" for number, item in structures.items()}
    check_names(path, names.values(), "structures")
    _check_frame_of_reference(path, structures.values(), image)
    masks: dict[int, np.ndarray] = {}
    colours: dict[int, Colour] = {}
    for item in dataset.get("ROIContourSequence") or ():
        number = int(item.ReferencedROINumber)
        if number not in names:
            raise InputError(f"{path}: has contours of ROI {number} and no name for it", "export it again")
        drawn, told = _mask(path, item, names[number], image)
        warnings += told
        if number in masks:
            warnings.append(f"{names[number]}: its contours stand in several items and are joined")
        masks[number] = drawn | masks.get(number, np.False_)
        stated = item.get("ROIDisplayColor")
        if stated is not None and len(stated) == 3:
            colours[number] = (int(stated[0]) / 255, int(stated[1]) / 255, int(stated[2]) / 255)
    # A label value is above 0. Other numbers are counted again.
    values = {number: number if min(names) > 0 else place for place, number in enumerate(sorted(names), start=1)}
    labels, told = _flat(masks, names, values, image.spatial_shape)
    return Volume(
        labels[None],
        image.affine,
        warnings=(*warnings, *told),
        names={values[number]: name for number, name in sorted(names.items())},
        colours={values[number]: colour for number, colour in colours.items()},
    )


def _check_frame_of_reference(path: Path, structures: Iterable[Any], image: Volume) -> None:
    """Compare the coordinate systems, if the scan is a DICOM series and states its own."""
    source = kept_header(image, DicomSource)
    own = source.frame_of_reference if source is not None else ""
    for item in structures:
        if own and str(item.get("ReferencedFrameOfReferenceUID", own)) not in (own, ""):
            raise InputError(
                f"{path}: {item.ROIName} was drawn in another frame of reference than that of {image.name}",
                "give the scan that it was drawn on",
            )


def _mask(path: Path, item: Any, name: str, image: Volume) -> tuple[np.ndarray, list[str]]:
    """Return the voxels of one structure, and warnings."""
    mask = np.zeros(image.spatial_shape, bool)
    planes, others = _planes(path, item, name, image)
    doubts = [f"{others} open contour(s) or point(s) ignored"] if others else []
    inside = {place: contours for place, contours in planes.items() if 0 <= place < mask.shape[2]}
    if planes and not inside:
        raise InputError(f"{path}: {name} lies outside {image.name}", "give the scan that it was drawn on")
    doubts += _doubts(planes, inside, mask.shape)
    crossed = 0
    for place, contours in inside.items():
        mask[:, :, place], has_crossed = filled([points for _, points in _nearest(contours)], mask.shape[:2])
        crossed += has_crossed
    if crossed:
        doubts.append(f"contours cross each other on {crossed} slice(s) and are joined")
    if planes and not mask.any():
        doubts.append("its contours enclose no voxel of this scan")
    return mask, [f"{name}: {doubt}" for doubt in doubts]


def _doubts(planes: Planes, inside: Planes, shape: tuple[int, ...]) -> list[str]:
    """Return what suggests that the contours were drawn on another scan."""
    doubts = []
    if len(inside) < len(planes):
        doubts.append(f"{len(planes) - len(inside)} of its {len(planes)} planes lie outside the scan")
    beside = max((abs(depth) for contours in planes.values() for depth, _ in _nearest(contours)), default=0.0)
    if beside > _BESIDE:
        doubts.append(f"its contours lie up to {beside:.2g} slices beside the slices of the scan")
    several = sum(len(_nearest(contours)) < len(contours) for contours in planes.values())
    if several:
        doubts.append(f"it was drawn on thinner slices; on {several} slice(s) only the nearest contours count")
    gaps = [second - first for first, second in pairwise(sorted(planes))]
    if len(gaps) > 1 and min(gaps) > 1:
        doubts.append(f"its contours are {min(gaps)} slices apart, and it is empty between them")
    low, high = -0.5 - _ON_BORDER, np.array(shape[:2]) - 0.5 + _ON_BORDER
    cut = sum(bool((points < low).any() or (points > high).any()) for some in inside.values() for _, points in some)
    if cut:
        doubts.append(f"{cut} of its contours leave the field of view and are cut")
    return doubts


def _nearest(contours: list[tuple[float, np.ndarray]]) -> list[tuple[float, np.ndarray]]:
    """Return the contours of the plane that is nearest to the slice."""
    nearest = min((depth for depth, _ in contours), key=abs)
    return [(depth, points) for depth, points in contours if abs(depth - nearest) < _TILT]


def _planes(path: Path, item: Any, name: str, image: Volume) -> tuple[Planes, int]:
    """Return the closed contours by slice, and the number of the others."""
    to_index = np.linalg.inv(image.affine) @ LPS_TO_RAS
    planes: Planes = {}
    others = 0
    for contour in item.get("ContourSequence") or ():
        if str(contour.get("ContourGeometricType", _CLOSED[0])) not in _CLOSED:
            others += 1
            continue
        points = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
        if len(points) == 0:
            continue
        indices = points @ to_index[:3, :3].T + to_index[:3, 3]
        if np.ptp(indices[:, 2]) > _TILT:
            raise InputError(
                f"{path}: contours of {name} are not parallel to the slices of {image.name}",
                "give the scan that it was drawn on, not one that was resampled",
            )
        depth = float(indices[:, 2].mean())
        place = round(depth)
        planes.setdefault(place, []).append((depth - place, indices[:, :2]))
    return planes, others


def _flat(
    masks: Mapping[int, np.ndarray], names: Mapping[int, str], values: Mapping[int, int], shape: tuple[int, ...]
) -> tuple[np.ndarray, list[str]]:
    """Return one label map of structures that may overlap, the smallest on top."""
    labels = np.zeros(shape, np.int32)
    owner = {value: number for number, value in values.items()}
    overlaps: list[str] = []
    for number in sorted(masks, key=lambda number: -np.count_nonzero(masks[number])):
        below, counts = np.unique(labels[masks[number]], return_counts=True)
        found = [(names[owner[int(value)]], count) for value, count in zip(below, counts, strict=True) if value]
        overlaps += [f"'{names[number]}' in '{other}' ({count} voxels)" for other, count in found]
        labels[masks[number]] = values[number]
    text = f"structures overlap, and the smaller one of each pair keeps the voxels: {some(overlaps)}"
    return labels, [text] if overlaps else []


RTSTRUCT = Format(
    name="RT structure set",
    suffixes=(),
    read=Refuse("is an RT structure set and no scan"),
    draw_label=draw,
    recognises=recognises,
    has_image=has_image,
    labels_only=True,
)
