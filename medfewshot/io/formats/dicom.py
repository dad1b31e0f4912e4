"""DICOM series, through SimpleITK and GDCM: which files belong together, and their pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.dicom_stack import Pose, Slice, sorted_stack, stack_affine, stack_warnings
from medfewshot.io.formats.base import DType, Format
from medfewshot.io.guards import check_size, reading
from medfewshot.io.itk import affine_of, array_of, quiet_itk
from medfewshot.types import Volume

_SUFFIXES = (".dcm", ".ima")
_SERIES = "0020|000e"
_DESCRIPTION = "0008|103e"
_MODALITY = "0008|0060"
_SOP_CLASS = "0008|0016"
_POSITION = "0020|0032"
_ORIENTATION = "0020|0037"
_PIXEL_SPACING = "0028|0030"
_DETECTOR_SPACING = "0018|1164"
_STEP = "0018|0088"

_NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
_SOP_CLASS_ELEMENT = b"\x02\x00\x02\x00UI"
_WITHOUT_IMAGE = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("9.", "11.", "66", "88.", "104.", "481."))
"""Storage classes of waveforms, presentation states, registrations and segmentations, reports, PDFs, radiotherapy."""

_ENHANCED = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.130")
"""Enhanced CT, MR and PET: the multi-frame classes whose frames are slices of a volume with known positions."""


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
        if len(slices) == 1 and slices[0].size[2] > 1:
            return _multi_frame(path, slices[0], warnings)
        if len(slices) == 1 and slices[0].pose is None:
            return _projection(slices[0], warnings)
        stack = sorted_stack(slices, str(path))
        affine = stack_affine(stack, str(path))
        return _volume(_pixels(stack), affine, stack[0], warnings + stack_warnings(stack, affine))


def slice_files(path: Path) -> list[Path]:
    """The files of a series in the order of the volume's last axis. Raises InputError for a multi-frame object."""
    with quiet_itk():
        slices, _ = _series(path)
        if any(one.size[2] > 1 for one in slices):
            raise InputError(
                f"{path}: is multi-frame, and a DICOM segmentation cannot refer to it",
                "leave this setting out",
                setting="dicom_seg",
            )
        return [one.path for one in sorted_stack(slices, str(path))]


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM by its suffix or its content (``DICM`` at byte 128). A DICOMDIR index is no image."""
    if path.name.upper() == "DICOMDIR" or path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _series(path: Path) -> tuple[list[Slice], tuple[str, ...]]:
    folder = path if path.is_dir() else path.parent
    files = [file for file in sorted(folder.iterdir()) if is_dicom_file(file)]
    if not files:
        raise InputError(f"{path}: the folder contains no DICOM files", "name an image file or a DICOM series folder")
    slices, others = _scan(files)
    if path.is_file():
        slices = _series_of(path, slices)
    images = [one for one in slices if one.modality not in _NO_IMAGES]
    if not images:
        kinds = ", ".join(sorted({one.modality for one in slices})) or "reports, plans or segmentations"
        raise InputError(f"{path}: no DICOM images here ({kinds})", "convert it to NIfTI first, e.g. with 3D Slicer")
    _check_one_series(path, images)
    if not others:
        return images, ()
    return images, (f"{len(others)} DICOM file(s) without an image ignored, such as {others[0].name}",)


def _scan(files: Sequence[Path]) -> tuple[list[Slice], list[Path]]:
    """The slices, and the files without an image. A slice that cannot be read is an error: it must not get lost."""
    slices, others = [], []
    for file in files:
        if _sop_class(file).startswith(_WITHOUT_IMAGE):
            others.append(file)
            continue
        with reading(file):
            slices.append(_read_slice(file))
    return slices, others


def _sop_class(path: Path) -> str:
    """The class in the file's meta header, which is always little endian with explicit types. "" if absent."""
    with path.open("rb") as stream:
        start = stream.read(1024)
    _, found, rest = start.partition(_SOP_CLASS_ELEMENT)
    return rest[2 : 2 + int.from_bytes(rest[:2], "little")].decode("ascii", "replace").strip("\0 ") if found else ""


def _read_slice(path: Path) -> Slice:
    reader = _reader(path)
    reader.ReadImageInformation()

    def text(tag: str) -> str:
        return str(reader.GetMetaData(tag)).strip().strip("\0") if reader.HasMetaDataKey(tag) else ""

    size, spacing = (*reader.GetSize(), 1)[:3], reader.GetSpacing()
    check_size(size, 4, path)
    known = _floats(text(_PIXEL_SPACING) or text(_DETECTOR_SPACING), 2)
    if known is not None and known.min() <= 0:  # GDCM replaces it with 1 mm and says nothing
        raise InputError(f"{path}: states a pixel spacing of {known[0]:g} x {known[1]:g} mm", "export the series again")
    pixel_mm = (float(spacing[0]), float(spacing[1])) if known is not None else None
    step = _floats(text(_STEP), 1)
    return Slice(
        path=path,
        series=text(_SERIES),
        description=text(_DESCRIPTION) or "no description",
        modality=text(_MODALITY),
        size=(int(size[0]), int(size[1]), int(size[2])),
        components=reader.GetNumberOfComponents(),
        spacing_mm=pixel_mm,
        pose=_pose(_floats(text(_POSITION), 3), _floats(text(_ORIENTATION), 6), pixel_mm),
        thickness_mm=float((*spacing, 1.0)[2]),
        step_mm=None if step is None else abs(float(step[0])),
        sop_class=text(_SOP_CLASS),
    )


def _pose(
    position: np.ndarray | None, orientation: np.ndarray | None, spacing_mm: tuple[float, float] | None
) -> Pose | None:
    if position is None or orientation is None or spacing_mm is None:
        return None
    return Pose(position, _unit(orientation[:3]), _unit(orientation[3:]), spacing_mm)


def _reader(path: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _floats(text: str, count: int) -> np.ndarray | None:
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _series_of(path: Path, slices: Sequence[Slice]) -> list[Slice]:
    own = [one.series for one in slices if one.path.name == path.name]
    if not own:
        raise InputError(f"{path}: is no readable DICOM image", "export it again, or name another file of the series")
    return [one for one in slices if one.series == own[0]]


def _check_one_series(path: Path, slices: Sequence[Slice]) -> None:
    names, counts = {one.series: one.description for one in slices}, Counter(one.series for one in slices)
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
    for index, one in enumerate(stack):
        data[..., index] = _read_pixels(one.path).reshape(1, columns, rows)
    return data


def _read_pixels(path: Path) -> np.ndarray:
    with reading(path):
        return array_of(_reader(path).Execute(), np.float32)


def _multi_frame(path: Path, one: Slice, warnings: tuple[str, ...]) -> Volume:
    if one.sop_class not in _ENHANCED:
        raise InputError(
            f"{path}: {one.path.name} has {one.size[2]} frames without slice positions (a film?)",
            "convert it to NIfTI first, e.g. with dcm2niix",
        )
    with reading(one.path):
        image = _reader(one.path).Execute()
    warnings += ("multi-frame DICOM: gaps between its slices cannot be checked",)
    return _volume(array_of(image, np.float32), affine_of(image), one, warnings)


def _projection(one: Slice, warnings: tuple[str, ...]) -> Volume:
    dx, dy = one.spacing_mm or (1.0, 1.0)
    data = _read_pixels(one.path).reshape(1, *one.size[:2])
    return _volume(data, np.diag([-dx, -dy, 1.0, 1.0]), one, warnings)


def _volume(data: np.ndarray, affine: np.ndarray, one: Slice, warnings: tuple[str, ...]) -> Volume:
    has_spacing = one.spacing_mm is not None or data.ndim == 4
    return Volume(data, affine, modality=one.modality or None, warnings=warnings, has_spacing=has_spacing)


DICOM = Format(name="a DICOM series", suffixes=_SUFFIXES, read=read, recognises=is_dicom_file, folders=True)
