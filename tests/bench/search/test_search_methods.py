"""Search methods and ranges, on simulated records."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_search import NEEDS_OPTUNA, OPTUNA, ids, play, record_of, smooth, sweep_of

from bench.config.axes import Axis
from bench.config.search import METHODS, Range
from bench.leaderboard.results import Results, summarise
from bench.report.sections import how_chosen
from bench.scoring.metrics import MAIN_METRICS, METRICS
from bench.search import next_trials, requirements


@settings(max_examples=examples(300), deadline=None)
@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e4), st.booleans(), st.floats(0, 1))
def test_a_range_gives_values_within_it_that_survive_their_label(low, ratio, log, share):
    axis = Axis.within("train.lr", Range(low=low, high=low * ratio, log=log))
    label, changes = axis.chosen(share)
    value = changes["train.lr"]
    assert low <= value <= low * ratio and json.loads(label) == value
    assert axis.chosen(axis.choice(label)) == (label, changes)


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.booleans(), st.floats(0, 1))
def test_a_range_of_whole_numbers_gives_whole_numbers(low, width, log, share):
    axis = Axis.within("model.adapter.rank", Range(low=low, high=low + width, log=log))
    label, changes = axis.chosen(share)
    assert type(changes["model.adapter.rank"]) is int and axis.chosen(axis.choice(label)) == (label, changes)


def test_log_means_equal_ratios():
    axis = Range(low=1e-5, high=1e-3, log=True)
    assert axis.at(0.5) == 1e-4 and axis.at(0) == 1e-5 and axis.at(1) == 1e-3
    assert Range(low=0.0, high=1.0, log=False).at(0.25) == 0.25


@pytest.mark.parametrize("name", ["random", OPTUNA])
def test_search_over_ranges(name):
    axes = (
        Axis.within("train.lr", Range(low=1e-5, high=1e-2, log=True)),
        Axis.within("model.adapter.rank", Range(low=1, high=3, log=False)),
    )
    sweep = sweep_of(name=name, points=12)._replace(axes=axes, seeds=(0,))
    plan, records, _ = play(sweep, lambda t: t.config.train.lr)
    assert len(records) == 12 and ids(play(sweep, lambda t: t.config.train.lr)[0].trials) == ids(plan.trials)
    few = sweep._replace(axes=axes[1:])
    assert len(play(few)[1]) == 3, "the space is used up, and that is no endless search"


@NEEDS_OPTUNA
def test_optuna_finds_the_best_more_often_than_chance():
    def best_found(name, seed):
        sweep = sweep_of(10, 10, seeds=(0,), name=name, points=24, batch=4, seed=seed)
        return max(smooth(trial) for trial in play(sweep, smooth)[2])

    def found(name):
        return [best_found(name, seed) for seed in range(8)]

    learnt, chance = found("optuna"), found("random")
    assert np.mean(learnt) > np.mean(chance) and sum(value > 0.895 for value in learnt) >= 3


@NEEDS_OPTUNA
@settings(max_examples=examples(6), deadline=None)
@given(st.integers(0, 11), st.integers(0, 3))
def test_an_interrupted_optuna_search_proposes_what_an_uninterrupted_one_does(killed_after, seed):
    fields = {"name": "optuna", "points": 12, "batch": 3, "seed": seed, "early_stopping": "asha"}
    sweep = sweep_of(5, 5, seeds=(0,), **fields)

    def status(trial):
        return ("ok", "ok", "stopped early", "oom")[int(trial.trial_id, 16) % 4]

    whole, _, order = play(sweep, smooth, status=status)
    _, kept, _ = play(sweep, smooth, status=status, stop_after=killed_after)
    again, _, after = play(sweep, smooth, records=kept, status=status)
    assert ids(again.trials) == ids(whole.trials) and len(order) == 12 and len(after) == 12 - killed_after


@NEEDS_OPTUNA
def test_optuna_runs_on_the_validation_split_alone():
    def searched(test_score):
        sweep = sweep_of(5, 5, seeds=(0,), name="optuna", points=12)
        records = {}
        while (plan := next_trials.plan(sweep, records)).next:
            for trial in plan.next:
                record = record_of(trial, smooth(trial))
                records[trial.trial_id] = record.model_copy(update={"scores": {"s_measure": test_score(trial)}})
        return ids(plan.trials)

    assert searched(lambda t: 0.5) == searched(lambda t: -smooth(t))


def test_of_the_metrics_that_optuna_is_told_more_is_better():
    assert {METRICS[metric].better for metric in MAIN_METRICS} == {"higher"}


def test_a_method_is_added_by_its_entry_alone(monkeypatch):
    def propose(axes, observations, count, seed):
        known = {observation.labels for observation in observations}
        points = [("1", "1e-05"), ("4", "3e-05"), ("2", "2e-05")]
        return [point for point in points if point not in known][:count]

    entry = SimpleNamespace(PACKAGE=None, LEARNS=True, EXHAUSTIVE=False, CHOSEN="by hand", propose=propose)
    monkeypatch.setitem(METHODS.__dict__, "_names", [*METHODS.names(), "by_hand"])
    monkeypatch.setitem(sys.modules, "bench.search.methods.by_hand", entry)
    sweep = sweep_of(name="by_hand", points=3, batch=2, seeds=(0,))
    plan, _, _ = play(sweep)
    assert [trial.point for trial in plan.trials] == [("1", "1e-05"), ("4", "3e-05"), ("2", "2e-05")]
    assert requirements.setting_that_needs_validation(sweep) == "search.name: by_hand"
    board = summarise(Results(sweep, plan.trials, {}))
    assert "Search: 3 configurations, chosen by hand, seed 0; others were not tried." in how_chosen(board)
