"""What is known about each structure of a segmentation, as rows of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.structures import Structure, structures, voxel_size

INTENSITIES = ("mean", "std", "min", "max", "median")


def structure_statistics(
    image: np.ndarray, labels: np.ndarray, affine: np.ndarray, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Return one row per structure in ``names``, whether it was found or not; label 0 is ignored.

    Args:
        image: ``(C, *S)``; intensities are the finite ones of the first channel.
        labels: ``(*S)`` integers.
        affine: ``(4, 4)``, voxel -> RAS mm.
        names: label value -> name.

    Returns:
        Rows with ``label``, ``name``, ``voxels``; ``volume_ml`` (3D) or ``area_mm2`` (2D), the other one is None;
        ``mean``, ``std``, ``min``, ``max``, ``median``; ``centroid_voxel_{x,y,z}`` and ``centroid_{x,y,z}_mm`` (RAS);
        ``size_{x,y,z}_mm``, the edges of the box around it along the voxel axes; ``components``, parts that do not
        touch, not even at a corner. What is undefined is None: for an absent structure, all but counts and volume.

    Raises:
        GridMismatchError: if image and labels differ in shape.
        InputError: if the labels are neither 2D nor 3D.
    """
    if image.ndim != labels.ndim + 1 or image.shape[1:] != labels.shape:
        raise GridMismatchError(f"image (C, *S) {image.shape} and labels (*S) {labels.shape} do not fit together")
    if labels.ndim not in (2, 3):
        raise InputError(f"labels must have 2 or 3 axes, not {labels.ndim}")
    affine = np.asarray(affine, dtype=np.float64)
    found = structures(labels)
    wanted = {int(value): str(name) for value, name in names.items() if value != 0}
    return [_row(value, name, found.get(value), image[0], affine) for value, name in wanted.items()]


def _row(value: int, name: str, structure: Structure | None, image: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    voxels = structure.voxels if structure else 0
    size = voxels * voxel_size(affine, image.ndim)
    flat = image.ndim == 2
    row: dict[str, Any] = {"label": value, "name": name, "voxels": voxels}
    row |= {"volume_ml": None if flat else size / 1000, "area_mm2": size if flat else None}
    row |= dict.fromkeys(INTENSITIES)
    for key in ("centroid_voxel_{}", "centroid_{}_mm", "size_{}_mm"):
        row |= dict.fromkeys(map(key.format, "xyz"))
    row["components"] = 0
    if structure is None:
        return row
    intensities = image[structure.box][structure.mask].astype(np.float64)
    intensities = intensities[np.isfinite(intensities)]
    if intensities.size:
        row |= {key: float(getattr(np, key)(intensities)) for key in INTENSITIES}
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    for i, axis in enumerate("xyz"[: image.ndim]):
        row[f"centroid_voxel_{axis}"] = float(structure.centroid[i])
        row[f"size_{axis}_mm"] = float(structure.extent[i] * spacing_mm[i])
    row |= {f"centroid_{axis}_mm": mm for axis, mm in zip("xyz", structure.centroid_mm(affine), strict=True)}
    row["components"] = len(structure.component_voxels)
    return row
