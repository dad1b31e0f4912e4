"""What is known about each structure of a segmentation, as rows of plain numbers; and rows as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.errors import GridMismatchError, InputError
from medfewshot.report.ranks import compress


def structure_statistics(
    image: np.ndarray, labels: np.ndarray, affine: np.ndarray, names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """One row per structure in ``names`` (background excluded), those that were not found included.

    ``image``: ``(C, *S)``; intensities are those of the first channel, non-finite ones left out.
    ``labels``: ``(*S)`` integers. ``affine``: ``(4, 4)``, voxel -> RAS mm.

    Keys: ``label``, ``name``, ``voxels``, ``volume_ml`` (3D) or ``area_mm2`` (2D), the other one being None;
    ``mean``, ``std``, ``min``, ``max``, ``median``; ``centroid_voxel_{x,y,z}`` and ``centroid_{x,y,z}_mm`` (RAS);
    ``size_{x,y,z}_mm``: edge lengths of the box around it along the voxel axes; ``components``: face-connected parts.
    What is undefined, for an absent structure all but the counts and the volume, is None.
    """
    from scipy import ndimage

    if image.ndim != labels.ndim + 1 or image.shape[1:] != labels.shape:
        raise GridMismatchError(f"image (C, *S) {image.shape} and labels (*S) {labels.shape} do not fit together")
    if labels.ndim not in (2, 3):
        raise InputError(f"labels must have 2 or 3 axes, not {labels.ndim}")
    affine = np.asarray(affine, dtype=np.float64)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    volume_mm3 = abs(float(np.linalg.det(affine[:3, :3])))
    boxes = _boxes(labels)
    rows = []
    for value, name in names.items():
        if value == 0:
            continue
        box = boxes.get(int(value))
        mask = labels[box] == value if box is not None else np.zeros((0,) * labels.ndim, dtype=bool)
        voxels = int(np.count_nonzero(mask))
        flat = labels.ndim == 2
        row: dict[str, Any] = {
            "label": int(value),
            "name": str(name),
            "voxels": voxels,
            "volume_ml": None if flat else voxels * volume_mm3 / 1000,
            "area_mm2": voxels * float(spacing_mm[0] * spacing_mm[1]) if flat else None,
        }
        row |= dict.fromkeys(("mean", "std", "min", "max", "median"))
        row |= dict.fromkeys(f"centroid_voxel_{axis}" for axis in "xyz")
        row |= dict.fromkeys(f"centroid_{axis}_mm" for axis in "xyz")
        row |= dict.fromkeys(f"size_{axis}_mm" for axis in "xyz")
        row["components"] = 0
        if box is not None and voxels:
            intensities = image[0][box][mask].astype(np.float64)
            intensities = intensities[np.isfinite(intensities)]
            if intensities.size:
                row |= {f: float(getattr(np, f)(intensities)) for f in ("mean", "std", "min", "max", "median")}
            found = np.argwhere(mask)
            centre = np.zeros(3)
            centre[: labels.ndim] = found.mean(axis=0) + [side.start for side in box]
            centre_mm = affine[:3, :3] @ centre + affine[:3, 3]
            for i, axis in enumerate("xyz"[: labels.ndim]):
                row[f"centroid_voxel_{axis}"] = float(centre[i])
                row[f"size_{axis}_mm"] = float((box[i].stop - box[i].start) * spacing_mm[i])
            row |= {f"centroid_{axis}_mm": float(centre_mm[i]) for i, axis in enumerate("xyz")}
            row["components"] = int(ndimage.label(mask)[1])
        rows.append(row)
    return rows


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Rows as CSV with a header, the columns in the order in which they first appear; None is an empty cell. Atomic."""
    from medfewshot.io import atomic_path

    path = Path(path)
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _boxes(labels: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """Label value -> the smallest box that holds it. Any integer values, huge ones included."""
    from scipy import ndimage

    values, (ranks,) = compress(labels)
    boxes = ndimage.find_objects(ranks, max_label=len(values) - 1)  # of ranks 1, 2, ...: background left out
    return {value: box for value, box in zip(values[1:], boxes, strict=True) if box is not None}
