"""Anatomical planes of a scan in radiological convention: orientation and choice of slices. Draws nothing.

Radiological convention: the patient's right is on the left of axial and coronal pictures, anterior on the left of
sagittal ones; anterior is up in axial pictures and superior is up in the other two.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medfewshot.errors import InputError
from medfewshot.structures import Box, boxes

ANISOTROPIC_FROM = 3.0  # ratio of largest to smallest spacing from which the acquired slices are shown first
MONTAGE_SLICES = 5

# plane by its normal among the RAS+ axes: its name, and the axes that run along its width and height
PLANES: dict[int, tuple[str, tuple[int, int]]] = {2: ("axial", (0, 1)), 1: ("coronal", (0, 2)), 0: ("sagittal", (1, 2))}

View = tuple[int, int]
"""A slice: the RAS+ axis across which it lies, and its index along this axis."""

Window = tuple[float, float, float, float]
"""Left, right, bottom and top in mm, from the lower left corner of a picture."""


@dataclass(frozen=True)
class Grid:
    """How the file's voxel axes become RAS+ axes: a permutation and flips, no resampling.

    Attributes:
        orientation: ``(3, 2)``, RAS+ axis and direction (1 or -1) of each axis of the file, as in nibabel.
        shape: in RAS+ order.
        affine: ``(4, 4)``, voxel in RAS+ order -> RAS mm.
    """

    orientation: np.ndarray
    shape: tuple[int, ...]
    affine: np.ndarray

    @cached_property
    def spacing_mm(self) -> np.ndarray:
        """Edges of a voxel, in RAS+ order."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @cached_property
    def directions(self) -> np.ndarray:
        """``(3, 3)``, one row per RAS+ axis: its unit vector in RAS."""
        return (self.affine[:3, :3] / self.spacing_mm).T

    def oblique_degrees(self, axis: int) -> float:
        """Return the angle between an axis and the RAS axis it stands for."""
        return float(np.degrees(np.arccos(np.clip(self.directions[axis, axis], -1.0, 1.0))))

    @property
    def lengths_mm(self) -> np.ndarray:
        """Edges of the field of view, in RAS+ order."""
        return self.spacing_mm * self.shape

    @property
    def acquired(self) -> int:
        """The RAS+ axis along which the slices were acquired: the coarsest one."""
        return int(np.argmax(self.spacing_mm))

    @property
    def slices_lead(self) -> bool:
        """Whether the acquired slices are shown first: the slices are thick, or few."""
        spacing = self.spacing_mm[np.array(self.shape) > 1]
        anisotropy = spacing.max(initial=0) / spacing.min(initial=np.inf)
        thickness, *others = self.lengths_mm[[self.acquired, *({0, 1, 2} - {self.acquired})]]
        return bool(anisotropy >= ANISOTROPIC_FROM or (anisotropy > 1.2 and thickness < min(others) / 3))

    def to_ras(self, array: np.ndarray) -> np.ndarray:
        """Return a view in RAS+ order of an ``(X, Y)`` or ``(X, Y, Z)`` array in file order."""
        from nibabel.orientations import apply_orientation

        return np.asarray(apply_orientation(array[..., None] if array.ndim == 2 else array, self.orientation))

    def file_axis(self, normal: int) -> int:
        """Return the axis of the file that runs along a RAS+ axis."""
        return int(np.flatnonzero(self.orientation[:, 0] == normal)[0])

    def file_index(self, view: View) -> int:
        """Return the index of a slice in the file. Its own inverse."""
        normal, index = view
        flipped = self.orientation[self.file_axis(normal), 1] < 0
        return self.shape[normal] - 1 - index if flipped else index

    def extent_mm(self, normal: int) -> tuple[float, float]:
        """Return width and height of :func:`picture`."""
        width, height = self.lengths_mm[list(PLANES[normal][1])]
        return float(width), float(height)

    def side_letters(self, normal: int) -> tuple[str, str, str, str]:
        """Return the letters at the left, right, bottom and top of :func:`picture`."""
        horizontal, vertical = self.directions[list(PLANES[normal][1])]
        return _letters(horizontal), _letters(-horizontal), _letters(-vertical), _letters(vertical)


def grid_of(shape: Sequence[int], affine: np.ndarray) -> Grid:
    """Return the grid of a file.

    Args:
        shape: Voxels; a 2D image has one slice.
        affine: ``(4, 4)``, voxel -> RAS mm.

    Raises:
        InputError: if the affine cannot be inverted.
    """
    from nibabel.orientations import inv_ornt_aff, io_orientation

    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError("the affine is not an invertible 4x4 matrix", "correct the header of the image")
    orientation, box = io_orientation(affine), (*shape, 1)[:3]
    order = np.argsort(orientation[:, 0])
    return Grid(orientation, tuple(box[axis] for axis in order), affine @ inv_ornt_aff(orientation, box))


def _letters(direction: np.ndarray) -> str:
    """Name a direction in RAS, e.g. "L", or "LP" if it is oblique by more than 20 degrees."""
    first, second, _ = np.argsort(-np.abs(direction), kind="stable")
    axes = [first, second] if abs(direction[second]) > 0.36 else [first]
    return "".join("RAS"[axis] if direction[axis] > 0 else "LPI"[axis] for axis in axes)


def is_raster(affine: np.ndarray) -> bool:
    """Return whether a 2D image's affine contains no patient position, as for a PNG: diagonal and without an origin."""
    affine = np.asarray(affine, dtype=np.float64)
    diagonal = np.array_equal(affine[:3], np.diag(affine.diagonal())[:3])
    return diagonal and (affine[0, 0] > 0) == (affine[1, 1] > 0)


def picture(volume: np.ndarray, view: View) -> np.ndarray:
    """Return one slice of a RAS+ volume as ``(rows, columns)``, row 0 at the bottom, right and anterior on the left."""
    normal, index = view
    plane = volume[(slice(None),) * normal + (index,)]  # np.take would first copy the whole of a flipped view
    return plane.T[:, ::-1]


def choose_views(grid: Grid, ranks: np.ndarray) -> list[View]:
    """Choose the slices to show, one plane after the other.

    A volume of one slice has one view, and a volume of cubic voxels three orthogonal ones. If the slices are thick,
    several of the acquired slices come first, from superior, anterior or right, and then one reformatted slice.

    Args:
        grid: of the volume.
        ranks: ``(X, Y, Z)`` in RAS+ order, see :func:`profiles`.
    """
    if 1 in grid.shape:
        return [(grid.shape.index(1), 0)]
    areas = profiles(ranks)
    if not grid.slices_lead:
        normals = (2, 1, 0)
        return list(zip(normals, best_slices([areas[normal] for normal in normals]), strict=True))
    lead = grid.acquired
    across = 2 if lead == 1 else 1
    slices = spread_slices(areas[lead], MONTAGE_SLICES)[::-1]
    return [*((lead, index) for index in slices), (across, best_slices([areas[across]])[0])]


def profiles(ranks: np.ndarray) -> list[np.ndarray]:
    """Return the area of each structure in each slice, relative to its largest area along that axis.

    Args:
        ranks: label map of :func:`medfewshot.structures.compress`; 0 is background.

    Returns:
        ``(slices, structures)`` for each axis; one structure without voxels if there is none.
    """
    count = max(int(ranks.max(initial=0)), 1) + 1
    result = [np.zeros((n, count - 1)) for n in ranks.shape]
    box = boxes(ranks > 0).get(1, ())
    for axis, side in enumerate(box):
        areas = [np.bincount(row.reshape(-1), minlength=count)[1:] for row in np.moveaxis(ranks[box], axis, 0)]
        result[axis][side] = np.stack(areas) / np.maximum(np.max(areas, axis=0), 1)
    return result


def best_slices(areas: Sequence[np.ndarray]) -> list[int]:
    """Choose one slice per profile: where the structures are largest, or the middle if there is no structure.

    All structures have the same weight, so that a large organ does not hide a small one. A structure that an earlier
    slice shows has half the weight in the next.
    """
    weights = np.ones(areas[0].shape[1])
    slices = []
    for profile in areas:
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
    edges = np.linspace(first, last + 1, min(count, last - first + 1) + 1)
    return sorted({int((a + b) / 2) for a, b in itertools.pairwise(edges)})


def window_mm(box: Box | None, shape: tuple[int, int], extent_mm: tuple[float, float], aspect: float) -> Window:
    """Return the smallest window around a box of pixels, with a margin of a sixth on each side.

    The window is not larger than the smallest one around the whole picture, and lies within the picture if it fits.

    Args:
        box: rows and columns of a :func:`picture`; None for the whole picture.
        shape: rows and columns of the picture.
        extent_mm: width and height of the picture.
        aspect: height / width of the window.
    """
    rows, columns = box or (slice(0, shape[0]), slice(0, shape[1]))
    extent = np.array(extent_mm)
    pixel = extent / shape[::-1]
    low, high = np.array([columns.start, rows.start]) * pixel, np.array([columns.stop, rows.stop]) * pixel
    least = max(extent[0] / 8, 12 * pixel[0])  # a single voxel is not shown as one large square
    width = min(max(*(high - low) * 4 / 3 / (1, aspect), least), max(extent / (1, aspect)))
    half = np.array([width, width * aspect]) / 2
    centre = np.where(half * 2 >= extent, extent / 2, np.clip((low + high) / 2, half, extent - half))
    (left, bottom), (right, top) = (centre - half).tolist(), (centre + half).tolist()
    return left, right, bottom, top
