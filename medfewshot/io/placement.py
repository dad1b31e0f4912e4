"""Bring a label map onto the voxel grid of its image, without loss: turned, or placed by its origin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medfewshot.errors import GridMismatchError
from medfewshot.io.dicom_stack import DicomSource
from medfewshot.io.formats.base import Header, kept_header
from medfewshot.io.geometry import check_same_grid
from medfewshot.types import Volume

AXIS_TOLERANCE = 0.05
"""How far the axes and the origin of a label may be from those of its image, in voxels, to be turned or placed."""


def in_frame_of(image: Volume, label: Volume) -> Volume:
    """Bring a label map ``(1, *T)`` onto the voxel grid ``(1, *S)`` of its image ``(C, *S)``, without loss.

    Flipped or swapped axes are turned back. A label map that covers a part of the scan only, as 3D Slicer writes it, is
    placed by its origin. It gets the affine and the millimetres of its image, which a mask drawn as PNG lacks.

    Raises:
        GridMismatchError: As :func:`check_same_grid`; a structure lies outside the image; or a DICOM segmentation
            states another frame of reference than its series.
    """
    source, drawn_in = kept_header(image, DicomSource), kept_header(label, str)
    if source is not None and drawn_in and source.frame_of_reference not in (drawn_in, ""):
        raise GridMismatchError(
            f"{label.name}: was drawn in another frame of reference than that of {image.name}",
            "give the scan that it was drawn on",
        )
    label = _turned(image, label)
    start = _offset(image, label) if _is_cropped(label) else None
    if start is not None:
        label = _placed(label, start, image.spatial_shape, image)
    check_same_grid(image, label)
    return replace(label, affine=image.affine, has_spacing=image.has_spacing)


def in_common_frame(first: Volume, second: Volume) -> tuple[Volume, Volume]:
    """Bring two label maps ``(1, *S)`` onto one voxel grid, without loss: see :func:`in_frame_of`.

    Raises:
        GridMismatchError: They lie on different grids.
    """
    if not _is_cropped(first):
        return first, in_frame_of(first, second)
    if not _is_cropped(second):
        return in_frame_of(second, first), second
    second = _turned(first, second)
    start = _offset(first, second)
    if start is None:
        return first, in_frame_of(first, second)
    low = np.minimum(start, 0)
    ends = np.maximum(first.spatial_shape, start + second.spatial_shape) - low
    shape = tuple(int(n) for n in ends)
    first, second = _placed(first, -low, shape, first), _placed(second, start - low, shape, second)
    check_same_grid(first, second)
    return first, second


def _turned(image: Volume, label: Volume) -> Volume:
    """Return label map with its voxel axes in the order and direction of its image's, if they differ by that only."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff

    dims = image.spatial_dims
    if dims != label.spatial_dims or not (image.has_spacing and label.has_spacing):
        return label
    turn = (np.linalg.inv(image.affine) @ label.affine)[:dims, :dims]
    whole = np.rint(turn)
    if np.abs(turn - whole).max() > AXIS_TOLERANCE or np.array_equal(whole, np.eye(dims)):
        return label
    orientation = np.stack([np.abs(whole).argmax(axis=0), whole.sum(axis=0)], axis=1)
    if sorted(orientation[:, 0]) != list(range(dims)) or np.abs(whole).sum() != dims:
        return label
    back = np.eye(4)
    back[np.ix_([*range(dims), 3], [*range(dims), 3])] = inv_ornt_aff(orientation, label.spatial_shape)
    data = np.stack([apply_orientation(channel, orientation) for channel in label.data])
    return replace(label, data=np.ascontiguousarray(data), affine=label.affine @ back)


def _is_cropped(label: Volume) -> bool:
    return isinstance(label.header, Header) and label.header.format.crops_labels


def _offset(image: Volume, label: Volume) -> np.ndarray | None:
    """Index of the label's first voxel on the grid of its image, ``(D,)``; None if their axes or spacings differ."""
    dims = image.spatial_dims
    if dims != label.spatial_dims or not (image.has_spacing and label.has_spacing):
        return None
    between = np.linalg.inv(image.affine) @ label.affine
    start = np.rint(between[:dims, 3])
    off = np.abs(between[:dims, :dims] - np.eye(dims)).max(), np.abs(between[:dims, 3] - start).max()
    return start.astype(int) if max(off) <= AXIS_TOLERANCE else None


def _placed(label: Volume, start: np.ndarray, shape: tuple[int, ...], image: Volume) -> Volume:
    """Return the label map ``(1, *shape)`` whose voxel ``start`` is the first of ``label``."""
    data = np.zeros((1, *shape), dtype=label.data.dtype)
    low, high = np.maximum(start, 0), np.minimum(start + label.spatial_shape, shape)
    inside = tuple(slice(a, b) for a, b in zip(low, np.maximum(low, high), strict=True))
    own = tuple(slice(a - s, max(a, b) - s) for a, b, s in zip(low, high, start, strict=True))
    data[(slice(None), *inside)] = label.data[(slice(None), *own)]
    lost = np.count_nonzero(label.data) - np.count_nonzero(data)
    if lost:
        raise GridMismatchError(
            f"{label.name}: {lost} of its marked voxels lie outside {image.name}", "give the scan that was segmented"
        )
    affine = label.affine.copy()
    affine[:3, 3] -= affine[:3, : len(shape)] @ start
    return replace(label, data=data, affine=affine)
