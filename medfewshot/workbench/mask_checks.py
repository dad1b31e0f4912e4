"""Masks as arrays: what fits a project, which slices are finished, and how far two masks agree."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medfewshot.datasets import IGNORE_VALUE, ignored_value
from medfewshot.errors import GridMismatchError, InputError
from medfewshot.io import check_same_grid, in_frame_of, read_label
from medfewshot.io.formats.nifti import mm_per_unit
from medfewshot.structures import dice
from medfewshot.types import Volume

_COUNTED_AT_ONCE = 1 << 22


def read_mask(path: Path, values: Sequence[int] = range(IGNORE_VALUE), *, scan: Volume | None = None) -> np.ndarray:
    """Return a mask or draft as :func:`read_stored` does; ignored voxels and other values than ``values`` are 0."""
    table = np.zeros(IGNORE_VALUE + 1, np.uint8)
    table[list(values)] = values
    return table[read_stored(path, scan=scan)]


def read_stored(path: Path, *, scan: Volume | None = None) -> np.ndarray:
    """Return a mask or draft of the project ``(*S)`` uint8 as stored; this program wrote it.

    Raises:
        GridMismatchError: It lies on another grid than ``scan``.
        InputError: It cannot be read.
    """
    try:
        stored: Any = nib.load(path)  # type: ignore[attr-defined]
        labels = np.asanyarray(stored.dataobj).astype(np.uint8)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise InputError(f"{path}: cannot be read ({error})", "restore a version from history/") from None
    if scan is not None:
        affine = np.diag([*(mm_per_unit(stored.header),) * 3, 1.0]) @ stored.affine
        try:
            check_same_grid(scan, replace(scan, data=labels[None], affine=affine))
        except GridMismatchError:
            problem, what = f"{path}: lies on another grid than the scan", "labels/, history/ and drafts/ have of it"
            remedy = f"restore the scan, which was replaced, or move away what {what} and start again"
            raise GridMismatchError(problem, remedy) from None
    return labels


def completed(mask: Path | None, draft: Path, values: Sequence[int], scan: Volume) -> np.ndarray:
    """Fill what is not annotated in a mask with ``values`` of a draft, ``(*S)`` uint8; without a mask return those."""
    labels = read_mask(draft, values, scan=scan)
    if mask is None:
        return labels
    drawn = read_stored(mask, scan=scan)
    return np.where(drawn == IGNORE_VALUE, labels, drawn)


def grid_of(scan: Volume) -> Volume:
    """Return a scan without its voxels, which would fill the memory: shape, affine and header."""
    return replace(scan, data=np.broadcast_to(np.float32(0), (1, *scan.spatial_shape)))


def fitting(name: str, labels: np.ndarray, like: Volume, values: Sequence[int]) -> tuple[np.ndarray, dict[int, int]]:
    """Return the mask ``(*S)`` of the case ``name`` as uint8, and its number of voxels per structure.

    Raises:
        InputError: The shape differs from the scan's, or a value is neither 0 nor one of ``values``.
    """
    if labels.shape != like.spatial_shape or labels.dtype.kind not in "bui":
        raise InputError(
            f"{name}: the mask is {labels.dtype} of shape {labels.shape}",
            f"give whole numbers of shape {like.spatial_shape}",
        )
    small = labels.astype(np.uint8)
    if labels.dtype.itemsize > 1 and not np.array_equal(small, labels):
        raise InputError(f"{name}: the mask has values below 0 or above 255", "give structures values up to 254")
    counts = _histogram(small)
    unknown = set(np.flatnonzero(counts).tolist()) - set(values)
    if unknown:
        raise InputError(f"{name}: the mask has the value {min(unknown)}", "add a structure with this value first")
    return small, {value: int(counts[value]) for value in sorted(values) if counts[value]}


def foreign_mask(
    mask: Path | Volume, like: Volume, ignore: int | None
) -> tuple[Volume, tuple[int, ...] | None, int | None]:
    """Return a mask that another program made, in the frame of the scan.

    Args:
        mask: Its path; or what was read, in the frame of the scan already.
        like: The scan, or its grid.
        ignore: Label value of voxels that are not annotated, which become 0.

    Returns:
        The mask, its finished slices and their axis; None and None if the whole scan is annotated.

    Raises:
        InputError: It does not fit.
    """
    label = mask if isinstance(mask, Volume) else in_frame_of(like, read_label(mask, image=like))
    ignore = ignored_value(label.names) if ignore is None else ignore
    ignored = label.data == (IGNORE_VALUE if ignore is None else ignore)
    names = {value: name for value, name in label.names.items() if value != ignore}
    label = replace(label, data=np.where(ignored, 0, label.data), names=names)
    highest = int(label.data.max())
    if highest >= IGNORE_VALUE:
        raise InputError(f"{label.name}: has the value {highest}", f"give structures values below {IGNORE_VALUE}")
    return (label, *finished_slices(ignored[0]))


def finished_slices(ignored: np.ndarray) -> tuple[tuple[int, ...] | None, int | None]:
    """Indices of the slices without ignored voxels, and the axis that has most of them.

    Args:
        ignored: ``(*S)`` bool.

    Returns:
        None and None if no voxel is ignored.
    """
    if not ignored.any():
        return None, None
    axes = range(ignored.ndim)
    finished = [~ignored.any(axis=tuple(a for a in axes if a != axis)) for axis in axes]
    axis = max(axes, key=lambda one: int(finished[one].sum()))
    return tuple(int(index) for index in np.flatnonzero(finished[axis])), axis


def check_drawn(drawn: Sequence[int] | None, axis: int | None, shape: Sequence[int]) -> tuple[int, ...] | None:
    """Return the finished slices, each once and in order; refuse one outside of the mask."""
    if drawn is None:
        return None
    if axis is None or not 0 <= axis < len(shape):
        raise InputError(f"axis {axis}: the mask has {len(shape)} axes", f"give 0 to {len(shape) - 1}")
    finished = tuple(sorted({int(index) for index in drawn}))
    if finished and not 0 <= finished[0] <= finished[-1] < shape[axis]:
        raise InputError(f"slice {finished[-1]}: axis {axis} has {shape[axis]} slices", "give indices from 0 on")
    return finished


def with_ignored(labels: np.ndarray, drawn: Sequence[int] | None, axis: int | None) -> np.ndarray:
    """Return ``labels (*S)`` as uint8, with :data:`IGNORE_VALUE` in the background of slices that are not ``drawn``.

    What is painted outside of the finished slices stays: it was marked, so it is not ignored.
    """
    result = labels.astype(np.uint8)
    if drawn is not None and axis is not None:
        open_slices = np.ones([size if at == axis else 1 for at, size in enumerate(result.shape)], dtype=bool)
        np.moveaxis(open_slices, axis, 0)[list(drawn)] = False
        np.copyto(result, IGNORE_VALUE, where=(result == 0) & open_slices)
    return result


def count_voxels(labels: np.ndarray) -> dict[int, int]:
    """Structure value -> number of voxels of ``labels (*S)`` uint8, without background and ignored voxels."""
    counts = _histogram(labels)
    return {value: int(counts[value]) for value in range(1, IGNORE_VALUE) if counts[value]}


def _histogram(labels: np.ndarray) -> np.ndarray:
    """Number of voxels of each of 256 values but 0, part by part: bincount makes 8 bytes of each voxel."""
    flat = labels.ravel(order="K")
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(flat), _COUNTED_AT_ONCE):
        part = flat[start : start + _COUNTED_AT_ONCE]
        counts += np.bincount(part[part != 0], minlength=256)
    return counts


def agreement(mask: Path, draft: Path, values: Sequence[int]) -> float | None:
    """Mean Dice of two masks over ``values``, where ``mask`` is annotated; None if it is undefined."""
    truth, found = read_stored(mask), read_stored(draft)
    if truth.shape != found.shape:  # the scan was replaced
        return None
    known = truth != IGNORE_VALUE
    each = [dice((found == value) & known, truth == value) for value in values]
    each = [value for value in each if np.isfinite(value)]
    return round(float(np.mean(each)), 4) if each else None
