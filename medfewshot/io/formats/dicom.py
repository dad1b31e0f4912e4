"""DICOM series, through SimpleITK and GDCM: which files belong together, and their pixels. Mosaics are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.dicom_frames import frame_pixels, frames_of, is_enhanced
from medfewshot.io.dicom_stack import Slice, sorted_stack, stack_affine, stack_warnings
from medfewshot.io.formats.base import DType, Format, check_size, reading
from medfewshot.io.formats.itk import array_of, quiet_itk
from medfewshot.types import Volume

_SUFFIXES = (".dcm", ".ima")
_NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
_SOP_CLASS_ELEMENT = b"\x02\x00\x02\x00UI"
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
            data = array_of(_image(first.path), np.float32).reshape(1, *first.size[:2])
            affine = np.diag([-first.spacing_mm[0], -first.spacing_mm[1], 1.0, 1.0])
        else:
            stack = sorted_stack(slices, str(path))
            first, affine = stack[0], stack_affine(stack, str(path))
            data = _pixels(stack)
            warnings += stack_warnings(stack, affine)
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
    step = _floats(text("0018|0088"), 1)
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
        thickness_mm=float(spacing[2]),
        step_mm=None if step is None else abs(float(step[0])),
        pose=pose,
    )


def _reader(path: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _image(path: Path) -> Any:
    with reading(path):
        return _reader(path).Execute()


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
            data[..., index] = array_of(_image(one.path), np.float32).reshape(1, columns, rows)
        else:
            places.setdefault(one.path, []).append(index)
    for path, indices in places.items():
        with reading(path):
            data[0][..., indices] = frame_pixels([stack[index] for index in indices])
    return data


DICOM = Format(
    name="a DICOM series", suffixes=_SUFFIXES, read=read, recognises=is_dicom_file, folders=True, has_image=has_image
)
