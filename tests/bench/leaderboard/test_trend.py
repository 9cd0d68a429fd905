"""A trend over rows of which some trials are missing: against matrix algebra, and by simulation."""

import numpy as np
import pytest
from family_error import POWER, simulate

from bench.leaderboard.inference.trend import trend

X = [0, 2, 4, 6, 7]
LOST = [(0, 3), (1, 0), (4, 2), (3, 3)]


def made(seed=0, lost=LOST, **world):
    table = simulate(np.random.default_rng(seed), 5, 4, 30, **{**POWER, **world})
    for row, number in lost:
        table[row, number] = np.nan
    return table


def algebra(table):
    """Coefficients of the cells, residual maker, and design of the cells [row, seed] that are known."""
    cells = np.argwhere(np.isfinite(table).all(axis=2))
    design = np.zeros((len(cells), sum(table.shape[:2])))
    for number, (row, seed) in enumerate(cells):
        design[number, row] = design[number, table.shape[0] + seed] = 1
    centred = X - np.mean(X)
    weights = np.append(centred / (centred**2).sum(), np.zeros(table.shape[1]))
    c = np.linalg.pinv(design).T @ weights
    return cells, c, np.eye(len(cells)) - design @ np.linalg.pinv(design)


def test_the_slope_is_that_of_the_fitted_levels():
    table = made()
    cells, c, _ = algebra(table)
    assert trend(table, X).slope == pytest.approx(c @ table[cells[:, 0], cells[:, 1]].mean(axis=1), abs=1e-10)
    assert trend(table, X).trials == 16


def test_the_own_error_is_bell_and_mccaffreys():
    table = made(restless=40)
    found = trend(table, X)
    cells, c, left = algebra(table)
    of_seed = [c * (cells[:, 1] == seed) for seed in range(4)]
    covariance = np.array([[first @ left @ second for second in of_seed] for first in of_seed])
    assert not found.components.pooled
    assert found.freedom == pytest.approx(np.trace(covariance) ** 2 / (covariance**2).sum(), rel=1e-6)


def test_a_failed_trial_takes_nothing_but_itself_away():
    """The error hardly grows; on the seeds that all rows have it would be that of two seeds instead of four."""
    widths = {}
    for name, lost in (
        ("all", []),
        ("failed", [(0, 0), (1, 3)]),
        ("common", [(r, s) for r in range(5) for s in (0, 3)]),
    ):
        found = [trend(made(seed, lost), X) for seed in range(30)]
        widths[name] = np.mean([line.high - line.low for line in found])
    assert widths["failed"] < 1.4 * widths["all"] < 0.8 * widths["common"]


def test_what_a_seed_does_to_all_rows_does_not_count():
    table = made()
    lucky = table + np.array([0.0, 0.3, -0.2, 0.1])[:, None]
    before, after = trend(table, X), trend(lucky, X)
    assert (after.slope, after.p, after.high) == pytest.approx((before.slope, before.p, before.high), rel=1e-6)


def test_intervals_with_failed_trials_hold_the_slope():
    """120 sweeps: 5 % has a standard error of 2 %."""
    rng = np.random.default_rng(1)
    missed = []
    for _ in range(120):
        line = trend(simulate(rng, 4, 4, 50, **POWER, fails=0.15, gains=[0, 0.01, 0.02, 0.03]), [0, 1, 2, 3])
        missed.append(line is not None and not line.low <= 0.01 <= line.high)
    assert np.mean(missed) < 0.05 + 0.05
