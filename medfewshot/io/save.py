"""Writing results onto the grid of the image they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io import itk, nifti
from medfewshot.io.files import atomic_path
from medfewshot.io.naming import PathLike, format_of, suffix_of
from medfewshot.types import Volume


def write_label(path: PathLike, labels: np.ndarray, like: Volume) -> None:
    """Write ``labels (*S)``, whole numbers >= 0, on ``like``'s grid, in the smallest of uint8, uint16, int32.

    The suffix of ``path`` picks the format. A NIfTI result of a NIfTI input has the same affine, sform, qform, codes
    and units. The file appears whole or not at all. Raises ValueError for labels that do not fit ``like``, InputError
    for a format that cannot hold them.
    """
    path, labels = Path(path), np.asarray(labels)
    if labels.shape != like.spatial_shape:
        raise ValueError(f"labels of shape {labels.shape} do not fit {like.name} of shape {like.spatial_shape}")
    _write(path, labels.astype(_label_dtype(labels)), like)


def write_array(path: PathLike, data: np.ndarray, like: Volume) -> None:
    """Write a float32 map ``(*S)``, or ``(N, *S)`` such as probabilities, on ``like``'s grid.

    ``(N, *S)`` becomes a 4D NIfTI with N last, or a vector NRRD or MetaImage.
    """
    path, data = Path(path), np.asarray(data, dtype=np.float32)
    if data.shape != like.spatial_shape and data.shape[1:] != like.spatial_shape:
        raise ValueError(f"an array of shape {data.shape} does not fit {like.name} of shape {like.spatial_shape}")
    _write(path, data, like)


def _label_dtype(labels: np.ndarray) -> type[np.integer]:
    if labels.dtype.kind not in "bui":
        raise ValueError(f"labels must be whole numbers, not {labels.dtype}")
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    if low < 0 or high > np.iinfo(np.int32).max:
        raise ValueError(f"labels must lie between 0 and {np.iinfo(np.int32).max}, not {low} and {high}")
    return next(dtype for dtype in (np.uint8, np.uint16, np.int32) if high <= np.iinfo(dtype).max)


def _write(path: Path, data: np.ndarray, like: Volume) -> None:
    file_format = format_of(path)
    if file_format == "picture":
        _check_picture(path, data)
    elif file_format not in ("nifti", "itk") or suffix_of(path) in (".mhd", ".nhdr"):
        suffix = suffix_of(path) or "a file without suffix"
        raise InputError(f"{path}: results are not written as {suffix}; use .nii.gz, .nrrd, .mha, .png or .tif")
    with atomic_path(path) as temporary:
        if file_format == "nifti":
            nifti.write(temporary, data, like)
        elif file_format == "itk":
            itk.write(temporary, data, like)
        else:
            itk.write_picture(temporary, data)


def _check_picture(path: Path, data: np.ndarray) -> None:
    if data.ndim != 2:
        raise InputError(f"{path}: a picture holds one 2D map, not shape {data.shape}; use .nii.gz, .nrrd or .mha")
    dtypes = {".png": (np.uint8, np.uint16), ".tif": (np.uint8, np.uint16, np.float32)}
    dtypes[".tiff"] = dtypes[".tif"]
    if data.dtype not in dtypes.get(suffix_of(path), ()):
        raise InputError(f"{path}: {suffix_of(path)} cannot hold {data.dtype} values; use .tif or .nii.gz")
