"""The probability that a row lies on the Pareto front."""

import numpy as np
import pytest
from plot_data import four

from bench.leaderboard.front import front_shares
from bench.report import plots


def test_what_repeats_agree_on_is_on_the_front_for_sure(tiny):
    steady = [[0.7 + 1e-9 * k for k in range(3)], [0.8] * 3, [0.75] * 3]
    table = four(tiny, steady, [[1.0] * 3, [2.0] * 3, [3.0] * 3]).board().tables[0]
    assert front_shares(table, table.rows, {}) == [1.0, 1.0, 0.0]


def test_two_rows_that_the_seeds_do_not_tell_apart_share_the_front(tiny):
    noisy = [[0.70, 0.72, 0.74], [0.74, 0.70, 0.72]]
    table = four(tiny, noisy, [[1.0, 1.01, 0.99], [1.0, 0.99, 1.01]]).board().tables[0]
    first, second = front_shares(table, table.rows, {})
    assert first == pytest.approx(0.75, abs=0.04) and second == pytest.approx(0.75, abs=0.04)  # beaten in 1 of 4


def test_one_seed_says_nothing_about_the_front(tiny):
    results = four(tiny, [[0.7], [0.8]], [[1.0], [2.0]], seeds=(0,))
    table = results.board().tables[0]
    assert front_shares(table, table.rows, {}) is None
    small_print = " ".join(text.get_text() for text in plots.memory_accuracy(results.board(), table).texts)
    assert "cannot be said before every row has two seeds" in small_print


def test_seeds_that_move_all_rows_alike_leave_their_order_alone(tiny):
    """Both rows rise by 0.1 from seed to seed, yet their difference is always 0.01: paired, the second wins."""
    results = four(tiny, [[0.6, 0.7, 0.8], [0.61, 0.71, 0.81]], [[1.0] * 3, [1.0] * 3])
    table = results.board().tables[0]
    trials = results.trials
    images = {
        t.trial_id: {"name": ["a", "b"], "s_measure": [results.records[t.trial_id].scores["s_measure"]] * 2}
        for t in trials
    }
    assert front_shares(table, table.rows, images)[0] < 0.01
    assert front_shares(table, table.rows, {})[0] > 0.3  # without the pairing nobody knows


def test_the_share_agrees_with_students_test_of_the_difference(tiny):
    """At equal memory a row is on the front as often as a t-variable exceeds its standardised difference."""
    from scipy import stats

    rng = np.random.default_rng(3)
    base = rng.normal(0.7, 0.02, 4)
    first, second = base + rng.normal(0, 0.01, 4), base + rng.normal(0.004, 0.01, 4)
    results = four(tiny, [first, second], [[1.0] * 4, [1.0] * 4], seeds=(0, 1, 2, 3))
    images = {
        t.trial_id: {"name": ["a", "b"], "s_measure": [results.records[t.trial_id].scores["s_measure"]] * 2}
        for t in results.trials
    }
    table = results.board().tables[0]
    difference = first - second
    t = difference.mean() / (difference.std(ddof=1) / 2)
    assert front_shares(table, table.rows, images)[0] == pytest.approx(stats.t.cdf(t, 3), abs=0.03)
