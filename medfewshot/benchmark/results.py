"""Read the results of finished cells and gather them into groups: one (dataset, K, learner) with all its seeds."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np

from medfewshot.benchmark.cells import FAILURE, RECORD, SCORES, Cell, CellState, read_json, state_of
from medfewshot.benchmark.config import ALL, Shots
from medfewshot.errors import InputError
from medfewshot.evaluation import CaseScore, LabelSummary, case_means, mean, summarize


@dataclass(frozen=True)
class CellResult:
    """A finished cell: its record (``cell.json``) and its scores, one per case and label."""

    cell: Cell
    record: Mapping[str, Any]
    scores: tuple[CaseScore, ...]

    @cached_property
    def dice(self) -> float:
        """Mean over cases of the mean over labels; NaN where no score is defined."""
        return mean(case_means(self.scores).values())


@dataclass(frozen=True)
class Group:
    """The cells of one (dataset, K, learner), one per seed, and the results of those that are done."""

    cells: tuple[Cell, ...]
    results: tuple[CellResult, ...]

    @property
    def cell(self) -> Cell:
        """Any of the cells: they differ in their seed alone."""
        return self.cells[0]

    @property
    def key(self) -> tuple[str, Shots, str]:
        """(data set, K, learner) of the group."""
        return self.cell.dataset.name, self.cell.shots, self.cell.learner.name

    @property
    def whole_pool(self) -> bool:
        """Whether the learner gets every scan of the support pool."""
        return self.cell.shots == ALL

    @property
    def shots_text(self) -> str:
        """K as tables show it: ``5``, or ``pool (15)``."""
        return f"pool ({self.cell.supports})" if self.whole_pool else str(self.cell.shots)

    @cached_property
    def summaries(self) -> tuple[LabelSummary, ...]:
        """Summaries per label, all labels together last: over all cases of all seeds, with intervals over subjects."""
        pooled = [
            replace(score, case_id=f"{score.case_id}/s{result.cell.seed}")
            for result in self.results
            for score in result.scores
        ]
        return summarize(pooled)

    @property
    def whole(self) -> LabelSummary | None:
        """The summary of all labels; None if nothing has run."""
        return self.summaries[-1] if self.summaries else None

    def largest(self, *keys: str) -> float | None:
        """Largest over seeds of a number in the records, by its path there; None if no record has it."""
        return max((value for value in self.values(*keys) if value is not None), default=None)

    def mean(self, *keys: str) -> float | None:
        """Mean over seeds of a number in the records, by its path there; None where no record has it."""
        values = [value for value in self.values(*keys) if value is not None]
        return float(np.mean(values)) if values else None

    def values(self, *keys: str) -> list[Any]:
        """Return one value per finished seed."""

        def step(record: Any, key: str) -> Any:
            return record.get(key) if isinstance(record, Mapping) else None

        return [reduce(step, keys, result.record) for result in self.results]


@dataclass(frozen=True)
class BenchmarkResults:
    """What a report shows: the groups, how many cells are in which state, and why cells failed (id -> message)."""

    groups: Sequence[Group]
    states: Mapping[CellState, int]
    failed: Mapping[str, str]


def read_benchmark(cells: Sequence[Cell], run: Path) -> BenchmarkResults:
    """Read the results in a run directory.

    Raises:
        InputError: A record is damaged or was made with other settings.
    """
    states = Counter(state_of(cell, run) for cell in cells)
    return BenchmarkResults(read_groups(cells, run), states, failures(cells, run))


def read_groups(cells: Sequence[Cell], run: Path) -> list[Group]:
    """Read the groups of :func:`group_cells` from a run directory."""

    def find(cell: Cell) -> CellResult | None:
        return read_result(cell, cell.folder(run)) if state_of(cell, run) is CellState.DONE else None

    return group_cells(cells, find)


def group_cells(cells: Sequence[Cell], find: Callable[[Cell], CellResult | None]) -> list[Group]:
    """Groups in the order of dataset, K (the whole pool last), learner. ``find``: result of a cell, if it is done."""
    groups: dict[tuple[str, str, Shots], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset.name, cell.learner.name, cell.shots), []).append(cell)
    datasets = list(dict.fromkeys(name for name, _, _ in groups))
    learners = list(dict.fromkeys(name for _, name, _ in groups))
    order = sorted(groups, key=lambda key: (datasets.index(key[0]), key[2] == ALL, key[2], learners.index(key[1])))
    found = [(tuple(groups[key]), [find(cell) for cell in groups[key]]) for key in order]
    return [Group(mine, tuple(result for result in results if result is not None)) for mine, results in found]


def by_task(groups: Iterable[Group]) -> list[list[Group]]:
    """Return the groups of each (dataset, K)."""
    tasks: dict[tuple[str, Shots], list[Group]] = {}
    for group in groups:
        tasks.setdefault(group.key[:2], []).append(group)
    return list(tasks.values())


def read_result(cell: Cell, folder: Path) -> CellResult:
    """Read a finished cell.

    Raises:
        InputError: Its files are damaged.
    """
    path = folder / SCORES
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            scores = tuple(CaseScore.from_row(row) for row in csv.DictReader(stream))
    except (OSError, KeyError, ValueError):
        raise InputError(f"{path}: is damaged", "remove its folder, and the cell runs again") from None
    return CellResult(cell, read_json(folder / RECORD), scores)


def failures(cells: Iterable[Cell], run: Path) -> dict[str, str]:
    """Id -> message of the cells that failed."""
    return {
        cell.id: str(read_json(cell.folder(run) / FAILURE).get("message"))
        for cell in cells
        if state_of(cell, run) is CellState.FAILED
    }


def subject_dice(results: Iterable[CellResult]) -> dict[str, float]:
    """Return subject id -> mean Dice over labels, cases and seeds, without subjects that have no defined score."""
    values: dict[str, list[float]] = {}
    for result in results:
        for (subject, _), dice in case_means(result.scores).items():
            values.setdefault(subject, []).append(dice)
    means = {subject: mean(found) for subject, found in values.items()}
    return {subject: dice for subject, dice in means.items() if not math.isnan(dice)}
