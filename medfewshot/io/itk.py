"""NRRD, MetaImage and 2D pictures through SimpleITK."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.geometry import affine_from_itk, affine_to_itk
from medfewshot.io.guards import check_size, quiet_itk
from medfewshot.io.header import Header
from medfewshot.io.naming import format_of, suffix_of
from medfewshot.types import Volume


def read(path: Path, dtype: type[np.floating[Any]] | None) -> Volume:
    """``data (C, *S)`` in ``dtype``, or as stored where it is None; a vector image has one channel a component."""
    import SimpleITK as sitk

    if format_of(path) == "picture":
        _check_whole(path)
    with quiet_itk():
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        check_size((*reader.GetSize(), reader.GetNumberOfComponents()), 8, path)
        image = reader.Execute()
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path}: holds complex numbers; save the magnitude")
    return _picture(path, image, dtype) if format_of(path) == "picture" else _volume(path, image, dtype)


def write(path: Path, data: np.ndarray, like: Volume) -> None:
    """``data``: ``(*S)``, or ``(N, *S)`` as a vector image."""
    import SimpleITK as sitk

    is_vector = data.ndim > like.spatial_dims
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T), isVector=is_vector)
    affine_to_itk(like.affine, image, like.name)
    _save(image, path, compress=True)


def write_picture(path: Path, data: np.ndarray) -> None:
    """``data``: ``(X, Y)``; millimetres have no place in a picture."""
    import SimpleITK as sitk

    _save(sitk.GetImageFromArray(np.ascontiguousarray(data.T)), path, compress=False)


def _save(image: Any, path: Path, compress: bool) -> None:
    """ITK says no more than that it failed, and as a RuntimeError."""
    import SimpleITK as sitk

    try:
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=compress)
    except RuntimeError as error:
        raise OSError(errno.EIO, "cannot be written") from error


def channels_first(image: Any, dtype: Any = None) -> np.ndarray:
    """A ``SimpleITK.Image`` -> ``(C, *S)``, x first; always a copy, because the view dies with the image."""
    import SimpleITK as sitk

    view = sitk.GetArrayViewFromImage(image)
    view = view[..., None] if image.GetNumberOfComponentsPerPixel() == 1 else view
    return np.array(view.T, dtype=dtype, order="C")


def _volume(path: Path, image: Any, dtype: Any) -> Volume:
    if image.GetDimension() not in (2, 3):
        raise InputError(
            f"{path}: has {image.GetDimension()} axes {image.GetSize()}, a time series or a sequence; "
            "extract one volume"
        )
    components = image.GetNumberOfComponentsPerPixel()
    if components in (3, 4) and "8-bit unsigned" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path}: is a colour (RGB) image; convert it to one grey channel")
    affine = affine_from_itk(image)
    header = Header("itk", suffix_of(path).removeprefix(".seg"), affine, tuple(image.GetSize()))
    return Volume(channels_first(image, dtype), affine, header, path)


def _picture(path: Path, image: Any, dtype: Any) -> Volume:
    """The resolution in a picture's header is a screen's or a printer's, so pixels count as 1."""
    if image.GetDimension() != 2:
        pages = image.GetSize()[-1]
        raise InputError(f"{path}: has {pages} pages; convert the stack to NIfTI or NRRD with its spacing")
    grey, warnings = _grey(path, channels_first(image, dtype))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    header = Header("picture", suffix_of(path), affine, tuple(image.GetSize()), has_spacing=False)
    return Volume(grey, affine, header, path, warnings=warnings)


def _check_whole(path: Path) -> None:
    """ITK fills the missing rest of a JPEG or BMP with grey, and says nothing."""
    content, suffix = path.read_bytes(), suffix_of(path)
    no_end = suffix in (".jpg", ".jpeg") and b"\xff\xd9" not in content[-(1 << 16) :]
    if no_end or (suffix == ".bmp" and len(content) < int.from_bytes(content[2:6], "little")):
        raise InputError(f"{path}: is cut short; copy or export it again")


def _grey(path: Path, data: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """``(C, X, Y)`` with C = 1 grey, 2 grey + alpha, 3 RGB or 4 RGBA -> ``(1, X, Y)``."""
    if len(data) == 1:
        return data, ()
    colours = data[: len(data) - 1] if len(data) in (2, 4) else data
    if any(not np.array_equal(colours[0], colour) for colour in colours[1:]):
        raise InputError(
            f"{path}: is a colour picture; convert it to one grey channel "
            "(a label: one channel that holds the label values)"
        )
    dropped = "alpha channel ignored" if len(data) in (2, 4) else "three equal colour channels"
    return np.ascontiguousarray(colours[:1]), (f"read as grey: {dropped}",)
