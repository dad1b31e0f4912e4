"""Reading with every check that a silent wrong result would need."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io import dicom, itk, nifti
from medfewshot.io.geometry import check_affine, check_same_grid
from medfewshot.io.guards import reading
from medfewshot.io.header import Format
from medfewshot.io.naming import SUPPORTED, PathLike, format_of, is_dicom_file, suffix_of
from medfewshot.types import Volume

WHOLE_NUMBER_TOLERANCE = 1e-3
"""How far a label may lie from a whole number: what a float file with a slope rounds away, and no interpolation."""

_Reader = Callable[[Path, Any], Volume]
_READERS: dict[Format, _Reader] = {"nifti": nifti.read, "itk": itk.read, "picture": itk.read, "dicom": dicom.read}


def read_image(path: PathLike | Sequence[PathLike]) -> Volume:
    """Read an image: ``data (C, *S)`` float32, ``affine`` voxel -> RAS mm.

    ``path``: a NIfTI, NRRD, MetaImage or 2D picture file, a folder with one DICOM series, or one file of a series.
    Several paths are the channels of one image and must share a grid. Raises InputError, naming the file, for whatever
    would give a wrong result later; what is only suspicious is in ``Volume.warnings``.
    """
    if isinstance(path, (str, os.PathLike)):
        return _read_one_image(Path(path))
    channels = [_read_one_image(Path(one)) for one in path]
    if not channels:
        raise InputError("no image path was given; name at least one file")
    for channel in channels[1:]:
        check_same_grid(channels[0], channel)
    if len(channels) == 1:
        return channels[0]
    data = np.concatenate([channel.data for channel in channels])
    warnings = tuple(dict.fromkeys(text for channel in channels for text in channel.warnings))
    return dataclasses.replace(channels[0], data=data, warnings=warnings)


def read_label(path: PathLike) -> Volume:
    """Read a label map: ``data (1, *S)``, int16 where the values fit and int32 where not; values stay as they are.

    Raises InputError for fractions, negative values and files that cannot hold labels.
    """
    path = Path(path)
    if suffix_of(path) in (".jpg", ".jpeg"):
        raise InputError(f"{path}: JPEG blurs label values; save the label as PNG, TIFF or NIfTI")
    volume = _read(path, None)
    if volume.data.shape[0] != 1:
        raise InputError(
            f"{path}: a label needs one channel and this has {volume.data.shape[0]} (overlapping segments?); "
            "export the structures as one label map"
        )
    data = _whole_numbers(volume.data, path)
    return dataclasses.replace(volume, data=data, warnings=volume.warnings + _label_warnings(data))


def _read_one_image(path: Path) -> Volume:
    volume = _read(path, np.float32)
    broken = volume.data.size - int(np.isfinite(volume.data).sum())
    if broken:
        raise InputError(
            f"{path}: {broken} of {volume.data.size} voxels are NaN or infinite; replace them with the background value"
        )
    low, high = float(volume.data.min()), float(volume.data.max())
    if low == high:
        return dataclasses.replace(volume, warnings=(*volume.warnings, f"every voxel has the same value, {low:g}"))
    return volume


def _read(path: Path, dtype: Any) -> Volume:
    reader = _READERS[_format(path)]
    with reading(path):
        volume = reader(path, dtype)
    if 0 in volume.data.shape:
        raise InputError(f"{path}: has no voxels, its shape is {volume.spatial_shape}; export it again")
    check_affine(volume.affine, str(path))
    return volume


def _format(path: Path) -> Format:
    if path.is_dir():
        return "dicom"
    if not path.exists():
        raise InputError(f"{path}: does not exist; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); copy or export it again")
    found = format_of(path) or ("dicom" if is_dicom_file(path) else None)
    if found is None:
        raise InputError(f"{path}: the suffix {suffix_of(path) or '(none)'} is not known; give {SUPPORTED}")
    return found


def _whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype.kind == "f":
        values = _rounded(values, path)
    low, high = values.min(), values.max()
    if low < 0:
        raise InputError(f"{path}: holds the negative label {int(low)}; labels are whole numbers from 0 up")
    if high > np.iinfo(np.int32).max:
        raise InputError(f"{path}: holds the label {int(high)}, more than 32 bits take; renumber the labels")
    return values.astype(np.int16 if high <= np.iinfo(np.int16).max else np.int32)


def _rounded(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds NaN or infinite labels; labels are whole numbers from 0 up")
    rounded = np.rint(values)
    off = np.abs(values - rounded)
    if off.max() > WHOLE_NUMBER_TOLERANCE:
        example = float(values.flat[int(off.argmax())])
        raise InputError(
            f"{path}: holds {int((off > WHOLE_NUMBER_TOLERANCE).sum())} values that are no whole numbers, such as "
            f"{example:.9g}; a label must be resampled with nearest neighbour, and a probability map thresholded"
        )
    return rounded


def _label_warnings(data: np.ndarray) -> tuple[str, ...]:
    highest = int(data.max())
    if highest == 0:
        return ("the label is empty: every voxel is 0",)
    if highest == 255 and bool(((data == 0) | (data == 255)).all()):
        return ("0/255 mask: read as one structure with value 255",)
    return ()
