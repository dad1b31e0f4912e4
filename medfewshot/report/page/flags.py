"""Flags: cases that deserve a look, by their numbers. A flag is a reason to look, not a verdict."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
    of_label: dict[int, list[StructureRow]] = defaultdict(list)
    for case in cases:
        for row in case.structures:
            of_label[row.label].append(row)
    return tuple(replace(case, flags=(*case.flags, *_flags(case, of_label))) for case in cases)


def modified_z(value: float, others: Sequence[float]) -> float:
    """``0.6745 (value - median) / MAD`` over ``others``; 0 for fewer than five, or if half of them are the same."""
    if len(others) < FEWEST:
        return 0.0
    median = float(np.median(others))
    spread = float(np.median(np.abs(np.asarray(others) - median)))
    return 0.6745 * (value - median) / spread if spread > 0 else 0.0


def _flags(case: PageCase, of_label: dict[int, list[StructureRow]]) -> list[Flag]:
    if case.status == "failed":
        return [Flag("failed", "error")]
    return [Flag(f"{row.name}: {text}") for row in case.structures for text in _reasons(row, of_label[row.label])]


def _reasons(row: StructureRow, others: Sequence[StructureRow]) -> Iterator[str]:
    status = row.score.status if row.score else "not scored"
    if status == "missed":
        yield "missed"
    elif status == "false_alarm":
        yield "not in the reference"
    elif row.size == 0 and status != "absent":
        yield "not found"
    if row.score and status == "found" and row.score.dice < LOW_DICE:
        yield f"Dice {row.score.dice:.2f}"
    if row.predicted_dice is not None:
        predictions = [other.predicted_dice for other in others if other.predicted_dice is not None]
        if row.predicted_dice < LOW_DICE or _side(row.predicted_dice, predictions, FAR_IN_DICE) < 0:
            yield f"low predicted Dice ({row.predicted_dice:.2f})"
    if row.size:
        sizes = [math.log(other.size) for other in others if other.size]
        if side := _side(math.log(row.size), sizes, math.log(FAR_IN_SIZE)):
            yield f"unusually {'large' if side > 0 else 'small'} for these cases"


def _side(value: float, others: Sequence[float], far: float) -> int:
    """Return 1 or -1 if a value is far above or below the median of ``others`` and an outlier, or else 0."""
    distance = value - float(np.median(others))
    odd = abs(modified_z(value, others)) > OUTLIER and abs(distance) > far
    return int(math.copysign(1, distance)) if odd else 0
