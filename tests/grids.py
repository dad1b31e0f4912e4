"""Small volumes on known grids, for the tests of planning and inference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
from scipy.spatial.transform import Rotation

from medfewshot.types import Normalization, Plan, Volume

AS_IT_IS = Normalization("window", -1e6, 1e6, 0.0, 1.0)
"""A window so wide that intensities stay what they are."""

ALL_ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)), dtype=float)
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3))
]
"""The 48 axis orders and flips, as nibabel writes them."""


def affine_of(
    spacing: Sequence[float], degrees: Sequence[float] = (0, 0, 0), origin: Sequence[float] = (0, 0, 0)
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def volume_of(data: np.ndarray, affine: np.ndarray | None = None, **more: Any) -> Volume:
    """``data (*S)`` of an image (float) or a label map (integer)."""
    data = np.asarray(data)
    data = data.astype(np.float32) if data.dtype.kind == "f" else data
    return Volume(data[None], np.eye(4) if affine is None else affine, **more)


def reoriented(volume: Volume, orientation: np.ndarray) -> Volume:
    """The same volume with other axes, by nibabel."""
    image = nib.Nifti1Image(volume.data[0], volume.affine).as_reoriented(orientation)
    return volume_of(np.asanyarray(image.dataobj), image.affine)


def points_mm(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Voxel centres in mm, ``(3, *S)``; the third coordinate of a 2D index is 0."""
    full = (*shape, *(1,) * (3 - len(shape)))
    index = np.stack(np.meshgrid(*[np.arange(n) for n in full], indexing="ij")).astype(float)
    mm = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)
    return mm.reshape(3, *shape)


def centre_mm(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    full = np.array([*shape, *(1,) * (3 - len(shape))], dtype=float)
    return affine[:3, :3] @ ((full - 1) / 2) + affine[:3, 3]


def distance_mm(affine: np.ndarray, shape: Sequence[int], centre: np.ndarray | None = None) -> np.ndarray:
    """Distance ``(*S)`` of every voxel centre from a point, by default the middle of the volume."""
    centre = centre_mm(affine, shape) if centre is None else centre
    return np.linalg.norm(points_mm(affine, shape) - centre.reshape(3, *[1] * len(shape)), axis=0)


def soft_ball(affine: np.ndarray, shape: Sequence[int], radius_mm: float, width_mm: float = 1.0) -> np.ndarray:
    """1 inside, 0 outside, 0.5 on the sphere, with an edge about ``width_mm`` wide."""
    return 1 / (1 + np.exp(np.clip((distance_mm(affine, shape) - radius_mm) / (width_mm / 4), -50, 50)))


def plan_of(spacing: Sequence[float], **changes: Any) -> Plan:
    dims = len(spacing)
    fields: dict[str, Any] = {
        "spatial_dims": dims,
        "channels": 1,
        "axes": tuple(tuple(float(v) for v in row) for row in np.eye(3)),
        "spacing_mm": tuple(float(v) for v in spacing),
        "patch_size": (16,) * dims,
        "normalization": (AS_IT_IS,),
        "labels": {1: "one"},
    }
    return Plan(**fields | changes)


def axes_of(affine: np.ndarray) -> tuple[tuple[float, ...], ...]:
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return tuple(tuple(float(v) for v in row) for row in unit)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))
