"""The error of differences and its distributions: against scipy, matrix algebra, and formulas written out."""

import numpy as np
import pytest
from family_error import simulate
from scipy import stats

from bench.leaderboard.inference.distributions import dunnett, half_width_of_sum, p_of_sum, tukey
from bench.leaderboard.inference.two_way import (
    cautious_variance,
    combined,
    components,
    known_trials,
    pairs,
    t_of,
    table_of,
)

WORLD = {"by_seed": 0.01, "by_image": 0.03, "noise": 0.02}


def made(rows=4, seeds=3, images=20, seed=0):
    return simulate(np.random.default_rng(seed), rows, seeds, images, **WORLD)


@pytest.mark.parametrize("rows", [2, 3, 4, 10])
@pytest.mark.parametrize("freedom", [1, 2.5, 9, 1000])
def test_tukeys_distribution_is_scipys(rows, freedom):
    ranges = np.array([0.5, 2.0, 3.5, 5.0, 9.0])
    expected = [stats.studentized_range.sf(q, rows, freedom) for q in ranges]
    assert tukey(rows).exceeds(ranges / np.sqrt(2), freedom) == pytest.approx(expected, abs=2e-5)


def test_critical_values_are_scipys_and_those_of_dunnetts_table():
    freedom = np.array([3.0, 9.0, 40.0])
    expected = [stats.studentized_range.ppf(0.95, 4, f) for f in freedom]
    assert tukey(4).critical(freedom, 0.05) * np.sqrt(2) == pytest.approx(expected, rel=1e-4)
    assert dunnett(3).critical(np.array([5.0, 20.0]), 0.05) == pytest.approx([3.29, 2.54], abs=0.005)
    assert dunnett(9).critical(np.array([10.0]), 0.05) == pytest.approx([3.24], abs=0.005)
    assert dunnett(1).critical(np.array([1.0, 7.5]), 0.05) == pytest.approx(stats.t.ppf(0.975, [1, 7.5]), rel=1e-4)


def test_p_values_are_those_of_scipys_tests_of_one_way_data():
    """Groups of independent values: the pooled variance has as many degrees of freedom as values less groups."""
    rng = np.random.default_rng(1)
    groups = rng.normal(0, 1, (4, 6)) + np.array([0, 0.5, 1.5, 2])[:, None]
    freedom = 4 * 5
    scale = np.sqrt(groups.var(axis=1, ddof=1).mean() * 2 / 6)
    t = np.abs(groups.mean(axis=1)[:, None] - groups.mean(axis=1)) / scale
    assert tukey(4).exceeds(t, freedom) == pytest.approx(stats.tukey_hsd(*groups).pvalue, abs=2e-5)
    expected = stats.dunnett(*groups[1:], control=groups[0], random_state=0).pvalue
    assert dunnett(3).exceeds(t[0, 1:], freedom) == pytest.approx(expected, abs=2e-3)


def test_a_sum_of_errors_is_students_where_one_vanishes():
    values, one, none = np.array([0.0, 0.3, 2.0, 14.0]), np.ones(4), np.zeros(4)
    assert p_of_sum(values, one, 2, none, 99) == pytest.approx(2 * stats.t.sf(values, 2), rel=1e-4)
    assert p_of_sum(values, none, 2, one, 9) == pytest.approx(2 * stats.t.sf(values, 9), rel=1e-4)
    assert half_width_of_sum(1.0, 2, 0.0, 99, 0.05) == pytest.approx(stats.t.ppf(0.975, 2))
    half = half_width_of_sum(one, 2, 4 * one, 9, 0.05)
    assert half[0] == pytest.approx(np.hypot(stats.t.ppf(0.975, 2), 2 * stats.t.ppf(0.975, 9)))
    assert p_of_sum(half, one, 2, 4 * one, 9) == pytest.approx(0.05, rel=1e-3)
    assert p_of_sum(np.array([0.0, 1.0]), none[:2], 1, none[:2], 1).tolist() == [1, 1e-15]


def test_components_are_those_of_the_analysis_of_variance():
    table = made()
    rows, seeds, images = table.shape
    means = table.mean(axis=2)
    row_seed = residual = 0.0
    for r in range(rows):
        for s in range(seeds):
            row_seed += (means[r, s] - means[r].mean() - means[:, s].mean() + means.mean()) ** 2
            for i in range(images):
                cell = table[r, s, i] - table[r, s].mean() - table[r, :, i].mean() - table[:, s, i].mean()
                residual += (cell + table[r].mean() + table[:, s].mean() + table[:, :, i].mean() - table.mean()) ** 2
    found = components(table)
    assert (found.rows, found.images, found.freedom) == (4, 20, 6)
    assert found.row_seed == pytest.approx(row_seed / 6)
    assert found.residual == pytest.approx(residual / (6 * 19))
    deviations = means.std(axis=1, ddof=1)
    assert (found.largest, found.median) == pytest.approx((deviations.max(), np.median(deviations)))


def test_components_by_hand():
    """Two rows, two seeds: their differences are 1 and 3, so rows x seeds has one square of ((3 - 1) / 2)^2."""
    means = np.array([[1.0, 3.0], [0.0, 0.0]])
    table = means[:, :, None] + np.array([-1.0, 1.0])
    found = components(table)
    assert (found.row_seed, found.residual, found.freedom) == (1, 0, 1)
    assert (found.largest, found.median) == pytest.approx((np.sqrt(2), np.sqrt(2) / 2))
    difference = pairs(table)
    assert difference.difference.tolist() == [2] and difference.by_seed.tolist() == [1]


def test_missing_trials_are_fitted_by_least_squares():
    table = made(5, 4, 6)
    missing = [(0, 3), (1, 0), (1, 1), (4, 2), (3, 3)]
    for row, seed in missing:
        table[row, seed] = np.nan
    known = known_trials(table)
    cells = np.argwhere(known)
    design = np.zeros((len(cells), 9))
    for number, (row, seed) in enumerate(cells):
        design[number, row] = design[number, 5 + seed] = 1
    values = table[known].mean(axis=1)
    left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    freedom = len(cells) - np.linalg.matrix_rank(design)
    found = components(table)
    assert found.freedom == freedom
    assert found.row_seed == pytest.approx((left**2).sum() / freedom, rel=1e-6)


def test_rows_that_share_no_seed_have_levels_of_their_own():
    table = made(4, 4, 8)
    table[:2, 2:] = np.nan
    table[2:, :2] = np.nan
    found = components(table)
    parts = components(table[:2, :2]), components(table[2:, 2:])
    assert found.freedom == 2
    assert found.row_seed == pytest.approx(np.mean([part.row_seed for part in parts]))
    assert list(zip(pairs(table).first, pairs(table).second)) == [(0, 1), (2, 3)]


def test_terms_of_pairs_are_those_of_their_paired_differences():
    table = made(3, 4, 15)
    table[1, 3] = np.nan
    found = pairs(table)
    assert list(zip(found.first, found.second, found.seeds)) == [(0, 1, 3), (0, 2, 4), (1, 2, 3)]
    for number, (first, second, count) in enumerate(zip(found.first, found.second, found.seeds)):
        differences = (table[first] - table[second])[:count]  # [seed, image]
        assert found.difference[number] == pytest.approx(differences.mean())
        assert found.by_seed[number] == pytest.approx(differences.mean(axis=1).var(ddof=1) / count)
        assert found.by_image[number] == pytest.approx(differences.mean(axis=0).var(ddof=1) / 15)
        inner = differences - differences.mean(axis=0) - differences.mean(axis=1)[:, None] + differences.mean()
        expected = (inner**2).sum() / ((count - 1) * 14) / (count * 15)
        assert found.by_both[number] == pytest.approx(expected)


def test_what_seeds_and_images_share_is_counted_once():
    variance, freedom = combined(np.array([3.0]), np.array([2.0]), np.array([1.0]), 4, 11)
    assert variance == pytest.approx(2 + 3 - 1)
    assert freedom == pytest.approx(4**2 / (2**2 / 10 + 3**2 / 4 + 1 / 40))
    seeds_agree, _ = combined(np.array([0.5]), np.array([2.0]), np.array([1.0]), 4, 11)
    assert seeds_agree == pytest.approx(2)


def test_the_estimated_variance_is_the_true_one():
    """Of a difference, over many sweeps: it neither misses an error nor counts one twice."""
    rng = np.random.default_rng(2)
    differences, variances = [], []
    for _ in range(400):
        table = simulate(rng, 4, 3, 40, **WORLD)
        error, found = components(table), pairs(table)
        by_seed, by_both = 2 * error.row_seed / 3, 2 * error.residual / (3 * 40)
        variances.append(combined(by_seed, found.by_image, by_both, error.freedom, 40)[0].mean())
        differences.append(found.difference)
    assert np.mean(variances) == pytest.approx(np.mean(np.square(differences)), rel=0.12)
    by_hand = 2 * (WORLD["by_seed"] ** 2 / 3 + WORLD["by_image"] ** 2 / 40 + WORLD["noise"] ** 2 / 120)
    assert np.mean(variances) == pytest.approx(by_hand, rel=0.05)


def test_the_error_is_pooled_only_over_rows_that_vary_alike():
    rng = np.random.default_rng(3)
    alike = components(simulate(rng, 4, 10, 50, **WORLD))
    restless = components(simulate(rng, 4, 10, 50, **WORLD, restless=8))
    assert alike.pooled and not restless.pooled
    assert restless.largest > 2 * restless.median
    assert not components(made(2, 5)).pooled  # two rows have nothing to be pooled with
    table = made(3, 5)
    table[1, 1:] = np.nan
    assert components(table).rows == 2 and not components(table).pooled


def test_the_typical_deviation_is_that_of_most_rows():
    rng = np.random.default_rng(4)
    found = []
    for seeds in (2, 5):
        typical = [components(simulate(rng, 9, seeds, 10, **WORLD, restless=8)).typical for _ in range(150)]
        found.append(np.mean(typical))
    truth = np.sqrt(WORLD["by_seed"] ** 2 + WORLD["noise"] ** 2 / 10)
    assert found == pytest.approx([truth] * 2, rel=0.2)
    error = components(made())
    assert cautious_variance(error, np.array([2])) >= (25 + 1) * error.typical**2 / 2


def test_without_two_seeds_or_images_nothing_is_known():
    assert components(made(4, 1)) is None and len(pairs(made(4, 1)).first) == 0
    assert components(made(4, 3, 1)) is None and len(pairs(made(4, 3, 1)).first) == 0
    table = made(3, 2)
    table[0, 0] = table[1, 1] = table[2, 0] = np.nan
    assert components(table) is None


def test_a_table_is_made_of_scores_by_seed():
    images = np.linspace(0, 1, 4)
    table = table_of([{3: images, 1: images + 1}, {1: images}, {}])
    assert table.shape == (3, 2, 4)
    assert table[0, 0].tolist() == (images + 1).tolist() and table[0, 1].tolist() == images.tolist()
    assert known_trials(table).tolist() == [[True, True], [True, False], [False, False]]
    with pytest.raises(ValueError, match="the same images"):
        table_of([{0: images}, {0: images[:2]}])


def test_t_of_nothing():
    assert t_of(np.array([0.0, 1e-15, 0.5]), np.zeros(3)).tolist() == [0, 0, np.inf]
