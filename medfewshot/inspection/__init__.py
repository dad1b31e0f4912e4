"""Inspection of annotated scans before adaptation: contents, and problems."""

from __future__ import annotations

from medfewshot.datasets import Dataset
from medfewshot.inspection.checks import CHECKS
from medfewshot.inspection.measure import measure_case
from medfewshot.inspection.result import CaseRow, Inspection, LabelStats, Problem
from medfewshot.types import Progress

__all__ = ["CaseRow", "Inspection", "LabelStats", "Problem", "inspect"]


def inspect(dataset: Dataset, progress: Progress | None = None) -> Inspection:
    """Read every case once and report its contents and problems; a bad file does not stop the rest.

    Memory does not grow with the cohort, because only numbers are kept.
    """
    progress = progress or Progress()
    rows: list[CaseRow] = []
    problems: list[Problem] = []
    for done, case in enumerate(dataset.cases):
        progress.update(done, len(dataset.cases), case.case_id)
        row, found = measure_case(case, dataset)
        rows.append(row)
        problems += found
    progress.update(len(dataset.cases), len(dataset.cases), "")
    problems += [problem for check in CHECKS for problem in check(dataset, rows)]
    problems.sort(key=lambda problem: problem.severity != "error")
    return Inspection(dataset.name, dict(dataset.labels), tuple(rows), tuple(problems))
