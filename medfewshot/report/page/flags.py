"""Flags: cases that deserve a look, by their numbers. A flag is a reason to look, not a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medfewshot.report.page.content import Flag, PageCase, StructureRow

LOW_DICE = 0.5
"""Dice, predicted or measured, below which a structure is flagged whatever the other cases have."""
OUTLIER = 3.5
"""Modified z-score (Iglewicz and Hoaglin 1993) beyond which a case differs from the others."""
FAR_IN_SIZE = 1.25
"""Factor by which a size must also differ from the median: among almost equal cases, anything is an outlier."""
FAR_IN_DICE = 0.05
"""Difference by which a predicted Dice must also lie below the median."""
FEWEST = 5
"""Smallest number of cases in which one can be called an outlier."""


def raise_flags(cases: Sequence[PageCase]) -> tuple[PageCase, ...]:
    """Add flags to each case: failures, absent structures, low predicted Dice, unusual sizes, low scores."""
    sizes = _by_structure(cases, lambda row: math.log(row.size) if row.size else None)
    predictions = _by_structure(cases, lambda row: row.predicted_dice)
    return tuple(replace(case, flags=(*case.flags, *_flags(case, sizes, predictions))) for case in cases)


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


def _flags(case: PageCase, sizes: dict[int, list[float]], predictions: dict[int, list[float]]) -> list[Flag]:
    if case.status == "failed":
        return [Flag("failed", "error")]
    flags = []
    for row in case.structures:
        flags += [Flag(f"{row.name}: {text}") for text in _structure_flags(row, sizes, predictions)]
    return flags


def _structure_flags(row: StructureRow, sizes: dict[int, list[float]], predictions: dict[int, list[float]]):
    if row.score is not None and row.score.status == "missed":
        yield "missed"
    elif row.score is not None and row.score.status == "false_alarm":
        yield "not in the reference"
    elif row.size == 0 and (row.score is None or row.score.status != "absent"):
        yield "not found"
    if row.score is not None and row.score.status == "found" and row.score.dice < LOW_DICE:
        yield f"Dice {row.score.dice:.2f}"
    if row.predicted_dice is not None:
        others = predictions[row.label]
        odd = modified_z(row.predicted_dice, others) < -OUTLIER
        if row.predicted_dice < LOW_DICE or (odd and row.predicted_dice < np.median(others) - FAR_IN_DICE):
            yield f"low predicted Dice ({row.predicted_dice:.2f})"
    if row.size:
        z = modified_z(math.log(row.size), sizes[row.label])
        if abs(z) > OUTLIER and abs(math.log(row.size) - float(np.median(sizes[row.label]))) > math.log(FAR_IN_SIZE):
            yield f"unusually {'large' if z > 0 else 'small'} for these cases"
