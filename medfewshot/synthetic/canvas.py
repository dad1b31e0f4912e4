"""What the painters share: the scan being painted, and what differs from patient to patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medfewshot.synthetic.shapes import Vector, tube

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN, LESION = 1, 2, 3, 4, 5
WARP_MM = 4.0
Region = tuple[slice, slice, slice]
WHOLE: Region = (slice(None), slice(None), slice(None))


@dataclass
class Canvas:
    """A scan being painted.

    ``points (3, *S)`` warped RAS mm, ``image (*S)`` HU, ``label (*S)``; ``edge_mm``: width of a border.
    """

    points: np.ndarray
    image: np.ndarray
    label: np.ndarray
    edge_mm: float
    index_from_mm: np.ndarray

    def region(self, low: Vector, high: Vector) -> Region:
        """The voxels that can lie between two corners in mm, with room for the warp: keeps small organs cheap."""
        margin = 4 * WARP_MM + self.edge_mm
        corners = np.stack(np.meshgrid(*[(a - margin, b + margin) for a, b in zip(low, high, strict=True)]))
        index = self.index_from_mm[:3, :3] @ corners.reshape(3, -1) + self.index_from_mm[:3, 3:]
        first = np.clip(np.floor(index.min(axis=1)), 0, self.image.shape).astype(int)
        last = np.clip(np.ceil(index.max(axis=1)) + 1, 0, self.image.shape).astype(int)
        return tuple(slice(a, b) for a, b in zip(first, last, strict=True))  # type: ignore[return-value]

    def around(self, centre: Vector, radii: Vector) -> Region:
        reach = max(radii)
        return self.region([c - reach for c in centre], [c + reach for c in centre])

    def paint_tube(self, path: Sequence[Vector], radius: float | Vector, hu: float, inside: int | None = None) -> None:
        """A tube along a polyline in mm, in the few voxels that it can reach; ``inside``: only within this label."""
        reach = np.max(radius)
        vertices = np.stack([np.asarray(vertex) for vertex in path])
        region = self.region(vertices.min(axis=0) - reach, vertices.max(axis=0) + reach)
        distance = tube(self.points[(slice(None), *region)], path, radius)
        if inside is not None:
            distance = np.where(self.label[region] == inside, distance, self.edge_mm)
        self.paint(region, distance, hu)

    def paint(self, region: Region, distance: np.ndarray, hu: float | np.ndarray, label: int | None = None) -> None:
        """Blend ``hu`` in where ``distance < 0``; the share of a border voxel follows its distance (partial volume)."""
        share = (0.5 - distance / self.edge_mm).clip(0, 1)
        self.image[region] += share * (hu - self.image[region])
        if label is not None:
            self.label[region][distance < 0] = label


@dataclass
class Patient:
    """What differs from case to case. ``jitter`` moves and scales organs; ``hu`` shifts their contrast."""

    rng: np.random.Generator
    width_mm: float
    depth_mm: float
    fat_mm: float
    enhancement: float
    lesions: int

    def place(self, centre: Vector, radii: Vector, shift: float = 5, scale: float = 0.09):
        """Centre and radii of an organ in this patient, in mm."""
        moved = np.asarray(centre) + self.rng.normal(0, shift, 3).clip(-2 * shift, 2 * shift)
        factor = np.exp(self.rng.normal(0, scale) + self.rng.normal(0, scale / 2, 3))
        return moved, np.asarray(radii) * factor

    def hu(self, mean: float, spread: float = 6) -> float:
        return float(mean + self.rng.normal(0, spread))

    def enhanced(self, plain: float, contrast: float) -> float:
        """Intensity with this patient's uptake of contrast medium."""
        return self.hu(plain + self.enhancement * contrast)


def draw_patient(rng: np.random.Generator, lesions: int) -> Patient:
    return Patient(
        rng=rng,
        width_mm=rng.uniform(150, 168),
        depth_mm=rng.uniform(102, 118),
        fat_mm=rng.uniform(9, 24),
        enhancement=rng.uniform(0.8, 1.2),
        lesions=lesions,
    )
