"""Orientation, slice selection and windows for pictures in radiological convention. Pure numpy; draws nothing.

Radiological convention: the patient's right is on the left of axial and coronal pictures, anterior on the left of
sagittal ones; anterior is up in axial pictures and superior is up in the other two.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medfewshot.errors import InputError
from medfewshot.intensities import subsample
from medfewshot.structures import foreground_box

ANISOTROPIC_FROM = 3.0  # ratio of largest to smallest spacing from which the acquired slices are shown first

# plane by its normal among the RAS+ axes: its name, and the axes that run along its width and height
PLANES: dict[int, tuple[str, tuple[int, int]]] = {2: ("axial", (0, 1)), 1: ("coronal", (0, 2)), 0: ("sagittal", (1, 2))}


@dataclass(frozen=True)
class Grid:
    """How the file's voxel axes become RAS+ axes: a permutation and flips, no resampling.

    Attributes:
        axis: file axis that runs along each RAS axis.
        flip: whether it runs in the opposite direction.
        spacing_mm: in RAS+ order.
        shape: in RAS+ order.
        directions: RAS unit vector of each axis.
    """

    axis: tuple[int, int, int]
    flip: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    directions: tuple[tuple[float, float, float], ...]

    def oblique_degrees(self, axis: int) -> float:
        """Return the angle between an axis and the RAS axis it stands for."""
        return float(np.degrees(np.arccos(np.clip(self.directions[axis][axis], -1.0, 1.0))))

    @property
    def anisotropy(self) -> float:
        """Ratio of largest to smallest spacing of the axes with more than one voxel."""
        spacing = [s for s, n in zip(self.spacing_mm, self.shape, strict=True) if n > 1] or [1.0]
        return max(spacing) / min(spacing)

    @property
    def acquired(self) -> int:
        """The RAS axis along which the slices were acquired: the coarsest one."""
        return int(np.argmax(self.spacing_mm))

    @property
    def slices_lead(self) -> bool:
        """Whether the acquired slices are shown first: the slices are thick, or few."""
        lengths = [s * n for s, n in zip(self.spacing_mm, self.shape, strict=True)]
        thickness = lengths.pop(self.acquired)
        return self.anisotropy >= ANISOTROPIC_FROM or (self.anisotropy > 1.2 and thickness < min(lengths) / 3)

    def to_ras(self, array: np.ndarray) -> np.ndarray:
        """Return a view in RAS+ order of an ``(X, Y, Z)`` array in file order."""
        view = array.transpose(self.axis)
        return view[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flip)]

    def file_index(self, normal: int, index: int) -> int:
        """Return the slice index in the file of a slice index in RAS+ order."""
        return self.shape[normal] - 1 - index if self.flip[normal] else index


def grid_of(shape: Sequence[int], affine: np.ndarray) -> Grid:
    """Return the grid of a file.

    Args:
        shape: ``(3,)`` voxels.
        affine: ``(4, 4)``, voxel -> RAS mm.

    Raises:
        InputError: if the affine cannot be inverted.
    """
    import nibabel.orientations as orientations

    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError("the affine is not an invertible 4x4 matrix", "correct the header of the image")
    ornt = orientations.io_orientation(affine)  # row: file axis -> (RAS axis, +1 or -1)
    axis = [int(np.flatnonzero(ornt[:, 0] == i)[0]) for i in range(3)]
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return Grid(
        axis=(axis[0], axis[1], axis[2]),
        flip=(ornt[axis[0], 1] < 0, ornt[axis[1], 1] < 0, ornt[axis[2], 1] < 0),
        spacing_mm=(float(lengths[axis[0]]), float(lengths[axis[1]]), float(lengths[axis[2]])),
        shape=(int(shape[axis[0]]), int(shape[axis[1]]), int(shape[axis[2]])),
        directions=tuple(tuple(affine[:3, a] / lengths[a] * ornt[a, 1]) for a in axis),
    )


def letters(direction: np.ndarray) -> str:
    """Name a direction in RAS, e.g. "L", or "LP" if it is oblique by more than 20 degrees."""
    order = sorted(range(3), key=lambda i: -abs(direction[i]))[:2]
    return "".join(
        "RAS"[i] if direction[i] > 0 else "LPI"[i] for i in order if i == order[0] or abs(direction[i]) > 0.36
    )


def side_letters(grid: Grid, normal: int) -> tuple[str, str, str, str]:
    """Return the letters at the left, right, bottom and top of :func:`picture`."""
    horizontal, vertical = (np.asarray(grid.directions[a]) for a in PLANES[normal][1])
    return letters(horizontal), letters(-horizontal), letters(-vertical), letters(vertical)


def is_raster(affine: np.ndarray) -> bool:
    """Whether a 2D image's affine contains no patient position, as for a PNG: diagonal and without an origin."""
    affine = np.asarray(affine, dtype=np.float64)
    x, y = affine[0, 0], affine[1, 1]
    diagonal = np.array_equal(affine[:3, :3], np.diag(np.diag(affine[:3, :3])))
    return diagonal and not affine[:3, 3].any() and (x > 0) == (y > 0)


def picture(volume: np.ndarray, normal: int, index: int) -> np.ndarray:
    """Return one slice of a RAS+ volume as ``(rows, columns)``, row 0 at the bottom, right and anterior on the left."""
    plane = volume[(slice(None),) * normal + (index,)]  # np.take would first copy the whole of a flipped view
    return plane.T[:, ::-1]


def extent_mm(grid: Grid, normal: int) -> tuple[float, float]:
    """Return width and height of :func:`picture` in mm."""
    horizontal, vertical = PLANES[normal][1]
    return (
        grid.shape[horizontal] * grid.spacing_mm[horizontal],
        grid.shape[vertical] * grid.spacing_mm[vertical],
    )


def profiles(ranks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the area of each structure in each slice, relative to its largest area along that axis.

    Args:
        ranks: label map of :func:`medfewshot.structures.compress`; 0 is background.

    Returns:
        ``(slices, structures)`` for each axis; one structure without voxels if there is none.
    """
    count = max(int(ranks.max(initial=0)), 1) + 1
    result = [np.zeros((n, count - 1)) for n in ranks.shape]
    box = foreground_box(ranks > 0)
    for axis, side in enumerate(box or ()):
        areas = [np.bincount(row.reshape(-1), minlength=count)[1:] for row in np.moveaxis(ranks[box], axis, 0)]
        result[axis][side] = np.stack(areas) / np.maximum(np.max(areas, axis=0), 1)
    return tuple(result)


def best_slices(profiles_: Sequence[np.ndarray]) -> list[int]:
    """Choose one slice per profile: where the structures are largest, or the middle if there is no structure.

    All structures have the same weight, so that a large organ does not hide a small one. A structure that an earlier
    slice shows has half the weight in the next.
    """
    weights = np.ones(profiles_[0].shape[1])
    slices = []
    for profile in profiles_:
        best = int((profile @ weights).argmax()) if profile.any() else len(profile) // 2
        weights[profile[best] > 0.25] /= 2
        slices.append(best)
    return slices


def spread_slices(profile: np.ndarray, count: int) -> list[int]:
    """Choose up to ``count`` equidistant slices through the structures, at least three if the volume has them."""
    n = len(profile)
    found = np.flatnonzero(profile.any(axis=1))
    first, last = (int(found[0]), int(found[-1])) if len(found) else (n // 4, n - 1 - n // 4)
    while last - first + 1 < min(3, n):
        first, last = max(first - 1, 0), min(last + 1, n - 1)
    count = min(count, last - first + 1)
    edges = np.linspace(first, last + 1, count + 1)
    return sorted({int((a + b) / 2) for a, b in itertools.pairwise(edges)})


def field_mm(grid: Grid, normal: int, aspect: float) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top in mm of the smallest window of height / width ``aspect`` around the picture."""
    width, height = extent_mm(grid, normal)
    w, h = (width, width * aspect) if height < width * aspect else (height / aspect, height)
    return (width - w) / 2, (width + w) / 2, (height - h) / 2, (height + h) / 2


def zoom_mm(mask: np.ndarray, grid: Grid, normal: int, aspect: float) -> tuple[float, float, float, float]:
    """Return left, right, bottom, top in mm of a window around the structures, with a margin of a sixth on each side.

    Args:
        mask: ``(rows, columns)``, a :func:`picture` of all structures.
        grid: of the volume.
        normal: RAS axis across which the picture lies.
        aspect: height / width of the window, which is never larger than :func:`field_mm`.
    """
    width, height = extent_mm(grid, normal)
    left, right = _ends(np.asarray(mask.any(axis=0)), width)
    bottom, top = _ends(np.asarray(mask.any(axis=1)), height)
    field = field_mm(grid, normal, aspect)
    least = max(width / 8, 12 * width / mask.shape[1])
    w = max((right - left) * 4 / 3, (top - bottom) * 4 / 3 / aspect, least)
    w = min(w, field[1] - field[0])
    h = w * aspect
    x = _fit((left + right) / 2, w, width)
    y = _fit((bottom + top) / 2, h, height)
    return x - w / 2, x + w / 2, y - h / 2, y + h / 2


def _ends(occupied: np.ndarray, length_mm: float) -> tuple[float, float]:
    """Return where the structures begin and end, in mm; the middle half of the picture if there is none."""
    found = np.flatnonzero(occupied)
    if len(found) == 0:
        return length_mm / 4, length_mm * 3 / 4
    return float(found[0]) * length_mm / len(occupied), float(found[-1] + 1) * length_mm / len(occupied)


def _fit(centre: float, length: float, limit: float) -> float:
    """Move the centre of a window of ``length`` so that the window stays within ``[0, limit]``."""
    return limit / 2 if length >= limit else float(np.clip(centre, length / 2, limit - length / 2))


def robust_window(image: np.ndarray) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles of the finite intensities, from about 200 000 voxels."""
    sample = subsample(image, 200_000)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(sample, (0.5, 99.5)))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def round_length_mm(span_mm: float) -> float:
    """Return a round length (1, 2 or 5 times a power of ten) of about a quarter of ``span_mm``, for a scale bar."""
    target = span_mm / 4
    power = 10.0 ** np.floor(np.log10(target))
    return float(max(step * power for step in (1, 2, 5) if step * power <= target * 1.0001))


def amount(voxels: int, edges_mm: Sequence[float]) -> str:
    """Format the volume in ml of voxels with three edges, or the area in cm² of pixels with two, to three digits."""
    size = voxels * float(np.prod(edges_mm))
    return f"{_three_digits(size / 1000)} ml" if len(edges_mm) == 3 else f"{_three_digits(size / 100)} cm²"


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
