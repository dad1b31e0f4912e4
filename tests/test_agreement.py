"""Statistics of paired measurements, against published examples and values on paper."""

from __future__ import annotations

import numpy as np
import pytest

from medfewshot.agreement import Agreement, agreement, holm, icc_2_1, signed_rank_p

# Table 2 of Shrout and Fleiss 1979: six targets, four judges.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
# Bland and Altman 1986: first peak flow of 17 subjects with the large and the mini meter, l/min.
LARGE = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_icc_of_the_published_example():
    """0.29 in the paper; 0.019 and 0.761 are the interval that R's psych package gives for it."""
    assert icc_2_1(SHROUT_FLEISS) == pytest.approx((0.2898, 0.0188, 0.7611), abs=5e-5)


def test_too_few_cases_give_no_interval(recwarn):
    for ratings in ([[1719.5, 1944.5], [2157, 1597]], [[1833.1, 2070], [1878, 1310.3]], [[5, 5.1], [5, 5.3]]):
        icc, low, high = icc_2_1(np.array(ratings))
        assert np.isfinite(icc)
        assert np.isnan([low, high]).all() or low <= icc <= high
    assert not recwarn.list


def test_limits_of_agreement_of_the_published_example():
    found = agreement(LARGE, MINI)
    assert found.bias == pytest.approx(-2.1, abs=0.05)
    assert (found.limit_high - found.bias) / 1.96 == pytest.approx(38.8, abs=0.05)
    assert found.limit_low + found.limit_high == pytest.approx(2 * found.bias)


def test_a_constant_shift_is_bias_and_no_disagreement_about_order():
    found = agreement([2, 3, 4], [1, 2, 3])
    assert (found.bias, found.bias_percent, found.limit_low, found.limit_high) == (1, 50, 1, 1)
    assert found.icc == pytest.approx(2 / 3)
    assert np.isnan(found.icc_low)


def test_equal_few_and_no_measurements():
    assert agreement([1, 2, 3], [1, 2, 3]).icc == 1
    assert np.isnan(agreement([5, 5], [5, 5]).icc)
    one = agreement([3], [2])
    assert (one.cases, one.bias, one.bias_percent, np.isnan(one.limit_low)) == (1, 1, 50, True)
    assert agreement([], []).cases == Agreement().cases == 0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_signed_rank_by_hand():
    # All of n differences of one sign: p = 2 / 2 ** n.
    assert signed_rank_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 64)
    assert signed_rank_p([0.0, 0.0]) == 1.0
    assert signed_rank_p([-1.0, 1.1, -1.2, 1.3]) > 0.5
