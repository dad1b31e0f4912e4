"""Volumes and pictures small enough to travel inside a page."""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medfewshot.report.display import robust_window
from medfewshot.report.page.content import Viewer

LARGEST_CASE = 3_000_000
"""Voxels of one case in the page."""
ALL_CASES = 40_000_000
"""Voxels of all cases together: about as many bytes in the page."""
SMALLEST_CASE = 100_000
PREVIEW_WIDTH = 1100


def voxel_budget(cases: int) -> int:
    """How many voxels each of so many cases may have."""
    return int(np.clip(ALL_CASES // max(1, cases), SMALLEST_CASE, LARGEST_CASE))


def make_viewer(
    image: np.ndarray,
    labels: np.ndarray,
    affine: np.ndarray,
    values: Sequence[int],
    budget: int,
    reference: np.ndarray | None = None,
) -> Viewer:
    """A case for the viewer, in 8 bits and coarser where it has more than ``budget`` voxels.

    ``image``, ``labels``, ``reference``: ``(X, Y, Z)``; ``affine``: ``(4, 4)``, voxel -> RAS mm; ``values``: label
    value of rank 1, 2, ... (at most 255). Grey levels beyond the 0.5 and 99.5 percentiles are clipped.
    """
    spacing = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    steps = coarsening(labels.shape, spacing, budget)
    grid = np.asarray(affine, float) @ _block_affine(steps)
    low, high = robust_window(image)
    grey = np.clip((_block_mean(image, steps) - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
    maps = [_ranks(m, values, steps) if m is not None else None for m in (labels, reference)]
    note = " × ".join(f"{s:.2g}" for s in spacing * steps) + " mm"
    if max(steps) > 1:
        note += ", coarser than the scan: " + " × ".join(f"{s:.2g}" for s in spacing) + " mm"
    return Viewer(
        image=_nifti(grey, grid, slope=(high - low) / 255, intercept=low),
        labels=_nifti(maps[0], grid),
        reference=_nifti(maps[1], grid) if maps[1] is not None else None,
        centre_mm=_centre(maps[0], grid),
        note=note,
    )


def coarsening(shape: Sequence[int], spacing: Sequence[float], budget: int) -> tuple[int, ...]:
    """Voxels per block along each axis: the finest axis is halved until the volume fits."""
    steps = [1, 1, 1]
    while np.prod([-(-n // s) for n, s in zip(shape, steps, strict=True)]) > budget:
        sizes = [spacing[i] * steps[i] if shape[i] > steps[i] else np.inf for i in range(3)]
        steps[int(np.argmin(sizes))] += 1
    return tuple(steps)


def preview_uri(path: Path) -> str:
    """A picture as a data URI: JPEG, at most ``PREVIEW_WIDTH`` pixels wide."""
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
    if small.width > PREVIEW_WIDTH:
        small = small.resize(
            (PREVIEW_WIDTH, round(small.height * PREVIEW_WIDTH / small.width)), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _centre(ranks: np.ndarray | None, affine: np.ndarray) -> tuple[float, float, float]:
    """The marked voxel nearest to the middle of all marked voxels, or the middle of the scan."""
    assert ranks is not None
    marked = np.argwhere(ranks)
    voxel = (np.array(ranks.shape) - 1) / 2
    if len(marked):
        voxel = marked[np.square(marked - marked.mean(0)).sum(1).argmin()]
    x, y, z = (affine[:3, :3] @ voxel + affine[:3, 3]).round(3).tolist()
    return x, y, z


def _block_affine(steps: Sequence[int]) -> np.ndarray:
    block = np.diag([*map(float, steps), 1.0])
    block[:3, 3] = [(step - 1) / 2 for step in steps]
    return block


def _block_mean(image: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    mean = np.nan_to_num(image.astype(np.float32, copy=False))
    for axis, step in enumerate(steps):
        if step > 1:
            mean = np.add.reduceat(mean, np.arange(0, mean.shape[axis], step), axis=axis)
            counts = np.diff([*range(0, image.shape[axis], step), image.shape[axis]])
            mean /= counts.reshape([-1 if a == axis else 1 for a in range(3)])
    return mean


def _ranks(labels: np.ndarray, values: Sequence[int], steps: Sequence[int]) -> np.ndarray:
    """Rank of the voxel in the middle of each block; a structure that this would lose marks all blocks it touches."""
    ranks = np.zeros(labels.shape, np.uint8)
    for rank, value in enumerate(values[:255], start=1):
        ranks[labels == value] = rank
    middle = tuple(slice(min(step // 2, n - 1), None, step) for step, n in zip(steps, labels.shape, strict=True))
    small = np.zeros([-(-n // s) for n, s in zip(labels.shape, steps, strict=True)], np.uint8)
    sampled = ranks[middle]
    small[tuple(slice(0, n) for n in sampled.shape)] = sampled
    for rank in set(np.unique(ranks)) - set(np.unique(small)):
        where = np.argwhere(ranks == rank) // np.asarray(steps)
        small[tuple(where.T)] = rank
    return small


def _nifti(data: np.ndarray | None, affine: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> str:
    import nibabel as nib

    assert data is not None
    image: nib.Nifti1Image = nib.Nifti1Image(data, affine)
    image.header["descrip"] = b""
    raw = bytearray(image.to_bytes())
    # The scale is written by hand: nibabel would rather rescale the data than state a slope for them.
    raw[112:120] = np.array([slope, intercept], "<f4").tobytes()
    return base64.b64encode(gzip.compress(bytes(raw), 6, mtime=0)).decode()
