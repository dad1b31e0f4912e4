"""Images in memory, of this package and of others, as volumes."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.itk import affine_of, array_of
from medfewshot.io.geometry import LPS_TO_RAS, check_affine, complete_2d
from medfewshot.io.label_values import check_is_image, check_is_label_map
from medfewshot.io.volumes import read_image, read_label
from medfewshot.types import Volume

VolumeLike = Any
"""A path, a NumPy array or torch tensor ``(*S)`` or ``(C, *S)``, a MONAI MetaTensor ``(C, *S)``, an image of nibabel,
SimpleITK or TorchIO, or a Volume."""
NO_SPACING = "no spacing: an array has no affine, so lengths and volumes count voxels"
_ARRAYS = {"numpy", "torch", "jax", "jaxlib", "cupy", "builtins"}
"""Packages whose arrays have no affine that could get lost."""
_LPS = "left-posterior-superior"


def as_volume(value: VolumeLike, *, label: bool = False, image: Volume | None = None) -> Volume:
    """Turn a path, array or image of another package into a :class:`~medfewshot.types.Volume`.

    An array or tensor of 2 or 3 axes is ``(*S)``, one of 4 is ``(C, *S)``. It has no affine, so the volume has no
    spacing. A MetaTensor is ``(C, *S)``, unless its metadata say that it has no channel axis.

    Args:
        value: What to read or convert; a Volume is returned as it is.
        label: Whether it is a label map.
        image: The scan of a label map, on whose grid contours are drawn.

    Raises:
        InputError: The file cannot be read, the type is not known, or the values cannot be segmented.
    """
    if isinstance(value, Volume):
        if label and len(value.data) != 1:
            raise InputError(f"{value.name}: a label needs one channel and this has {len(value.data)}", "give (1, *S)")
        if not label and not np.isfinite(value.data).all():
            raise InputError(f"{value.name}: contains NaN or infinite values", "replace them before segmenting")
        return value
    if isinstance(value, (str, PathLike)):
        return read_label(Path(value), image=image) if label else read_image(Path(value))
    data, affine = _contents(value)
    if data.ndim not in (3, 4) or 0 in data.shape:
        raise InputError(f"array of shape {data.shape}: is no image", "give (X, Y), (X, Y, Z) or (C, X, Y, Z)")
    if data.dtype.kind not in "biuf":
        raise InputError(f"array of {data.dtype}: is no image of real numbers", "give one grey channel")
    data = data if label else np.ascontiguousarray(data, dtype=np.float32)  # may overflow
    if not np.isfinite(data).all():
        raise InputError("array: contains NaN or infinite values", "replace them before segmenting")
    warnings: tuple[str, ...] = (NO_SPACING,) if affine is None else ()
    has_spacing, affine = affine is not None, np.eye(4) if affine is None else affine
    check_affine(affine, "array")
    if not label:
        check_is_image(data, "array")
        return Volume(data, affine, has_spacing=has_spacing, warnings=warnings)
    if data.shape[0] != 1 or data.min() < 0 or not np.array_equal(data, np.rint(data)):
        raise InputError("label array: is no label map", "give whole numbers from 0 up, in one channel")
    if data.max() > np.iinfo(np.int32).max:
        raise InputError(f"label array: label {data.max()} is too large", "renumber the labels (below 2^31)")
    data = data.astype(np.int32)
    warnings += check_is_label_map(data[0], "label array")
    return Volume(data, affine, has_spacing=has_spacing, warnings=warnings)


def _contents(value: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Data ``(C, *S)`` and affine ``(4, 4)`` to RAS mm of an object; None if it has no affine."""
    packages = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    if hasattr(value, "as_tensor") and hasattr(value, "meta"):
        return _meta_tensor(value)
    if "nibabel" in packages and hasattr(value, "dataobj"):
        return _nibabel(value)
    if "SimpleITK" in packages and hasattr(value, "GetDirection"):
        return _simple_itk(value)
    if hasattr(value, "affine") and np.ndim(getattr(value, "data", 0)) == 4:  # TorchIO: (C, X, Y, Z)
        return np.asarray(value.data), np.array(value.affine, dtype=np.float64)
    is_array = hasattr(value, "__array__") or isinstance(value, (list, tuple, int, float))
    if hasattr(value, "affine") or not is_array or not packages <= _ARRAYS:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise InputError(
            f"an object of type {kind} cannot be read as an image",
            "give a path, an array, or an image of MONAI, TorchIO, nibabel or SimpleITK",
        )
    # NumPy has no bfloat16.
    plain = value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value
    data = plain.detach().cpu().numpy() if hasattr(plain, "detach") else np.asarray(plain)
    return data if data.ndim == 4 else data[None], None


def _meta_tensor(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a MetaTensor: its readers give RAS, unless they keep LPS."""
    from monai.data.utils import to_affine_nd

    affine = np.asarray(to_affine_nd(3, np.asarray(value.affine, dtype=np.float64)))
    if str(value.meta.get("space", "")) in (_LPS, "SpaceKeys.LPS"):
        affine = LPS_TO_RAS @ affine
    plain = value.as_tensor().detach()
    data = (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).cpu().numpy()
    shape = value.meta.get("spatial_shape")
    has_no_channels = shape is not None and tuple(data.shape) == tuple(int(n) for n in np.asarray(shape))
    return data[None] if has_no_channels else data, affine


def _nibabel(value: Any) -> tuple[np.ndarray, np.ndarray | None]:
    from medfewshot.io.formats.nifti import mm_per_unit

    data = np.asanyarray(value.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim > 3:
        raise InputError(f"image of shape {data.shape}: is a time series or has several channels", "give one volume")
    if value.affine is None:
        return data[None], None
    affine = np.array(value.affine, dtype=np.float64)
    affine[:3] *= mm_per_unit(value.header)
    return data[None], complete_2d(affine) if data.ndim == 2 else affine


def _simple_itk(value: Any) -> tuple[np.ndarray, np.ndarray]:
    data = array_of(value)
    while data.ndim > 4 and data.shape[-1] == 1:
        data = data[..., 0]
    return data, affine_of(value)
