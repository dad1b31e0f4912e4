"""Episodes from real base tasks: random classes of a data set, in augmented patches of different subjects.

One random monotone intensity curve serves a whole episode, so that a CT data set teaches contrasts that CT never has;
supports and queries then differ as scans of one protocol do. Structures may be made brighter or darker, the same in a
whole episode, and the episode mirrored: another modality, another orientation (cf. Billot et al. 2023, SynthSeg, and
Ouyang et al. 2022, "Causality-inspired single-source domain generalization", for contrast that is made up).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medfewshot.augment import Augmentation, patch_grid, read_at, vary_intensity
from medfewshot.errors import InputError
from medfewshot.planning.make import THICK_RATIO
from medfewshot.training.packing import BaseDataset, PackedDataset, PackedVolume
from medfewshot.types import Episode, Query, Support

Rng = np.random.Generator
PLACES = 4096
"""Voxels of a class that are remembered for each volume."""
FEWEST_VOXELS = 8
ATTEMPTS = 20
CURVE_KNOTS = 8
FEW_SLICES = 0.6
"""A last axis with less than this share of the first axis's voxels is one of thick slices."""
REPAINTED = 0.6
"""Standard deviation of the change, in those of the image."""


@dataclass(frozen=True)
class RealSettings:
    """What episodes of real base tasks look like."""

    datasets: Mapping[str, BaseDataset] = field(default_factory=dict)
    root: str | None = None
    """Folder of the data sets; None takes ``--data``, else each data set's own ``folder``."""
    patches: tuple[tuple[int, ...], ...] = ((64, 64, 64),)
    shots: tuple[int, int] = (1, 5)
    ways: tuple[int, int] = (1, 3)
    queries: int = 1
    absent: float = 0.15
    """Probability that a query patch is placed anywhere, whatever it shows."""
    zoom: tuple[float, float] = (0.8, 1.6)
    """The spacing of an episode, as a multiple of the plan's."""
    thick: tuple[float, float] = (0.65, 1.3)
    """A patch with few slices has thick ones: their spacing is that which makes the patch a cube, times this."""
    curve: float = 0.5
    """Probability of a random monotone intensity curve; a quarter of these also turn bright into dark."""
    free_curve: float = 0.0
    """Probability that a curve rises and falls at random instead."""
    repaint: float = 0.0
    """Probability that every structure of the data set becomes brighter or darker by an amount of its own."""
    mirror: float = 0.0
    """Probability, for each axis, that the whole episode is mirrored along it."""
    large_first: float = 1.0
    small_last: float = -0.3
    """Curriculum: classes are drawn with weight voxels ** (exponent / 2), the exponent going in a line from the first,
    at the start of the run, to the second at its end."""

    def wanted(self, name: str) -> BaseDataset:
        """What is said of the data set ``name``; its defaults where it is not named."""
        return self.datasets.get(name) or BaseDataset((1,))

    def __post_init__(self) -> None:
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise InputError(f"zoom {self.zoom}: give (smallest, largest), above 0")
        for name in ("shots", "ways"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise InputError(f"{name} {getattr(self, name)}: give (smallest, largest), from 1")


@dataclass(frozen=True)
class _Indexed:
    """A volume with where its classes are: label value -> ``(n, dims)`` voxels, and how many there are in all."""

    volume: PackedVolume
    places: Mapping[int, Tensor]
    counts: Mapping[int, int]


class RealTasks:
    """Episodes of the base labels, or (``validation``) of the labels that training never sees as classes."""

    def __init__(self, datasets: Sequence[PackedDataset], settings: RealSettings, *, validation: bool = False) -> None:
        self.settings = settings
        chosen = [(d, d.validation_labels if validation else d.labels) for d in datasets]
        self.pools = [(d, values, _index(d, values)) for d, values in chosen if values]
        if not self.pools:
            raise InputError("tasks real: no data set has labels for this; name some, or take another kind of tasks")
        weights = np.array([settings.wanted(d.name).weight for d, _, _ in self.pools])
        self.chances = weights / weights.sum()

    def episode(self, seed: int, progress: float, device: torch.device) -> Episode:
        rng = np.random.default_rng([seed, 2])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for _ in range(ATTEMPTS):
            episode = self._try(rng, generator, progress, device)
            if episode is not None:
                return episode
        raise InputError(f"tasks real: no episode in {ATTEMPTS} draws; enlarge the patches or lower shots")

    def _try(self, rng: Rng, generator: torch.Generator, progress: float, device: torch.device) -> Episode | None:
        settings = self.settings
        dataset, values, volumes = self.pools[int(rng.choice(len(self.pools), p=self.chances))]
        classes = _draw_classes(values, volumes, settings, progress, rng)
        patches = settings.wanted(dataset.name).patches or settings.patches
        patch = patches[int(rng.integers(len(patches)))]
        shots = int(rng.integers(settings.shots[0], settings.shots[1] + 1))
        order = [volumes[int(i)] for i in rng.permutation(len(volumes))]
        showing = [v for v in order if any(v.counts[c] for c in classes)]
        supports = _different_subjects(showing, shots)
        taken = {v.volume.subject for v in supports}
        queries = _different_subjects([v for v in order if v.volume.subject not in taken], settings.queries)
        if not supports or len(queries) < settings.queries:
            return None
        depth = float(np.median([v.volume.label.shape[-1] for v in volumes]))
        zoom = _draw_zoom(patch, dataset.spacing_mm, depth, settings, rng)
        spacing = torch.tensor(dataset.spacing_mm)
        table = _draw_paint(rng) if rng.random() < settings.repaint else None
        images, labels = [], []
        for number, one in enumerate([*supports, *queries]):
            anywhere = number >= len(supports) and rng.random() < settings.absent
            centre = _place(one, classes, None if anywhere else number, zoom * torch.tensor(patch), rng)
            image, label = _read(one.volume, patch, centre, spacing, zoom, generator, device)
            images.append(image if table is None else _paint(image, label, table))
            labels.append(_as_classes(label, classes))
        seen = torch.stack(labels[: len(supports)])
        if any(int((seen == i + 1).sum()) < FEWEST_VOXELS for i in range(len(classes))):
            return None
        batch = torch.stack(images)
        if rng.random() < settings.curve:
            batch = random_curve(batch, rng, monotone=rng.random() >= settings.free_curve)
        batch, truth = vary_intensity(batch, Augmentation(), generator), torch.stack(labels)
        axes = [axis for axis in range(1, truth.ndim) if rng.random() < settings.mirror]
        batch, truth = batch.flip([axis + 1 for axis in axes]), truth.flip(axes)
        voxel_mm = tuple(float(s * z) for s, z in zip(dataset.spacing_mm, zoom, strict=True))
        shots = len(supports)
        return Episode(
            Support(tuple(batch[:shots]), tuple(truth[:shots]), len(classes) + 1, tuple(patch), voxel_mm),
            Query(batch[shots:], truth[shots:]),
            task=f"{dataset.name}[{','.join(dataset.names.get(c, str(c)) for c in classes)}]",
            support_subjects=tuple(v.volume.subject for v in supports),
            query_subjects=tuple(v.volume.subject for v in queries),
        )


def random_curve(images: Tensor, rng: Rng, monotone: bool = True) -> Tensor:
    """One random piecewise-linear curve for all ``images (B, C, *S)``, then zero mean and unit variance."""
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


def _index(dataset: PackedDataset, values: Sequence[int]) -> list[_Indexed]:
    indexed = []
    generator = torch.Generator().manual_seed(0)
    for volume in dataset.volumes:
        places, counts = {}, {}
        for value in values:
            found = (volume.label == value).nonzero()
            counts[value] = len(found)
            places[value] = found[torch.randperm(len(found), generator=generator)[:PLACES]].to(torch.int16)
        indexed.append(_Indexed(volume, places, counts))
    return indexed


def _draw_classes(
    values: Sequence[int], volumes: Sequence[_Indexed], settings: RealSettings, progress: float, rng: Rng
) -> list[int]:
    exponent = settings.large_first * (1 - progress) + settings.small_last * progress
    sizes = np.array([sum(v.counts[value] for v in volumes) for value in values], dtype=float)
    weights = np.where(sizes > 0, (sizes / sizes.max()).clip(1e-6) ** (exponent / 2), 0.0)
    ways = min(int(rng.integers(settings.ways[0], settings.ways[1] + 1)), int((weights > 0).sum()))
    return [int(values[int(i)]) for i in rng.choice(len(values), ways, replace=False, p=weights / weights.sum())]


def _different_subjects(volumes: Sequence[_Indexed], most: int) -> list[_Indexed]:
    first = {v.volume.subject: v for v in reversed(volumes)}
    return [v for v in volumes if first[v.volume.subject] is v][:most]


def _place(one: _Indexed, classes: Sequence[int], number: int | None, size: Tensor, rng: Rng) -> Tensor:
    """Centre of a patch of ``size`` voxels: around class ``number`` (in turn, all are shown); None: anywhere."""
    shape = one.volume.label.shape
    present = [c for c in classes if one.counts[c]]
    if number is None or not present:
        centre = torch.tensor([rng.uniform(0, n - 1) for n in shape], dtype=torch.float32)
    else:
        voxels = one.places[present[number % len(present)]]
        jitter = torch.as_tensor(rng.uniform(-0.25, 0.25, len(shape)), dtype=torch.float32) * size
        centre = voxels[int(rng.integers(len(voxels)))].float() + jitter
    # As in adaptation: patches stay inside the volume; where it is smaller, it sits in the middle.
    whole = torch.tensor(shape, dtype=torch.float32)
    low = torch.minimum(size / 2 - 0.5, (whole - 1) / 2)
    high = torch.maximum(whole - size / 2 - 0.5, (whole - 1) / 2)
    return torch.maximum(torch.minimum(centre, high), low)


def _read(
    volume: PackedVolume,
    patch: Sequence[int],
    centre: Tensor,
    spacing: Tensor,
    zoom: Tensor,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """A warped patch ``(C, *patch)`` and its label ``(*patch)``: only the box that it touches is read and converted.

    ``zoom (dims,)``: spacing of the patch as a multiple of the volume's.
    """
    column = (-1, *[1] * len(patch))
    # In the patch's own voxels first: how much a warp may tilt thick slices goes by their thickness.
    points = patch_grid(patch, torch.zeros(len(patch)), spacing * zoom, Augmentation(), generator, device)
    points = centre.to(device).view(column) + zoom.to(device).view(column) * points
    size = torch.tensor(volume.label.shape)
    flat = points.flatten(1)
    ends = torch.stack([flat.amin(1), flat.amax(1)]).cpu()
    low = (ends[0].floor().long() - 1).clamp_min(0).minimum(size - 1)
    high = (ends[1].ceil().long() + 2).clamp_min(1).minimum(size)
    box = tuple(slice(int(a), max(int(b), int(a) + 1)) for a, b in zip(low, high, strict=True))
    points = points - low.to(device).view(column)
    image, label = volume.read(box, device)
    return read_at(image, points, "bilinear"), read_at(label, points, "nearest", "zeros")[0].long()


def _draw_zoom(
    patch: Sequence[int], spacing: Sequence[float], depth: float, settings: RealSettings, rng: Rng
) -> Tensor:
    """Spacing of each axis as a multiple of the data set's; the last is thick where the patch has few slices.

    ``depth``: slices of a typical volume, which a patch of thick slices does not exceed.
    """
    zoom = np.full(len(patch), np.exp(rng.uniform(*np.log(settings.zoom))))
    if len(patch) == 3 and patch[2] < FEW_SLICES * patch[0] and spacing[2] < THICK_RATIO * spacing[0]:
        cube = spacing[0] * patch[0] / (spacing[2] * patch[2]) * np.exp(rng.uniform(*np.log(settings.thick)))
        zoom[2] *= max(1.0, min(cube, depth / patch[2]))
    return torch.as_tensor(zoom, dtype=torch.float32)


def _draw_paint(rng: Rng) -> Tensor:
    """For every label value how much brighter its voxels become; 0 (what has no label) stays as it is."""
    table = rng.normal(0, REPAINTED, 256)
    table[0] = 0
    return torch.as_tensor(table, dtype=torch.float32)


def _paint(image: Tensor, label: Tensor, table: Tensor) -> Tensor:
    """``image (C, *S)`` with its structures in other tones; borders stay as soft as partial volume makes them."""
    change = table.to(image.device)[label][None, None]
    pool = F.avg_pool2d if label.ndim == 2 else F.avg_pool3d
    return image + pool(change, 3, 1, 1, count_include_pad=False)[0]


def _as_classes(label: Tensor, classes: Sequence[int]) -> Tensor:
    numbered = torch.zeros_like(label)
    for index, value in enumerate(classes, start=1):
        numbered[label == value] = index
    return numbered
