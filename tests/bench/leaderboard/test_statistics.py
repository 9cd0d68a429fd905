"""Intervals that cover, tests that do not cry wolf: checked by simulation and against scipy and by hand."""

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.leaderboard.statistics import compare, half_width, holm, product


def simulate(rng, configurations, seeds, images, *, by_seed, by_image, noise, gain=0.0, unrest=1.0):
    """Scores of configurations that share images; the first is better by ``gain`` and ``unrest`` times as restless."""
    difficulty = rng.normal(0.7, 0.1, images)
    made = []
    for k in range(configurations):
        taste = rng.normal(0, by_image, images) + (gain if k == 0 else 0)
        luck = rng.normal(0, by_seed * (unrest if k == 0 else 1), seeds)
        made.append({s: difficulty + taste + luck[s] + rng.normal(0, noise, images) for s in range(seeds)})
    return made


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


def test_the_same_bytes_every_time():
    scores = simulate(np.random.default_rng(0), 3, 3, 40, by_seed=0.01, by_image=0.02, noise=0.05)
    assert compare(scores) == compare(scores)
    assert compare(scores) != compare(scores, seed=1)


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


@pytest.mark.parametrize(
    ("seeds", "world"),
    [
        (2, {"by_seed": 0.01, "by_image": 0.02, "noise": 0.05}),
        (3, {"by_seed": 0.02, "by_image": 0.0, "noise": 0.02}),  # seeds decide
        (3, {"by_seed": 0.0, "by_image": 0.05, "noise": 0.05}),  # images decide
        (3, {"by_seed": 0.01, "by_image": 0.01, "noise": 0.02, "unrest": 5}),  # one is much more restless
    ],
)
def test_differences_that_are_none_are_seldom_found(seeds, world):
    """Single comparisons err in at most 5 %, a whole family of six in at most 5 %, and 95 % of the intervals cover."""
    rng = np.random.default_rng(3)
    sweeps = [compare(simulate(rng, 4, seeds, 50, **world), seed=i) for i in range(120)]
    every = [c for sweep in sweeps for c in sweep]
    assert np.mean([c.p < 0.05 for c in every]) < 0.05 + 0.025
    assert np.mean([any(c.resolved for c in sweep) for sweep in sweeps]) < 0.05 + 0.04
    assert np.mean([c.low <= 0 <= c.high for c in every]) > 0.95 - 0.025


def test_resampling_two_seeds_would_cry_wolf():
    """Why Student stands at the level of seeds: a plain bootstrap of two calls half of all nothings real."""
    rng = np.random.default_rng(0)
    means = rng.normal(0, 0.01, (1000, 2))  # differences of two seeds where there is none
    drawn = rng.integers(0, 2, (1000, 400, 2))
    resampled = np.take_along_axis(means[:, None], drawn, axis=2).mean(axis=2)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    assert np.mean((low > 0) | (high < 0)) > 0.4


def test_a_clear_difference_is_found_and_measured():
    rng = np.random.default_rng(4)
    world = {"by_seed": 0.003, "by_image": 0.01, "noise": 0.02, "gain": 0.05}
    sweeps = [compare(simulate(rng, 3, 5, 60, **world), seed=i) for i in range(30)]
    assert np.mean([sweep[0].resolved and sweep[1].resolved for sweep in sweeps]) > 0.9
    assert np.mean([sweep[0].difference for sweep in sweeps]) == pytest.approx(0.05, abs=0.005)
    assert np.mean([sweep[0].low <= 0.05 <= sweep[0].high for sweep in sweeps]) > 0.85


def test_pairing_removes_what_seeds_share():
    """A seed that is lucky for everyone says nothing about who is better."""
    rng = np.random.default_rng(5)
    luck = {s: rng.normal(0, 0.1) for s in range(4)}
    image = rng.normal(0.7, 0.1, 50)
    shift = {0: 0.0, 1: 0.02}
    scores = [{s: image + luck[s] + shift[k] + rng.normal(0, 0.002, 50) for s in range(4)} for k in (0, 1)]
    (found,) = compare(scores)
    assert found.resolved and found.difference == pytest.approx(-0.02, abs=0.002)
    assert half_width(np.std([v.mean() for v in scores[0].values()], ddof=1), 4) > 0.05


def test_without_two_seeds_in_common_nothing_is_said():
    images = np.linspace(0, 1, 10)
    first, second, third = compare([{0: images}, {0: images + 0.5}, {1: images, 2: images}])
    for c in (first, second, third):
        assert (c.difference, c.low, c.high, c.p, c.p_adjusted, c.resolved) == (None,) * 5 + (False,)
    assert (first.seeds, second.seeds) == (1, 0)
    with_one_short = compare([{0: images, 1: images}, {0: images + 0.5, 1: images + 0.5}, {0: images}])
    assert [c.resolved for c in with_one_short] == [True, False, False] and with_one_short[1].p is None


def test_equal_configurations_are_not_told_apart():
    images = np.random.default_rng(0).random(20)
    (found,) = compare([{0: images, 1: images}] * 2)
    assert (found.difference, found.p, found.resolved) == (0, 1, False)
