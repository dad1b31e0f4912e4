"""Images in memory, of this package and of others, as volumes."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.itk import affine_of, array_of
from medfewshot.io.formats.nifti_header import orientation_warnings
from medfewshot.io.geometry import LPS_TO_RAS, check_affine, complete_2d
from medfewshot.io.label_values import check_is_image
from medfewshot.io.volumes import as_label, read_image, read_label
from medfewshot.types import IGNORED, Volume

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
        value: What to read or convert. In the labels of a Volume, -1 marks voxels that are not annotated.
        label: Whether it is a label map.
        image: The scan of a label map, on whose grid contours are drawn.

    Raises:
        InputError: The file cannot be read, the type is not known, or the values cannot be segmented.
    """
    if isinstance(value, (str, PathLike)):
        return read_label(Path(value), image=image) if label else read_image(Path(value))
    if np.ma.is_masked(value.data if isinstance(value, Volume) else getattr(value, "dataobj", value)):
        raise InputError("array: is a masked array", "fill it first: array.filled(value)")
    volume = value if isinstance(value, Volume) else _contents(value)
    if not isinstance(volume.data, np.ndarray):
        volume = replace(volume, data=_array(volume.data))
    data, name = volume.data, volume.name
    if data.ndim not in (3, 4) or 0 in data.shape:
        raise InputError(f"{name}: its shape {data.shape} is no image's", "give (X, Y), (X, Y, Z) or (C, X, Y, Z)")
    if data.dtype.kind not in "biuf":
        raise InputError(f"{name}: contains {data.dtype} and no real numbers", "give one grey channel")
    if not label and volume is not value:
        data = np.ascontiguousarray(data, dtype=np.float32)  # may overflow
    if not np.isfinite(data).all():
        raise InputError(f"{name}: contains NaN or infinite values", "replace them before segmenting")
    if volume.header is not None and (not label or (len(data) == 1 and data.dtype.kind in "iu")):
        return volume  # a reader has checked it
    affine = np.asarray(volume.affine, dtype=np.float64)
    check_affine(affine, name)
    if label:
        return as_label(replace(volume, affine=affine), lowest=IGNORED if isinstance(value, Volume) else 0)
    check_is_image(data, name)
    return volume if data is volume.data and affine is volume.affine else replace(volume, data=data, affine=affine)


def _contents(value: Any) -> Volume:
    """Return the data ``(C, *S)`` of an object as stored, with its affine."""
    packages = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    if hasattr(value, "as_tensor") and hasattr(value, "meta"):
        return _meta_tensor(value)
    if "nibabel" in packages and hasattr(value, "dataobj"):
        return _nibabel(value)
    if "SimpleITK" in packages and hasattr(value, "GetDirection"):
        data = array_of(value)
        return Volume(data[..., 0] if data.ndim == 5 and data.shape[-1] == 1 else data, affine_of(value))
    if hasattr(value, "affine") and np.ndim(getattr(value, "data", 0)) == 4:  # TorchIO: (C, X, Y, Z)
        return Volume(_array(value.data), np.array(value.affine, dtype=np.float64))
    is_array = hasattr(value, "__array__") or isinstance(value, (list, tuple, int, float))
    if hasattr(value, "affine") or not is_array or not packages <= _ARRAYS:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise InputError(
            f"an object of type {kind} cannot be read as an image",
            "give a path, an array, or an image of MONAI, TorchIO, nibabel or SimpleITK",
        )
    data = _array(value)
    data = data if data.ndim == 4 else data[None]
    return Volume(data, np.eye(4), has_spacing=False, warnings=(NO_SPACING,))


def _array(value: Any) -> np.ndarray:
    """Turn an array, a tensor or nested lists of numbers into a NumPy array, which has no bfloat16."""
    plain = value.float() if str(getattr(value, "dtype", "")) == "torch.bfloat16" else value
    try:
        data = plain.detach().cpu().numpy() if hasattr(plain, "detach") else np.asarray(plain)
    except ValueError:  # lists of different lengths
        data = np.array(None)
    except (TypeError, RuntimeError) as error:  # a sparse tensor, for example
        raise InputError(f"a {type(value).__name__} is no image: {error}", "give a dense tensor of numbers") from None
    if isinstance(value, (list, tuple)) and data.dtype.kind not in "biufc":
        raise InputError(f"a {type(value).__name__} of other things than numbers is no image", "give one path or image")
    return data


def _meta_tensor(value: Any) -> Volume:
    """Return a MetaTensor: its readers give RAS, unless they keep LPS, in the unit of the file."""
    import nibabel as nib
    from monai.data.utils import to_affine_nd

    from medfewshot.io.formats.nifti import mm_per_unit

    affine = np.asarray(to_affine_nd(3, np.asarray(value.affine, dtype=np.float64)))
    if str(value.meta.get("space", "")) in (_LPS, "SpaceKeys.LPS"):
        affine = LPS_TO_RAS @ affine
    data = _array(value.as_tensor())
    shape = tuple(int(n) for n in np.asarray(value.meta.get("spatial_shape", ())))
    file = value.meta.get("filename_or_obj")
    path = Path(file) if file and isinstance(file, (str, PathLike)) else None
    if data.shape[:-1] == shape != data.shape[1:]:
        raise InputError(f"{path or 'array'}: has its channels or frames last", "use MONAI's EnsureChannelFirst")
    header = nib.Nifti1Header()
    for key in set(header) & set(value.meta):  # MONAI keeps the header of a NIfTI file there
        header[key] = value.meta[key]
    affine[:3] *= mm_per_unit(header)
    warnings = orientation_warnings(header, shape) if shape and "sform_code" in value.meta else ()
    return Volume(data[None] if data.shape == shape else data, affine, path=path, warnings=warnings)


def _nibabel(value: Any) -> Volume:
    from medfewshot.io.formats.nifti import mm_per_unit

    data = np.asanyarray(value.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim > 3:
        raise InputError(f"image of shape {data.shape}: is a time series or has several channels", "give one volume")
    if value.affine is None:
        return _contents(data)
    affine = np.array(value.affine, dtype=np.float64)
    affine[:3] *= mm_per_unit(value.header)
    warnings = orientation_warnings(value.header, data.shape) if hasattr(value.header, "get_sform") else ()
    return Volume(data[None], complete_2d(affine) if data.ndim == 2 else affine, warnings=warnings)
