"""Small files with known geometry, written by the libraries themselves and not by the room under test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

SHAPE = (4, 5, 6)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def signed_permutations() -> list[np.ndarray]:
    """The 48 axis orders and flips."""
    return [
        np.eye(3)[:, list(order)] * np.array(signs)
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
    ]


def rotation(angles: Sequence[float]) -> np.ndarray:
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


def affine_of(
    axes: np.ndarray, spacing: Sequence[float] = (0.7, 1.5, 5.0), origin: Sequence[float] = (-31.5, 12.25, 100.0)
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine


OBLIQUE = affine_of(rotation((0.2, -0.35, 0.6)))


def ramp(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Every voxel has its own value, so that any mix-up of axes shows."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def write_nifti(
    path: Path, data: np.ndarray | None = None, affine: np.ndarray = OBLIQUE, codes: tuple[int, int] = (1, 1)
) -> Path:
    """``codes``: of the sform and of the qform."""
    image: Any = nib.Nifti1Image(ramp() if data is None else data, affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    nib.save(image, path)
    return path


def write_itk(path: Path, data: np.ndarray | None = None, affine: np.ndarray = OBLIQUE) -> Path:
    image = sitk.GetImageFromArray(np.ascontiguousarray((ramp() if data is None else data).T))
    dims = image.GetDimension()
    lps = (LPS @ affine)[:3, :3]
    spacing = np.linalg.norm(lps, axis=0)
    image.SetSpacing(spacing[:dims].tolist())
    image.SetDirection((lps / spacing)[:dims, :dims].ravel().tolist())
    image.SetOrigin((LPS @ affine)[:dims, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path


def write_picture(path: Path, data: np.ndarray, is_vector: bool = False) -> Path:
    """``data``: ``(X, Y)`` or, as colours, ``(X, Y, C)``."""
    sitk.WriteImage(
        sitk.GetImageFromArray(np.ascontiguousarray(np.swapaxes(data, 0, 1)), isVector=is_vector), str(path)
    )
    return path


def write_dicom(
    folder: Path,
    affine: np.ndarray = OBLIQUE,
    data: np.ndarray | None = None,
    series: str = "1.2.826.0.1.3680043.2.1125.1",
    keep: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    tags: dict[str, str] | None = None,
    decimals: int = 9,
) -> list[Path]:
    """One file a slice, in the order of ``keep``; ``names`` are given out in that order too. Positions are rounded."""
    folder.mkdir(parents=True, exist_ok=True)
    data = ramp() if data is None else data
    keep = range(data.shape[2]) if keep is None else keep
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    files = []
    for number, index in enumerate(keep):
        image = sitk.GetImageFromArray(np.ascontiguousarray(data[:, :, index : index + 1].T))
        image.SetSpacing(spacing.tolist())
        position = np.round(lps[:3, 3] + index * lps[:3, 2], decimals)
        values = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{series}.{number + 1}.{index + 1}",
            "0008|0060": "MR",
            "0008|103e": "synthetic",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.99",
            "0020|000e": series,
            "0020|0013": str(number + 1),
            "0020|0032": "\\".join(f"{x:.10g}" for x in position),
            "0020|0037": "\\".join(f"{x:.10g}" for x in axes[:, :2].T.ravel()),
            "0018|0050": f"{spacing[2]:.10g}",
            **(tags or {}),
        }
        for tag, value in values.items():
            image.SetMetaData(tag, value)
        files.append(folder / (names[number] if names else f"{number:03}.dcm"))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(files[-1]))
        writer.Execute(image)
    return files


def place(affine: np.ndarray, index: float, shift: float = 0.0) -> dict[str, str]:
    """The tag of a position: ``index`` slices along the normal, ``shift`` pixels aside."""
    lps = LPS @ affine
    position = lps[:3, 3] + index * lps[:3, 2] + shift * lps[:3, 0]
    return {"0020|0032": "\\".join(f"{x:.10g}" for x in position)}


def corners(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(product(*((0, n - 1) for n in shape)))


def itk_points(path: Path) -> np.ndarray:
    """RAS positions of the corner voxels as SimpleITK sees them."""
    image = sitk.ReadImage(str(path))
    points = [image.TransformIndexToPhysicalPoint([int(i) for i in corner]) for corner in corners(image.GetSize())]
    return np.array(points) * (-1, -1, 1)


def nibabel_points(path: Path) -> np.ndarray:
    image: Any = nib.load(path)
    return nib.affines.apply_affine(image.affine, np.array(corners(image.shape)))


def points_of(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return nib.affines.apply_affine(affine, np.array(corners(shape)))
