"""Statistics of paired measurements: the signed-rank test, Holm's correction, limits of agreement and the ICC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NAN = float("nan")
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Agreement:
    """Agreement of two measurements of the same cases, such as volumes in ml; NaN if it is undefined.

    Attributes:
        cases: Number of cases with both measurements.
        bias: Mean of first minus second.
        bias_percent: The bias in percent of the mean of the second.
        limit_low: Lower 95 % limit of agreement: bias minus 1.96 standard deviations of the differences.
        limit_high: Upper limit.
        icc: ICC(2,1), absolute agreement.
        icc_low: Lower end of its 95 % interval.
        icc_high: Upper end.
    """

    cases: int = 0
    bias: float = NAN
    bias_percent: float = NAN
    limit_low: float = NAN
    limit_high: float = NAN
    icc: float = NAN
    icc_low: float = NAN
    icc_high: float = NAN


def agreement(first: Sequence[float], second: Sequence[float]) -> Agreement:
    """Compare two measurements of N cases.

    Args:
        first: ``(N,)``.
        second: ``(N,)``, the reference if there is one.

    Returns:
        Limits and ICC are NaN for fewer than two cases.

    References:
        Bland and Altman 1986, "Statistical methods for assessing agreement between two methods of clinical
        measurement".
    """
    pairs = np.column_stack([first, second]).astype(np.float64)
    if not len(pairs):
        return Agreement()
    differences = pairs[:, 0] - pairs[:, 1]
    bias, whole = float(differences.mean()), float(pairs[:, 1].mean())
    percent = 100 * bias / whole if whole else NAN
    if len(pairs) < 2:
        return Agreement(len(pairs), bias, percent)
    spread = NORMAL_95 * float(differences.std(ddof=1))
    return Agreement(len(pairs), bias, percent, bias - spread, bias + spread, *icc_2_1(pairs))


def icc_2_1(ratings: np.ndarray) -> tuple[float, float, float]:
    """Compute ICC(2,1): two-way random effects, absolute agreement, single measurement; and its 95 % interval.

    Args:
        ratings: ``(N, k)``: N cases, each measured by the same k raters; N and k are at least 2.

    Returns:
        ICC, lower and upper end; NaN if all ratings are equal. The ends are NaN if the raters differ by a constant, and
        where too few cases give no interval around the ICC.

    References:
        Shrout and Fleiss 1979, "Intraclass correlations: uses in assessing rater reliability".
    """
    from scipy.stats import f

    n, k = ratings.shape
    mean = ratings.mean()
    cases, raters = ratings.mean(1), ratings.mean(0)
    bms = k * np.square(cases - mean).sum() / (n - 1)
    jms = n * np.square(raters - mean).sum() / (k - 1)
    ems = np.square(ratings - cases[:, None] - raters + mean).sum() / ((n - 1) * (k - 1))
    if np.ptp(ratings) == 0:
        return NAN, NAN, NAN
    icc = (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n)
    tiny = 1e-12 * bms
    if ems <= tiny:
        return (1.0, 1.0, 1.0) if jms <= tiny else (float(icc), NAN, NAN)
    ratio, rest = jms / ems, n * (1 + (k - 1) * icc) - k * icc
    freedom = (k - 1) * (n - 1) * (k * icc * ratio + rest) ** 2 / ((n - 1) * (k * icc * ratio) ** 2 + rest**2)
    below, above = f.ppf(0.975, n - 1, freedom), f.ppf(0.975, freedom, n - 1)
    others = k * jms + (k * n - k - n) * ems
    with np.errstate(all="ignore"):
        low = n * (bms - below * ems) / (below * others + n * bms)
        high = n * (above * bms - ems) / (others + n * above * bms)
    return (float(icc), float(low), float(high)) if low <= icc <= high else (float(icc), NAN, NAN)


def signed_rank_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test; 1 if all differences are zero or there is none."""
    from scipy.stats import wilcoxon

    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down correction (Holm 1979), in the order given."""
    adjusted, most, count = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        most = max(most, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = most
    return adjusted
