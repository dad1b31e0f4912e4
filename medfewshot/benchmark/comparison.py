"""Compare learners: paired tests over subjects, corrected for the number of pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfewshot.agreement import holm, signed_rank_p
from medfewshot.benchmark.config import Shots
from medfewshot.benchmark.results import Group, by_task, subject_dice


@dataclass(frozen=True)
class Comparison:
    """Two learners on one dataset with one K; ``difference`` is mean Dice of ``first`` minus ``second``."""

    dataset: str
    shots: Shots
    first: str
    second: str
    seeds: int
    subjects: int
    difference: float
    wins: int
    """Subjects on which ``first`` has the higher Dice."""
    p: float
    p_holm: float
    """Holm-corrected over all pairs of this dataset and K."""


def compare(groups: Sequence[Group]) -> list[Comparison]:
    """Compare all pairs of learners within each (dataset, K), over the seeds that both have."""
    return [found for family in by_task(groups) for found in _compare_family(family)]


def _compare_family(groups: Sequence[Group]) -> list[Comparison]:
    found = []
    for first, second in itertools.combinations(groups, 2):
        shared = {r.cell.seed for r in first.results} & {r.cell.seed for r in second.results}
        mine, theirs = (
            subject_dice(result for result in group.results if result.cell.seed in shared) for group in (first, second)
        )
        differences = np.array([mine[subject] - theirs[subject] for subject in sorted(mine.keys() & theirs.keys())])
        if len(differences):
            p = signed_rank_p(differences.tolist())
            mean, wins = float(differences.mean()), int((differences > 0).sum())
            found.append(Comparison(*first.key, second.key[2], len(shared), len(differences), mean, wins, p, p))
    corrected = holm([comparison.p for comparison in found])
    return [replace(comparison, p_holm=p) for comparison, p in zip(found, corrected, strict=True)]
