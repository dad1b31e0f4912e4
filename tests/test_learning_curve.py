"""Learning curves of scores that are known on paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medfewshot.evaluation import CurveScore, LearningCurve
from medfewshot.evaluation.learning_curve import fit_power_law


def law(shots):
    return 0.9 - 0.4 / shots


def curve(values, shots=(1, 2, 4, 8), cases: int = 6, labelled: int = 9) -> LearningCurve:
    """``values(shots, case)`` is the Dice of both structures."""
    rows = [
        CurveScore(k, 1, f"c{i}", f"c{i}", name, values(k, i))
        for k in shots
        for i in range(cases)
        for name in ("a", "b")
    ]
    return LearningCurve(tuple(rows), labelled)


def test_points_are_means_over_tests_with_intervals_over_subjects():
    found = curve(lambda k, i: law(k) + (0.05 if i % 2 else -0.05))
    assert [point.shots for point in found.overall] == [1, 2, 4, 8]
    assert [point.dice for point in found.overall] == pytest.approx([law(k) for k in (1, 2, 4, 8)])
    one = found.overall[0]
    assert (one.tests, one.structure) == (6, "all labels")
    assert law(1) - 0.05 <= one.ci_low < one.dice < one.ci_high <= law(1) + 0.05
    assert {point.structure for point in found.points} == {"a", "b", "all labels"}


def test_the_power_law_is_found():
    shots = np.array([1, 2, 4, 8])
    assert fit_power_law(shots, law(shots), np.ones(4)) == pytest.approx((0.9, 0.4, 1.0), abs=1e-6)
    flat = fit_power_law(shots, np.array([0.8, 0.79, 0.8, 0.79]), np.ones(4))
    assert flat[1] < 0.02
    assert fit_power_law(shots, np.array([0.9, 0.95, 0.99, 1.0]), np.ones(4))[0] <= 1


def test_the_fitted_law_is_drawn_from_the_points_on():
    """The power is one of a grid that has 1, so the law is met exactly."""
    found = curve(lambda k, i: law(k) + (0.05 if i % 2 else -0.05))
    assert found.expected(np.array([4, 14])) == pytest.approx([law(4), law(14)], abs=1e-6)


def test_the_gain_of_five_more_is_that_of_the_law():
    """From 9 to 14 labelled scans: 0.4 / 9 - 0.4 / 14."""
    gain, low, high = curve(lambda k, i: law(k) + 0.01 * i).gain
    assert gain == pytest.approx(0.4 / 9 - 0.4 / 14, abs=1e-3)
    assert low == pytest.approx(gain, abs=5e-3)
    assert high == pytest.approx(gain, abs=5e-3)


@pytest.mark.parametrize(
    ("values", "words"),
    [(lambda k, i: law(k), "Label more scans"), (lambda k, i: 0.9, "help little")],
    ids=["steep", "flat"],
)
def test_the_sentence_says_whether_to_go_on(values, words):
    assert words in curve(values).sentence


def test_a_curve_that_falls_says_nothing_about_further_labels():
    found = curve(lambda k, i: {1: 0.68, 2: 0.72, 4: 0.68, 8: 0.70}[k])
    assert not found.rises
    assert "cannot tell" in found.sentence
    assert "help little" not in found.sentence


def test_the_gain_is_uncertain_if_choices_of_labelled_scans_differ():
    """Every subject has the same Dice, so a bootstrap over subjects alone would find no spread."""
    rows = [
        CurveScore(k, draw, f"c{i}", f"c{i}", "a", law(k) + (0.05 if draw % 2 else -0.05))
        for k in (1, 2, 4, 8)
        for draw in (1, 2, 3, 4)
        for i in range(6)
    ]
    gain, low, high = LearningCurve(tuple(rows), 9).gain
    assert gain == pytest.approx(0.4 / 9 - 0.4 / 14, abs=1e-3)
    assert high - low > 0.02


def test_few_numbers_of_labelled_scans_have_no_gain():
    found = curve(lambda k, i: law(k), shots=(1, 2))
    assert all(math.isnan(value) for value in found.gain)
    assert "takes 3 numbers" in found.sentence
    assert LearningCurve((), 3).sentence == "No structure could be scored."


def test_a_structure_in_neither_counts_in_no_mean():
    rows = (CurveScore(1, 1, "c", "c", "a", 0.5), CurveScore(1, 1, "c", "c", "b", math.nan))
    assert [(point.structure, point.dice) for point in LearningCurve(rows, 3).points] == [
        ("a", 0.5),
        ("all labels", 0.5),
    ]
    assert CurveScore.from_row({k: "" if v is None else str(v) for k, v in rows[0].row().items()}) == rows[0]
    assert math.isnan(CurveScore.from_row({k: "" if v is None else str(v) for k, v in rows[1].row().items()}).dice)
