"""Two result sets of one configuration, paired by seed and image: against scipy."""

import numpy as np
import pytest
from scipy import stats

from bench.leaderboard.inference.paired import compare_paired

NAMES = [str(number) for number in range(25)]


def made(values, names=NAMES):
    return {"name": names, "s_measure": list(values)}


def test_one_seed_is_a_paired_t_test_over_images():
    first, second = np.random.default_rng(1).normal(0.7, 0.05, (2, 25))
    expected = stats.ttest_rel(first, second)
    found = compare_paired({3: made(first)}, {3: made(second), 4: made(first)}, "s_measure")
    assert (found.new, found.old) == pytest.approx((first.mean(), second.mean()))
    assert found.comparison.p == pytest.approx(expected.pvalue) and found.comparison.seeds == 1
    interval = expected.confidence_interval()
    assert (found.comparison.low, found.comparison.high) == pytest.approx((interval.low, interval.high))
    assert compare_paired({3: made(first)}, {3: made(first)}, "s_measure").comparison.p == 1


def test_seeds_that_differ_as_a_whole_are_a_paired_t_test_over_seeds():
    image = np.linspace(0.5, 0.9, 25)
    first, second = np.random.default_rng(2).normal(0, 0.01, (2, 4))
    new = {seed: made(image + value) for seed, value in enumerate(first)}
    old = {seed: made(image + value) for seed, value in enumerate(second)}
    found = compare_paired(new, old, "s_measure").comparison
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-3) and found.seeds == 4


def test_splits_that_are_drawn_anew_are_compared_over_seeds():
    """No image is in two splits here, so that is a paired t test of the seeds' means."""
    first, second = np.random.default_rng(3).normal(0.7, 0.05, (2, 4, 25))
    names = [[f"{seed} {name}" for name in NAMES] for seed in range(4)]
    sides = [{seed: made(side[seed], names[seed]) for seed in range(4)} for side in (first, second)]
    found = compare_paired(*sides, "s_measure").comparison
    expected = stats.ttest_rel(first.mean(axis=1), second.mean(axis=1))
    assert found.seeds == 4 and found.p == pytest.approx(expected.pvalue, rel=1e-3)


def test_seeds_with_other_images_are_left_out():
    values = np.linspace(0.5, 0.9, 25)
    other, few = [f"x{name}" for name in NAMES], NAMES[:10]
    new = {0: made(values), 1: made(values), 2: made(values, other), 3: made(values[:10], few), 4: made(values)}
    old = {0: made(values), 1: made(values), 2: made(values, other), 3: made(values[:10], few), 4: made(values, other)}
    assert compare_paired(new, old, "s_measure").comparison.seeds == 2
    assert compare_paired({0: made([0.5], ["a"])}, {0: made([0.5], ["a"])}, "s_measure") is None
    assert compare_paired(new, old, "mae") is None
