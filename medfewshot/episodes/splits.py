"""Who and what is held out: subjects and classes, never only one of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medfewshot.errors import InputError
from medfewshot.types import Case, Task

T = TypeVar("T")

FIXED_SPLITS: dict[str, tuple[range, range]] = {
    "abd-mr-chaos": (range(10), range(10, 20)),
    "abd-ct-sabs": (range(15), range(15, 30)),
    "card-mr-mscmr": (range(15), range(15, 35)),
    "Task04_Hippocampus": (range(60), range(200, 260)),
    "lung-nodule-lidc": (range(30), range(30, 60)),
}
"""Dataset -> (support pool, query set), as indices of its cases sorted by file name. Reported numbers use these."""


@dataclass(frozen=True)
class Split:
    """Disjoint label values and disjoint subjects: train on base labels of train subjects, test on novel of test."""

    base_labels: tuple[int, ...]
    novel_labels: tuple[int, ...]
    train_subjects: tuple[str, ...]
    test_subjects: tuple[str, ...]

    def __post_init__(self) -> None:
        shared: set = set(self.base_labels) & set(self.novel_labels)
        if shared:
            raise InputError(f"labels {sorted(shared)} are both base and novel. Put each on one side")
        shared = set(self.train_subjects) & set(self.test_subjects)
        if shared:
            raise InputError(f"subjects {sorted(shared)} are on both sides of the split. Put each on one side")


def fixed_split(name: str) -> tuple[range, range]:
    """``(support pool, query set)`` of a known dataset, as indices of its cases sorted by file name.

    Raises:
        InputError: no fixed split has this name.
    """
    if name not in FIXED_SPLITS:
        raise InputError(f"no fixed split for '{name}'. Known are: {', '.join(FIXED_SPLITS)}")
    return FIXED_SPLITS[name]


def draw_support(pool: Sequence[T], shots: int, seed: int) -> list[T]:
    """The ``shots`` supports of draw ``seed``: ``numpy.random.default_rng(seed).choice(pool, shots, replace=False)``.

    ``pool``: indices or cases, in file-name order.

    Raises:
        InputError: the pool is smaller than ``shots``.
    """
    if not 1 <= shots <= len(pool):
        raise InputError(f"cannot draw {shots} supports from a pool of {len(pool)}. Ask for 1 to {len(pool)}")
    return [pool[int(i)] for i in np.random.default_rng(seed).choice(len(pool), shots, replace=False)]


def split_task(
    task: Task,
    *,
    novel: Sequence[int],
    test_fraction: float | None = None,
    pool: Sequence[int] | None = None,
    query: Sequence[int] | None = None,
    generator: np.random.Generator | None = None,
) -> Split:
    """Hold out the ``novel`` label values and some subjects.

    Either ``test_fraction`` with a ``generator`` (that share of the subjects, at least one and not all), or ``pool``
    and ``query``: indices of cases sorted by file name, as ``fixed_split`` gives them.

    Raises:
        InputError: unknown novel labels, no base label left, a subject on both sides, too few subjects.
        TypeError: neither or both ways of choosing subjects.
    """
    unknown = sorted(set(novel) - set(task.labels))
    if unknown:
        raise InputError(f"{task.name}: novel labels {unknown} are not among its labels {sorted(task.labels)}")
    base = tuple(value for value in task.labels if value not in novel)
    if test_fraction is not None and generator is not None and pool is None and query is None:
        train, test = _random_subjects(task, test_fraction, generator)
    elif test_fraction is None and pool is not None and query is not None:
        train, test = _subjects_at(task, pool), _subjects_at(task, query)
    else:
        raise TypeError("give either test_fraction and generator, or pool and query")
    return Split(base, tuple(novel), train, test)


def _sorted_cases(task: Task) -> list[Case]:
    return sorted(task.cases, key=lambda case: (case.image_path.name, str(case.image_path)))


def _subjects_at(task: Task, indices: Sequence[int]) -> tuple[str, ...]:
    cases = _sorted_cases(task)
    if indices and not 0 <= min(indices) <= max(indices) < len(cases):
        raise InputError(
            f"{task.name}: index {max(indices)} is out of range; it has {len(cases)} cases, counted from 0"
        )
    return tuple(dict.fromkeys(cases[i].subject_id for i in indices))


def _random_subjects(
    task: Task, test_fraction: float, generator: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    subjects = list(dict.fromkeys(case.subject_id for case in _sorted_cases(task)))
    if not 0 < test_fraction < 1 or len(subjects) < 2:
        raise InputError(f"{task.name}: cannot hold out {test_fraction} of {len(subjects)} subjects")
    count = min(max(1, round(test_fraction * len(subjects))), len(subjects) - 1)
    test = set(generator.permutation(len(subjects))[:count].tolist())
    train = tuple(name for i, name in enumerate(subjects) if i not in test)
    return train, tuple(name for i, name in enumerate(subjects) if i in test)
