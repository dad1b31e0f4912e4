"""A task's examples with the location of their classes: what episodes draw classes and subjects from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from medfewshot.episodes.examples import LabelledTask
from medfewshot.episodes.patches import IndexedExample, Rng, index_examples


class Pool:
    """A task's examples, indexed by the labels that may become classes."""

    def __init__(self, task: LabelledTask) -> None:
        self.task = task
        allowed: Sequence[int] = task.labels or ()
        if task.labels is None:
            allowed = sorted({int(v) for example in task.examples for v in example.label.unique()} - {0})
        self.indexed = index_examples(task.examples, allowed)
        totals = {value: sum(one.counts[value] for one in self.indexed) for value in allowed}
        self.values = [value for value in allowed if totals[value]]
        self.sizes = np.array([totals[value] for value in self.values], dtype=float)
        self.subjects = len({one.example.subject_id for one in self.indexed if one.contains(self.values)})
        if task.examples:
            first = task.examples[0]
            self.spacing_mm = first.spacing_mm or (1.0,) * first.label.ndim
            self.depth = float(np.median([example.label.shape[-1] for example in task.examples]))

    def voxel_mm(self, zoom: Tensor) -> tuple[float, ...] | None:
        """Return the voxel size at ``zoom`` times the task's spacing; None if that is unknown."""
        if self.task.examples[0].spacing_mm is None:
            return None
        return tuple(float(s * z) for s, z in zip(self.spacing_mm, zoom, strict=True))

    @cached_property
    def centres_mm(self) -> np.ndarray:
        """The centre of every class in the first example that contains it, ``(classes, dims)``."""
        first = [next(one for one in self.indexed if one.counts[value]) for value in self.values]
        centres = [one.places[value].float().mean(0).numpy() for one, value in zip(first, self.values, strict=True)]
        return np.stack(centres) * np.array(self.spacing_mm)

    def draw_classes(self, ways: tuple[int, int], exponent: float, near_mm: float | None, rng: Rng) -> list[int]:
        """Draw label values, in random order; with ``near_mm`` as many of those near the first one as there are."""
        weights = (self.sizes / self.sizes.max()).clip(1e-6) ** (exponent / 2)
        count = min(int(rng.integers(ways[0], ways[1] + 1)), len(self.values))
        if near_mm is None:
            order = rng.choice(len(self.values), count, replace=False, p=weights / weights.sum())
            return [self.values[int(i)] for i in order]
        first = int(rng.choice(len(self.values), p=weights / weights.sum()))
        weights *= np.linalg.norm(self.centres_mm - self.centres_mm[first], axis=1) <= near_mm
        weights[first] = 0
        count = min(count - 1, int((weights > 0).sum()))
        others = rng.choice(len(self.values), count, replace=False, p=weights / weights.sum()) if count else ()
        return [self.values[int(i)] for i in rng.permutation([first, *others])]

    def split(
        self, classes: Sequence[int], shots: int, rng: Rng, blind: bool
    ) -> tuple[list[IndexedExample], list[IndexedExample]]:
        """Draw at most ``shots`` supports of different subjects that contain a class, and list the other subjects.

        With ``blind`` the supports are drawn evenly; otherwise those with most classes come first.
        """
        order = [self.indexed[int(i)] for i in rng.permutation(len(self.indexed))]
        showing = [one for one in order if one.contains(classes)]
        if not blind:
            showing.sort(key=lambda one: -sum(one.counts[value] > 0 for value in classes))
        supports = _subjects_first(showing)[0][:shots]
        taken = {one.example.subject_id for one in supports}
        firsts, repeats = _subjects_first([one for one in order if one.example.subject_id not in taken])
        return supports, firsts + repeats


def _subjects_first(examples: Sequence[IndexedExample]) -> tuple[list[IndexedExample], list[IndexedExample]]:
    """Split examples into the first one of every subject, and the others."""
    first = {one.example.subject_id: one for one in reversed(examples)}
    firsts = [one for one in examples if first[one.example.subject_id] is one]
    return firsts, [one for one in examples if first[one.example.subject_id] is not one]
