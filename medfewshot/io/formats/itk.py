"""NRRD and MetaImage, through SimpleITK; and its images as arrays, which pictures and DICOM share."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import InputError
from medfewshot.io.formats.base import DType, Format, check_size, kept_header
from medfewshot.io.formats.film import Film, TimeAxis
from medfewshot.io.formats.text_header import read_geometry
from medfewshot.io.geometry import LPS_TO_RAS
from medfewshot.types import Volume

_HEADERS_ALONE = (".mhd", ".nhdr")
"""Suffixes of headers whose voxels are in another file."""


def read_volume(path: Path, dtype: DType, *, has_layers: bool = False) -> Volume:
    """Read ``data (C, *S)`` in ``dtype``, or as stored if it is None. A vector image has one channel per component.

    Three or four components of 8 bits are a colour, unless the file ``has_layers``.
    """
    read_geometry(path, 0)  # checks that the voxels are there
    image = read_itk(path)
    size = list(image.GetSize())
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    if len(size) not in (2, 3):
        raise InputError(
            f"{path}: has {len(size)} axes {image.GetSize()}, a time series or a sequence", "extract one volume"
        )
    is_colour = image.GetNumberOfComponentsPerPixel() in (3, 4) and "8-bit unsigned" in image.GetPixelIDTypeAsString()
    if is_colour and not has_layers:
        raise InputError(f"{path}: is a colour (RGB) image", "convert it to one grey channel")
    data = array_of(image, dtype)
    return _volume(path, image, data.reshape(len(data), *size))


def film(path: Path, dtype: DType) -> Film | None:
    """Open a file of four axes as a time series; None if it has fewer. The stored values stay in memory."""
    if path.suffix.lower() not in (*_HEADERS_ALONE, ".nrrd", ".mha"):
        return None
    read_geometry(path, 0)  # checks that the voxels are there
    size = _information(path).GetSize()
    if len(size) != 4 or size[3] < 2:
        return None
    image = read_itk(path)
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{path}: has several channels in every frame", "save one grey channel")
    stored = array_of(image)
    axis = TimeAxis(image.GetSpacing()[3], image.GetOrigin()[3], read_geometry(path, 3).seconds_per_step)
    first = replace(_volume(path, image, np.array(stored[..., 0], dtype=dtype)), header=axis)
    step, count = axis.step * axis.seconds, stored.shape[-1]
    times_s = tuple(step * n for n in range(count)) if step else ()
    return Film(first, count, lambda numbers: (np.array(stored[..., n], dtype=dtype) for n in numbers), times_s)


def _volume(path: Path, image: Any, data: np.ndarray) -> Volume:
    geometry = read_geometry(path, data.ndim - 1)
    affine = affine_of(image)
    affine[:3] *= geometry.mm_per_unit
    return Volume(data, affine, has_spacing=geometry.has_spacing, warnings=geometry.warnings)


def components_in_file(path: Path) -> int:
    """Return the number of channels or colours that a header states; 1 if it cannot be read."""
    try:
        return int(_information(path).GetNumberOfComponents())
    except RuntimeError:  # the reader of the voxels says what is wrong
        return 1


def _information(path: Path) -> Any:
    import SimpleITK as sitk

    with quiet_itk():
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    return reader


def metadata_of(path: Path) -> dict[str, str]:
    """Return the key-value pairs of a file's header."""
    reader = _information(path)
    return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}


def write_volume(path: Path, data: np.ndarray, like: Volume, *, fields: Mapping[str, str] | None = None) -> None:
    """Write ``data (*S)``, or ``(N, *S)``, on the grid of ``like``; ``fields`` go into the header.

    ``(N, *S)`` becomes a film if ``like`` is a frame of one, else a vector image.
    """
    time = kept_header(like, TimeAxis) if data.ndim > like.spatial_dims else None
    if time is None:
        image = image_of(data, is_vector=data.ndim > like.spatial_dims)
    else:
        image = image_of(np.moveaxis(data, 0, -1))
    dims = like.spatial_dims
    lps = LPS_TO_RAS @ like.affine
    if dims == 2 and np.abs(lps[2, :2]).max() > 1e-6:
        raise InputError(f"{like.name}: this format cannot hold a tilted 2D slice", "write .nii.gz")
    spacing = np.linalg.norm(lps[:dims, :dims], axis=0)
    direction = np.eye(image.GetDimension())
    direction[:dims, :dims] = lps[:dims, :dims] / spacing
    image.SetSpacing([*spacing.tolist(), *([] if time is None else [time.step])])
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin([*lps[:dims, 3].tolist(), *([] if time is None else [time.origin])])
    for name, text in (fields or {}).items():
        image.SetMetaData(name, text)
    write_itk(path, image, compress=True)


class _QuietStderr:
    """Silences the stream itself while any thread is inside: the reader of MetaImage prints past ITK's switch."""

    def __init__(self) -> None:
        self._lock, self._users, self._kept = threading.Lock(), 0, -1

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            with suppress(OSError):  # a process may have no such stream
                self._kept = os.dup(2)
                silence = os.open(os.devnull, os.O_WRONLY)
                os.dup2(silence, 2)
                os.close(silence)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._kept < 0:
                return
            os.dup2(self._kept, 2)
            os.close(self._kept)
            self._kept = -1


_STDERR = _QuietStderr()


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Silence what ITK prints on stderr. The readers here check what matters in it."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with _STDERR:
            yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def read_itk(path: Path) -> Any:
    """Read a ``SimpleITK.Image``, after a look at the size that its header states."""
    reader = _information(path)
    with quiet_itk():
        shape = (*reader.GetSize(), reader.GetNumberOfComponents())
        check_size(shape, 8, path, has_voxels=path.suffix.lower() not in _HEADERS_ALONE)
        image = reader.Execute()
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path}: contains complex numbers", "save the magnitude")
    return image


def write_itk(path: Path, image: Any, *, compress: bool) -> None:
    """Write a ``SimpleITK.Image``. Raises OSError: ITK raises a RuntimeError that names no cause."""
    import SimpleITK as sitk

    try:
        with quiet_itk():
            sitk.WriteImage(image, str(path), useCompression=compress)
    except RuntimeError as error:
        raise OSError(errno.EIO, "cannot be written") from error


def affine_of(image: Any) -> np.ndarray:
    """Return ``(4, 4)`` affine, voxel index -> RAS mm, of the first three axes. 2D gets a third axis of 1 mm."""
    all_axes, dims = image.GetDimension(), min(3, image.GetDimension())
    affine, direction = np.eye(4), np.reshape(image.GetDirection(), (all_axes, all_axes))
    affine[:dims, :dims] = direction[:dims, :dims] * np.asarray(image.GetSpacing())[:dims]
    affine[:dims, 3] = image.GetOrigin()[:dims]
    return LPS_TO_RAS @ affine


def array_of(image: Any, dtype: Any = None) -> np.ndarray:
    """Return the voxels as ``(C, *S)``, x first. Always a copy, because ITK's view dies with the image."""
    import SimpleITK as sitk

    view = sitk.GetArrayViewFromImage(image)
    view = view[..., None] if image.GetNumberOfComponentsPerPixel() == 1 else view
    return np.array(view.T, dtype=dtype, order="C")


def image_of(data: np.ndarray, *, is_vector: bool = False) -> Any:
    """Return the inverse of :func:`array_of` for ``(*S)``, or ``(N, *S)`` if ``is_vector``."""
    import SimpleITK as sitk

    return sitk.GetImageFromArray(np.ascontiguousarray(data.T), isVector=is_vector)


NRRD = Format(
    name="NRRD",
    suffixes=(".nrrd", ".nhdr"),
    read=read_volume,
    film=film,
    results=".nrrd",
    writes=(".nrrd",),
    write=write_volume,
)
METAIMAGE = replace(NRRD, name="MetaImage", suffixes=(".mha", ".mhd"), results=".mha", writes=(".mha",))
