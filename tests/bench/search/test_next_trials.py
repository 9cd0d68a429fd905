"""Which trials run next, on simulated records."""

import pytest
import torch
from conftest import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated_search import ids, play, record_of, smooth, sweep_of

from bench.config.expand import expand
from bench.records.provenance import provenance
from bench.records.store import pending
from bench.search import next_trials

# --- the grid, as ever ------------------------------------------------------------------------------------------------


@settings(max_examples=examples(50), deadline=None)
@given(st.data())
def test_without_a_search_the_plan_is_the_grid_in_its_order(data):
    sweep = sweep_of(seeds=(0, 1, 2))
    trials = expand(sweep)
    statuses = st.sampled_from(["ok", "oom", "over budget", "error", "stopped early", None])
    chosen = data.draw(st.lists(statuses, min_size=len(trials), max_size=len(trials)))
    records = {t.trial_id: record_of(t, status=s) for t, s in zip(trials, chosen) if s}
    plan = next_trials.plan(sweep, next_trials.settled(sweep, records))
    expected = [t for t, s in zip(trials, chosen) if s in ("error", "stopped early", None)]
    assert (ids(plan.trials), ids(plan.next), plan.spent) == (ids(trials), ids(expected), "")
    assert ids(expected) == ids(pending(trials, next_trials.settled(sweep, records)))


# --- what holds of every search ---------------------------------------------------------------------------------------


searches = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["grid", "random"]),
        "trials": st.none() | st.integers(3, 20),
        "hours": st.none() | st.floats(0.01, 0.3),
        "first_seeds": st.sampled_from([None, 2]),
        "early_stopping": st.sampled_from([None, "asha"]),
        "seed": st.integers(0, 5),
    }
).map(lambda s: {**s, "points": 5} if s["name"] == "random" else s)


A_BUDGET_AND_ASHA = {
    "name": "grid",
    "trials": 8,
    "hours": None,
    "first_seeds": None,
    "early_stopping": "asha",
    "seed": 0,
}


@settings(max_examples=examples(100), deadline=None)
@given(searches, st.integers(0, 12), st.integers(1, 3))
@example(A_BUDGET_AND_ASHA, 1, 1)  # the seeds of the trial that was done took the place of another's
def test_an_interrupted_search_comes_to_the_same_trials_and_repeats_none(fields, killed_after, at_once):
    sweep = sweep_of(ranks=3, rates=2, seeds=(0, 1, 2), **fields)

    def status(trial):
        odd = int(trial.trial_id, 16) % 7
        if sweep.search.early_stopping and trial.seed == 0 and odd in (1, 2):
            return "stopped early"
        return "oom" if odd == 0 else "ok"

    whole, records, order = play(sweep, smooth, status=status, at_once=at_once)
    assert len(set(ids(order))) == len(order) and records.keys() == set(ids(order)) <= set(ids(whole.trials))
    assert len(set(ids(whole.trials))) == len(whole.trials)
    if sweep.search.trials:
        assert len(order) <= sweep.search.trials
    if sweep.search.hours:  # what runs when the budget ends is finished
        assert (len(order) - at_once) * 60 < sweep.search.hours * 3600
    assert bool(whole.spent) == (len(whole.trials) > len(order))

    _, kept, before = play(sweep, smooth, status=status, stop_after=killed_after, at_once=at_once)
    again, _, after = play(sweep, smooth, records=kept, status=status, at_once=at_once)
    assert not set(ids(before)) & set(ids(after))
    if not sweep.search.hours:  # what the last hours went to depends on where the rounds began
        assert ids(again.trials) == ids(whole.trials)
        assert sorted(ids(before + after)) == sorted(ids(order))


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 30), st.integers(0, 9))
def test_random_search_draws_points_without_replacement(ranks, rates, points, seed):
    plan, records, _ = play(sweep_of(ranks, rates, seeds=(0,), name="random", points=points, seed=seed))
    assert len(records) == len({t.point for t in plan.trials}) == min(points, ranks * rates)


def test_random_searches_of_other_seeds_draw_others():
    drawn = {tuple(ids(play(sweep_of(name="random", points=3, seed=seed))[0].trials)) for seed in range(20)}
    assert len(drawn) > 15


def test_a_trial_budget_of_a_grid_goes_over_all_configurations_before_their_second_seeds():
    plan, _, order = play(sweep_of(ranks=2, rates=2, seeds=(0, 1), trials=5))
    assert [t.seed for t in order] == [0, 0, 0, 0, 1]
    assert plan.spent == "the budget of 5 trials is spent: 3 of 8 trials are not run" and len(plan.trials) == 8


def test_hours_are_those_of_the_records_and_no_trial_starts_beyond_them():
    sweep = sweep_of(ranks=5, rates=1, seeds=(0,), hours=0.05)  # three trials of a minute
    plan, records, _ = play(sweep, at_once=1)
    assert len(records) == 3 and plan.spent == "the budget of 0.05 hours is spent: 2 of 5 trials are not run"
    assert next_trials.device_hours(plan.trials[:3], records) == pytest.approx(0.05)


def test_hours_count_every_device_and_share():
    first, second = expand(sweep_of(2, 1, seeds=(0,)))
    came_from = provenance(torch.device("cpu"), 1)
    records = {first.trial_id: record_of(first), second.trial_id: record_of(second, status="stopped early")}
    for devices, share, hours in ((1, 1.0, 2 / 60), (4, 1.0, 8 / 60), (1, 0.5, 1 / 60)):
        changed = came_from.model_copy(update={"devices": devices, "gpu_share": share})
        records[first.trial_id] = record_of(first).model_copy(update={"provenance": changed})
        assert next_trials.device_hours([first, second], records) == pytest.approx(hours)


def test_trials_that_cannot_run_here_are_left_out_and_hold_nothing_up():
    sweep = sweep_of(ranks=2, rates=1, seeds=(0,))
    lacking, able = expand(sweep)
    plan = next_trials.plan(sweep, {}, left_out={lacking.trial_id})
    assert ids(plan.trials) == ids([lacking, able]) and ids(plan.next) == ids([able])
    done = next_trials.plan(sweep, {able.trial_id: record_of(able)}, left_out={lacking.trial_id})
    assert done.next == [] and done.spent == ""
