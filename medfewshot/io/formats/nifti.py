"""NIfTI-1 and NIfTI-2, through nibabel. A result gets the header of its image, without what it says of the patient."""

from __future__ import annotations

import bz2
import gzip
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.base import DType, Format, check_size, kept_header
from medfewshot.io.formats.film import Film, TimeAxis
from medfewshot.io.formats.nifti_header import orientation_warnings, quiet_nibabel, read_header
from medfewshot.io.geometry import complete_2d
from medfewshot.types import Volume

_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}
_SECONDS_PER_UNIT = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
_SCANNER = 1
_MAX_AFTER_VOXELS = 16 << 20
"""Bytes that may follow the voxels, because some writers pad. A file that inflates without end is no image."""
_BLOCK = 32


def read(path: Path, dtype: DType) -> Volume:
    """Read ``data (1, *S)`` in ``dtype``, or as stored (scaled by slope and intercept) if it is None.

    The content says whether the file is compressed, whatever its name. The voxels of a ``.hdr`` are in its ``.img``.
    """
    header, warnings, voxels = _read_header(path)
    shape = _spatial_shape(header.get_data_shape(), path)
    with _opened(voxels) as source:
        # nibabel reads here, so a truncated file fails here. The copy releases a mapped file, which its own result
        # may replace.
        data = _copied(_voxels(source, header), dtype)
        _read_to_end(source, voxels)
    return _volume(data.reshape(1, *shape), header, warnings)


def film(path: Path, dtype: DType) -> Film | None:
    """Open a file of four axes as a time series; None if it has fewer, or the fourth has length 1."""
    header, warnings, voxels = _read_header(path)
    shape = header.get_data_shape()
    if len(shape) < 4 or math.prod(shape[3:]) == 1 or math.prod(shape[4:]) > 1:
        return None
    read = partial(_frames, voxels, header, dtype)
    step, unit = float(header["pixdim"][4]), _SECONDS_PER_UNIT.get(header.get_xyzt_units()[1])
    first = _volume(next(read([0])), header, warnings)
    return Film(
        first, int(shape[3]), read, tuple(step * unit * n for n in range(shape[3])) if unit and step > 0 else ()
    )


def _frames(path: Path, header: Any, dtype: DType, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield frames ``(1, *S)``. After the last frame of the file, read on to its checksum."""
    shape = header.get_data_shape()
    with _opened(path) as source:
        voxels = _voxels(source, header)
        for number in numbers:
            frame = voxels[(*[slice(None)] * 3, number, *[0] * (len(shape) - 4))]
            if number == shape[3] - 1:
                _read_to_end(source, path)
            yield np.asanyarray(frame, dtype=dtype).copy(order="C")[None]


def _voxels(source: Any, header: Any) -> Any:
    import nibabel as nib

    return nib.arrayproxy.ArrayProxy(source, header)


def _read_header(path: Path) -> tuple[Any, tuple[str, ...], Path]:
    """Return the checked header, warnings, and the file with the voxels."""
    with _opened(path) as stream:
        header, warnings = read_header(stream, path)
    stored = header.get_data_dtype()
    if stored.names is not None:
        raise InputError(f"{path}: is a colour (RGB) image", "convert it to one grey channel")
    if stored.kind == "c":
        raise InputError(f"{path}: contains complex numbers", "save the magnitude")
    voxels = path if header.is_single else _voxel_file(path)
    check_size(header.get_data_shape(), stored.itemsize, voxels)
    return header, warnings, voxels


def _volume(data: np.ndarray, header: Any, warnings: tuple[str, ...]) -> Volume:
    warnings += orientation_warnings(header, data.shape[1:])
    affine = np.array(header.get_best_affine(), dtype=np.float64)  # the sform if its code is set, else the qform
    affine[:3] *= mm_per_unit(header)
    if data.ndim == 3:
        affine = complete_2d(affine)
    return Volume(data, affine, header.copy() if header.is_single else None, warnings=warnings)


def mm_per_unit(header: Any) -> float:
    """Return how many millimetres one unit of a header's affine is; headers of other formats are in millimetres."""
    import nibabel as nib

    return _MM_PER_UNIT.get(header.get_xyzt_units()[0], 1.0) if isinstance(header, nib.Nifti1Header) else 1.0


def volumes_in_file(path: Path) -> int:
    """Return how many 3D volumes a NIfTI file contains by its header; 1 if it is no readable NIfTI."""
    import nibabel as nib

    try:
        image: Any = nib.load(path)
        shape = image.shape
    except Exception:  # the reader of the volume says what is wrong
        return 1
    return math.prod(int(n) for n in shape[3:])


def write(path: Path, data: np.ndarray, like: Volume) -> None:
    """Write ``data``, ``(*S)`` or ``(N, *S)``, in its own dtype without scaling."""
    import nibabel as nib

    if data.ndim > like.spatial_dims:
        data = np.moveaxis(data, 0, -1).reshape(*like.spatial_shape, *(1,) * (3 - like.spatial_dims), -1)
    header = kept_header(like, nib.Nifti1Header)
    image: Any
    if header is not None:
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        # Without an affine nibabel leaves sform, qform and both codes exactly as they are in the header.
        image = kind(data, None, _cleaned(header, data.dtype))
    else:
        image = nib.Nifti1Image(data, like.affine, dtype=data.dtype)
        image.set_sform(like.affine, _SCANNER)
        image.set_qform(like.affine, _SCANNER)
        time = kept_header(like, TimeAxis) if image.ndim > 3 else None
        image.header.set_xyzt_units("mm", "sec" if time is not None and time.seconds else None)
        if time is not None:
            image.header["pixdim"][4] = time.step * (time.seconds or 1)
    with quiet_nibabel():
        nib.save(image, path)


def _copied(proxy: Any, dtype: DType) -> np.ndarray:
    """Copy in C order, block by block: files have the first axis fastest, and each voxel alone would miss the cache."""
    as_stored = proxy.slope == 1 and proxy.inter == 0  # nibabel would make one more copy in the new dtype
    voxels = np.asanyarray(proxy.get_unscaled()) if as_stored else np.asanyarray(proxy, dtype=dtype)
    copied = np.empty(voxels.shape, dtype or voxels.dtype)
    for first in range(0, voxels.shape[0], _BLOCK):
        for last in range(0, voxels.shape[-1], _BLOCK):
            part = (slice(first, first + _BLOCK), ..., slice(last, last + _BLOCK))
            copied[part] = voxels[part]
    return copied


def _read_to_end(stream: Any, path: Path) -> None:
    """Read on, because gzip compares its checksum only at the end of the stream."""
    more = 0
    while block := stream.read(1 << 20):
        more += len(block)
        if more > _MAX_AFTER_VOXELS:
            raise InputError(
                f"{path}: goes on for more than {_MAX_AFTER_VOXELS >> 20} MB after its voxels, so its header does not "
                "describe it",
                "export it again",
            )


def _spatial_shape(shape: tuple[int, ...], path: Path) -> tuple[int, ...]:
    """Drop trailing axes of length 1 beyond the third. A 2D file stays 2D."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise InputError(
            f"{path}: has {len(shape)} axes {shape}, a time series or several channels in one file",
            "extract one volume, or give each channel a file of its own (NAME_0000.nii.gz, NAME_0001.nii.gz)",
        )
    if len(shape) < 2:
        raise InputError(f"{path}: has shape {shape}", "an image needs 2 or 3 axes")
    return tuple(int(n) for n in shape)


def _opened(path: Path) -> Any:
    """Return the uncompressed content as a stream."""
    with path.open("rb") as file:
        start = file.read(3)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path, "rb")
    return bz2.open(path, "rb") if start == b"BZh" else path.open("rb")


def _voxel_file(path: Path) -> Path:
    beside = [path.with_suffix(suffix) for suffix in (".img", ".IMG", ".img.gz")]
    found = next((file for file in beside if file != path and file.is_file()), None)
    if found is None:
        raise InputError(f"{path}: its voxels are in {beside[0].name}, which is missing", "copy both files")
    return found


def _cleaned(header: Any, dtype: np.dtype[Any]) -> Any:
    """Keep the grid, and drop what describes the intensities of the image or its patient."""
    header = header.copy()
    header.extensions.clear()
    header.set_data_dtype(dtype)
    header.set_slope_inter(None, None)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    for text in {"descrip", "aux_file", "db_name", "data_type"} & set(header.keys()):  # NIfTI-2 has fewer
        header[text] = b""
    return header


NIFTI = Format(
    name="NIfTI",
    suffixes=(".nii.gz", ".nii", ".nii.bz2", ".hdr"),
    read=read,
    film=film,
    results=".nii.gz",
    writes=(".nii.gz", ".nii"),
    write=write,
)
"""``.hdr`` is a header whose voxels are in the ``.img`` beside it."""
