"""Volumes from paths, arrays, tensors and MONAI MetaTensors."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.utils import to_affine_nd

from medfewshot.errors import InputError
from medfewshot.io import check_affine, read_image, read_label
from medfewshot.types import Volume

VolumeLike = Any
"""A path, a NumPy array or torch tensor ``(*S)`` or ``(C, *S)``, a MONAI MetaTensor ``(C, *S)``, or a Volume."""


def as_volume(value: VolumeLike, *, label: bool = False) -> Volume:
    """Turn a path, array, tensor or MetaTensor into a :class:`~medfewshot.types.Volume`.

    An array or tensor of 2 or 3 axes is ``(*S)``, one of 4 is ``(C, *S)``, a MetaTensor is always ``(C, *S)``. Only
    MetaTensors carry an affine; the others have voxels of 1 mm.

    Args:
        value: What to read or convert; a Volume is returned as it is.
        label: Whether it is a label map.

    Raises:
        InputError: The file cannot be read, or the values cannot be segmented.
    """
    if isinstance(value, Volume):
        if not label and not np.isfinite(value.data).all():
            raise InputError(f"{value.name}: contains NaN or infinite values", "replace them before segmenting")
        return value
    if isinstance(value, (str, PathLike)):
        return read_label(Path(value)) if label else read_image(Path(value))
    data, affine = _plain_array(value)
    if data.ndim not in (3, 4) or 0 in data.shape:
        raise InputError(f"array of shape {data.shape}", "give (X, Y), (X, Y, Z) or (C, X, Y, Z), no length 0")
    if not np.isfinite(data).all():
        raise InputError("array: contains NaN or infinite values", "replace them before segmenting")
    if not label:
        return Volume(np.ascontiguousarray(data, dtype=np.float32), affine)
    if data.shape[0] != 1 or data.min() < 0 or not np.array_equal(data, np.rint(data)):
        raise InputError("label array: labels are whole numbers from 0 up, in one channel")
    if data.max() > np.iinfo(np.int32).max:
        raise InputError(f"label array: label {data.max()} is too large", "renumber the labels (below 2^31)")
    return Volume(data.astype(np.int32), affine)


def _plain_array(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Data ``(C, *S)`` and affine ``(4, 4)`` of an array, tensor or MetaTensor."""
    if hasattr(value, "affine") and hasattr(value, "as_tensor"):
        affine = np.asarray(to_affine_nd(3, np.asarray(value.affine, dtype=np.float64)))
        check_affine(affine, "array")
        return value.as_tensor().detach().cpu().numpy(), affine
    # NumPy has no bfloat16.
    plain = value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value
    data = plain.detach().cpu().numpy() if hasattr(plain, "detach") else np.asarray(plain)
    return data if data.ndim == 4 else data[None], np.eye(4)
