"""DICOM series, through SimpleITK and GDCM: which files belong together, and their pixels. Mosaics are refused."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError, some
from medfewshot.io.dicom_acquisitions import (
    FRAME_OF_REFERENCE,
    TIMES,
    check_one_acquisition,
    facts_of,
    repeats_error,
    time_points,
    times_s,
)
from medfewshot.io.dicom_files import SUFFIXES, has_image, is_dicom_file
from medfewshot.io.dicom_frames import frame_pixels, frames_of, is_enhanced
from medfewshot.io.dicom_stack import (
    DicomSource,
    Slice,
    at_same_position,
    count_positions,
    sorted_stack,
    stack_affine,
    stack_warnings,
)
from medfewshot.io.formats.base import DType, Format, check_size, reading
from medfewshot.io.formats.film import Film, TimeAxis
from medfewshot.io.formats.itk import array_of, quiet_itk
from medfewshot.io.terminology import check_available
from medfewshot.types import Volume

_NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC")
_WHITE_IS_LOW = b"MONOCHROME1"
_MODALITY_LUT = re.compile(rb"\x28\x00\x00\x30(SQ\0\0)?.{4}\xfe\xff\x00\xe0", re.DOTALL)
"""Tag, type and length of the sequence that lists what stored values mean, and the tag of its item."""


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
                    f"{path}: {one.path.name} has {one.size[2]} frames without slice positions (a film or SPECT?)",
                    "convert it to NIfTI first, e.g. with dcm2niix",
                )
        first = slices[0]
        stack: list[Slice] = []
        if len(slices) == 1 and first.pose is None:
            data = _values(first).reshape(1, *first.size[:2])
            affine = np.diag([-first.spacing_mm[0], -first.spacing_mm[1], 1.0, 1.0])
        else:
            stack, told = _stack(slices, str(path))
            first, affine = stack[0], stack_affine(stack, str(path))
            data = _pixels(stack)
            warnings += told + stack_warnings(stack, affine)
    has_spacing = first.has_spacing or data.ndim == 4
    source = DicomSource(tuple(stack), first.facts.get(FRAME_OF_REFERENCE, ""))
    return Volume(data, affine, source, modality=first.modality or None, warnings=warnings, has_spacing=has_spacing)


def film(path: Path, dtype: DType) -> Film | None:
    """Open a series with several time points, or a film without slice positions (ultrasound); None for one volume."""
    with quiet_itk():
        if not _may_be_film(path):
            return None
        slices, warnings = _series(path)
        if len(slices) == 1 and slices[0].size[2] > 1 and "RECON" not in slices[0].facts.get("image type", ""):
            return _projection_film(slices[0], warnings)
        points = time_points(slices, str(path))
        if points is None:
            return None
        stack, told = _stack(points[0], str(path))
        affine = stack_affine(stack, str(path))
        warnings += told + stack_warnings(stack, affine)
        times = times_s(points)
        axis = TimeAxis(times[1] if times else 1.0, seconds=float(bool(times)))
        first = Volume(_pixels(stack), affine, axis, modality=stack[0].modality or None, warnings=warnings)
        return Film(first, len(points), partial(_time_points, points), times)


def _may_be_film(path: Path) -> bool:
    """Return whether one header allows several frames; most series need no other one."""
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if is_dicom_file(file) and has_image(file):
            with reading(file):
                one = _read_slice(file)
            return one.size[2] > 1 or is_enhanced(one) or any(one.facts.get(fact) for fact in TIMES)
    return False


def _time_points(points: Sequence[Sequence[Slice]], numbers: Sequence[int]) -> Iterator[np.ndarray]:
    with quiet_itk():
        for number in numbers:
            yield _pixels(points[number])


def _projection_film(one: Slice, warnings: tuple[str, ...]) -> Film:
    """Open a file of frames without positions, such as ultrasound; its stored values stay in memory."""
    check_size((*one.size, one.components), 4, one.path)
    with reading(one.path):
        reader = _reader(one.path)
        stored = array_of(reader.Execute())
    if one.components > 1:
        if any(not np.array_equal(stored[0], channel) for channel in stored[1:]):
            raise InputError(f"{one.path}: is a colour DICOM film", "convert it to one grey channel")
        stored = stored[:1]
    step_ms = _floats(reader.GetMetaData("0018|1063"), 1) if reader.HasMetaDataKey("0018|1063") else None
    steps = np.full(one.size[2] - 1, step_ms[0]) if step_ms is not None and step_ms[0] > 0 else None
    if reader.HasMetaDataKey("0018|1065"):
        vector = _floats(reader.GetMetaData("0018|1065"), one.size[2])
        steps = steps if vector is None else vector[1:]
    times = () if steps is None else tuple(float(time) for time in np.cumsum([0.0, *steps]) / 1000)
    affine = np.diag([-one.spacing_mm[0], -one.spacing_mm[1], 1.0, 1.0])
    axis = TimeAxis(times[1] if times else 1.0, seconds=float(bool(times)))
    first = Volume(
        stored[..., 0].astype(np.float32), affine, axis, modality=one.modality or None, warnings=warnings,
        has_spacing=one.has_spacing,
    )  # fmt: skip
    return Film(first, one.size[2], lambda numbers: (stored[..., n].astype(np.float32) for n in numbers), times)


def _series(path: Path) -> tuple[list[Slice], tuple[str, ...]]:
    folder = path if path.is_dir() else path.parent
    files = [file for file in sorted(folder.iterdir()) if is_dicom_file(file)]
    if not files:
        raise InputError(f"{path}: the folder contains no DICOM files", "name an image file or a DICOM series folder")
    slices, others = _scan(tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))
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
        raise InputError(
            f"{path}: no DICOM images here ({kinds})",
            "convert it to NIfTI first, e.g. with 3D Slicer, or name one label file",
        )
    _check_one_series(path, images)
    if not others:
        return images, ()
    return images, (f"{len(others)} DICOM file(s) without an image ignored, such as {others[0].name}",)


def _stack(slices: Sequence[Slice], name: str) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices of one volume in their order. A slice that was sent twice counts once, with a warning."""
    stack: list[Slice] = []
    copies: list[str] = []
    files: dict[Path, np.ndarray] = {}

    def values(one: Slice) -> np.ndarray:
        if one.frame is None:
            return _pixels([one])
        if one.path not in files:
            files[one.path] = _pixels([other for other in slices if other.path == one.path])
        plane: np.ndarray = files[one.path][..., one.frame]
        return plane

    for one in sorted_stack(slices, name):
        if stack and one.path != stack[-1].path and at_same_position(stack[-1], one):
            if not np.array_equal(values(stack[-1]).squeeze(), values(one).squeeze()):
                raise repeats_error(slices, count_positions(sorted_stack(slices, name)), name)
            copies.append(f"{one.name} as {stack[-1].name}")
        else:
            stack.append(one)
    places = count_positions(stack)
    if places < len(stack):
        raise repeats_error(stack, places, name)
    told = check_one_acquisition(stack, name)
    if copies:
        told = (f"{len(copies)} slice(s) were sent twice and are read once: {some(copies)}", *told)
    return stack, told


@lru_cache(maxsize=1)
def _scan(files: tuple[tuple[Path, int, int], ...]) -> tuple[list[Slice], list[Path]]:
    """Return the slices, and the files without an image. A slice that cannot be read is an error.

    Args:
        files: Path, time of the last change and size of each file: a series that did not change is scanned once.
    """
    slices, others = [], []
    for file, _, _ in files:
        if not has_image(file):
            others.append(file)
            continue
        with reading(file):
            one = _read_slice(file)
            slices.extend(frames_of(one) if is_enhanced(one) else [one])
    return slices, others


def _read_slice(path: Path) -> Slice:
    reader = _reader(path)
    reader.ReadImageInformation()

    def text(tag: str) -> str:
        return str(reader.GetMetaData(tag)).strip().strip("\0") if reader.HasMetaDataKey(tag) else ""

    if "MOSAIC" in text("0008|0008").upper().split("\\"):
        raise InputError(f"{path}: is a mosaic: its slices are tiles of one image", "convert it with dcm2niix")
    size = (*reader.GetSize(), 1)[:3]
    check_size(size, 4, path)
    pixel_mm = _floats(text("0028|0030") or text("0018|1164"), 2)  # of the patient, or else of the detector
    if pixel_mm is not None and pixel_mm.min() <= 0:  # GDCM would take 1 mm
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
        spacing_mm=(1.0, 1.0) if pixel_mm is None else (float(pixel_mm[1]), float(pixel_mm[0])),
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


def _values(one: Slice) -> np.ndarray:
    """Return the values of a single-frame file as float32, translated by its modality LUT if that replaces a slope."""
    image = _image(one)
    values = array_of(image, np.float32)
    if image.HasMetaDataKey("0028|1053") or not _MODALITY_LUT.search(one.path.read_bytes()):
        return values
    check_available()
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut

    with reading(one.path):
        header = dcmread(one.path, force=True, stop_before_pixels=True)
        return np.asarray(apply_modality_lut(values.astype(np.int32), header), dtype=np.float32)


def _image(one: Slice) -> Any:
    with reading(one.path):
        if not one.inverted:
            return _reader(one.path).Execute()
        # GDCM inverts the values of MONOCHROME1, so that Hounsfield units change. Only a display should.
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain.dcm"
            plain.write_bytes(one.path.read_bytes().replace(_WHITE_IS_LOW, b"MONOCHROME2"))
            reader = _reader(plain)
            image = reader.Execute()
        if reader.GetMetaData("0028|0004").strip().encode() == _WHITE_IS_LOW:  # hidden by deflation
            raise InputError(f"{one.path}: stores low values as white (MONOCHROME1)", "convert it with dcm2niix")
        return image


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
            data[..., index] = _values(one).reshape(1, columns, rows)
        else:
            places.setdefault(one.path, []).append(index)
    for path, indices in places.items():
        with reading(path):
            data[0][..., indices] = frame_pixels([stack[index] for index in indices])
    return data


DICOM = Format(
    name="a DICOM series",
    suffixes=SUFFIXES,
    read=read,
    film=film,
    recognises=is_dicom_file,
    folders=True,
    has_image=has_image,
)
