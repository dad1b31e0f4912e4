"""Resample volumes to the plan's grid and map back to the original grid, axis by axis.

A planned grid is the original one with axes reordered, flipped and rescaled, so each planned axis depends on one
original axis alone. The way back is therefore one linear interpolation per axis, which inference applies slab by slab.
Memory stays bounded, whereas MONAI's ``Invertd`` would keep every class on the original grid. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from medfewshot.errors import InputError
from medfewshot.io import as_2d
from medfewshot.planning.normalise import normalise
from medfewshot.types import IGNORED, Plan, Support, Volume

MAX_PLANNED_VOXELS = 2e9
"""A volume that is larger than this on the plan's grid has a wrong spacing, such as metres for millimetres."""
SAME_SPACING = 1e-3
"""Spacings that differ by a smaller share are the same, so that nothing is interpolated."""
LOST_VOXELS = 8
"""A structure with fewer planned voxels gets every planned voxel that it touches."""


@dataclass(frozen=True)
class AxisMap:
    """Maps original to planned indices along one axis: ``planned = offset + step * original``.

    Args:
        original_axis: Axis of the original grid.
        step: Planned voxels per original voxel; negative for a flipped axis.
        offset: Planned index of original index 0.
    """

    original_axis: int
    step: float
    offset: float

    def coordinates(self, start: int, stop: int) -> np.ndarray:
        """Return the planned coordinates of original indices ``start..stop-1``."""
        return self.offset + self.step * np.arange(start, stop, dtype=np.float64)


@dataclass(frozen=True)
class Planned:
    """An image on the plan's grid, and the way back.

    Args:
        image: ``(C, *P)`` float32, normalised.
        maps: One :class:`AxisMap` per planned axis.
        affine: ``(4, 4)``, planned index -> RAS mm.
        original_shape: ``(*S)``; of a volume of one slice on a 2D plan, without the axis of one voxel.
    """

    image: Tensor
    maps: tuple[AxisMap, ...]
    affine: np.ndarray
    original_shape: tuple[int, ...]


@dataclass(frozen=True)
class _Grid:
    """The plan's grid in one volume.

    Attributes:
        orientation: See :func:`orientation_to`.
        blocks: Voxels that are averaged along each planned axis before interpolation, ``(D,)``.
        step: Edges of a planned voxel, in averaged blocks, ``(D,)``.
        shape: ``(*P)``.
        affine: ``(4, 4)``, planned index -> RAS mm.
        maps: One per planned axis.
    """

    orientation: np.ndarray
    blocks: np.ndarray
    step: np.ndarray
    shape: tuple[int, ...]
    affine: np.ndarray
    maps: tuple[AxisMap, ...]


def to_plan(volume: Volume, plan: Plan) -> Planned:
    """Resample an image to the plan's frame and spacing, and normalise its intensities.

    Raises:
        InputError: See :func:`check_like_support`.
    """
    volume = in_plan_dims(volume, plan)
    check_like_support(volume, plan)
    grid = _grid(volume, plan)
    data, _ = reorient(volume, grid.orientation)
    image = _respace(_average_blocks(data, grid.blocks), grid)
    return Planned(normalise(image, plan.normalization), grid.maps, grid.affine, volume.spatial_shape)


def labels_to_plan(label: Volume, plan: Plan) -> Tensor:
    """Return labels ``(*P)`` int64 on the plan's grid: 0 = background and 1..N in the order of ``plan.labels``.

    Voxels that are not annotated stay :data:`~medfewshot.types.IGNORED`. Each voxel takes the nearest original voxel;
    of two that are equally near, the upper and the lower one in turn like a chessboard, so that no label is shifted.
    A structure that is too small for the grid gets every planned voxel that it touches.
    """
    label = in_plan_dims(label, plan)
    grid = _grid(label, plan)
    classes = np.zeros(label.spatial_shape, dtype=np.int16)
    for index, value in enumerate(plan.label_values, start=1):
        classes[label.data[0] == value] = index
    classes[label.data[0] == IGNORED] = IGNORED
    axes = list(zip(grid.shape, grid.maps, strict=True))
    turned = classes.transpose([m.original_axis for _, m in axes])
    lower, upper = (
        turned[np.ix_(*map(_whole, [(np.arange(n) + tie - m.offset) / m.step for n, m in axes], turned.shape))]
        for tie in (-1e-6, 1e-6)
    )
    odd = sum(np.ogrid[tuple(map(slice, grid.shape))]) % 2 == 1
    planned = np.where(odd, upper, lower).astype(np.int64)
    if (unknown := planned == IGNORED).any():  # an annotated slice must not fall between two planned ones: it votes
        most = np.zeros(grid.shape, dtype=np.int64)
        for index in range(plan.classes):
            cells = np.ravel_multi_index(_touched(classes == index, grid), grid.shape)
            votes = np.bincount(cells, minlength=most.size).reshape(grid.shape)
            planned[unknown & ((votes > most) | (odd & (votes == most) & (votes > 0)))] = index
            most = np.maximum(most, votes)
    for index in range(1, plan.classes):
        if np.count_nonzero(planned == index) < LOST_VOXELS:
            planned[_touched(classes == index, grid)] = index
    return torch.from_numpy(planned)


def _touched(mask: np.ndarray, grid: _Grid) -> tuple[np.ndarray, ...]:
    """Return the planned voxels that contain voxels of a mask ``(*S)``, as one array of indices per planned axis."""
    voxels = np.argwhere(mask)
    at = [m.offset + m.step * voxels[:, m.original_axis] for m in grid.maps]
    return tuple(_whole(a, size) for a, size in zip(at, grid.shape, strict=True))


def in_plan_dims(volume: Volume, plan: Plan) -> Volume:
    """Return a volume of one slice as a 2D image if the plan is for 2D images."""
    return as_2d(volume) if plan.spatial_dims == 2 else volume


def axis_maps(volume: Volume, plan: Plan) -> tuple[AxisMap, ...]:
    """Return how each planned axis follows from an axis of the volume."""
    return _grid(volume, plan).maps


def make_support(images: Sequence[Volume], labels: Sequence[Volume], plan: Plan) -> Support:
    """Resample every labelled volume to the planned grid: the tensors that learners adapt to.

    Raises:
        InputError: An image and its label are on different grids.
    """
    planned = tuple(to_plan(image, plan).image for image in images)
    marked = tuple(labels_to_plan(label, plan) for label in labels)
    for image, label, volume in zip(planned, marked, images, strict=True):
        if image.shape[1:] != label.shape:
            raise InputError(f"{volume.name}: the scan and its label do not fit, {image.shape[1:]} and {label.shape}")
    return Support(planned, marked, plan.classes, patch_size=plan.patch_size, spacing_mm=plan.spacing_mm)


def direction_cosines(affine: np.ndarray) -> np.ndarray:
    """Return the unit column vectors ``(3, 3)`` of a voxel -> RAS mm affine."""
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    return matrix / np.linalg.norm(matrix, axis=0, keepdims=True)


def orientation_to(volume: Volume, axes: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Return the axis order and flips, of 48, that bring a volume closest to the frame of the support.

    Closest-canonical orientation is wrong for oblique stacks: near 45 degrees it puts the slice axis first in one
    subject and second in the next. 2D images have no patient frame: they stay as they are. A volume of one slice has
    one: its two axes are turned, and the axis of one voxel stays the third.

    Args:
        volume: Any.
        axes: Direction cosines ``(3, 3)`` of the support's frame, as columns.

    Returns:
        ``(3, 2)`` as in nibabel: row i has the planned axis that original axis i becomes, and -1 if it is reversed.
    """
    if volume.spatial_dims == 2 and volume.slice_of is None:
        return np.array([(0, 1), (1, 1), (2, 1)])
    agreement = np.asarray(axes, dtype=np.float64).T @ direction_cosines(volume.affine)
    if volume.slice_of is not None:
        agreement[2, 2] = 9  # more than all others together
    planned, original = linear_sum_assignment(np.abs(agreement), maximize=True)
    orientation = np.empty((3, 2), dtype=int)
    orientation[original] = np.stack([planned, np.where(agreement[planned, original] < 0, -1, 1)], axis=1)
    return orientation


def reorient(volume: Volume, orientation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return data ``(C, *S)``, a view, and affine ``(4, 4)`` with reordered axes."""
    data = nib.orientations.apply_orientation(np.moveaxis(volume.data, 0, -1), orientation)
    shape = (*volume.spatial_shape, 1)[:3]
    return np.moveaxis(data, -1, 0), volume.affine @ nib.orientations.inv_ornt_aff(orientation, shape)


def planned_order(volume: Volume, axes: Sequence[Sequence[float]] | np.ndarray) -> list[int]:
    """Return the original axis that becomes each planned axis; ``axes`` as in :func:`orientation_to`."""
    return np.argsort(orientation_to(volume, axes)[: volume.spatial_dims, 0]).tolist()


def sample_axis(values: Tensor, coordinates: np.ndarray, axis: int) -> Tensor:
    """Interpolate ``values`` linearly along ``axis`` at fractional ``coordinates``; edge values extend outwards."""
    low, high, share = _neighbours(coordinates, values.shape[axis])
    weight = torch.from_numpy(share.astype(np.float32)).to(values)
    weight = weight.view([-1 if a == axis else 1 for a in range(values.ndim)])
    lower = values.index_select(axis, torch.from_numpy(low).to(values.device))
    upper = values.index_select(axis, torch.from_numpy(high).to(values.device))
    return lower.lerp_(upper, weight)


def to_original(
    planned: Tensor,
    maps: Sequence[AxisMap],
    shape: Sequence[int],
    sample: Callable[[Tensor, np.ndarray, int], Tensor] = sample_axis,
) -> Tensor:
    """Interpolate maps ``(K, *P)`` of the planned grid on the original grid ``(K, *S)``, axis by axis."""
    for axis, axis_map in enumerate(maps, start=1):
        planned = sample(planned, axis_map.coordinates(0, shape[axis_map.original_axis]), axis)
    back = np.argsort([axis_map.original_axis for axis_map in maps])
    return planned.permute(0, *(back + 1).tolist())


def axis_weights(axis_map: AxisMap, original_size: int, size: int) -> np.ndarray:
    """Return how much each planned index counts in the sum over all original indices, ``(size,)`` float64.

    The sum of :func:`sample_axis` over every original coordinate is this weighted sum of the planned values.
    """
    low, high, weight = _neighbours(axis_map.coordinates(0, original_size), size)
    return np.bincount(low, 1 - weight, size) + np.bincount(high, weight, size)


def _neighbours(coordinates: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the planned indices below and above each coordinate, clipped to the grid, and the upper one's weight."""
    at = np.clip(coordinates, 0, size - 1)
    low = np.minimum(np.floor(at).astype(np.int64), max(size - 2, 0))
    return low, np.minimum(low + 1, size - 1), at - low


def check_like_support(volume: Volume, plan: Plan) -> None:
    """Check that a volume has the axes and channels of the support.

    Raises:
        InputError: It has not, or it is larger than any scan.
    """
    volume = in_plan_dims(volume, plan)
    if volume.spatial_dims != plan.spatial_dims:
        raise InputError(
            f"{volume.name}: is {volume.spatial_dims}D but the support is {plan.spatial_dims}D",
            "use scans of the same kind as the support",
        )
    if volume.data.shape[0] != plan.channels:
        raise InputError(
            f"{volume.name}: has {volume.data.shape[0]} channel(s) but the support has {plan.channels}",
            "give the same channels in the same order; a colour picture has three, a grey one has one",
        )
    extent_mm = np.multiply(volume.spatial_shape, volume.spacing_mm)
    voxels = np.prod(extent_mm) / np.prod(plan.spacing_mm)
    if voxels > MAX_PLANNED_VOXELS:
        raise InputError(
            f"{volume.name}: measures {' x '.join(f'{mm:.4g}' for mm in extent_mm)} mm, {voxels:.2g} voxels at the "
            "support's resolution",
            "check the spacing and its unit in the header",
        )


def _grid(volume: Volume, plan: Plan) -> _Grid:
    """Compute the plan's grid in a volume. It keeps the residual shear of a header."""
    orientation, dims = orientation_to(volume, plan.axes), volume.spatial_dims
    _, affine = reorient(volume, orientation)
    order = np.argsort(orientation[:dims, 0]).tolist()
    sizes = np.array(volume.spatial_shape)[order]
    blocks = np.clip((plan.spacing_mm / _spacing(affine, dims) + 1e-3).astype(np.int64), 1, sizes)
    to_blocks = np.diag([*blocks, 1.0, 1.0][:4])
    to_blocks[:dims, 3] = (blocks - 1) / 2
    step = plan.spacing_mm / _spacing(affine @ to_blocks, dims)
    step[np.abs(step - 1) <= SAME_SPACING] = 1
    shape = np.round(1 / step * (np.ceil(sizes / blocks) - 1) + 1)
    planned = affine @ to_blocks @ np.diag([*step, 1.0, 1.0][:4])
    matrix = np.linalg.inv(planned) @ volume.affine
    maps = tuple(AxisMap(axis, float(matrix[i, axis]), float(matrix[i, 3])) for i, axis in enumerate(order))
    return _Grid(orientation, blocks, step, tuple(int(n) for n in shape), planned, maps)


def _spacing(affine: np.ndarray, dims: int) -> np.ndarray:
    return np.linalg.norm(affine[:3, :3], axis=0)[:dims]


def _average_blocks(data: np.ndarray, blocks: np.ndarray) -> Tensor:
    """Average blocks of voxels before interpolation, which would otherwise keep the noise of a fine scan."""
    image = _as_tensor(data)
    if (blocks == 1).all():
        return image
    pool = F.avg_pool2d if len(blocks) == 2 else F.avg_pool3d
    # ceil_mode keeps the last, partial block and averages what there is of it.
    return pool(image, tuple(blocks.tolist()), ceil_mode=True, count_include_pad=False)


def _as_tensor(data: np.ndarray) -> Tensor:
    data = np.ascontiguousarray(data, dtype=np.float32)
    # NumPy ignores the stride of an axis of one voxel; torch refuses it if negative. It warns of read-only arrays.
    return torch.from_numpy(data if min(data.strides) >= 0 and data.flags.writeable else data.copy())


def _respace(image: Tensor, grid: _Grid) -> Tensor:
    """Interpolate linearly, axis by axis; edge values extend outwards."""
    for axis, (size, step) in enumerate(zip(grid.shape, grid.step, strict=True), start=1):
        if step != 1 or size != image.shape[axis]:
            image = sample_axis(image, np.arange(size) * step, axis)
    return image.contiguous()


def _whole(coordinates: np.ndarray, size: int) -> np.ndarray:
    """Round coordinates to the indices of an axis of ``size`` voxels."""
    return np.clip(np.rint(coordinates), 0, size - 1).astype(np.int64)
