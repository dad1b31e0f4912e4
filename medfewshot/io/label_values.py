"""What the values of a volume say: is it a label map or an image?"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

from medfewshot.errors import InputError, some

_MOST_DIRECT = 65535
_SAMPLES = 2_000_000
_LEAST_VOXELS = 512
"""A smaller array says too little."""
_LEAST_SOLID = 0.1
"""Share of a structure's voxels that lie in a block of equal values. A cube of 3 voxels has 0.44 or more."""
_LEAST_GRAY = 3
"""With fewer gray values, a label map is suspicious and not refused."""
_MOST_LABELS = 256
"""An image with more values is never taken for a label map."""
_LABEL_SOLID = 0.6
"""Share of the voxels other than 0 of a label map that lie in a block of equal values. A noisy scan has 0.1 or less."""
_FEW_VALUES = 64
_SMOOTH_STEP = 0.05
"""An enlarged 8-bit image consists of blocks too. It has more values than ``_FEW_VALUES``, and a typical step between
neighbours is below this share of their number: ultrasound has 0.012, a label map of 42 organs 0.33."""


def values_of(labels: np.ndarray) -> set[int]:
    """Return the values above 0 in an array of whole numbers of any shape."""
    if labels.size == 0:
        return set()
    if labels.min() >= 0 and labels.max() <= _MOST_DIRECT:
        return {value for value, box in enumerate(ndimage.find_objects(labels), 1) if box is not None}
    return {int(value) for value in np.unique(labels) if value > 0}


def check_is_label_map(data: np.ndarray, name: str) -> tuple[str, ...]:
    """Check that whole numbers are labels, and not gray values of an image or of a mask with blurred edges.

    A structure has neighbours of its own value, however small or thin it is. Gray values lie scattered between lower
    and higher ones.

    Args:
        data: ``(*S)`` integers.
        name: Of the file, for messages.

    Returns:
        A warning if a few values look like blurred edges, or nothing.

    Raises:
        InputError: Most values are gray values.
    """
    values = values_of(data) if data.size >= _LEAST_VOXELS else set()
    gray = _gray_values(data) if len(values) > 1 else []
    if not gray or 2 * len(gray) < len(values) - 1:
        return ()
    listed = some(sorted(gray))
    if len(gray) < _LEAST_GRAY:
        return (f"label {listed} lies only along edges of other labels: is the mask smoothed or interpolated?",)
    raise InputError(
        f"{name}: contains {len(values)} different values, most of them scattered ({listed}): it is an image, or a "
        "mask with blurred edges, and no label map",
        "give the label, or export the mask again without smoothing",
    )


def check_is_image(data: np.ndarray, name: str) -> None:
    """Check that an image ``(C, *S)`` is no label map.

    Raises:
        InputError: Every channel consists of blocks of few whole numbers, and no channel is constant.
    """
    if data[0].size >= _LEAST_VOXELS and all(_is_label_map(channel) for channel in data):
        values = np.unique(data)
        raise InputError(
            f"{name}: is a label map by its values ({some([f'{value:g}' for value in values])}), and no scan",
            "give the scan itself",
        )


def _gray_values(labels: np.ndarray) -> list[int]:
    """Return the values that lie scattered, and most of whose voxels have a lower and a higher neighbour."""
    step = max(1, labels.size // _SAMPLES) | 1
    present, index = np.unique(labels.reshape(-1)[::step], return_inverse=True)
    solid = np.bincount(index[_in_blocks(labels).reshape(-1)[::step]], minlength=len(present))
    scattered = present[(solid < _LEAST_SOLID * np.bincount(index)) & (present != 0)]
    if not scattered.size:
        return []
    where = np.nonzero(np.isin(labels, scattered))
    where = tuple(axis[:: max(1, len(axis) // 100_000) | 1] for axis in where)
    own = labels[where]
    low, high = own.copy(), own.copy()
    for offset in product((-1, 0, 1), repeat=labels.ndim):
        near = [np.clip(at + o, 0, n - 1) for at, o, n in zip(where, offset, labels.shape, strict=True)]
        neighbour = labels[tuple(near)]
        np.minimum(low, neighbour, out=low)
        np.maximum(high, neighbour, out=high)
    found, index = np.unique(own, return_inverse=True)
    between = np.bincount(index, (low < own) & (own < high)) > 0.5 * np.bincount(index)
    return [int(value) for value in found[between]]


def _is_label_map(channel: np.ndarray) -> bool:
    """Return whether ``(*S)`` consists of 2 to 256 whole numbers from 0 up, most of them in blocks."""
    sample = channel.reshape(-1)[:: max(1, channel.size // 100_000) | 1]
    if sample.min() < 0 or sample.max() > _MOST_DIRECT or not np.array_equal(sample, np.rint(sample)):
        return False
    if len(np.unique(sample)) > _MOST_LABELS or channel.min() != 0 or channel.max() == 0:
        return False
    values = len(np.unique(channel))
    if values > _MOST_LABELS or not np.array_equal(channel, np.rint(channel)):
        return False
    marked = channel != 0
    in_blocks = np.count_nonzero(_in_blocks(channel) & marked) >= _LABEL_SOLID * np.count_nonzero(marked)
    return bool(in_blocks) and not (values > _FEW_VALUES and _median_step(channel) < _SMOOTH_STEP * values)


def _median_step(channel: np.ndarray) -> float:
    """Return the median difference of neighbours ``(*S)`` that differ and are not 0; infinity if there are none."""
    steps = []
    for axis in range(channel.ndim):
        values = np.moveaxis(channel, axis, 0)
        one, next_one = values[:-1].astype(np.int64), values[1:].astype(np.int64)
        steps.append(np.abs(one - next_one)[(one != next_one) & (one != 0) & (next_one != 0)])
    found = np.concatenate(steps)
    return float(np.median(found)) if found.size else np.inf


def _in_blocks(labels: np.ndarray) -> np.ndarray:
    """Return where a voxel has the value of the next voxel along at least two axes: a bool array ``(*S)``."""
    along = np.zeros(labels.shape, dtype=np.uint8)
    for axis in range(labels.ndim):
        count, value = np.moveaxis(along, axis, 0), np.moveaxis(labels, axis, 0)
        count[:-1] += value[:-1] == value[1:]
    return along >= 2
