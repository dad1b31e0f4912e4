"""Which cases deserve a look, from the numbers alone. A flag is a reason to look, never a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medfewshot.report.page.content import Flag, PageCase, StructureRow

LOW_CONFIDENCE = 0.6
"""Mean probability of a structure's own voxels below which it is flagged whatever the others have."""
LOW_DICE = 0.5
OUTLIER = 3.5
"""Modified z-score (Iglewicz and Hoaglin 1993) beyond which a case is unlike the others."""
FAR_IN_SIZE = 1.25
"""... and by how much a size must differ from the median: among cases that are almost equal, anything is an outlier."""
FEWEST = 5
"""Cases below which nothing can be called unlike the others."""


def raise_flags(cases: Sequence[PageCase]) -> tuple[PageCase, ...]:
    """The cases with these flags after their own: failures, absent structures, low probabilities, odd sizes, scores."""
    sizes = _by_structure(cases, lambda row: math.log(row.size) if row.size else None)
    confidences = _by_structure(cases, lambda row: row.confidence)
    return tuple(replace(case, flags=(*case.flags, *_flags(case, sizes, confidences))) for case in cases)


def modified_z(value: float, others: Sequence[float]) -> float:
    """``0.6745 (value - median) / MAD`` over ``others``; 0 for fewer than five, or where half of them are the same."""
    if len(others) < FEWEST:
        return 0.0
    median = float(np.median(others))
    spread = float(np.median(np.abs(np.asarray(others) - median)))
    return 0.6745 * (value - median) / spread if spread > 0 else 0.0


def _by_structure(cases, value_of) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for case in cases:
        for row in case.structures:
            value = value_of(row)
            if value is not None:
                found.setdefault(row.label, []).append(value)
    return found


def _flags(case: PageCase, sizes: dict[int, list[float]], confidences: dict[int, list[float]]) -> list[Flag]:
    if case.status == "failed":
        return [Flag("failed", "error")]
    flags = []
    for row in case.structures:
        flags += [Flag(f"{row.name}: {text}") for text in _structure_flags(row, sizes, confidences)]
    return flags


def _structure_flags(row: StructureRow, sizes: dict[int, list[float]], confidences: dict[int, list[float]]):
    if row.score is not None and row.score.status == "missed":
        yield "missed"
    elif row.score is not None and row.score.status == "false_alarm":
        yield "not in the reference"
    elif row.size == 0 and (row.score is None or row.score.status != "absent"):
        yield "not found"
    if row.score is not None and row.score.status == "found" and (row.score.dice or 0) < LOW_DICE:
        yield f"Dice {row.score.dice or 0:.2f}"
    if row.confidence is not None:
        odd = modified_z(row.confidence, confidences[row.label]) < -OUTLIER
        if row.confidence < LOW_CONFIDENCE or odd:
            yield f"low probability ({row.confidence:.2f})"
    if row.size:
        z = modified_z(math.log(row.size), sizes[row.label])
        if abs(z) > OUTLIER and abs(math.log(row.size) - float(np.median(sizes[row.label]))) > math.log(FAR_IN_SIZE):
            yield f"unusually {'large' if z > 0 else 'small'} for these cases"
