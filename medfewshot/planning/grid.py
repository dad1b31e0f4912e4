"""Volumes on the plan's grid (resampled by MONAI), and the separable map back to the native grid.

A planned grid is the native one with axes reordered, flipped and rescaled, so each planned axis depends on one native
axis alone. The way back is therefore one linear interpolation per axis, which inference applies slab by slab. Memory
stays bounded, whereas MONAI's ``Invertd`` would keep every class on the native grid. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.errors import InputError
from medfewshot.planning.normalise import normalise
from medfewshot.planning.orientation import AxisOrder, order_for
from medfewshot.types import Plan, Volume

MOST_PLANNED_VOXELS = 2e9
"""A volume that is larger than this on the plan's grid has a wrong spacing, such as metres for millimetres."""


@dataclass(frozen=True)
class AxisMap:
    """Planned index along one planned axis = ``offset + step * native index`` along ``native_axis``."""

    native_axis: int
    step: float
    offset: float

    def coordinates(self, start: int, stop: int) -> np.ndarray:
        """Planned coordinates of native indices ``start..stop-1``."""
        return self.offset + self.step * np.arange(start, stop, dtype=np.float64)


@dataclass(frozen=True)
class Planned:
    """``image (C, *P)`` float32 on the plan's grid, and the way back: one :class:`AxisMap` per planned axis."""

    image: Tensor
    maps: tuple[AxisMap, ...]
    affine: np.ndarray
    native_shape: tuple[int, ...]


def to_plan(volume: Volume, plan: Plan) -> Planned:
    """Bring an image to the plan's frame, spacing and intensities.

    Raises:
        InputError: See :func:`check_like_support`.
    """
    check_like_support(volume, plan)
    order = order_for(volume.affine, np.array(plan.axes), plan.spatial_dims)
    data, affine = order.apply(volume.data), order.affine(volume.affine, volume.spatial_shape)
    data, affine = _average_blocks(data, affine, plan.spacing_mm)
    image, affine = _respace(data, affine, plan.spacing_mm, "bilinear")
    maps = axis_maps(volume.affine, affine, order)
    return Planned(normalise(image, plan.normalization), maps, affine, volume.spatial_shape)


def native_labels_to_plan(label: Volume, plan: Plan) -> Tensor:
    """Return labels ``(*P)`` int64 on the plan's grid: 0 = background and 1..N in the order of ``plan.labels``.

    Each voxel takes the nearest native voxel. A structure that is too small for the grid gets every planned voxel that
    it touches.
    """
    order = order_for(label.affine, np.array(plan.axes), plan.spatial_dims)
    classes = np.zeros(label.data.shape, dtype=np.int16)
    for index, value in enumerate(plan.label_values, start=1):
        classes[label.data == value] = index
    data, affine = order.apply(classes), order.affine(label.affine, label.spatial_shape)
    # The grid of the image: block averaging moves the first voxel's centre, so labels must start from it too.
    reduced = _block_factors(affine, plan.spacing_mm, data.shape[1:])
    coarse = _coarse_affine(affine, reduced)
    shape = tuple(int(np.ceil(size / factor)) for size, factor in zip(data.shape[1:], reduced, strict=True))
    target_shape, target_affine = _spaced_grid(shape, coarse, plan.spacing_mm)
    maps = axis_maps(label.affine, target_affine, order)
    planned = _nearest(data[0], maps, order, target_shape)
    _restore_lost(planned, classes[0], maps, len(plan.labels))
    return torch.from_numpy(planned.astype(np.int64))


def planned_order(volume: Volume, plan: Plan) -> tuple[int, ...]:
    """Return the native axis that becomes each planned axis."""
    return order_for(volume.affine, np.array(plan.axes), plan.spatial_dims).order


def axis_maps(native: np.ndarray, planned: np.ndarray, order: AxisOrder) -> tuple[AxisMap, ...]:
    """Return one map per planned axis, from the two affines ``(4, 4)`` alone."""
    matrix = np.linalg.inv(planned) @ native
    return tuple(AxisMap(axis, float(matrix[i, axis]), float(matrix[i, 3])) for i, axis in enumerate(order.order))


def sample_axis(values: Tensor, coordinates: np.ndarray, axis: int) -> Tensor:
    """Interpolate ``values`` linearly along ``axis`` at fractional ``coordinates``; edge values extend outwards."""
    low, high, share = _neighbours(coordinates, values.shape[axis])
    weight = torch.from_numpy(share.astype(np.float32)).to(values)
    weight = weight.view([-1 if a == axis else 1 for a in range(values.ndim)])
    lower = values.index_select(axis, torch.from_numpy(low).to(values.device))
    upper = values.index_select(axis, torch.from_numpy(high).to(values.device))
    return lower.lerp_(upper, weight)


def axis_weights(axis_map: AxisMap, native_size: int, size: int) -> np.ndarray:
    """Return how much each planned index counts in the sum over all native indices, ``(size,)`` float64.

    The sum of :func:`sample_axis` over every native coordinate is this weighted sum of the planned values.
    """
    low, high, weight = _neighbours(axis_map.coordinates(0, native_size), size)
    return np.bincount(low, 1 - weight, size) + np.bincount(high, weight, size)


def _neighbours(coordinates: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The planned indices on both sides of each coordinate, clipped to the grid, and the weight of the upper one."""
    at = np.clip(coordinates, 0, size - 1)
    low = np.minimum(np.floor(at).astype(np.int64), max(size - 2, 0))
    return low, np.minimum(low + 1, size - 1), at - low


def check_like_support(volume: Volume, plan: Plan) -> None:
    """Raise InputError if a volume has other axes or channels than the support, or an extent that no scan has."""
    if volume.spatial_dims != plan.spatial_dims:
        raise InputError(
            f"{volume.name}: is {volume.spatial_dims}D but the support is {plan.spatial_dims}D",
            "use scans of the same kind as the support",
        )
    if volume.data.shape[0] != plan.channels:
        raise InputError(
            f"{volume.name}: has {volume.data.shape[0]} channel(s) but the support has {plan.channels}",
            "give the same channels in the same order",
        )
    sizes = [
        volume.spatial_shape[axis] * volume.spacing_mm[axis] / target
        for axis, target in zip(planned_order(volume, plan), plan.spacing_mm, strict=True)
    ]
    if np.prod(sizes) > MOST_PLANNED_VOXELS:
        extent = " x ".join(f"{n * s:.4g}" for n, s in zip(volume.spatial_shape, volume.spacing_mm, strict=True))
        raise InputError(
            f"{volume.name}: measures {extent} mm, {np.prod(sizes):.2g} voxels at the support's resolution",
            "check the spacing and its unit in the header",
        )


def _spacing(affine: np.ndarray, dims: int) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)[:dims]


def _block_factors(affine: np.ndarray, target_mm: Sequence[float], shape: Sequence[int]) -> tuple[int, ...]:
    ratio = np.asarray(target_mm) / _spacing(affine, len(target_mm))
    return tuple(max(1, min(int(r + 1e-3), size)) for r, size in zip(ratio, shape, strict=True))


def _coarse_affine(affine: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    scale = np.eye(4)
    for axis, factor in enumerate(factors):
        scale[axis, axis] = factor
        scale[axis, 3] = (factor - 1) / 2
    return affine @ scale


def _average_blocks(data: np.ndarray, affine: np.ndarray, target_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Average whole blocks of voxels before interpolation, which would otherwise keep all the noise of a fine scan."""
    factors = _block_factors(affine, target_mm, data.shape[1:])
    if all(factor == 1 for factor in factors):
        return data, affine
    pool = F.avg_pool2d if len(factors) == 2 else F.avg_pool3d
    channels = []
    for channel in data:
        # ceil_mode keeps the last, partial block and averages what there is of it.
        block = torch.from_numpy(_contiguous(channel))[None, None]
        channels.append(pool(block, factors, ceil_mode=True, count_include_pad=False)[0, 0].numpy())
    return np.stack(channels), _coarse_affine(affine, factors)


def _contiguous(data: np.ndarray) -> np.ndarray:
    data = np.ascontiguousarray(data, dtype=np.float32)
    # NumPy calls an array contiguous whatever the stride of an axis of one voxel; torch takes none that is negative.
    return data if min(data.strides) >= 0 else data.copy()


def _spaced_grid(
    shape: Sequence[int], affine: np.ndarray, target_mm: Sequence[float]
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine that MONAI's ``Spacing`` gives, without resampling anything."""
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    dims = len(shape)
    lazy = Spacing(_in_voxels(affine, target_mm), mode="nearest", lazy=True)
    pending = lazy(MetaTensor(torch.empty([1] * (dims + 1)).expand(1, *shape), affine=torch.eye(dims + 1)))
    result_shape = tuple(int(n) for n in pending.peek_pending_shape())
    return result_shape, affine @ _homogeneous(pending.peek_pending_affine())


def _respace(data: np.ndarray, affine: np.ndarray, target_mm: Sequence[float], mode: str) -> tuple[Tensor, np.ndarray]:
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    dims = len(target_mm)
    tensor = torch.from_numpy(_contiguous(data))
    image = MetaTensor(tensor, affine=torch.eye(dims + 1))
    spaced = Spacing(_in_voxels(affine, target_mm), mode=mode, padding_mode="border", dtype=torch.float32)(image)
    return spaced.as_tensor().contiguous(), affine @ _homogeneous(spaced.affine)


def _in_voxels(affine: np.ndarray, target_mm: Sequence[float]) -> tuple[float, ...]:
    """Target spacing in voxels of the grid at hand. MONAI sees an array without a frame and scales its axes alone.

    A planar slice may lie in any plane of the patient, where its (3, 3) affine would be singular; a residual shear of
    the header would be straightened, which no map of single axes can undo; and MONAI's tolerances are absolute.
    """
    ratio = np.asarray(target_mm, dtype=np.float64) / _spacing(affine, len(target_mm))
    return tuple(float(r) for r in ratio)


def _homogeneous(small: Tensor) -> np.ndarray:
    """(4, 4) from MONAI's (dims + 1, dims + 1)."""
    full = np.eye(4)
    keep = [*range(len(small) - 1), 3]
    full[np.ix_(keep, keep)] = small.numpy()
    return full


def _nearest(data: np.ndarray, maps: Sequence[AxisMap], order: AxisOrder, shape: Sequence[int]) -> np.ndarray:
    """Labels at the native voxel nearest to each planned voxel's centre; ``data`` is already reordered."""
    picks = []
    for planned_axis, (size, axis_map) in enumerate(zip(shape, maps, strict=True)):
        native = (np.arange(size) - axis_map.offset) / axis_map.step
        length = data.shape[planned_axis]
        index = np.clip(np.rint(native), 0, length - 1).astype(np.int64)
        picks.append(length - 1 - index if order.flip[planned_axis] else index)
    return data[np.ix_(*picks)].copy()


def _restore_lost(planned: np.ndarray, native: np.ndarray, maps: Sequence[AxisMap], classes: int) -> None:
    """Mark every planned voxel that a lost structure touches (in place)."""
    for index in range(1, classes + 1):
        if (planned == index).sum() >= 8:
            continue
        voxels = np.argwhere(native == index)
        if not len(voxels):
            continue
        at = [m.offset + m.step * voxels[:, m.native_axis] for m in maps]
        where = [np.clip(np.rint(a), 0, n - 1).astype(np.int64) for a, n in zip(at, planned.shape, strict=True)]
        planned[tuple(where)] = index
