"""Procedural tasks for meta-training: supports and queries of an episode are members of one synthetic population."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from pydantic import Field, field_validator

from medfewshot.settings import Patches, Range, Settings, Share
from medfewshot.synthetic.parts import Part
from medfewshot.synthetic.render import MM_PER_UNIT, Rendered, draw_template, draw_view, render
from medfewshot.types import Episode, Query, Support

Rng = np.random.Generator
MIN_CLASS_VOXELS = 12
"""Minimum number of voxels of a class in the supports."""
ATTEMPTS = 8


class PopulationSettings(Settings):
    """Settings of procedural episodes."""

    patches: Patches = Field(
        ((64, 64, 64), (48, 48, 48), (80, 80, 24)),
        description="Patch sizes in voxels, one drawn per episode; a patch with few slices has thick ones. (X, Y) in "
        "2D.",
    )
    shots: Range = Field((1, 5), description="Supports of an episode: smallest and largest number.")
    ways: Range = Field((1, 3), description="Classes of an episode: smallest and largest number.")
    queries: int = Field(1, ge=1, description="Queries of an episode.")
    other_contrast: Share = Field(0.1, description="Probability that queries have another contrast than supports.")
    merge: Share = Field(0.15, description="Probability that two structures form one class.")
    large_first: float = Field(
        2.0,
        description="Curriculum: structures are drawn with weight volume ** (exponent / 3), so about by their diameter "
        "to the power of the exponent. It goes linearly from this number, at the start of a run, to small_last at its "
        "end.",
    )
    small_last: float = Field(-0.25, description="See large_first.")

    @field_validator("patches")
    @classmethod
    def _check_axes(cls, patches: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        if {len(patch) for patch in patches} not in ({2}, {3}):
            raise ValueError("give sizes of 2 axes, or of 3, in voxels")
        return patches


@dataclass(frozen=True)
class Populations:
    """An episode source: every seed gives another population.

    Args:
        settings: Settings of the episodes.
        render: Makes images and label maps of a population's members.
    """

    settings: PopulationSettings = field(default_factory=PopulationSettings)
    render: Callable[..., Rendered] = render

    def sample(self, seed: int, *, progress: float = 1.0, device: torch.device = torch.device("cpu")) -> Episode:
        """Draw the episode of ``seed``.

        Args:
            seed: Decides everything.
            progress: How far training is, in [0, 1]; see ``PopulationSettings.large_first``.
            device: Where the episode is made.

        Returns:
            Patches of one shape; every class occurs in a support.
        """
        for attempt in range(ATTEMPTS):
            rng = np.random.default_rng([seed, attempt])
            episode = self._try(rng, progress, device, fewest=MIN_CLASS_VOXELS if attempt < ATTEMPTS - 1 else 1)
            if episode is not None:
                return episode
        return self.sample((seed + 1) % 2**63, progress=progress, device=device)

    def _try(self, rng: Rng, progress: float, device: torch.device, fewest: int) -> Episode | None:
        settings = self.settings
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        patch = settings.patches[int(rng.integers(len(settings.patches)))]
        full = (patch[0], patch[1], patch[2] if len(patch) == 3 else 1)
        shots = int(rng.integers(settings.shots[0], settings.shots[1] + 1))
        template, parts = draw_template(rng)
        exponent = settings.large_first * (1 - progress) + settings.small_last * progress
        focus = draw_by_size(parts, exponent, rng)
        # Patches with few slices have thick ones.
        thickness = max(1.0, 0.8 * full[0] / full[2]) if full[2] > 1 else 1.0
        spacing = np.array([1.0, 1.0, float(thickness * np.exp(rng.uniform(-0.25, 0.25)))])
        view = draw_view(parts, focus, full, spacing, rng)
        others = settings.queries if rng.random() < settings.other_contrast else 0
        rendered = self.render(
            parts, view, full, shots + settings.queries, thick=bool(spacing[2] >= 2), other_contrast_for=others,
            rng=rng, generator=generator, device=device,
        )  # fmt: skip
        groups = self._choose_classes(rendered, focus, shots, exponent, rng, fewest)
        if groups is None:
            return None
        table = torch.zeros(len(parts) + 1, dtype=torch.int64, device=rendered.labels.device)
        for number, group in enumerate(groups, start=1):
            table[group] = number
        labels = table[rendered.labels.long()]
        images = rendered.images
        if len(patch) == 2:
            images, labels = images.squeeze(-1), labels.squeeze(-1)
        voxel_mm = tuple(float(e / n * MM_PER_UNIT) for e, n in zip(view.extent, full, strict=True))[: len(patch)]
        names = ",".join("+".join(parts[i - 1].name for i in group) for group in groups)
        return Episode(
            Support(tuple(images[:shots]), tuple(labels[:shots]), len(groups) + 1, tuple(patch), voxel_mm),
            Query(images[shots:], labels[shots:]),
            task=f"{template} {rendered.style}[{names}]",
            support_subjects=tuple(f"member {i}" for i in range(shots)),
            query_subjects=tuple(f"member {i}" for i in range(shots, shots + settings.queries)),
        )

    def _choose_classes(
        self, rendered: Rendered, focus: Part, shots: int, exponent: float, rng: Rng, fewest: int
    ) -> list[list[int]] | None:
        """Choose groups of part numbers (from 1), one group per class; None if the supports contain too little."""
        counts = torch.bincount(rendered.labels[:shots].flatten().long(), minlength=len(rendered.parts) + 1).tolist()
        whole = rendered.labels[:shots].numel()
        numbered = enumerate(rendered.parts, start=1)
        usable = [i for i, part in numbered if part.labelled and fewest <= counts[i] < 0.8 * whole]
        first = rendered.parts.index(focus) + 1
        if first not in usable:
            return None
        rest = [i for i in usable if i != first]
        ways = min(int(rng.integers(self.settings.ways[0], self.settings.ways[1] + 1)), len(usable))
        weights = np.array([max(counts[i], 1) / whole for i in rest]) ** (exponent / 3)
        groups = [[first]]
        if ways > 1:
            chosen = rng.choice(len(rest), ways - 1, replace=False, p=weights / weights.sum())
            groups += [[rest[int(i)]] for i in chosen]
        free = [i for i in rest if [i] not in groups]
        if free and rng.random() < self.settings.merge:
            groups[int(rng.integers(len(groups)))].append(free[int(rng.integers(len(free)))])
        self._add_lesions(rendered, groups, rng)
        order = rng.permutation(len(groups))
        return [groups[int(i)] for i in order]

    @staticmethod
    def _add_lesions(rendered: Rendered, groups: list[list[int]], rng: Rng) -> None:
        """Add lesions that are no class of their own to the organ around them, as annotators mostly do."""
        taken = {i for group in groups for i in group}
        with_lesions = rng.random() < 0.75
        for i, part in enumerate(rendered.parts, start=1):
            inner = part.within is not None and (not part.labelled or (part.scatter > 0 and with_lesions))
            if inner and i not in taken:
                for group in groups:
                    if any(rendered.parts[j - 1].name == part.within for j in group):
                        group.append(i)


def draw_by_size(parts: list[Part], exponent: float, rng: Rng) -> Part:
    """Draw a labelled part with weight volume ** (exponent / 3)."""
    candidates = [part for part in parts if part.labelled]
    weights = np.array([min(part.size, 0.5) for part in candidates]) ** (exponent / 3)
    return candidates[int(rng.choice(len(candidates), p=weights / weights.sum()))]
