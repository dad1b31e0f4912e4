"""DICOM series, through SimpleITK and GDCM: which files belong together, and their pixels. Mosaics are refused."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.dicom_acquisitions import check_one_acquisition, facts_of, repeats_error
from medfewshot.io.dicom_frames import frame_pixels, frames_of, is_enhanced
from medfewshot.io.dicom_stack import (
    Slice,
    at_same_position,
    count_positions,
    sorted_stack,
    stack_affine,
    stack_warnings,
)
from medfewshot.io.formats.base import DType, Format, check_size, reading
from medfewshot.io.formats.itk import array_of, quiet_itk
from medfewshot.types import Volume

_SUFFIXES = (".dcm", ".ima")
_NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
_SHOWN = 10
"""Most slices that a message names."""
_SOP_CLASS_ELEMENTS = (b"\x02\x00\x02\x00UI", b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00")
"""The class in the meta header; and in the data set, of files without that header, with and without types."""
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
_TYPES = (b"UI", b"UL", b"OB", b"CS", b"DA", b"TM", b"SH", b"LO")
_WHITE_IS_LOW = b"MONOCHROME1"
_WITHOUT_IMAGE = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("9.", "11.", "66", "88.", "104.", "481."))
"""Storage classes of waveforms, presentation states, registrations and segmentations, reports, PDFs, radiotherapy."""


def read(path: Path, dtype: DType) -> Volume:
    """Read the series of a folder, or the series in its folder to which one file belongs.

    Returns:
        ``data (1, *S)`` float32 with the rescale slope and intercept applied. A projection without a position (an
        X-ray) is 2D. ``dtype`` is ignored: float32 keeps the 16 bits that are stored.
    """
    with quiet_itk():
        slices, warnings = _series(path)
        for one in slices:
            if one.components != 1:
                raise InputError(f"{one.path}: is a colour DICOM image", "remove it: only grey values can be segmented")
            if one.size[2] > 1:
                raise InputError(
                    f"{path}: {one.path.name} has {one.size[2]} frames without slice positions (a film?)",
                    "convert it to NIfTI first, e.g. with dcm2niix",
                )
        first = slices[0]
        if len(slices) == 1 and first.pose is None:
            data = array_of(_image(first), np.float32).reshape(1, *first.size[:2])
            affine = np.diag([-first.spacing_mm[0], -first.spacing_mm[1], 1.0, 1.0])
        else:
            stack, told = _stack(slices, str(path))
            first, affine = stack[0], stack_affine(stack, str(path))
            data = _pixels(stack)
            warnings += told + stack_warnings(stack, affine)
    has_spacing = first.has_spacing or data.ndim == 4
    return Volume(data, affine, modality=first.modality or None, warnings=warnings, has_spacing=has_spacing)


def slice_files(path: Path) -> list[Path]:
    """The files of a series in the order of the volume's last axis. Raises InputError for a multi-frame object."""
    with quiet_itk():
        slices, _ = _series(path)
        if any(one.frame is not None or one.size[2] > 1 for one in slices):
            raise InputError(
                f"{path}: is multi-frame, and a DICOM segmentation cannot refer to it",
                "leave this setting out",
                setting="dicom_seg",
            )
        return [one.path for one in _stack(slices, str(path))[0]]


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM by its suffix or its content. A DICOMDIR index is no image."""
    if path.name.upper() == "DICOMDIR" or path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        return False
    return start[128:] == b"DICM" or _starts_with_element(start)


def _starts_with_element(start: bytes) -> bool:
    """Whether a file without preamble begins with two DICOM elements, as old archives write them."""
    group, kind, short, long = start[:2], start[4:6], start[6:8], start[4:8]
    if group not in _FIRST_GROUPS:
        return False
    if kind in _TYPES:
        following = start[8 + int.from_bytes(short, "little") :] if kind != b"OB" else group
    else:
        following = start[8 + int.from_bytes(long, "little") :]
    return following[:2] in _FIRST_GROUPS and following[:4] != start[:4]


def _series(path: Path) -> tuple[list[Slice], tuple[str, ...]]:
    folder = path if path.is_dir() else path.parent
    files = [file for file in sorted(folder.iterdir()) if is_dicom_file(file)]
    if not files:
        raise InputError(f"{path}: the folder contains no DICOM files", "name an image file or a DICOM series folder")
    slices, others = _scan(files)
    if path.is_file():
        own = [one.series for one in slices if one.path.name == path.name]
        if not own:
            raise InputError(
                f"{path}: is no readable DICOM image", "export it again, or name another file of the series"
            )
        slices = [one for one in slices if one.series == own[0]]
    images = [one for one in slices if one.modality not in _NO_IMAGES]
    if not images:
        kinds = ", ".join(sorted({one.modality for one in slices})) or "reports, plans or segmentations"
        raise InputError(f"{path}: no DICOM images here ({kinds})", "convert it to NIfTI first, e.g. with 3D Slicer")
    _check_one_series(path, images)
    if not others:
        return images, ()
    return images, (f"{len(others)} DICOM file(s) without an image ignored, such as {others[0].name}",)


def _stack(slices: Sequence[Slice], name: str) -> tuple[list[Slice], tuple[str, ...]]:
    """The slices of one volume in their order. A slice that was sent twice counts once, with a warning."""
    stack: list[Slice] = []
    copies: list[str] = []
    for one in sorted_stack(slices, name):
        if stack and one.path != stack[-1].path and at_same_position(stack[-1], one):
            if not np.array_equal(_pixels([stack[-1]]), _pixels([one])):
                raise repeats_error(slices, count_positions(sorted_stack(slices, name)), name)
            copies.append(f"{one.name} as {stack[-1].name}")
        else:
            stack.append(one)
    places = count_positions(stack)
    if places < len(stack):
        raise repeats_error(stack, places, name)
    told = check_one_acquisition(stack, name)
    if copies:
        told = (f"{len(copies)} slice(s) were sent twice and are read once: {', '.join(copies[:_SHOWN])}", *told)
    return stack, told


def _scan(files: Sequence[Path]) -> tuple[list[Slice], list[Path]]:
    """The slices, and the files without an image. A slice that cannot be read is an error: it must not get lost."""
    slices, others = [], []
    for file in files:
        if _sop_class(file).startswith(_WITHOUT_IMAGE):
            others.append(file)
            continue
        with reading(file):
            one = _read_slice(file)
            slices.extend(frames_of(one) if is_enhanced(one) else [one])
    return slices, others


def has_image(path: Path) -> bool:
    """Whether a DICOM file is no report, plan, presentation state or segmentation, by its class."""
    return path.is_file() and not _sop_class(path).startswith(_WITHOUT_IMAGE)


def _sop_class(path: Path) -> str:
    """The class that a file states near its start, where both are little endian. "" if absent."""
    with path.open("rb") as stream:
        start = stream.read(1024)
    for element in _SOP_CLASS_ELEMENTS:
        _, found, rest = start.partition(element)
        size = 2 if element.endswith(b"UI") else 4
        value = rest[size : size + int.from_bytes(rest[:size], "little")] if found else b""
        if value.startswith(b"1."):
            return value.decode("ascii", "replace").strip("\0 ")
    return ""


def _read_slice(path: Path) -> Slice:
    reader = _reader(path)
    reader.ReadImageInformation()

    def text(tag: str) -> str:
        return str(reader.GetMetaData(tag)).strip().strip("\0") if reader.HasMetaDataKey(tag) else ""

    if "MOSAIC" in text("0008|0008").upper().split("\\"):
        raise InputError(f"{path}: is a mosaic: its slices are tiles of one image", "convert it with dcm2niix")
    size, spacing = (*reader.GetSize(), 1)[:3], (*reader.GetSpacing(), 1.0)
    check_size(size, 4, path)
    pixel_mm = _floats(text("0028|0030") or text("0018|1164"), 2)  # of the patient, or else of the detector
    if pixel_mm is not None and pixel_mm.min() <= 0:  # GDCM replaces it with 1 mm and says nothing
        raise InputError(
            f"{path}: states a pixel spacing of {pixel_mm[0]:g} x {pixel_mm[1]:g} mm", "export the series again"
        )
    position, orientation = _floats(text("0020|0032"), 3), _floats(text("0020|0037"), 6)
    pose = None
    if position is not None and orientation is not None and pixel_mm is not None:
        axes = [axis / max(float(np.linalg.norm(axis)), 1e-9) for axis in orientation.reshape(2, 3)]
        pose = np.stack([position, *axes])
    step, thickness = (_floats(text(tag), 1) for tag in ("0018|0088", "0018|0050"))
    return Slice(
        path=path,
        series=text("0020|000e"),
        description=text("0008|103e") or "no description",
        modality=text("0008|0060"),
        sop_class=text("0008|0016"),
        size=(int(size[0]), int(size[1]), int(size[2])),
        components=reader.GetNumberOfComponents(),
        has_spacing=pixel_mm is not None,
        spacing_mm=(1.0, 1.0) if pixel_mm is None else (float(spacing[0]), float(spacing[1])),
        thickness_mm=None if thickness is None else abs(float(thickness[0])),
        step_mm=None if step is None else abs(float(step[0])),
        pose=pose,
        facts=facts_of(text),
        inverted=pose is not None and text("0028|0004") == _WHITE_IS_LOW.decode(),
    )


def _reader(path: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _image(one: Slice) -> Any:
    with reading(one.path):
        if not one.inverted:
            return _reader(one.path).Execute()
        # GDCM inverts the values of MONOCHROME1, so that Hounsfield units change. Only a display should.
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain.dcm"
            plain.write_bytes(one.path.read_bytes().replace(_WHITE_IS_LOW, b"MONOCHROME2", 1))
            return _reader(plain).Execute()


def _floats(text: str, count: int) -> np.ndarray | None:
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _check_one_series(path: Path, slices: Sequence[Slice]) -> None:
    names = {one.series: one.description for one in slices}
    counts = Counter(series for series, _ in {(one.series, one.path): None for one in slices})
    if len(names) > 1:
        listing = ", ".join(f"{names[series]!r} ({count} files)" for series, count in counts.items())
        raise InputError(
            f"{path}: mixed series, {len(names)} in one folder: {listing}",
            "put each in its own folder, or name one file to have its series read",
        )


def _pixels(stack: Sequence[Slice]) -> np.ndarray:
    """Read slice by slice, so that each has its own rescale slope (PET) and an error names its file."""
    columns, rows, _ = stack[0].size
    check_size((columns, rows, len(stack)), 4, stack[0].path.parent)
    data = np.empty((1, columns, rows, len(stack)), dtype=np.float32)
    places: dict[Path, list[int]] = {}
    for index, one in enumerate(stack):
        if one.frame is None:
            data[..., index] = array_of(_image(one), np.float32).reshape(1, columns, rows)
        else:
            places.setdefault(one.path, []).append(index)
    for path, indices in places.items():
        with reading(path):
            data[0][..., indices] = frame_pixels([stack[index] for index in indices])
    return data


DICOM = Format(
    name="a DICOM series", suffixes=_SUFFIXES, read=read, recognises=is_dicom_file, folders=True, has_image=has_image
)
