"""Distributions of the largest of several t statistics (Tukey, Dunnett), for arrays of many pairs at once.

``scipy.stats.studentized_range`` integrates one value at a time, about 20 ms each: 200 rows have 19,900 pairs. Here the
distribution with a known variance is tabulated once, and the estimated variance is a sum over its distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, stdtrit  # as scipy.stats computes, which takes a second to import

LARGEST = 12.0
"""Largest tabulated statistic; beyond it a probability is below 1e-12, for up to thousands of rows."""
STEP = 0.005
NODES = 96
"""Values of the variance over which a distribution is averaged."""
CHUNK = 4096
"""Pairs that are computed at a time: bounds the memory."""
MOST_FREEDOM = 1e5
LEAST_FREEDOM = 0.5


@dataclass(frozen=True, eq=False)
class LargestT:
    """The distribution of the largest absolute t statistic of a family of comparisons.

    table: probability that it exceeds 0, STEP, 2 STEP, ... if the variance is known.
    """

    table: np.ndarray

    def exceeds(self, t: np.ndarray, freedom: np.ndarray) -> np.ndarray:
        """Returns the probability that the largest statistic exceeds ``t`` (array >= 0), where nothing differs.

        freedom: degrees of freedom of the estimated variance, of the shape of ``t``. The statistic is ``Z / s`` with
        ``s^2`` distributed as chi-square over its degrees of freedom, so P(T > t) is the mean of P(Z > t s) over s.
        The mean is a sum over equal steps of log s^2, which converges exponentially for a smooth density.
        """
        t, freedom = np.broadcast_arrays(np.asarray(t, dtype=float), np.asarray(freedom, dtype=float))
        flat, half = t.ravel(), np.clip(freedom, LEAST_FREEDOM, MOST_FREEDOM).ravel() / 2
        found = np.empty(flat.shape)
        for start in range(0, len(flat), CHUNK):
            part = slice(start, start + CHUNK)
            found[part] = self._averaged(flat[part], half[part])
        return found.reshape(t.shape)

    def critical(self, freedom: np.ndarray, error: float) -> np.ndarray:
        """Returns the values that the largest statistic exceeds with probability ``error``, of the shape of freedom.

        They are interpolated between those of 400 degrees of freedom.
        """
        inverse, logarithms = _quantiles(self, error)
        wanted = 1 / np.clip(np.asarray(freedom, dtype=float), LEAST_FREEDOM, MOST_FREEDOM)
        return np.exp(np.interp(wanted, inverse, logarithms))

    def _averaged(self, t: np.ndarray, half: np.ndarray) -> np.ndarray:
        """Returns the mean of P(Z > t s) over s; ``half`` is half of the degrees of freedom."""
        above = 6 / np.sqrt(half)
        below = above + 20 / half
        logarithm = np.linspace(0, 1, NODES)[:, None] * (above + below) - below  # of s^2, [node, pair]
        weight = np.exp(half * (logarithm - np.expm1(logarithm)))  # its density, up to a factor
        scaled = np.minimum(t * np.exp(logarithm / 2), LARGEST)
        return (weight * self._known(scaled)).sum(axis=0) / weight.sum(axis=0)

    def _known(self, z: np.ndarray) -> np.ndarray:
        """Returns the probability that the largest statistic exceeds ``z`` (0 to LARGEST) with a known variance."""
        return np.interp(z, STEP * np.arange(len(self.table)), self.table)


@lru_cache(maxsize=8)
def tukey(rows: int) -> LargestT:
    """Returns the distribution for all pairs of ``rows`` means (Tukey 1953): the studentised range over sqrt 2.

    P(range <= w) = k integral of phi(z) (Phi(z) - Phi(z - w))^(k - 1) dz.
    """

    def not_exceeded(t: float, z: np.ndarray) -> np.ndarray:
        return rows * (ndtr(z) - ndtr(z - np.sqrt(2) * t)) ** (rows - 1)

    return _tabulated(not_exceeded)


@lru_cache(maxsize=8)
def dunnett(comparisons: int) -> LargestT:
    """Returns the distribution for comparisons with one reference (Dunnett 1955), which correlate by 1/2.

    P(max <= t) = integral of phi(z) (Phi(z + sqrt 2 t) - Phi(z - sqrt 2 t))^k dz.
    """

    def not_exceeded(t: float, z: np.ndarray) -> np.ndarray:
        return (ndtr(z + np.sqrt(2) * t) - ndtr(z - np.sqrt(2) * t)) ** comparisons

    return _tabulated(not_exceeded)


@lru_cache(maxsize=16)
def _quantiles(distribution: LargestT, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns 400 inverse degrees of freedom, and the logarithms of the critical values there, found by bisection."""
    inverse = np.linspace(1 / MOST_FREEDOM, 1 / LEAST_FREEDOM, 400)
    low, high = np.full(inverse.shape, -10.0), np.full(inverse.shape, 20.0)
    for _ in range(40):
        middle = (low + high) / 2
        too_small = distribution.exceeds(np.exp(middle), 1 / inverse) > error
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    return inverse, low


def _tabulated(not_exceeded: Callable[[float, np.ndarray], np.ndarray]) -> LargestT:
    """Integrates over the standard normal distribution at every step of the table."""
    z, weights = np.polynomial.legendre.leggauss(200)
    z, weights = 9 * z, 9 * weights * np.exp(-((9 * z) ** 2) / 2) / np.sqrt(2 * np.pi)
    steps = np.arange(round(LARGEST / STEP) + 1) * STEP
    exceeded = np.empty(steps.shape)
    for number, t in enumerate(steps):
        exceeded[number] = 1 - (weights * not_exceeded(t, z)).sum()
    return LargestT(np.clip(exceeded, 0, 1))


ERRORS = np.concatenate([np.geomspace(1e-15, 0.1, 1200), np.linspace(0.1, 1, 400)[1:]])
"""Two-sided errors at which ``sum_of_t`` is tabulated; smaller p values are given as the smallest of them."""


def half_width_of_sum(first: np.ndarray, freedom: float, second: np.ndarray, images: float, error: float) -> np.ndarray:
    """Returns half of the interval of a sum of two independent errors, each with its own Student's quantile.

    first, second: estimated variances with ``freedom`` and ``images`` degrees of freedom. The squares of the two half
    widths add up (Zou and Donner 2008, the method of variance estimates recovery): exact where one error vanishes.
    Satterthwaite's degrees of freedom would be far too many where few seeds happen to agree.
    """
    t_first, t_second = stdtrit(freedom, 1 - error / 2), stdtrit(images, 1 - error / 2)
    return np.sqrt(t_first**2 * first + t_second**2 * second)


def p_of_sum(value: np.ndarray, first: np.ndarray, freedom: float, second: np.ndarray, images: float) -> np.ndarray:
    """Returns the two-sided p values that belong to ``half_width_of_sum``: the error at which an interval meets 0."""
    t_first, t_second = _squares(freedom), _squares(images)
    square = np.asarray(value, dtype=float) ** 2
    low, high = np.zeros(square.shape, dtype=int), np.full(square.shape, len(ERRORS) - 1)
    while np.any(high - low > 1):  # the reach falls as the error grows: bisection over the table
        middle = (low + high) // 2
        reached = t_first[middle] * first + t_second[middle] * second <= square
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    at_low = t_first[low] * first + t_second[low] * second
    at_high = t_first[high] * first + t_second[high] * second
    span = np.where(at_low > at_high, at_low - at_high, 1.0)
    share = np.clip((at_low - square) / span, 0, 1)
    p = ERRORS[low] * (ERRORS[high] / ERRORS[low]) ** share
    return np.where(at_low > at_high, p, np.where(square > 0, ERRORS[0], 1.0))


@lru_cache(maxsize=64)
def _squares(freedom: float) -> np.ndarray:
    """Returns the squares of Student's quantiles at ``ERRORS``."""
    return stdtrit(freedom, 1 - ERRORS / 2) ** 2
