"""Affines: which grids are usable, and whether two volumes lie on the same grid."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.types import Volume

SPACING_MM = (1e-6, 1000.0)
"""Smallest and largest edge of a voxel: electron microscopes need a few nanometres."""
SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two axes that still counts as a right angle. float32 headers reach 1e-6."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the world axes of DICOM and ITK to those of NIfTI, and back."""


def complete_2d(affine: np.ndarray) -> np.ndarray:
    """Give a 2D grid a third axis of 1 mm along its normal. Files leave it empty, zero or arbitrary."""
    affine = np.array(affine, dtype=np.float64)
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = np.linalg.norm(normal)
    if length > 0:
        affine[:3, 2] = normal / length
    return affine


def as_2d(volume: Volume) -> Volume:
    """Drop the axis of one voxel of a volume of one slice. Every other volume stays as it is."""
    shape = volume.spatial_shape
    if len(shape) != 3 or shape.count(1) != 1:
        return volume
    across = shape.index(1)
    affine = complete_2d(volume.affine[:, [*(axis for axis in range(3) if axis != across), across, 3]])
    return replace(volume, data=volume.data.squeeze(across + 1), affine=affine, slice_of=shape)


def check_affine(affine: np.ndarray, name: str) -> None:
    """Raise InputError unless the three axes are finite, of a possible length and at right angles."""
    if affine.shape != (4, 4):
        raise InputError(f"{name}: the affine has the shape {affine.shape}, not (4, 4)", "give the affine to RAS mm")
    if not np.isfinite(affine).all():
        raise InputError(
            f"{name}: the affine contains NaN or infinite numbers", "convert the file again from its source"
        )
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not SPACING_MM[0] <= lengths.min() <= lengths.max() <= SPACING_MM[1]:
        why = "zero is no spacing" if lengths.min() < SPACING_MM[0] else "is it in another unit?"
        raise InputError(
            f"{name}: the voxel spacing is {_numbers(lengths)} mm; {why}",
            "set the true spacing in the header or convert the file again from its source",
        )
    unit = affine[:3, :3] / lengths
    cosine = np.abs(unit.T @ unit - np.eye(3)).max()
    if cosine > SHEAR_TOLERANCE:
        degrees = np.degrees(np.arcsin(min(cosine, 1.0)))
        raise InputError(
            f"{name}: the grid is sheared, its axes are {degrees:.2f} degrees off a right angle (gantry tilt, or an "
            "affine registration in the header)",
            "resample it onto an orthogonal grid first",
        )


def corner_distance_mm(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance between two affines' positions of the same voxel, which occurs at a corner."""
    box = tuple(shape) + (1,) * (3 - len(shape))
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in box))], dtype=np.float64)
    return float(np.linalg.norm(((first - second) @ corners.T)[:3], axis=0).max())


def tolerance_mm(affine: np.ndarray, dims: int) -> float:
    """5 % of the smallest voxel edge, or 0.01 mm if that is more, as headers round; at most 25 %: moves no boundary."""
    edge = float(np.linalg.norm(affine[:3, :dims], axis=0).min())
    return max(0.05 * edge, min(0.01, 0.25 * edge))


def check_same_grid(image: Volume, label: Volume) -> None:
    """Check that two volumes lie on one voxel grid. If a file states no millimetres (PNG), only shapes are compared.

    Raises:
        GridMismatchError: Their shapes differ, or a corner is farther apart than :func:`tolerance_mm`.
    """
    shapes = ["x".join(map(str, volume.spatial_shape)) for volume in (image, label)]
    if shapes[0] != shapes[1]:
        raise GridMismatchError(
            f"{image.name} and {label.name} differ in shape, {shapes[0]} and {shapes[1]} voxels",
            "resample one onto the other's grid (labels with nearest neighbour)",
        )
    if not (image.has_spacing and label.has_spacing):
        return
    tolerance = tolerance_mm(image.affine, image.spatial_dims)
    distance = corner_distance_mm(image.affine, label.affine, image.spatial_shape)
    if not distance <= tolerance:
        raise GridMismatchError(
            f"{image.name} and {label.name} lie on different grids: the same voxel is up to {distance:.4g} mm apart "
            f"({tolerance:.3g} mm is tolerated, {_grid(image)} and {_grid(label)})",
            "resample one onto the other's grid (labels with nearest neighbour), or copy the header if only the "
            "header is wrong",
        )


def in_voxels(volume: Volume) -> Volume:
    """Return the volume without its spacing, as a PNG has none; its warnings say so.

    If only some supports state millimetres, all are compared voxel for voxel.
    """
    if not volume.has_spacing:
        return volume
    affine = volume.affine.copy()
    affine[:3, :3] /= np.linalg.norm(affine[:3, :3], axis=0)
    text = "taken voxel for voxel, because other supports have no spacing"
    return replace(volume, affine=affine, has_spacing=False, warnings=(*volume.warnings, text))


def _grid(volume: Volume) -> str:
    return f"spacing {_numbers(volume.spacing_mm)} at {_numbers(volume.affine[:3, 3])}"


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{float(value):.6g}" for value in values) + ")"
