"""Write results on the grid of the image that they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.files import atomic_path
from medfewshot.io.formats import FORMATS
from medfewshot.io.naming import Formats, PathLike, format_of, suffix_of
from medfewshot.types import Volume

_LABEL_DTYPES = (np.uint8, np.uint16, np.int32)
_HIGHEST_LABEL = np.iinfo(np.int32).max


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
    _write(Path(path), labels.astype(_label_dtype(labels)), like, formats)


def write_array(path: PathLike, data: np.ndarray, like: Volume, *, formats: Formats = FORMATS) -> None:
    """Write a float32 map ``(*S)``, or several ``(N, *S)`` such as probabilities, on the grid of ``like``.

    ``(N, *S)`` becomes a 4D NIfTI with N last, or a vector NRRD or MetaImage. Raises as :func:`write_label`.
    """
    data = np.asarray(data, dtype=np.float32)
    if data.shape != like.spatial_shape and data.shape[1:] != like.spatial_shape:
        raise ValueError(f"an array of shape {data.shape} does not fit {like.name} of shape {like.spatial_shape}")
    _write(Path(path), data, like, formats)


def _label_dtype(labels: np.ndarray) -> type[np.integer]:
    if labels.dtype.kind not in "bui":
        raise ValueError(f"labels must be whole numbers, not {labels.dtype}")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > _HIGHEST_LABEL:
        raise ValueError(f"labels must lie between 0 and {_HIGHEST_LABEL}, not {low} and {high}")
    return next(dtype for dtype in _LABEL_DTYPES if high <= np.iinfo(dtype).max)


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
