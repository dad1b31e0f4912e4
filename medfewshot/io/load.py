"""Read images and label maps, and refuse whatever would give a wrong result without a message."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats import FORMATS, Format
from medfewshot.io.formats.base import Header
from medfewshot.io.geometry import check_affine, check_same_grid
from medfewshot.io.guards import reading
from medfewshot.io.naming import Formats, PathLike, format_at, suffix_of, supported
from medfewshot.types import Volume

WHOLE_NUMBER_TOLERANCE = 1e-3
"""How far a label may lie from a whole number: further than a float file with a slope rounds, and less than
interpolation gives."""


def read_image(path: PathLike | Sequence[PathLike], *, formats: Formats = FORMATS) -> Volume:
    """Read an image.

    Args:
        path: A file, a folder with one DICOM series, or one file of a series. Several paths are the channels of one
            image and must share a grid.
        formats: The formats to choose from.

    Returns:
        ``data (C, *S)`` float32, ``affine (4, 4)`` voxel -> RAS mm, and in ``warnings`` what is only suspicious.

    Raises:
        InputError: Names the file and what would give a wrong result later.
    """
    if isinstance(path, (str, os.PathLike)):
        return _read_one_image(Path(path), formats)
    channels = [_read_one_image(Path(one), formats) for one in path]
    if not channels:
        raise InputError("no image path was given", "name at least one file")
    for channel in channels[1:]:
        check_same_grid(channels[0], channel)
    if len(channels) == 1:
        return channels[0]
    data = np.concatenate([channel.data for channel in channels])
    warnings = tuple(dict.fromkeys(text for channel in channels for text in channel.warnings))
    return replace(channels[0], data=data, warnings=warnings)


def read_label(path: PathLike, *, formats: Formats = FORMATS) -> Volume:
    """Read a label map.

    Returns:
        ``data (1, *S)`` with the values of the file, int16 if they fit and int32 if not.

    Raises:
        InputError: Fractions, negative values, several channels, or a format that cannot hold labels.
    """
    path = Path(path)
    volume = _read(path, formats, is_label=True)
    if volume.data.shape[0] != 1:
        raise InputError(
            f"{path}: a label needs one channel and this has {volume.data.shape[0]} (overlapping segments?)",
            "export the structures as one label map",
        )
    data = _whole_numbers(volume.data, path)
    return replace(volume, data=data, warnings=volume.warnings + _label_warnings(data))


def _read_one_image(path: Path, formats: Formats) -> Volume:
    volume = _read(path, formats)
    broken = volume.data.size - int(np.isfinite(volume.data).sum())
    if broken:
        raise InputError(
            f"{path}: {broken} of {volume.data.size} voxels are NaN or infinite",
            "replace them with the background value",
        )
    return volume


def _read(path: Path, formats: Formats, *, is_label: bool = False) -> Volume:
    found = _format(path, formats)
    with reading(path):
        if is_label and found.read_label is not None:
            volume = found.read_label(path)
        else:
            volume = found.read(path, None if is_label else np.float32)
    if 0 in volume.data.shape:
        raise InputError(f"{path}: has no voxels, its shape is {volume.spatial_shape}", "export it again")
    check_affine(volume.affine, str(path))
    return replace(volume, path=path, header=Header(found, volume.affine, volume.spatial_shape, volume.header))


def _format(path: Path, formats: Formats) -> Format:
    if path.is_dir():
        found = next((one for one in formats if one.folders), None)
    elif not path.exists():
        raise InputError(f"{path}: does not exist", "check the path")
    elif path.stat().st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes)", "copy or export it again")
    else:
        found = format_at(path, formats=formats)
    if found is None:
        suffix = suffix_of(path, formats=formats) or "(none)"
        raise InputError(f"{path}: the suffix {suffix} is not known", f"give {supported(formats)}")
    return found


def _whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    if values.dtype.kind == "f":
        values = _rounded(values, path)
    low, high = values.min(), values.max()
    if low < 0:
        raise InputError(f"{path}: contains the negative label {int(low)}", "labels are whole numbers from 0 up")
    if high > np.iinfo(np.int32).max:
        raise InputError(
            f"{path}: contains the label {int(high)}, which needs more than 32 bits", "renumber the labels"
        )
    return values.astype(np.int16 if high <= np.iinfo(np.int16).max else np.int32)


def _rounded(values: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(values).all():
        raise InputError(f"{path}: contains NaN or infinite labels", "labels are whole numbers from 0 up")
    rounded = np.rint(values)
    off = np.abs(values - rounded)
    if off.max() > WHOLE_NUMBER_TOLERANCE:
        example = float(values.flat[int(off.argmax())])
        raise InputError(
            f"{path}: contains {int((off > WHOLE_NUMBER_TOLERANCE).sum())} values that are no whole numbers, such as "
            f"{example:.9g}",
            "resample a label map with nearest neighbour, or threshold a probability map",
        )
    return rounded


def _label_warnings(data: np.ndarray) -> tuple[str, ...]:
    highest = int(data.max())
    if highest == 0:
        return ("the label is empty: every voxel is 0",)
    if highest == 255 and bool(((data == 0) | (data == 255)).all()):
        return ("0/255 mask: read as one structure with value 255",)
    return ()
