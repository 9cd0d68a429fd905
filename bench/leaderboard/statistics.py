"""Intervals of cells, p values of unplanned comparisons, and Holm's correction. numpy and scipy only.

**The interval of a cell** is Student's over seeds, with the test set held fixed: published numbers are those of a fixed
set, too, so the interval is that of the mean over all seeds on these images. A bootstrap over two or three seeds has
three (or ten) distinct means only, and its intervals are far too short.

Rows of scores are compared in ``bench.leaderboard.inference``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # the functions behind scipy.stats.t, which takes a second to import

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """``first`` minus ``second`` on one metric. The numbers are ``None`` without two seeds in common."""

    first: int  # number of a configuration
    second: int  # number of the other one
    difference: float | None
    low: float | None
    high: float | None
    p: float | None  # two-sided, of this pair alone
    p_adjusted: float | None  # corrected for all pairs that were compared on this metric, and for interim analyses
    seeds: int  # number of common seeds

    @property
    def resolved(self) -> bool:
        """Whether the data decide which of the two is better."""
        return self.p_adjusted is not None and self.p_adjusted < 1 - LEVEL

    def within(self, margin: float) -> bool:
        """Returns whether the two are equivalent: the interval lies within ``margin`` (Schuirmann 1987)."""
        return self.low is not None and -margin < self.low and self.high < margin


def half_width(deviation: float | None, count: int, independent: float | None = None) -> float | None:
    """Returns half of the 95 % Student interval of a mean of ``count`` values with this sample deviation.

    independent: number of independent values whose mean is as uncertain, if it is not ``count``. ``None`` for fewer than
    two values.
    """
    if deviation is None or count < 2:
        return None
    return float(stdtrit(count - 1, (1 + LEVEL) / 2) * deviation / np.sqrt(independent or count))


def t_test(difference: float, deviation: float, freedom: int, share: float) -> tuple[float, float]:
    """Returns the two-sided p of a difference and half of its 95 % interval.

    deviation, freedom: standard deviation of a value and its degrees of freedom; share: variance of the difference in
    variances of a value, which is 1 / n + 1 / m for means of n and m values.
    """
    scale = deviation * share**0.5
    half = float(stdtrit(freedom, (1 + LEVEL) / 2) * scale)
    if scale == 0:
        return (1.0 if difference == 0 else 0.0), half
    return float(2 * stdtr(freedom, -abs(difference) / scale)), half


def holm(ps: Sequence[float]) -> list[float]:
    """Corrects p values such that the family-wise error rate of all p < 0.05 is at most 5 % (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    adjusted[order] = np.maximum.accumulate(np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    return [float(p) for p in np.minimum(adjusted, 1)]


def product(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the matrix product of [R, N] and [N, K], summed over N from the first to the last.

    The order in which BLAS sums depends on the processor, and reports would differ in their last digits.
    """
    total = np.zeros((len(weights), values.shape[1]))
    for weight, value in zip(weights.T, values):
        total += np.multiply.outer(weight, value)
    return total
