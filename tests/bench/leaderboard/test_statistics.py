"""Intervals that cover, tests that do not cry wolf: checked by simulation and against scipy and by hand."""

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.leaderboard.statistics import half_width, holm, product, t_test


def test_half_width_is_students():
    values = [0.71, 0.74, 0.75]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert half_width(np.std(values, ddof=1), 3) == pytest.approx((high - low) / 2)
    assert half_width(None, 1) is None and half_width(0.0, 1) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.8]) == [1, 1]


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_is_milder_than_bonferroni(ps):
    adjusted = holm(ps)
    assert all(p <= a <= min(1, p * len(ps)) + 1e-12 for p, a in zip(ps, adjusted))
    assert all(a1 <= a2 for (_, a1), (_, a2) in zip(*[iter(sorted(zip(ps, adjusted)))] * 2))


def test_products_are_summed_in_one_order_on_every_processor():
    """To the last bit what plain loops give; a BLAS product of these is another number in most cells."""
    rng = np.random.default_rng(0)
    weights, values = rng.integers(0, 5, (6, 300)).astype(float), rng.normal(size=(300, 4))
    expected = np.zeros((6, 4))
    for i in range(6):
        for j in range(4):
            total = 0.0
            for n in range(300):
                total += float(weights[i, n]) * float(values[n, j])
            expected[i, j] = total
    assert np.array_equal(product(weights, values), expected)
    assert not np.array_equal(weights @ values, expected)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover_over_seeds(seeds):
    """Of a cell: Student's interval holds the true mean in 95 % of sweeps."""
    draws = np.random.default_rng(seeds).normal(0.8, 0.01, (4000, seeds))
    width = np.array([half_width(d, seeds) for d in draws.std(axis=1, ddof=1)])
    assert np.mean(np.abs(draws.mean(axis=1) - 0.8) <= width) == pytest.approx(0.95, abs=0.012)


def test_resampling_two_seeds_would_cry_wolf():
    """Why Student stands at the level of seeds: a plain bootstrap of two calls half of all nothings real."""
    rng = np.random.default_rng(0)
    means = rng.normal(0, 0.01, (1000, 2))  # differences of two seeds where there is none
    drawn = rng.integers(0, 2, (1000, 400, 2))
    resampled = np.take_along_axis(means[:, None], drawn, axis=2).mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    assert np.mean((low > 0) | (high < 0)) > 0.4


def test_pooled_values_are_compared_by_students_t_test():
    first, second = np.array([1.0, 1.2, 1.1, 1.4]), np.array([1.3, 1.6, 1.5])
    pooled = np.sqrt((first.var(ddof=1) * 3 + second.var(ddof=1) * 2) / 5)
    expected = stats.ttest_ind(first, second)
    p, half = t_test(first.mean() - second.mean(), pooled, 5, 1 / 4 + 1 / 3)
    interval = expected.confidence_interval()
    assert p == pytest.approx(expected.pvalue) and 2 * half == pytest.approx(interval.high - interval.low)
    assert t_test(0.0, 0.0, 5, 1.0) == (1, 0) and t_test(0.1, 0.0, 5, 1.0) == (0, 0)
