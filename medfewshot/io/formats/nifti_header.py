"""Read headers of NIfTI files; repair them if their meaning is certain, refuse them otherwise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.geometry import corner_distance_mm, tolerance_mm

_MOST_ROUNDING = 0.01
"""How far the length of a quaternion may exceed 1 by rounding."""
_UNEXTENDED = 4
"""Bytes between a header and its voxels if there are no extensions. Some writers forget them."""
_QUIET = ContextVar("quiet", default=False)
logging.getLogger("nibabel.global").addFilter(lambda record: not _QUIET.get())


def read_header(stream: Any, path: Path) -> tuple[Any, tuple[str, ...]]:
    """Read and check the header at the beginning of a stream.

    Returns:
        The header of nibabel's class for this version, without extensions; and warnings of repairs.

    Raises:
        InputError: The file is no NIfTI, or its voxels begin inside its header.
    """
    import nibabel as nib

    block = stream.read(nib.Nifti2Header.sizeof_hdr)
    sizes = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    is_second = nib.Nifti2Header.sizeof_hdr in sizes
    if not is_second and nib.Nifti1Header.sizeof_hdr not in sizes:
        raise ValueError("it has no NIfTI header")
    magic = block[4:7] if is_second else block[344:347]
    if magic not in (b"n+1", b"ni1", b"n+2", b"ni2"):
        if path.suffix.lower() == ".hdr":
            raise InputError(
                f"{path}: is an Analyze 7.5 file, which states no orientation", "convert it to NIfTI with its origin"
            )
        raise ValueError("its header has not the mark of NIfTI")
    kinds: Any = (nib.nifti1.Nifti1PairHeader, nib.Nifti1Header, nib.nifti2.Nifti2PairHeader, nib.Nifti2Header)
    kind = kinds[2 * is_second + (magic[1:2] == b"+")]
    with quiet_nibabel():
        header = kind(block[: kind.sizeof_hdr], check=False)
        warnings = _repair_offset(header, stream, path) if header.is_single else ()
        if (header["pixdim"][1 : 1 + min(3, max(0, int(header["dim"][0])))] <= 0).any():
            warnings += ("the header states a voxel size of 0 or less: 0 counts as 1 mm, and a sign is ignored",)
        header.check_fix(error_level=40)
    _repair_quaternion(header, path)
    return header, warnings


def orientation_warnings(header: Any, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Say if the orientation is a guess, or the header's two statements of it disagree."""
    sform, sform_code = header.get_sform(coded=True)
    if sform_code == 0 and int(header["qform_code"]) == 0:
        return ("the header states no orientation (sform and qform codes are 0): left and right are a guess",)
    try:
        qform, qform_code = header.get_qform(coded=True)
    except ValueError:
        return ("the qform is no rotation: the sform is used",)
    if sform_code and qform_code:
        distance = corner_distance_mm(sform, qform, shape)
        if distance > tolerance_mm(sform, len(shape)):
            return (f"sform and qform disagree by up to {distance:.3g} mm: the sform is used",)
    dims = len(shape)
    if sform_code and not np.allclose(np.linalg.norm(sform[:3, :dims], axis=0), header.get_zooms()[:dims], rtol=0.01):
        return ("the voxel size in pixdim is not that of the sform: the sform is used",)
    return ()


@contextmanager
def quiet_nibabel() -> Iterator[None]:
    """Silence what nibabel logs in this thread about headers. The readers here say what matters."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def _repair_offset(header: Any, stream: Any, path: Path) -> tuple[str, ...]:
    """Return the voxels of some writers begin at byte 0 by their header, which is the header itself."""
    stated, least = int(header["vox_offset"]), int(header.single_vox_offset)
    if stated >= least:
        return ()
    voxels = int(np.prod([max(1, int(n)) for n in header.get_data_shape()])) * header.get_data_dtype().itemsize
    begin = stream.seek(0, 2) - voxels
    if begin not in (least, least - _UNEXTENDED):
        raise InputError(
            f"{path}: its voxels begin at byte {stated} by its header, which is {least} bytes long",
            "convert it again from its source",
        )
    header["vox_offset"] = begin
    return (f"the header says that the voxels begin at byte {stated}; byte {begin} is taken",)


def _repair_quaternion(header: Any, path: Path) -> None:
    """Bring a quaternion that is a little too long by rounding back to length 1, as ITK does."""
    parts = np.array([float(header[f"quatern_{part}"]) for part in "bcd"])
    length = float(np.linalg.norm(parts))
    if int(header["qform_code"]) <= 0 or length <= 1:
        return
    if length <= 1 + _MOST_ROUNDING:
        for part, value in zip("bcd", parts / length * (1 - 1e-7), strict=True):
            header[f"quatern_{part}"] = value
    elif int(header["sform_code"]) <= 0:
        raise InputError(
            f"{path}: its qform is no rotation (a quaternion of length {length:.4g}), and it has no sform",
            "convert it again from its source",
        )
