"""Tuned values in the plan of a search, on simulated records: the choice, its cost, and resumption."""

import pytest
from simulated_search import images_of, record_of, sweep_of

from bench.config.axes import Axis
from bench.search import next_trials

RATES = {"0.001": 1e-3, "0.005": 5e-3, "0.02": 2e-2}
BEST = {1: 5e-3, 2: 2e-2}
"""The rate that is best on the validation split, by rank."""


def tuned(ranks=2, seeds=(0, 1, 2), **search):
    sweep = sweep_of(ranks=ranks, rates=1, seeds=seeds, **search)
    return sweep._replace(axes=sweep.axes[:1], tune=(Axis.over("train.lr", RATES),))


def val(trial):
    config = trial.config
    return 0.8 if config.train.lr == BEST[config.model.adapter.rank] else 0.5


def record(trial, value=val, status="ok"):
    """The test score is the opposite of the validation score."""
    made = record_of(trial, status=status)
    if status != "ok":
        return made
    return made.model_copy(
        update={"val_scores": {"s_measure": value(trial)}, "scores": {"s_measure": 1 - value(trial)}}
    )


def play(sweep, records=None, value=val, status=lambda trial: "ok", at_once=2, stop_after=None, level=0.5):
    records, order, images = dict(records or {}), [], {}
    while True:
        plan = next_trials.plan(sweep, records, images, at_once=at_once)
        if not plan.next:
            return plan, records, order
        for trial in plan.next:
            if len(order) == stop_after:
                return plan, records, order
            assert trial.trial_id not in records, "run twice"
            order.append(trial)
            records[trial.trial_id] = record(trial, value, status(trial))
            if status(trial) == "ok":
                images[trial.trial_id] = images_of(trial, level(trial) if callable(level) else level)


def rates(plan):
    """The rates of each row and its seeds."""
    rows = {}
    for trial in plan.trials:
        if trial.trial_id not in plan.lost:
            rows.setdefault(trial.config.model.adapter.rank, []).append((trial.config.train.lr, trial.seed))
    return rows


def test_the_validation_split_chooses_and_the_test_split_does_not():
    plan, records, order = play(tuned())
    assert rates(plan) == {rank: [(BEST[rank], seed) for seed in (0, 1, 2)] for rank in (1, 2)}
    assert [trial.seed for trial in order] == [0] * 6 + [1, 2] * 2  # the choice first, and no trial twice
    assert len(plan.lost) == 4 and len(plan.candidates) == 2 and len(order) == 2 * (3 + 2)


def test_the_first_of_equal_values_wins():
    plan, _, _ = play(tuned(), value=lambda trial: 0.5)
    assert {rate for row in rates(plan).values() for rate, _ in row} == {1e-3}


@pytest.mark.parametrize("status", ["diverged", "oom", "over budget", "error"])
def test_a_value_that_fails_loses(status):
    plan, _, _ = play(tuned(1), status=lambda trial: status if trial.config.train.lr == 5e-3 else "ok")
    assert {rate for rate, _ in rates(plan)[1]} == {1e-3}


def test_a_trial_that_failed_after_its_validation_loses():
    sweep = tuned(1)
    trials = next_trials.plan(sweep, {}).trials
    records = {trial.trial_id: record(trial) for trial in trials}
    failed = records[trials[1].trial_id].model_copy(update={"status": "error", "error": "disk full"})
    plan = next_trials.plan(sweep, records | {trials[1].trial_id: failed})
    assert {trial.config.train.lr for trial in plan.next} == {1e-3}


def test_a_score_that_is_no_number_loses():
    plan, _, _ = play(tuned(1), value=lambda trial: float("nan") if trial.config.train.lr == 1e-3 else 0.1)
    assert {rate for rate, _ in rates(plan)[1]} == {5e-3}


def test_a_row_whose_values_all_fail_runs_no_other_seed():
    plan, _, order = play(tuned(), status=lambda trial: "oom" if trial.config.model.adapter.rank == 1 else "ok")
    assert [trial.seed for trial in order if trial.config.model.adapter.rank == 1] == [0, 0, 0]
    assert len(rates(plan)[2]) == 3 and not {t.trial_id for t in plan.candidates[0].trials} & plan.lost


@pytest.mark.parametrize("search", [{}, {"trials": 7}, {"hours": 0.1}, {"name": "random", "points": 1}])
def test_a_killed_run_goes_on_to_the_same_plan_from_every_point(search):
    sweep = tuned(**search)
    whole, records, order = play(sweep, at_once=1)
    for killed_after in range(len(order)):
        _, kept, _ = play(sweep, stop_after=killed_after, at_once=1)
        again, found, more = play(sweep, kept, at_once=1)
        assert again == whole and found == records and len(more) == len(order) - killed_after


def test_an_error_that_succeeds_later_may_win():
    sweep = tuned(1)
    _, records, _ = play(sweep, status=lambda trial: "error" if trial.config.train.lr == 5e-3 else "ok")
    plan, _, order = play(sweep, next_trials.settled(sweep, records))
    assert [(trial.config.train.lr, trial.seed) for trial in order] == [(5e-3, 0), (5e-3, 1), (5e-3, 2)]
    assert {rate for rate, _ in rates(plan)[1]} == {5e-3}


def test_a_budget_counts_the_trials_of_the_choice():
    plan, _, order = play(tuned(trials=7))
    assert len(order) == 7 and [trial.seed for trial in order] == [0] * 6 + [1]
    assert plan.spent == "the budget of 7 trials is spent: 3 of 10 trials are not run"
    plan, _, order = play(tuned(trials=4))
    assert len(order) == 4 and "spent" in plan.spent
    assert len(play(tuned(hours=0.05), at_once=1)[2]) == 3  # trials of a minute


def test_a_random_search_pays_for_the_choice_of_each_point():
    _, _, order = play(tuned(name="random", trials=9))
    assert len(order) == 5  # 3 + 2 for one point; 4 trials are too few for a second


def test_first_seeds_counts_the_chosen_trials_only():
    plan, _, order = play(tuned(first_seeds=2))
    assert rates(plan) == {rank: [(BEST[rank], seed) for seed in (0, 1, 2)] for rank in (1, 2)}
    assert [trial.seed for trial in order] == [0] * 6 + [1, 1, 2, 2]


def test_candidates_in_no_row_do_not_decide_whether_more_seeds_run():
    """The rows are far apart on the test split; the losers have the scores of the other row."""

    def level(trial):
        is_second = trial.config.model.adapter.rank == 2
        return 0.9 if is_second == (val(trial) == 0.8) else 0.1

    _, _, order = play(tuned(seeds=tuple(range(8)), first_seeds=4), level=level)
    assert max(trial.seed for trial in order) == 3


def test_values_that_cannot_run_here_lose_and_block_nothing():
    sweep = tuned(1)
    first = next_trials.plan(sweep, {}).trials
    left_out = {first[1].trial_id}  # the best
    records = {trial.trial_id: record(trial) for trial in (first[0], first[2])}
    plan = next_trials.plan(sweep, records, left_out=left_out)
    assert [(trial.config.train.lr, trial.seed) for trial in plan.next] == [(1e-3, 1), (1e-3, 2)]
    assert next_trials.plan(sweep, {}, left_out={t.trial_id for t in first}).next == []


def test_a_rate_that_trains_at_the_first_seed_only_does_not_win_with_two_seeds():
    def unstable(trial):
        if trial.config.train.lr == 2e-2:
            return 0.9 if trial.seed == 0 else 0.1
        return val(trial) if trial.config.model.adapter.rank == 1 else 0.6

    one, _, _ = play(tuned(), value=unstable)
    assert {rate for of_row in rates(one).values() for rate, _ in of_row} == {2e-2}
    sweep = tuned()._replace(tune_seeds=2)
    two, records, order = play(sweep, value=unstable)
    assert rates(two)[1] == [(5e-3, 0), (5e-3, 1), (5e-3, 2)]
    assert {rate for rate, _ in rates(two)[2]} == {1e-3}  # the first of equal ones
    assert len(order) == 2 * (3 * 2 + 1)  # three rates at two seeds, then the third seed of the chosen rate
    assert all(len(of_row.trials) == 6 for of_row in two.candidates)
    for stop in range(len(order)):
        _, some, _ = play(sweep, value=unstable, stop_after=stop)
        again, _, rest = play(sweep, some, value=unstable)
        assert rates(again) == rates(two) and len(rest) == len(order) - stop


def test_with_two_seeds_a_rate_that_fails_once_loses():
    def status(trial):
        return "diverged" if trial.config.train.lr in BEST.values() and trial.seed == 1 else "ok"

    plan, _, _ = play(tuned()._replace(tune_seeds=2), status=status)
    assert {rate for of_row in rates(plan).values() for rate, _ in of_row} == {1e-3}
