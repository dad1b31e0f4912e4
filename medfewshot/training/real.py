"""Episodes from real base tasks: random classes of a data set, in augmented patches of different subjects.

One random monotone intensity curve serves a whole episode, so that a CT data set teaches contrasts that CT never has;
supports and queries then differ as scans of one protocol do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from medfewshot.augment import Augmentation, patch_grid, read_at, vary_intensity
from medfewshot.training.packing import BaseDataset, PackedDataset, PackedVolume
from medfewshot.types import Episode, InputError, Query, Support

Rng = np.random.Generator
PLACES = 4096
"""Voxels of a class that are remembered for each volume."""
FEWEST_VOXELS = 8
ATTEMPTS = 20
CURVE_KNOTS = 8


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
    curve: float = 0.5
    """Probability of a random monotone intensity curve; a quarter of these also turn bright into dark."""
    large_first: float = 1.0
    small_last: float = -0.3
    """Curriculum: classes are drawn by size to the power of the first, at the end of the second."""

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
        dataset, values, volumes = self.pools[int(rng.integers(len(self.pools)))]
        classes = _draw_classes(values, volumes, settings, progress, rng)
        patch = settings.patches[int(rng.integers(len(settings.patches)))]
        shots = int(rng.integers(settings.shots[0], settings.shots[1] + 1))
        order = [volumes[int(i)] for i in rng.permutation(len(volumes))]
        showing = [v for v in order if any(v.counts[c] for c in classes)]
        supports = _different_subjects(showing, shots)
        taken = {v.volume.subject for v in supports}
        queries = _different_subjects([v for v in order if v.volume.subject not in taken], settings.queries)
        if not supports or len(queries) < settings.queries:
            return None
        zoom = float(np.exp(rng.uniform(*np.log(settings.zoom))))
        spacing = torch.tensor(dataset.spacing_mm)
        images, labels = [], []
        for number, one in enumerate([*supports, *queries]):
            anywhere = number >= len(supports) and rng.random() < settings.absent
            centre = _place(one, classes, None if anywhere else number, patch, rng)
            image, label = _read(one.volume, patch, centre, spacing, zoom, generator, device)
            images.append(image)
            labels.append(_as_classes(label, classes))
        seen = torch.stack(labels[: len(supports)])
        if any(int((seen == i + 1).sum()) < FEWEST_VOXELS for i in range(len(classes))):
            return None
        batch = torch.stack(images)
        if rng.random() < settings.curve:
            batch = monotone_curve(batch, rng)
        batch = vary_intensity(batch, Augmentation(), generator)
        voxel_mm = tuple(float(s) * zoom for s in dataset.spacing_mm)
        return Episode(
            Support(tuple(batch[: len(supports)]), tuple(seen), len(classes) + 1, tuple(patch), voxel_mm),
            Query(batch[len(supports) :], torch.stack(labels[len(supports) :])),
            task=f"{dataset.name}[{','.join(dataset.names.get(c, str(c)) for c in classes)}]",
            support_subjects=tuple(v.volume.subject for v in supports),
            query_subjects=tuple(v.volume.subject for v in queries),
        )


def monotone_curve(images: Tensor, rng: Rng) -> Tensor:
    """One random piecewise-linear monotone curve for all ``images (B, C, *S)``, then zero mean and unit variance."""
    values = images.flatten()[:: max(1, images.numel() // 50_000) | 1].float().sort().values
    low, high = values[int(0.002 * (len(values) - 1))], values[int(0.998 * (len(values) - 1))]
    steps = torch.as_tensor(rng.exponential(1.0, CURVE_KNOTS), dtype=images.dtype, device=images.device)
    heights = torch.cat([steps.new_zeros(1), steps.cumsum(0)]) / steps.sum()
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


def _place(one: _Indexed, classes: Sequence[int], number: int | None, patch: Sequence[int], rng: Rng) -> Tensor:
    """Centre of a patch, voxels: around class ``number`` (in turn, so that all are shown), or None for anywhere."""
    shape = one.volume.label.shape
    present = [c for c in classes if one.counts[c]]
    if number is None or not present:
        return torch.tensor([rng.uniform(0, n - 1) for n in shape], dtype=torch.float32)
    value = present[number % len(present)]
    voxels = one.places[value]
    jitter = torch.as_tensor(rng.uniform(-0.25, 0.25, len(shape)), dtype=torch.float32) * torch.tensor(patch)
    return voxels[int(rng.integers(len(voxels)))].float() + jitter


def _read(
    volume: PackedVolume,
    patch: Sequence[int],
    centre: Tensor,
    spacing: Tensor,
    zoom: float,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """A warped patch ``(C, *patch)`` and its label ``(*patch)``: only the box that it touches is read and converted."""
    points = patch_grid(patch, centre, spacing, Augmentation(), generator)
    middle = centre.view(-1, *[1] * len(patch))
    points = middle + zoom * (points - middle)
    size = torch.tensor(volume.label.shape)
    low = (points.flatten(1).amin(1).floor().long() - 1).clamp_min(0).minimum(size - 1)
    high = (points.flatten(1).amax(1).ceil().long() + 2).clamp_min(1).minimum(size)
    box = tuple(slice(int(a), max(int(b), int(a) + 1)) for a, b in zip(low, high, strict=True))
    points = (points - low.view(-1, *[1] * len(patch))).to(device)
    image = volume.image[(slice(None), *box)].to(device).float()
    label = volume.label[box].to(device).float()[None]
    return read_at(image, points, "bilinear"), read_at(label, points, "nearest", "zeros")[0].long()


def _as_classes(label: Tensor, classes: Sequence[int]) -> Tensor:
    numbered = torch.zeros_like(label)
    for index, value in enumerate(classes, start=1):
        numbered[label == value] = index
    return numbered
