"""Learning curves: Dice on scans that the model has not seen, against the number of labelled scans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medfewshot.errors import counted
from medfewshot.evaluation.results import ALL_LABELS, bootstrap_interval

NEXT = 5
"""Number of further labels whose gain is estimated."""
GAIN = 0.01
"""Change of the mean Dice that counts. If the rise is smaller, further labels help little."""
FEWEST_POINTS = 3
"""Numbers of labelled scans that a curve with three parameters needs."""
RESAMPLES, SEED = 500, 0
_POWERS = np.linspace(0.1, 2.0, 20)
NAN = float("nan")


@dataclass(frozen=True)
class CurveScore:
    """Score of one structure of one scan that one of the models had not seen.

    Attributes:
        shots: Number of labelled scans that the model learned from.
        draw: Which choice of them, from 1.
        case: Name of the scan.
        subject: Whose scan it is.
        structure: Name of the structure.
        dice: Dice; NaN if the structure is neither in the scan nor found.
    """

    shots: int
    draw: int
    case: str
    subject: str
    structure: str
    dice: float

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> CurveScore:
        """Read a row of ``curve_scores.csv``; an empty cell is NaN.

        Raises:
            KeyError, ValueError: A column is missing or is not a number.
        """
        names = row["case"], row["subject"], row["structure"]
        return cls(int(row["shots"]), int(row["draw"]), *names, float(row["dice"] or NAN))

    def row(self) -> dict[str, Any]:
        """Return the columns of ``curve_scores.csv``; None for an undefined value."""
        return {**asdict(self), "dice": None if np.isnan(self.dice) else self.dice}


@dataclass(frozen=True)
class CurvePoint:
    """Mean Dice with one number of labelled scans.

    Attributes:
        shots: Number of labelled scans.
        structure: Name; ``all labels`` for the mean over the structures of a scan.
        tests: Number of (choice of labelled scans, other scan) pairs.
        dice: Mean over the tests.
        ci_low: Lower end of the 95 % bootstrap interval over subjects; NaN for one subject.
        ci_high: Upper end.
    """

    shots: int
    structure: str
    tests: int
    dice: float
    ci_low: float
    ci_high: float

    def row(self) -> dict[str, Any]:
        """Return the columns of ``curve.csv``; None for an undefined value."""
        columns = {"shots": self.shots, "structure": self.structure, "tests": self.tests, "dice_mean": self.dice}
        columns |= {"dice_ci_low": self.ci_low, "dice_ci_high": self.ci_high}
        return {key: None if isinstance(one, float) and np.isnan(one) else one for key, one in columns.items()}


@dataclass(frozen=True)
class LearningCurve:
    """Scores of leave-out tests on labelled scans.

    Args:
        scores: One per choice, scan and structure.
        labelled: Number of labelled scans that there are.
    """

    scores: tuple[CurveScore, ...]
    labelled: int

    @cached_property
    def points(self) -> tuple[CurvePoint, ...]:
        """Means of each structure, then of all together, by number of labelled scans."""
        names = [*dict.fromkeys(score.structure for score in self.scores)]
        points = []
        for name in [*names, ALL_LABELS]:
            by_shots: dict[int, list[tuple[float, str]]] = defaultdict(list)
            for shots, _, value, subject in self._tests(name):
                by_shots[shots].append((value, subject))
            for shots, values in sorted(by_shots.items()):
                dice, subjects = zip(*values, strict=True)
                interval = bootstrap_interval(dice, subjects)
                points.append(CurvePoint(shots, name, len(dice), float(np.mean(dice)), *interval))
        return tuple(points)

    @property
    def overall(self) -> tuple[CurvePoint, ...]:
        """The points of all structures together."""
        return tuple(point for point in self.points if point.structure == ALL_LABELS)

    def _tests(self, structure: str) -> list[tuple[int, int, float, str]]:
        """Shots, choice, mean Dice and subject of each test in which the structure is defined."""
        values: dict[tuple[int, int, str, str], list[float]] = defaultdict(list)
        for score in self.scores:
            if structure in (score.structure, ALL_LABELS) and not np.isnan(score.dice):
                values[score.shots, score.draw, score.case, score.subject].append(score.dice)
        return [(key[0], key[1], float(np.mean(dice)), key[3]) for key, dice in values.items()]

    @cached_property
    def gain(self) -> tuple[float, float, float]:
        """Expected rise of the mean Dice with five more labelled scans, and its 95 % bootstrap interval.

        It extrapolates an inverse power law. The bootstrap is over subjects and over choices of labelled scans. NaN
        with fewer than three numbers of labelled scans or one subject.
        """
        tests = self._tests(ALL_LABELS)
        shots, dice = np.array([test[0] for test in tests]), np.array([test[2] for test in tests])
        subjects, index = np.unique([test[3] for test in tests], return_inverse=True)
        choices = np.array([test[1] for test in tests])
        if len(np.unique(shots)) < FEWEST_POINTS or len(subjects) < 2:
            return NAN, NAN, NAN
        generator = np.random.default_rng(SEED)
        found = []
        for _ in range(RESAMPLES):
            times = np.bincount(generator.integers(0, len(subjects), len(subjects)), minlength=len(subjects))[index]
            for count in np.unique(shots):
                here = shots == count
                drawn, which = np.unique(choices[here], return_inverse=True)
                again = generator.integers(0, len(drawn), len(drawn))
                times[here] *= np.bincount(again, minlength=len(drawn))[which]
            if len(np.unique(shots[times > 0])) >= FEWEST_POINTS:
                found.append(self._gain(shots, dice, times))
        low, high = np.percentile(found, [2.5, 97.5])
        return self._gain(shots, dice, np.ones(len(dice))), float(low), float(high)

    def expected(self, shots: np.ndarray) -> np.ndarray:
        """Return the mean Dice ``(N,)`` that the fitted power law gives for ``shots (N,)``."""
        known, dice = (np.array(column) for column in zip(*((p.shots, p.dice) for p in self.overall), strict=True))
        top, drop, power = fit_power_law(known, dice, np.array([point.tests for point in self.overall]))
        return top - drop * shots.astype(np.float64) ** -power

    def _gain(self, shots: np.ndarray, dice: np.ndarray, times: np.ndarray) -> float:
        _, drop, power = fit_power_law(shots, dice, times)
        now, later = (drop * count**-power for count in (self.labelled, self.labelled + NEXT))
        return now - later

    @property
    def rises(self) -> bool:
        """Whether no number of labelled scans has a mean Dice 0.01 or more below that of the next smaller number."""
        dice = np.array([point.dice for point in self.overall])
        return bool((np.diff(dice) > -GAIN).all())

    @property
    def sentence(self) -> str:
        """What the curve says, for people."""
        if not self.overall:
            return "No structure could be scored."
        last, (gain, low, high) = self.overall[-1], self.gain
        text = f"With {counted(last.shots, 'labelled scan')}, the mean Dice on other scans is {last.dice:.3f}"
        text += f" ({last.ci_low:.3f} to {last.ci_high:.3f})." if np.isfinite(last.ci_low) else "."
        if np.isnan(gain):
            return f"{text} It takes {FEWEST_POINTS} numbers of labelled scans to estimate what more of them would add."
        if not self.rises:
            return f"{text} The curve does not rise from point to point, so it cannot tell what more of them would add."
        text += f" {NEXT} more than the {self.labelled} that you have are expected to add {gain:.3f}"
        text += f" ({low:.3f} to {high:.3f})."
        if high < GAIN:
            return f"{text} More labels of this kind help little."
        if low >= GAIN:
            return f"{text} Label more scans."
        return f"{text} That is too uncertain to tell whether they help."


def fit_power_law(shots: np.ndarray, dice: np.ndarray, times: np.ndarray) -> tuple[float, float, float]:
    """Fit ``top - drop * shots ** -power`` by least squares, with ``top`` at most 1 and ``drop`` at least 0.

    Args:
        shots: ``(N,)`` numbers of labelled scans.
        dice: ``(N,)``.
        times: ``(N,)``, how often each test counts.

    Returns:
        ``top``, ``drop`` and ``power`` from 0.1 to 2.

    References:
        Figueroa et al. 2012, "Predicting sample size required for classification performance".
    """
    counts, index = np.unique(shots, return_inverse=True)
    weights = np.bincount(index, weights=times)
    means = np.bincount(index, weights=dice * times) / np.maximum(weights, 1)
    weights = weights / weights.sum()
    falling = counts.astype(np.float64) ** -_POWERS[:, None]  # (powers, counts)
    centre, middle = falling @ weights, means @ weights
    apart = falling - centre[:, None]
    drop = np.maximum(0, -(apart * (means - middle)) @ weights / (np.square(apart) @ weights))
    top = middle + drop * centre
    capped = (falling * (1 - means)) @ weights / (np.square(falling) @ weights)
    drop, top = np.where(top > 1, capped, drop), np.minimum(top, 1)
    error = np.square(means - top[:, None] + drop[:, None] * falling) @ weights
    best = int(np.argmin(error.round(15)))
    return float(top[best]), float(drop[best]), float(_POWERS[best])
