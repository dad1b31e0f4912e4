"""N-way K-shot episodes from labelled volumes: random classes of a task, in patches of different subjects.

Training draws them with variation: one random intensity curve per episode, structures made brighter or darker, mirrored
axes, other spacings. So CT data teach contrasts and orientations that CT never has.

References:
    Vinyals et al., Matching networks for one shot learning, NeurIPS 2016 (episodes).
    Billot et al., SynthSeg, Medical Image Analysis 2023; Ouyang et al., Causality-inspired single-source domain
    generalization, IEEE TMI 2022 (random contrasts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from medfewshot.augment import Augmentation, vary_intensity
from medfewshot.episodes.examples import LabelledTask
from medfewshot.episodes.patches import (
    IndexedExample,
    Rng,
    draw_centre,
    draw_repaint,
    draw_zoom,
    random_curve,
    read_patch,
    repaint,
)
from medfewshot.episodes.pools import Pool
from medfewshot.episodes.sources import CPU
from medfewshot.errors import InputError
from medfewshot.settings import Factors, Patches, Range, Settings, Share
from medfewshot.synthetic import paint_labels
from medfewshot.types import Episode, Query, Support

ATTEMPTS = 100
BLIND_ATTEMPTS = 20
"""Later attempts prefer supports that show several of the classes."""


class EpisodeSettings(Settings):
    """Settings of episodes from labelled volumes; by default plain crops without any variation."""

    patches: Patches | None = Field(
        None, description="Patch sizes in voxels, one drawn per episode. Default: whole volumes."
    )
    shots: Range = Field((1, 1), description="Supports of an episode: smallest and largest number.")
    ways: Range = Field((1, 1), description="Classes of an episode: smallest and largest number.")
    queries: int = Field(1, ge=1, description="Queries of an episode.")
    near_mm: float | None = Field(
        None,
        gt=0,
        description="Draw the other classes of an episode at most this far from the first one, centre to "
        "centre. Default: anywhere.",
    )
    absent: Share = Field(0.0, description="Probability that a query patch is placed anywhere, whatever it shows.")
    query_shows_class: bool = Field(
        True,
        description="Take the other queries from examples that show a class, and absent ones from examples that show "
        "none, if such an example is left. If false, queries are any examples.",
    )
    fewest_voxels: int = Field(1, ge=1, description="Voxels of every class in the supports' patches, at least.")
    augment: bool = Field(False, description="Warp every patch and vary its intensities.")
    zoom: Factors = Field((1.0, 1.0), description="Spacing of an episode, as a multiple of the task's.")
    thick: Factors | None = Field(
        None,
        description="Slice thickness of a patch with few slices, as a multiple of the one that makes the patch a cube. "
        "Default: the task's.",
    )
    curve: Share = Field(
        0.0, description="Probability of a random monotone intensity curve; a quarter turns bright into dark."
    )
    free_curve: Share = Field(0.0, description="Probability that a curve rises and falls at random instead.")
    repaint: Share = Field(
        0.0, description="Probability that every structure becomes brighter or darker by an amount of its own."
    )
    mirror: Share = Field(0.0, description="Probability, for each axis, that the whole episode is mirrored along it.")
    large_first: float = Field(
        0.0,
        description="Curriculum: classes are drawn with weight voxels ** (exponent / 2). The exponent goes linearly "
        "from this number, at the start of a run, to small_last at its end.",
    )
    small_last: float = Field(0.0, description="See large_first.")

    @model_validator(mode="after")
    def _check_variation(self) -> Self:
        varied = (self.augment, self.curve, self.repaint, self.mirror, self.zoom != (1.0, 1.0))
        if self.patches is None and any(varied):
            raise ValueError("whole volumes cannot be varied; give patches")
        return self


class EpisodeSampler:
    """Draws episodes from labelled volumes; an episode depends on its seed alone.

    Support subjects and query subjects are disjoint. Every class occurs in a support patch. Class ``i`` (1..N) is a
    random label, in random order; ``Episode.task`` names them as ``"task[class 1,class 2]"``.

    Args:
        tasks: One of them is drawn for each episode. Tasks with too few labels or subjects are ignored.
        settings: What the episodes are like; by default plain crops.
        changes: Single settings, which win over ``settings``. A single number or size stands for a range or a list:
            ``shots=5``, ``patches=(32, 32, 32)``.

    Raises:
        InputError: A setting is out of bounds, no task has enough labels and subjects, or a patch has other axes.
    """

    def __init__(self, tasks: Sequence[LabelledTask], settings: EpisodeSettings | None = None, **changes: Any) -> None:
        self.settings = (settings or EpisodeSettings()).replace(**changes)
        pools = [Pool(task) for task in tasks]
        least, shots = self.settings.ways[0], self.settings.shots[0]
        self._pools = [pool for pool in pools if len(pool.values) >= least and pool.subjects > shots]
        if not self._pools:
            found = ", ".join(f"{p.task.name}: {len(p.values)} labels, {p.subjects} subjects" for p in pools)
            raise InputError(
                f"no task has {least} labels and {shots + 1} subjects with them ({found or 'there is no task'})",
                "add examples, or ask for fewer ways and shots",
            )
        for pool in self._pools:
            axes = {len(patch) for patch in pool.task.patches or self.settings.patches or ()}
            if axes - {len(pool.spacing_mm)}:
                problem = f"{pool.task.name}: is {len(pool.spacing_mm)}D, but a patch has {max(axes)} axes"
                raise InputError(problem, "give patches of as many axes", setting="patches")
        weights = np.array([pool.task.weight for pool in self._pools])
        self._chances = weights / weights.sum()

    def sample(self, seed: int, *, progress: float = 1.0, device: torch.device = CPU) -> Episode:
        """Draw the episode of ``seed``.

        Args:
            seed: Decides everything.
            progress: How far training is, in [0, 1]; see ``EpisodeSettings.large_first``.
            device: Where the episode's tensors are.

        Returns:
            Support images ``(C, *S)`` float32 and labels ``(*S)`` int64; query ``(B, C, *S)`` and ``(B, *S)``.

        Raises:
            InputError: No episode of this kind was found in 100 attempts.
        """
        rng = np.random.default_rng([seed, 2])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        for attempt in range(ATTEMPTS):
            episode = self._try(rng, generator, progress, device, blind=attempt < BLIND_ATTEMPTS)
            if episode is not None:
                return episode
        settings = self.settings
        raise InputError(
            f"no episode with {settings.ways[0]} ways, {settings.shots[0]} shots and {settings.queries} queries in "
            f"{ATTEMPTS} attempts",
            "add examples that show several classes, enlarge the patches, or lower these numbers",
        )

    def _try(
        self, rng: Rng, generator: torch.Generator, progress: float, device: torch.device, blind: bool
    ) -> Episode | None:
        settings = self.settings
        pool = self._pools[int(rng.choice(len(self._pools), p=self._chances))]
        exponent = settings.large_first * (1 - progress) + settings.small_last * progress
        classes = pool.draw_classes(settings.ways, exponent, settings.near_mm, rng)
        if len(classes) < settings.ways[0]:
            return None
        patches = pool.task.patches or settings.patches
        patch = None if patches is None else patches[int(rng.integers(len(patches)))]
        supports, others = pool.split(classes, int(rng.integers(settings.shots[0], settings.shots[1] + 1)), rng, blind)
        if len(supports) < settings.shots[0] or len(others) < settings.queries:
            return None
        zoom = torch.ones(len(pool.spacing_mm))
        if patch is not None:
            zoom = draw_zoom(patch, pool.spacing_mm, pool.depth, zoom=settings.zoom, thick=settings.thick, rng=rng)
        table = draw_repaint(rng) if rng.random() < settings.repaint else None
        chosen = self._place(supports, others, classes, patch, zoom, rng)
        if chosen is None:
            return None
        images, labels = self._read(pool, chosen, classes, patch, zoom, table, rng, generator, device)
        shots = len(supports)
        seen = torch.cat([label.flatten() for label in labels[:shots]]).bincount(minlength=len(classes) + 1)
        if int(seen[1:].min()) < settings.fewest_voxels:
            return None
        if patch is not None:
            images, labels = self._vary(images, labels, rng, generator)
        subjects = tuple(one.example.subject_id for one, _ in chosen)
        return Episode(
            Support(tuple(images[:shots]), tuple(labels[:shots]), len(classes) + 1, patch, pool.voxel_mm(zoom)),
            Query(torch.stack(images[shots:]), torch.stack(labels[shots:])),
            task=f"{pool.task.name}[{','.join(pool.task.names.get(c, str(c)) for c in classes)}]",
            support_subjects=subjects[:shots],
            query_subjects=subjects[shots:],
        )

    def _place(
        self,
        supports: Sequence[IndexedExample],
        others: Sequence[IndexedExample],
        classes: Sequence[int],
        patch: Sequence[int] | None,
        zoom: Tensor,
        rng: Rng,
    ) -> list[tuple[IndexedExample, Tensor]] | None:
        """Choose the queries, and the patch centre of each support and query; None if no suitable query is left."""
        left, chosen = list(others), []
        for number in range(len(supports) + self.settings.queries):
            absent = number >= len(supports) and bool(rng.random() < self.settings.absent)
            one = supports[number] if number < len(supports) else self._take_query(left, classes, absent)
            if one is None:
                return None
            size = zoom * torch.tensor(patch or one.example.label.shape)
            chosen.append((one, draw_centre(one, classes, None if absent else number, size, rng)))
        return chosen

    def _take_query(self, left: list[IndexedExample], classes: Sequence[int], absent: bool) -> IndexedExample | None:
        """Take the first suitable query from ``left``."""
        if not self.settings.query_shows_class:
            return left.pop(0)
        fit = [i for i, one in enumerate(left) if one.contains(classes) != absent]
        return left.pop(fit[0] if fit else 0) if fit or absent else None

    def _read(
        self,
        pool: Pool,
        chosen: Sequence[tuple[IndexedExample, Tensor]],
        classes: Sequence[int],
        patch: tuple[int, ...] | None,
        zoom: Tensor,
        table: Tensor | None,
        rng: Rng,
        generator: torch.Generator,
        device: torch.device,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Read the patch of each support and query; whole queries get one shape."""
        sizes = [patch or tuple(one.example.label.shape) for one, _ in chosen]
        queries = self.settings.queries
        sizes[-queries:] = [tuple(np.max(sizes[-queries:], axis=0).tolist())] * queries
        images, labels = [], []
        for (one, centre), size in zip(chosen, sizes, strict=True):
            image, label = read_patch(
                one.example, size, centre, zoom,
                spacing_mm=pool.spacing_mm, augment=self.settings.augment, generator=generator, device=device,
            )  # fmt: skip
            images.append(image if table is None else repaint(image, label, table))
            labels.append(label)
        if pool.task.tissues is not None:
            voxel_mm = torch.tensor(pool.spacing_mm) * zoom
            thick = bool(voxel_mm[-1] >= 2 * voxel_mm[0])
            maps = torch.stack(labels)
            images = list(paint_labels(maps, pool.task.tissues, thick=thick, rng=rng, generator=generator))
        return images, [_as_classes(label, classes) for label in labels]

    def _vary(
        self, images: list[Tensor], labels: list[Tensor], rng: Rng, generator: torch.Generator
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Vary contrast and orientation of the whole episode, then the intensities of every patch."""
        settings, batch, truth = self.settings, torch.stack(images), torch.stack(labels)
        if rng.random() < settings.curve:
            batch = random_curve(batch, rng, monotone=bool(rng.random() >= settings.free_curve))
        if settings.augment:
            batch = vary_intensity(batch, Augmentation(), generator)
        axes = [axis for axis in range(1, truth.ndim) if rng.random() < settings.mirror]
        return list(batch.flip([axis + 1 for axis in axes])), list(truth.flip(axes))


def _as_classes(label: Tensor, classes: Sequence[int]) -> Tensor:
    numbered = torch.zeros_like(label)
    for index, value in enumerate(classes, start=1):
        numbered[label == value] = index
    return numbered
