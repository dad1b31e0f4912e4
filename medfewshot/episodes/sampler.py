"""N-way K-shot episodes. Source of the episode idea: Vinyals et al., Matching Networks, NeurIPS 2016."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medfewshot.episodes.crops import crop, empty_start, foreground_start
from medfewshot.errors import InputError
from medfewshot.types import Episode, Query, Support

_ATTEMPTS = 100
Range = int | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Example:
    """One labelled scan (or slice) on the plan's grid, in memory.

    ``image (C, *S)`` float; ``label (*S)`` integer, with the label values of the file, 0 = background.
    """

    subject_id: str
    image: Tensor
    label: Tensor
    spacing_mm: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.image.shape[1:] != self.label.shape:
            shapes = f"image {tuple(self.image.shape)}, label {tuple(self.label.shape)}"
            raise InputError(f"{self.subject_id}: {shapes}. The image needs shape (C, *S), the label (*S)")


@dataclass(frozen=True)
class _Pool:
    """A task's examples with the allowed labels that each contains."""

    name: str
    labels: tuple[int, ...]
    examples: tuple[Example, ...]
    present: tuple[frozenset[int], ...]


class EpisodeSampler:
    """Draws episodes; holds no random state of its own, and sampling does not change it.

    Args:
        examples_by_task: task name -> its examples.
        ways, shots: N and K, or (smallest, largest) to draw them per episode. queries: B, query scans an episode.
        absent_probability: chance that a query shows none of the episode's classes, where such a scan (or, with
            ``patch_size``, such a window) exists.
        allowed_labels: task name -> the label values that may become classes, e.g. the base labels; by default all.
            Every other value is background.
        exclude_examples_with: task name -> label values; an example that contains *any* of them is dropped. With the
            novel labels this is the strict "setting 2" of the few-shot literature.
        patch_size: crop or pad every scan to this many voxels, around its foreground; None keeps whole scans, and pads
            the queries of one episode to a common shape.

    Raises:
        InputError: a task name that is not known, or no task with enough labels and subjects.
    """

    def __init__(
        self,
        examples_by_task: Mapping[str, Sequence[Example]],
        *,
        ways: Range = 1,
        shots: Range = 1,
        queries: int = 1,
        absent_probability: float = 0.0,
        allowed_labels: Mapping[str, Sequence[int]] | None = None,
        exclude_examples_with: Mapping[str, Sequence[int]] | None = None,
        patch_size: Sequence[int] | None = None,
    ) -> None:
        self.ways, self.shots, self.queries = _range(ways, "ways"), _range(shots, "shots"), queries
        self.absent_probability = absent_probability
        self.patch_size = tuple(patch_size) if patch_size is not None else None
        if queries < 1 or not 0 <= absent_probability <= 1:
            raise InputError(f"queries {queries} and absent_probability {absent_probability}: need >= 1 and 0 to 1")
        allowed, excluded = dict(allowed_labels or {}), dict(exclude_examples_with or {})
        unknown = sorted({*allowed, *excluded} - set(examples_by_task))
        if unknown:
            raise InputError(f"tasks {unknown} have no examples. Known are: {', '.join(sorted(examples_by_task))}")
        pools = [
            _make_pool(name, examples, allowed.get(name), excluded.get(name, ()))
            for name, examples in examples_by_task.items()
        ]
        self._pools = tuple(pool for pool in pools if self._suffices(pool))
        if not self._pools:
            found = "; ".join(f"{p.name}: {len(p.labels)} labels, {_subjects(p)} subjects" for p in pools)
            needed = f"{self.ways[0]} labels and {self.shots[0] + 1} subjects with them"
            raise InputError(f"no task has {needed} ({found}). Add examples or ask for fewer ways and shots")

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are drawn from; one with too few labels or subjects is left out."""
        return tuple(pool.name for pool in self._pools)

    def sample(self, generator: torch.Generator | np.random.Generator) -> Episode:
        """Draw an episode; the same generator state gives the same one.

        Support subjects and query subjects are disjoint. Every class occurs in a support example, and every support
        example shows a class. Class ``i`` (1..N) is a random label, in random order; ``Episode.task`` records it as
        ``"name[label of class 1,label of class 2,...]"``.

        Returns:
            support images ``(C, *S)`` float32 and labels ``(*S)`` int64, query ``(B, C, *S)`` and ``(B, *S)``.

        Raises:
            InputError: no episode of this kind was found in 100 draws.
        """
        rng = _numpy_generator(generator)
        pool = self._pools[int(rng.integers(len(self._pools)))]
        for _ in range(_ATTEMPTS):
            episode = self._try(pool, rng)
            if episode is not None:
                return episode
        raise InputError(
            f"task {pool.name}: no episode with {self.ways[0]} ways, {self.shots[0]} shots and {self.queries} queries "
            f"in {_ATTEMPTS} draws. Add examples that show several classes, enlarge the patch, or lower these numbers"
        )

    def _suffices(self, pool: _Pool) -> bool:
        return len(pool.labels) >= self.ways[0] and _subjects(pool) > self.shots[0]

    def _try(self, pool: _Pool, rng: np.random.Generator) -> Episode | None:
        ways = int(rng.integers(self.ways[0], min(self.ways[1], len(pool.labels)) + 1))
        shots = int(rng.integers(self.shots[0], min(self.shots[1], _subjects(pool) - 1) + 1))
        classes = [int(value) for value in rng.permutation(pool.labels)[:ways]]
        support = _draw_support(pool, set(classes), shots, rng)
        if support is None:
            return None
        cropped = self._crop_support([_with_classes(pool.examples[i], classes) for i in support], ways, rng)
        queries = self._draw_queries(pool, classes, {pool.examples[i].subject_id for i in support}, rng)
        if cropped is None or queries is None:
            return None
        images, labels = zip(*cropped, strict=True)
        query_images, query_labels, query_subjects = queries
        spacing = pool.examples[support[0]].spacing_mm
        return Episode(
            support=Support(images, labels, ways + 1, self.patch_size, spacing),
            query=Query(query_images, query_labels),
            task=f"{pool.name}[{','.join(map(str, classes))}]",
            support_subjects=tuple(pool.examples[i].subject_id for i in support),
            query_subjects=query_subjects,
        )

    def _crop_support(
        self, pairs: list[tuple[Tensor, Tensor]], ways: int, rng: np.random.Generator
    ) -> list[tuple[Tensor, Tensor]] | None:
        """Windows that together still show every class; the second try is centred on all classes at once."""
        if self.patch_size is None:
            return pairs
        for whole in (False, True):
            starts = [foreground_start(label, self.patch_size, rng, whole) for _, label in pairs]
            cropped = [crop(*pair, start, self.patch_size) for pair, start in zip(pairs, starts, strict=True)]
            seen = set(torch.cat([torch.unique(label) for _, label in cropped]).tolist()) - {0}
            if len(seen) == ways and all(bool(label.any()) for _, label in cropped):
                return cropped
        return None

    def _draw_queries(
        self, pool: _Pool, classes: list[int], taken: set[str], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, tuple[str, ...]] | None:
        """``(B, C, *S)``, ``(B, *S)`` and the subjects; None where too few other subjects are left."""
        others = [i for i, example in enumerate(pool.examples) if example.subject_id not in taken]
        with_classes = [i for i in others if pool.present[i] & set(classes)]
        without = [i for i in others if not pool.present[i] & set(classes)]
        pairs, subjects = [], []
        for _ in range(self.queries):
            absent = bool(rng.random() < self.absent_probability)
            source = without if absent and without else with_classes
            if not source:
                return None
            chosen = source.pop(int(rng.integers(len(source))))
            pairs.append(self._crop_query(*_with_classes(pool.examples[chosen], classes), absent, rng))
            subjects.append(pool.examples[chosen].subject_id)
        images, labels = _stack(pairs)
        return images, labels, tuple(subjects)

    def _crop_query(
        self, image: Tensor, label: Tensor, absent: bool, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        if self.patch_size is None:
            return image, label
        start = empty_start(label, self.patch_size, rng) if absent or not bool(label.any()) else None
        return crop(image, label, start or foreground_start(label, self.patch_size, rng), self.patch_size)


def _make_pool(name: str, examples: Sequence[Example], allowed: Sequence[int] | None, excluded: Sequence[int]) -> _Pool:
    values = [frozenset(torch.unique(example.label).tolist()) - {0} for example in examples]
    kept = [i for i, found in enumerate(values) if not found & set(excluded)]
    usable = set(allowed) if allowed is not None else set().union(*values)
    present = tuple(values[i] & usable for i in kept)
    labels = tuple(sorted(set().union(*present)))
    return _Pool(name, labels, tuple(examples[i] for i in kept), present)


def _subjects(pool: _Pool) -> int:
    pairs = zip(pool.examples, pool.present, strict=True)
    return len({example.subject_id for example, present in pairs if present})


def _draw_support(pool: _Pool, classes: set[int], shots: int, rng: np.random.Generator) -> list[int] | None:
    """``shots`` examples of different subjects, all with a class, every class in one; None where none was found.

    The first try is blind, so that supports are as varied as the data; the second takes what shows most of the classes.
    """
    order = [int(i) for i in rng.permutation(len(pool.examples)) if pool.present[i] & classes]
    for greedy in (False, True):
        left, missing = list(order), set(classes)
        chosen: list[int] = []
        while left and len(chosen) < shots:
            best = left[0] if not greedy else max(left, key=lambda i: len(pool.present[i] & missing))
            chosen.append(best)
            missing -= pool.present[best]
            left = [i for i in left if pool.examples[i].subject_id != pool.examples[best].subject_id]
        if len(chosen) == shots and not missing:
            return chosen
    return None


def _with_classes(example: Example, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Image float32 and label int64 in which the i-th of ``classes`` is i + 1 and all else is 0."""
    label = torch.zeros(example.label.shape, dtype=torch.int64, device=example.label.device)
    for number, value in enumerate(classes, start=1):
        label[example.label == value] = number
    return example.image.float(), label


def _stack(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    size = [max(extents) for extents in zip(*(label.shape for _, label in pairs), strict=True)]
    pairs = [crop(*pair, [0] * len(size), size) if list(pair[1].shape) != size else pair for pair in pairs]
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(labels)


def _numpy_generator(generator: torch.Generator | np.random.Generator) -> np.random.Generator:
    """One numpy generator for all draws; a torch generator moves on by one number."""
    if isinstance(generator, np.random.Generator):
        return generator
    return np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator, device=generator.device)))


def _range(value: Range, name: str) -> tuple[int, int]:
    low, high = (value, value) if isinstance(value, int) else value
    if not 1 <= low <= high:
        raise InputError(f"{name} {value}: need a number from 1, or (smallest, largest)")
    return low, high
