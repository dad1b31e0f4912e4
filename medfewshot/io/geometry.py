"""Affines: ITK's LPS and nibabel's RAS, what counts as a usable grid, and whether two grids are the same."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.io.header import Header
from medfewshot.types import Volume

SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two axes that still counts as a right angle; float32 headers reach 1e-6."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_from_itk(image: Any) -> np.ndarray:
    """(4, 4) RAS affine of a 2D or 3D ``SimpleITK.Image``; 2D gets a third axis of 1 mm."""
    dims = image.GetDimension()
    affine = np.eye(4)
    affine[:dims, :dims] = np.reshape(image.GetDirection(), (dims, dims)) * np.asarray(image.GetSpacing())
    affine[:dims, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def affine_to_itk(affine: np.ndarray, image: Any, name: str) -> None:
    """Place a 2D or 3D ``SimpleITK.Image`` where the RAS affine says."""
    dims = image.GetDimension()
    lps = LPS_TO_RAS @ affine
    if dims == 2 and np.abs(lps[2, :2]).max() > 1e-6:
        raise InputError(f"{name}: a tilted 2D slice has no place in this format; write .nii.gz")
    spacing = np.linalg.norm(lps[:dims, :dims], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:dims, :dims] / spacing).ravel().tolist())
    image.SetOrigin(lps[:dims, 3].tolist())


def complete_2d(affine: np.ndarray) -> np.ndarray:
    """Give a 2D grid a third axis of 1 mm along its normal; files leave it empty, zero or arbitrary."""
    affine = np.array(affine, dtype=np.float64)
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = np.linalg.norm(normal)
    if length > 0:
        affine[:3, 2] = normal / length
    return affine


def check_affine(affine: np.ndarray, name: str) -> None:
    """Raise InputError unless the three axes are finite, of some length and at right angles."""
    if not np.isfinite(affine).all():
        raise InputError(f"{name}: the affine holds NaN or infinite numbers; convert the file again from its source")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < 1e-6:
        raise InputError(
            f"{name}: the voxel spacing is {_numbers(lengths)} mm, and zero is no spacing; "
            "set the true spacing in the header or convert the file again from its source"
        )
    degrees = shear_degrees(affine)
    if np.sin(np.radians(degrees)) > SHEAR_TOLERANCE:
        raise InputError(
            f"{name}: the grid is sheared, its axes are {degrees:.2f} degrees off a right angle (gantry tilt, or an "
            "affine registration in the header); resample it onto an orthogonal grid first"
        )


def shear_degrees(affine: np.ndarray) -> float:
    """The largest deviation from a right angle between two voxel axes."""
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(unit.T @ unit - np.eye(3)).max()
    return float(np.degrees(np.arcsin(min(cosines, 1.0))))


def corner_distance_mm(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart, at most, two affines put the same voxel; the maximum over a box lies on a corner."""
    box = tuple(shape) + (1,) * (3 - len(shape))
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in box))], dtype=np.float64)
    return float(np.linalg.norm(((first - second) @ corners.T)[:3], axis=0).max())


def default_tolerance_mm(affine: np.ndarray, dims: int = 3) -> float:
    """5 % of the smallest voxel edge: too little to move a boundary, more than any header rounds away."""
    return max(0.05 * float(np.linalg.norm(affine[:3, :dims], axis=0).min()), 0.01)


def check_same_grid(image: Volume, label: Volume, tolerance_mm: float | None = None) -> None:
    """Raise GridMismatchError unless both lie on one voxel grid.

    ``tolerance_mm``: how far apart the same corner voxel may lie; by default 5 % of the smallest voxel edge, at least
    0.01 mm. Where either file knows no millimetres (PNG, JPEG), only the shapes are compared.
    """
    if image.spatial_shape != label.spatial_shape:
        raise GridMismatchError(
            f"{image.name} and {label.name} differ in shape, {_shape(image)} and {_shape(label)} voxels; "
            "resample one onto the other's grid (labels with nearest neighbour)"
        )
    if not (_has_spacing(image) and _has_spacing(label)):
        return
    if tolerance_mm is None:
        tolerance_mm = default_tolerance_mm(image.affine, image.spatial_dims)
    distance = corner_distance_mm(image.affine, label.affine, image.spatial_shape)
    if not distance <= tolerance_mm:
        raise GridMismatchError(
            f"{image.name} and {label.name} lie on different grids: the same voxel is up to {distance:.4g} mm apart "
            f"({tolerance_mm:.3g} mm is tolerated; {_grid(image)} and {_grid(label)}); resample one onto the other's "
            "grid (labels with nearest neighbour), or copy the header if only the header is wrong"
        )


def in_frame_of(image: Volume, label: Volume) -> Volume:
    """The label map with the affine of its image, on whose voxel grid it lies.

    A mask drawn as PNG knows no millimetres, its scan may; and what headers round differently must not shift a label.
    Raises GridMismatchError as :func:`check_same_grid`.
    """
    check_same_grid(image, label)
    return replace(label, affine=image.affine)


def _has_spacing(volume: Volume) -> bool:
    return not isinstance(volume.header, Header) or volume.header.has_spacing


def _shape(volume: Volume) -> str:
    return "x".join(map(str, volume.spatial_shape))


def _grid(volume: Volume) -> str:
    return f"spacing {_numbers(volume.spacing_mm)} at {_numbers(volume.affine[:3, 3])}"


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{float(value):.6g}" for value in values) + ")"
