"""Patches of an episode: their location, spacing, and random changes of contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.augment import NO_AUGMENTATION, Augmentation, inside, patch_grid, read_at
from medfewshot.episodes.examples import Example
from medfewshot.planning.spacing import THICK_RATIO

Rng = np.random.Generator
PLACES = 4096
"""Maximum number of voxels of a class that are stored per example."""
CURVE_KNOTS = 8
FEW_SLICES = 0.6
"""A patch whose last axis has less than this share of the first axis's voxels has thick slices."""
REPAINTED = 0.6
"""Standard deviation of the change of a structure, in standard deviations of the image."""


@dataclass(frozen=True)
class IndexedExample:
    """An example with the location of its classes.

    Args:
        places: Label value -> ``(n, dims)`` voxels, at most :data:`PLACES`.
        counts: Label value -> number of voxels.
    """

    example: Example
    places: Mapping[int, Tensor]
    counts: Mapping[int, int]

    def contains(self, classes: Sequence[int]) -> bool:
        """Whether it contains any of the classes."""
        return any(self.counts[value] for value in classes)


def index_examples(examples: Sequence[Example], values: Sequence[int]) -> list[IndexedExample]:
    """Find the voxels of the label ``values`` in every example; examples that share one label map share the work."""
    indexed: list[IndexedExample] = []
    known: dict[int, IndexedExample] = {}
    generator = torch.Generator().manual_seed(0)
    for example in examples:
        same = known.get(id(example.label))
        if same is None:
            same = known[id(example.label)] = _index(example, values, generator)
        indexed.append(replace(same, example=example))
    return indexed


def _index(example: Example, values: Sequence[int], generator: torch.Generator) -> IndexedExample:
    places, counts = {}, {}
    ordered, voxels = example.label.flatten().int().sort(stable=True)
    for value in values:
        first, end = torch.searchsorted(ordered, torch.tensor([value, value + 1], dtype=torch.int32)).tolist()
        found = voxels[first:end]
        counts[value] = len(found)
        chosen = found[torch.randperm(len(found), generator=generator)[:PLACES]]
        places[value] = torch.stack(torch.unravel_index(chosen, example.label.shape), dim=-1).to(torch.int16)
    return IndexedExample(example, places, counts)


def draw_centre(one: IndexedExample, classes: Sequence[int], number: int | None, size: Tensor, rng: Rng) -> Tensor:
    """Draw the centre of a patch, in voxels ``(dims,)``.

    The patch stays inside the example; along an axis where the example is smaller, the patch is in its middle.

    Args:
        one: The example.
        classes: Label values of the episode's classes.
        number: The patch is near a voxel of this class, counted in turn over those that are present; None: anywhere.
        size: Extent of the patch, in voxels of the example.
        rng: Source of the draw.
    """
    shape = one.example.label.shape
    present = [c for c in classes if one.counts[c]]
    if number is None or not present:
        centre = torch.tensor([rng.uniform(0, n - 1) for n in shape], dtype=torch.float32)
    else:
        voxels = one.places[present[number % len(present)]]
        jitter = torch.as_tensor(rng.uniform(-0.25, 0.25, len(shape)), dtype=torch.float32) * size
        centre = voxels[int(rng.integers(len(voxels)))].float() + jitter
    return inside(centre, size, torch.tensor(shape, dtype=torch.float32))


def read_patch(
    example: Example,
    patch: Sequence[int],
    centre: Tensor,
    zoom: Tensor,
    *,
    spacing_mm: Sequence[float],
    augment: bool,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Read an image patch ``(C, *patch)`` and its label ``(*patch)``; only the box that the patch touches is converted.

    Outside the example, the image repeats its border and the label is 0.

    Args:
        example: Source of the patch.
        patch: Size in voxels.
        centre: In voxels of the example.
        zoom: Spacing of the patch as a multiple of the example's, ``(dims,)``.
        spacing_mm: Voxel size of the example.
        augment: Warp the patch.
        generator: Source of the warp.
        device: Where the patch is made.
    """
    column = (-1, *[1] * len(patch))
    # The warp is drawn in the patch's own voxels: how much it may tilt thick slices depends on their thickness.
    config, at = (Augmentation(), torch.zeros(len(patch))) if augment else (NO_AUGMENTATION, centre / zoom)
    points = patch_grid(patch, at, torch.tensor(spacing_mm) * zoom, config, generator, device)
    points = zoom.to(device).view(column) * points
    if augment:
        points = centre.to(device).view(column) + points
    size = torch.tensor(example.label.shape)
    flat = points.flatten(1)
    ends = torch.stack([flat.amin(1), flat.amax(1)]).cpu()
    low = (ends[0].floor().long() - 1).clamp_min(0).minimum(size - 1)
    high = (ends[1].ceil().long() + 2).clamp_min(1).minimum(size)
    box = tuple(slice(int(a), max(int(b), int(a) + 1)) for a, b in zip(low, high, strict=True))
    points = points - low.to(device).view(column)
    image, label = example.read(box, device)
    return read_at(image, points, "bilinear"), read_at(label, points, "nearest", "zeros")[0].long()


def draw_zoom(
    patch: Sequence[int],
    spacing_mm: Sequence[float],
    depth: float,
    *,
    zoom: tuple[float, float],
    thick: tuple[float, float] | None,
    rng: Rng,
) -> Tensor:
    """Draw the spacing of each axis as a multiple of the task's, ``(dims,)``; a patch with few slices has thick ones.

    Args:
        patch: Size in voxels.
        spacing_mm: Voxel size of the task.
        depth: Slices of a typical example; a patch of thick slices does not exceed them.
        zoom: Smallest and largest multiple in plane.
        thick: Range of the slice thickness, relative to the one that makes the patch a cube; None keeps the task's.
        rng: Source of the draw.
    """
    drawn = np.full(len(patch), np.exp(rng.uniform(*np.log(zoom))))
    few = len(patch) == 3 and patch[2] < FEW_SLICES * patch[0] and spacing_mm[2] < THICK_RATIO * spacing_mm[0]
    if few and thick is not None:
        cube = spacing_mm[0] * patch[0] / (spacing_mm[2] * patch[2]) * np.exp(rng.uniform(*np.log(thick)))
        drawn[2] *= max(1.0, min(cube, depth / patch[2]))
    return torch.as_tensor(drawn, dtype=torch.float32)


def random_curve(images: Tensor, rng: Rng, *, monotone: bool = True) -> Tensor:
    """Apply one random piecewise-linear curve to all ``images (B, C, *S)``; then zero mean and unit variance."""
    values = images.flatten()[:: max(1, images.numel() // 50_000) | 1].float().sort().values
    low, high = values[int(0.002 * (len(values) - 1))], values[int(0.998 * (len(values) - 1))]
    steps = torch.as_tensor(rng.exponential(1.0, CURVE_KNOTS), dtype=images.dtype, device=images.device)
    heights = torch.cat([steps.new_zeros(1), steps.cumsum(0)]) / steps.sum()
    if not monotone:
        heights = torch.as_tensor(rng.uniform(0, 1, CURVE_KNOTS + 1)).to(heights)
    if rng.random() < 0.25:
        heights = heights.flip(0)
    position = ((images - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * CURVE_KNOTS
    index = position.long().clamp_max(CURVE_KNOTS - 1)
    curved = heights[index] + (position - index) * (heights[index + 1] - heights[index])
    return (curved - curved.mean()) / curved.std().clamp_min(1e-3)


def draw_repaint(rng: Rng) -> Tensor:
    """Draw the change of brightness of each of 256 label values; 0 (no label) does not change."""
    table = rng.normal(0, REPAINTED, 256)
    table[0] = 0
    return torch.as_tensor(table, dtype=torch.float32)


def repaint(image: Tensor, label: Tensor, table: Tensor) -> Tensor:
    """Add a change of brightness to the structures of ``image (C, *S)``, smoothed at borders like partial volume."""
    change = table.to(image.device)[label % len(table)][None, None]
    pool = F.avg_pool2d if label.ndim == 2 else F.avg_pool3d
    return image + pool(change, 3, 1, 1, count_include_pad=False)[0]
