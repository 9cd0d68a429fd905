"""Seeds that are added where they decide something, on simulated records."""

import numpy as np
from simulated_search import images_of, play, record_of, sweep_of

from bench.config.expand import expand
from bench.config.search import SearchConfig
from bench.leaderboard.inference.questions import compare_all
from bench.leaderboard.results import Results, summarise
from bench.report.tables import markdown
from bench.search import next_trials


def test_seeds_are_added_only_where_the_best_is_not_told_from_the_others():
    value = {"1": 0.9, "2": 0.9, "3": 0.3, "4": 0.2}
    sweep = sweep_of(4, 1, seeds=(0, 1, 2, 3), first_seeds=2)
    plan, _, order = play(sweep, lambda trial: value[trial.point[0]])
    seeds = {rank: [t.seed for t in order if t.point[0] == rank] for rank in value}
    assert seeds == {"1": [0, 1, 2, 3], "2": [0, 1, 2, 3], "3": [0, 1], "4": [0, 1]}
    assert len(plan.trials) == 12 and plan.spent == ""


def test_without_an_open_question_no_seed_is_added():
    value = {"1": 0.9, "2": 0.5, "3": 0.1}
    _, _, order = play(sweep_of(3, 1, seeds=(0, 1, 2, 3), first_seeds=2), lambda trial: value[trial.point[0]])
    assert len(order) == 6


def test_seeds_stop_with_the_budget_and_the_rows_say_so():
    sweep = sweep_of(2, 1, seeds=(0, 1, 2, 3), first_seeds=2, trials=5)
    plan, records, order = play(sweep)
    assert len(order) == 5 and len(plan.trials) == 6
    assert plan.spent == "the budget of 5 trials is spent: 1 of 6 trials are not run"
    text = markdown(summarise(Results(sweep, plan.trials, records)))
    assert "Budget: 5 trials. **1 of 6 trials are pending.**" in text and "2/3 (1 pending)" in text


def test_looks_are_paid_for():
    table = 0.01 * np.random.default_rng(0).standard_normal((3, 3, 20)) + np.arange(3)[:, None, None] / 100
    once, often = compare_all(table), compare_all(table, looks=4)
    assert [c.p for c in once] == [c.p for c in often]
    assert [c.p_adjusted for c in often] == [min(1, 4 * c.p_adjusted) for c in once]
    assert SearchConfig(first_seeds=2).looks(5) == 4 and SearchConfig().looks(5) == 1


def test_looking_after_every_seed_raises_no_false_alarm_more_often_than_promised():
    """Two equal configurations, normal noise over seeds: the family of looks errs in at most 5 % of sweeps."""
    sweep = sweep_of(2, 1, seeds=tuple(range(5)), first_seeds=2)
    trials = expand(sweep)
    alarms = 0
    for number in range(150):
        rng = np.random.default_rng(number)
        noise = {trial.trial_id: 0.5 + 0.02 * rng.standard_normal() for trial in trials}
        images = {i: {"name": ["a", "b"], "s_measure": [value, value]} for i, value in noise.items()}
        records: dict = {}
        while (plan := next_trials.plan(sweep, records, {i: images[i] for i in records})).next:
            records |= {t.trial_id: record_of(t, noise[t.trial_id]) for t in plan.next}
        (table,) = summarise(Results(sweep, plan.trials, records, images)).tables
        alarms += any(c.resolved for c in table.comparisons["s_measure"])
    assert alarms <= 0.05 * 150 + 2 * (0.05 * 0.95 * 150) ** 0.5


def test_the_table_says_that_the_number_of_seeds_depended_on_the_results():
    sweep = sweep_of(3, 1, seeds=(0, 1, 2, 3), first_seeds=2)
    plan, records, _ = play(sweep)
    images = {trial.trial_id: images_of(trial, 0.5) for trial in plan.trials}
    text = markdown(summarise(Results(sweep, plan.trials, records, images)))
    assert "**The number of seeds depended on the results**: 2 for every row" in text
    assert "p values are multiplied by 3" in text and "over 2 to 4 seeds" in text
