"""Cases to review, chosen by their numbers. A flag is a reason to look, not a verdict."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medfewshot.report.page.content import FALSE_POSITIVE, MISSED, PageCase, StructureRow

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
NOT_FOUND = "not found"
"""The reason of :func:`medfewshot.quality.reasons_to_review` for a structure without a voxel."""
FIRST_LOOK = 8
"""Largest number of cases that the page shows first."""


def raise_flags(cases: Sequence[PageCase]) -> tuple[PageCase, ...]:
    """Add flags to each case: absent structures, low confidence, unusual sizes, low scores."""
    of_label: dict[int, list[StructureRow]] = defaultdict(list)
    for case in cases:
        for row in case.structures:
            of_label[row.label].append(row)
    dice = {
        label: Typical.of([row.predicted_dice for row in rows if row.predicted_dice is not None])
        for label, rows in of_label.items()
    }
    log_size = {label: Typical.of([math.log(row.size) for row in rows if row.size]) for label, rows in of_label.items()}

    def flagged(row: StructureRow) -> StructureRow:
        # A reference says better than a size whether a structure is missing.
        known = [text for text in row.flags if row.status is None or text != NOT_FOUND]
        new = _reasons(row, dice[row.label], log_size[row.label])
        return replace(row, flags=tuple(dict.fromkeys((*known, *new))))

    return tuple(replace(case, structures=tuple(map(flagged, case.structures))) for case in cases)


def look_first(cases: Sequence[PageCase]) -> tuple[PageCase, ...]:
    """Choose the cases to look at first: those with flags, the worst first, then failed ones, then the others."""

    def order(case: PageCase) -> tuple[int, float]:
        group = 1 if case.failed else 0 if case.reasons else 2
        return group, case.worst.quality if case.worst else 1.0

    return tuple(sorted(cases, key=order)[:FIRST_LOOK])


@dataclass(frozen=True)
class Typical:
    """Median and spread of a measurement.

    Attributes:
        count: Number of values.
        median: Their median.
        spread: Median absolute deviation from it.
    """

    count: int
    median: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Typical:
        """Return median and spread of ``values``; zeros if there are none."""
        if not values:
            return cls(0, 0.0, 0.0)
        median = float(np.median(values))
        return cls(len(values), median, float(np.median(np.abs(np.asarray(values) - median))))

    def modified_z(self, value: float) -> float:
        """Return ``0.6745 (value - median) / spread``; 0 for fewer than five values, or if half of them are equal."""
        return 0.6745 * (value - self.median) / self.spread if self.count >= FEWEST and self.spread > 0 else 0.0

    def side(self, value: float, far: float) -> int:
        """Return 1 or -1 if a value is far above or below the median and an outlier, or else 0."""
        distance = value - self.median
        odd = abs(self.modified_z(value)) > OUTLIER and abs(distance) > far
        return int(math.copysign(1, distance)) if odd else 0


def _reasons(row: StructureRow, dice: Typical, log_size: Typical) -> Iterator[str]:
    """Yield reasons to review a structure, from what is typical of its predicted Dice and the logarithm of its size."""
    if row.status == MISSED:
        yield "missed"
    elif row.status == FALSE_POSITIVE:
        yield "not in the reference"
    elif row.size == 0 and row.status is None:
        yield NOT_FOUND
    elif row.status is not None and row.quality < LOW_DICE:
        yield f"Dice {row.quality:.2f}"
    predicted = row.predicted_dice
    if predicted is not None and (predicted < LOW_DICE or dice.side(predicted, FAR_IN_DICE) < 0):
        yield "low confidence"
    if row.size and (side := log_size.side(math.log(row.size), math.log(FAR_IN_SIZE))):
        yield f"unusually {'large' if side > 0 else 'small'} for these scans"
