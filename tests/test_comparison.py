"""Paired differences of two results whose scores are known on paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from test_evaluation import score

from medfewshot.evaluation import Comparison, Evaluation, measure_title, p_text


def scores(dice: list[float], hd95: list[float] | None = None, volumes: list[tuple[float, float]] | None = None):
    """Scores of scans a, b, ...; ``volumes``: of the second and the first result."""
    return Evaluation(
        tuple(
            replace(
                score("abcdefgh"[i], "found" if value else "missed", value, hd95[i] if hd95 else 1.0),
                volume_ml=volumes[i][0] if volumes else 1.0,
                reference_volume_ml=volumes[i][1] if volumes else 1.0,
            )
            for i, value in enumerate(dice)
        )
    )


FIRST = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
SECOND = [0.6, 0.7, 0.8, 0.9, 0.55, 0.65]
VOLUMES = [(2.0, 1.0), (3.0, 2.0), (4.0, 3.0), (5.0, 4.0), (6.0, 5.0), (7.0, 6.0)]


def test_differences_are_second_minus_first_over_pairs():
    nan = math.nan
    first, second = scores(FIRST, [4, 4, 4, 4, 4, nan]), scores(SECOND, [2, 2, 2, 2, nan, 2])
    found = Comparison(scores([0.9] * 6, volumes=VOLUMES), first, second)
    dice, hd95, volume = found.differences
    assert (dice.cases, dice.first, dice.second) == pytest.approx((6, 0.5, 0.7))
    assert (dice.difference, dice.higher, dice.lower, dice.p) == pytest.approx((0.2, 6, 0, 2 / 64))
    assert dice.ci_low < 0.2 < dice.ci_high
    assert (hd95.cases, hd95.difference) == (4, -2), "only scans with both distances"
    assert (volume.difference, volume.volumes.limit_low, volume.volumes.bias_percent) == pytest.approx(
        (1, 1, 100 / 3.5)
    )
    assert [row.p_holm for row in (dice, hd95, volume)] == pytest.approx([3 / 32, 0.125, 3 / 32])


def test_scans_that_changed_most_come_first():
    found = Comparison(scores([0.9] * 6), scores(FIRST), scores(SECOND))
    assert list(found.changes)[:2] == ["d", "c"]
    assert found.changes["d"] == pytest.approx(0.4)
    alone = Comparison(scores([0.9, 0.2, 1.0]))
    assert list(alone.changes) == ["b", "a", "c"]
    assert alone.changes["b"] == pytest.approx(0.8)


def test_rows_of_scans_have_both_values_and_none_for_what_is_undefined():
    found = Comparison(scores([0.9, 0.0], [2.0, math.nan], VOLUMES), scores([0.5, 0.4]), scores([0.7, 0.0]))
    one, two = found.case_rows()
    assert (one["in_both"], one["dice_difference"], one["volume_difference_ml"]) == ("both", pytest.approx(0.2), 1)
    assert (two["in_both"], two["hd95_between_mm"], two["second_dice"]) == ("first only", None, 0)


def test_identical_results_have_no_difference_and_p_1():
    found = Comparison(scores([1.0] * 4, volumes=[(2, 2), (3, 3), (4, 4), (5, 5)]))
    assert found.identical
    assert [(row.difference, row.p, row.p_holm) for row in found.differences] == [(0, 1, 1)]
    assert not Comparison(scores([1.0, 0.99])).identical


def test_one_scan_has_no_test():
    (volume,) = Comparison(scores([0.9], volumes=[(2, 1)])).differences
    assert volume.difference == 1
    assert math.isnan(volume.p)
    assert volume.row()["p_holm"] is None


def test_words_for_tables():
    assert (measure_title("hd95_mm"), measure_title("volume_ml")) == ("HD95 mm", "volume ml")
    assert (p_text(0.0004), p_text(0.04), p_text(math.nan)) == ("<0.001", "0.040", "–")


def test_the_frames_of_a_film_count_as_one_scan():
    def films(dice: dict[str, float]) -> Evaluation:
        frames = [replace(score(f"{film} frame {n}", "found", value, 1.0), subject_id=film)
                  for film, value in dice.items() for n in range(20)]  # fmt: skip
        return Evaluation(tuple(frames))

    first, second = films({"a": 0.5, "b": 0.5}), films({"a": 0.5, "b": 0.7})
    direct = replace(second, scores=second.scores[:30])  # the first result is empty in some frames
    dice = Comparison(direct, first, second).differences[0]
    assert (dice.cases, dice.higher, dice.difference) == (2, 1, pytest.approx(0.1))
    assert dice.p > 0.1
