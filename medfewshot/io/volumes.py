"""Read images and label maps, refuse what would give a wrong result without a message, and write results."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.files import atomic_path
from medfewshot.io.formats import FORMATS, Format
from medfewshot.io.formats.base import Header, reading
from medfewshot.io.geometry import check_affine, check_same_grid
from medfewshot.io.itk_snap import described_names
from medfewshot.io.label_values import check_is_image, check_is_label_map
from medfewshot.io.paths import (
    Formats,
    PathLike,
    format_at,
    format_of,
    is_series_folder,
    label_in,
    stem_of,
    suffix_of,
    supported,
    volumes_in,
)
from medfewshot.types import IGNORED, Volume

WHOLE_NUMBER_TOLERANCE = 1e-3
"""How far a label may lie from a whole number: further than a float file with a slope rounds, and less than
interpolation gives."""
_LABEL_DTYPES = (np.uint8, np.uint16, np.int32)
_HIGHEST_LABEL = np.iinfo(np.int32).max


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
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    channels = [_read(Path(one), formats) for one in paths]
    if not channels:
        raise InputError("no image path was given", "name at least one file")
    for channel in channels[1:]:
        check_same_grid(channels[0], channel)
    data = np.concatenate([channel.data for channel in channels]) if len(channels) > 1 else channels[0].data
    check_is_image(data, channels[0].name)
    if len(channels) == 1:
        return channels[0]
    warnings = tuple(dict.fromkeys(text for channel in channels for text in channel.warnings))
    kinds = {channel.modality for channel in channels}  # of PET beside CT, the gray values of each channel decide
    return replace(channels[0], data=data, warnings=warnings, modality=kinds.pop() if len(kinds) == 1 else None)


def read_label(path: PathLike, *, image: Volume | None = None, formats: Formats = FORMATS) -> Volume:
    """Read a label map, or a folder with one mask per structure.

    Args:
        path: A file, or a folder with one DICOM series, segmentation or structure set.
        image: The scan. Structure sets contain contours, which are drawn on its grid.
        formats: The formats to choose from.

    Returns:
        ``data (1, *S)`` with the values of the file, int16 if they fit and int32 if not.

    Raises:
        InputError: Fractions, negative values, gray values, several channels, or a format that cannot hold labels.
    """
    path = Path(path)
    path = label_in(path, formats=formats) or path
    if path.is_dir() and not is_series_folder(path, formats=formats):
        return _read_masks(path, image, formats)
    volume = as_label(_read(path, formats, is_label=True, image=image))
    if not volume.names and not path.is_dir():
        named = described_names(path).items()
        volume = replace(volume, names={value: name for value, name in named if (volume.data == value).any()})
    return volume


def _read_masks(folder: Path, image: Volume | None, formats: Formats) -> Volume:
    """Join a folder with one mask per structure to one label map, as TotalSegmentator stores its segmentations.

    The n-th file in alphabetical order becomes value n, and its name the structure's. Other values than 0 mark it.

    Raises:
        InputError: There are no masks, their grids differ, or two of them mark the same voxel.
    """
    files = sorted((path for path in volumes_in(folder) if path.is_file()), key=stem_of)
    if not files:
        raise InputError(f"{folder}: contains no masks", "give a label map, or a folder with one mask per structure")
    names = {value: stem_of(path) for value, path in enumerate(files, start=1)}
    for value, path in enumerate(files, start=1):
        mask = read_label(path, image=image, formats=formats)
        marked = mask.data != 0
        if value == 1:
            joined = replace(mask, data=np.zeros(mask.data.shape, np.int16), path=folder, names=names, warnings=())
        check_same_grid(joined, mask)
        shared = joined.data[marked]
        if shared.any():
            other = names[int(shared.max())]
            raise InputError(
                f"{path}: marks {np.count_nonzero(shared)} voxels that {other} marks too", "separate the structures"
            )
        joined.data[marked] = value
    return joined


def as_label(volume: Volume, *, lowest: int = 0) -> Volume:
    """Check that a volume as stored is a label map, and return it with int16 or int32 values from ``lowest`` up.

    Raises:
        InputError: As :func:`read_label`.
    """
    if volume.data.shape[0] != 1:
        raise InputError(
            f"{volume.name}: a label needs one channel and this has {volume.data.shape[0]}",
            "export the structures as one label map",
        )
    data = _whole_numbers(volume.data, volume.name, lowest)
    warnings = volume.warnings + _label_warnings(data) + check_is_label_map(data[0], volume.name)
    if unknown := np.count_nonzero(data == IGNORED):
        warnings += (f"{unknown} voxel(s) have the label {IGNORED} and count as not annotated",)
    return replace(volume, data=data, warnings=warnings)


def read_label_pair(first: Path, second: Path) -> tuple[Volume, Volume]:
    """Read two label maps of one scan. The contours of a structure set are drawn on the grid of the other.

    Raises:
        InputError: As :func:`read_label`; or both are structure sets.
    """
    found = format_at(label_in(first) or first)
    if found is not None and found.draw_label is not None:
        other = read_label(second)
        return read_label(first, image=other), other
    label = read_label(first)
    return label, read_label(second, image=label)


def write_label(path: PathLike, labels: np.ndarray, like: Volume, *, formats: Formats = FORMATS) -> None:
    """Write a label map in the smallest of uint8, uint16 and int32. The file appears whole or not at all.

    Args:
        path: Its suffix selects the format.
        labels: ``(*S)``, whole numbers >= 0.
        like: The image with the grid. A NIfTI result of a NIfTI image gets its sform, qform, their codes and its units.
        formats: The formats to choose from.

    Raises:
        InputError: The format cannot hold these labels.
        ValueError: The labels do not fit ``like``, or are no whole numbers >= 0.
    """
    labels = np.asarray(labels)
    if labels.shape != like.spatial_shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit {like.name} of shape {like.spatial_shape}")
    if labels.dtype.kind not in "bui":
        raise ValueError(f"labels must be whole numbers, not {labels.dtype}")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > _HIGHEST_LABEL:
        raise ValueError(f"labels must lie between 0 and {_HIGHEST_LABEL}, not {low} and {high}")
    smallest = next(dtype for dtype in _LABEL_DTYPES if high <= np.iinfo(dtype).max)
    _write(Path(path), labels.astype(smallest), like, formats)


def write_label_film(path: PathLike, labels: np.ndarray, like: Volume) -> None:
    """Write the label maps ``(frames, *S)`` of all frames as one file, with the time axis of the film.

    Arguments and errors as :func:`write_label`; ``like`` is a frame of the film, with its header.
    """
    if labels.shape[1:] != like.spatial_shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit {like.name} of shape {like.spatial_shape}")
    _write(Path(path), labels, like, FORMATS)


def write_array(path: PathLike, data: np.ndarray, like: Volume, *, formats: Formats = FORMATS) -> None:
    """Write a float32 map ``(*S)``, or several ``(N, *S)`` such as probabilities, on the grid of ``like``.

    ``(N, *S)`` becomes a 4D NIfTI with N last, or a vector NRRD or MetaImage. Raises as :func:`write_label`.
    """
    data = np.asarray(data, dtype=np.float32)
    if like.spatial_shape not in (data.shape, data.shape[1:]):
        raise ValueError(f"an array of shape {data.shape} does not fit {like.name} of shape {like.spatial_shape}")
    _write(Path(path), data, like, formats)


def _read(path: Path, formats: Formats, *, is_label: bool = False, image: Volume | None = None) -> Volume:
    found = format_on_disk(path, formats)
    with reading(path):
        if is_label and found.draw_label is not None:
            volume = found.draw_label(path, _drawn_on(image, path, found))
        elif is_label and found.read_label is not None:
            volume = found.read_label(path)
        else:
            volume = found.read(path, None if is_label else np.float32)
    return checked(volume, path, found)


def checked(volume: Volume, path: Path, found: Format) -> Volume:
    """Return a volume as read, with its path and header.

    Raises:
        InputError: It has no voxels, no usable grid, or values that are no numbers.
    """
    if 0 in volume.data.shape:
        raise InputError(f"{path}: has no voxels, its shape is {volume.spatial_shape}", "export it again")
    check_affine(volume.affine, str(path))
    volume = replace(volume, path=path, header=Header(found, volume.affine, volume.spatial_shape, volume.header))
    if broken := volume.data.size - np.count_nonzero(np.isfinite(volume.data)):
        raise InputError(
            f"{volume.name}: {broken} of {volume.data.size} voxels are NaN or infinite",
            "replace them with the background value",
        )
    return volume


def _drawn_on(image: Volume | None, path: Path, found: Format) -> Volume:
    if image is None:
        raise InputError(
            f"{path}: {found.name} contains contours and no voxels",
            "give it together with the scan that it was drawn on",
        )
    if isinstance(image.header, Header) and image.header.format.crops_labels:
        raise InputError(
            f"{path}: cannot be drawn on {image.name}, which may cover a part of the scan only",
            "give a label map of the whole scan, e.g. NIfTI",
        )
    return image


def format_on_disk(path: Path, formats: Formats) -> Format:
    """Return the format of a file or folder.

    Raises:
        InputError: It does not exist, is empty, or has no known format.
    """
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


def _whole_numbers(values: np.ndarray, name: str, lowest: int) -> np.ndarray:
    if values.dtype.kind == "f":
        values, given = np.rint(values), values
        off = np.abs(given - values)
        if off.max() > WHOLE_NUMBER_TOLERANCE:
            raise InputError(
                f"{name}: contains {np.count_nonzero(off > WHOLE_NUMBER_TOLERANCE)} values that are no whole numbers, "
                f"such as {float(given.flat[off.argmax()]):.9g}",
                "resample a label map with nearest neighbour, or threshold a probability map",
            )
    low, high = values.min(), values.max()
    if low < lowest:
        raise InputError(f"{name}: contains the negative label {int(low)}", "labels are whole numbers from 0 up")
    if high > _HIGHEST_LABEL:
        raise InputError(
            f"{name}: contains the label {int(high)}, which needs more than 32 bits", "renumber the labels"
        )
    return values.astype(np.int16 if high <= np.iinfo(np.int16).max else np.int32)


def _label_warnings(data: np.ndarray) -> tuple[str, ...]:
    highest = int(data.max())
    if highest == 0:
        return ("the label is empty: every voxel is 0",)
    if highest == 255 and bool(((data == 0) | (data == 255)).all()):
        return ("0/255 mask: read as one structure with value 255",)
    if 247 <= highest <= 255:
        found = np.unique(data)
        high = found[found > 8]
        if high.size > 1 and high[0] >= 247:
            count = np.count_nonzero(found)
            return (f"values near 0 and 255, as in a mask that was a JPEG: threshold it; read as {count} structures",)
    return ()


def _write(path: Path, data: np.ndarray, like: Volume, formats: Formats) -> None:
    target, suffix = format_of(path, formats=formats), suffix_of(path, formats=formats)
    if target is None or target.write is None or suffix not in target.writes:
        choices = ", ".join(dict.fromkeys(one.writes[0] for one in formats if one.writes and not one.labels_only))
        raise InputError(f"{path}: results are not written as {suffix or 'a file without suffix'}", f"use {choices}")
    if target.only_2d and data.ndim != 2:
        raise InputError(f"{path}: {target.name} holds one 2D map, not {data.shape}", f"use {formats[0].results}")
    if data.dtype.type not in target.dtypes:
        raise InputError(f"{path}: {target.name} cannot hold {data.dtype} values", f"use {formats[0].results}")
    with atomic_path(path) as temporary:
        target.write(temporary, data, like)
