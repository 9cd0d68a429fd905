"""Search on simulated records, in which everything is known; two real sweeps at the end, one with Ray."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from conftest import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import Trial, expand
from bench.config.search import EarlyStoppingConfig, Range, SearchConfig
from bench.config.sweep import Sweep, load_sweep
from bench.config.trial import TrialConfig
from bench.leaderboard.results import Results, summarise
from bench.leaderboard.statistics import compare, holm
from bench.records.provenance import provenance
from bench.records.record import CurvePoint, Timing, TrialRecord
from bench.records.store import load_all, pending
from bench.records.tables import write_table
from bench.report.tables import markdown
from bench.run import main
from bench.scheduling import cluster, serial
from bench.scoring.metrics import MAIN_METRICS, METRICS
from bench.search import next_trials
from bench.search.early_stopping import EarlyStopping
from bench.system.machine import cores
from bench.training.loop import Epoch

with suppress(ImportError):
    import optuna
NEEDS_OPTUNA = pytest.mark.skipif("optuna" not in globals(), reason="needs optuna (pip install -e '.[search]')")
OPTUNA = pytest.param("optuna", marks=NEEDS_OPTUNA)
BASE = TrialConfig.model_validate(
    {
        "model": {"name": "sam3_unet", "encoder": "sam3_vit_tiny", "decoder": {"width": 8}},
        "dataset": {"name": "procedural", "train": 8, "val": 2, "test": 3, "side": 32},
        "transform": {"size": 32},
        "train": {"epochs": 9, "batch_size": 4},
        "device": "cpu",
    }
)
IMAGES = 12


def sweep_of(ranks=4, rates=3, seeds=(0, 1), **search_fields) -> Sweep:
    """A space of ``ranks * rates`` points."""
    axes = (
        Axis.over("model.adapter.rank", {str(n + 1): n + 1 for n in range(ranks)}),
        Axis.over("train.lr", {f"{n + 1}e-05": (n + 1) * 1e-5 for n in range(rates)}),
    )
    return Sweep("made_up", "Why?", "default", BASE, axes, tuple(seeds), SearchConfig.model_validate(search_fields))


def record_of(trial: Trial, value: float = 0.5, status: str = "ok", seconds: float = 60.0) -> TrialRecord:
    ok = status == "ok"
    timing = {"train_seconds": None, "train_images_per_second": None, "inference_images_per_second": None}
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error="" if ok else "something",
        config=trial.config.model_dump(mode="json"),
        scores={"s_measure": value} if ok else None,
        val_scores={"s_measure": value} if ok else None,
        curve=[CurvePoint(epoch=1, train_loss=1.0, val_loss=1 - value, lr=0.1)],
        timing=Timing(**timing, total_seconds=seconds),
    )


def images_of(trial: Trial, value: float) -> dict[str, list]:
    """Scores of images around a value, with noise that belongs to the trial."""
    rng = np.random.default_rng(int(trial.trial_id, 16) % 2**32)
    return {"name": [str(i) for i in range(IMAGES)], "s_measure": list(value + 0.002 * rng.standard_normal(IMAGES))}


def play(sweep, value=lambda trial: 0.5, records=None, status=lambda trial: "ok", stop_after=None, at_once=2):
    """Runs a search on made-up trials; returns the last plan, the records and the order in which trials were run.

    stop_after: as if the driver was killed after so many trials.
    """
    records, order = dict(records or {}), []
    seeded = sweep.search.first_seeds is not None
    known = [t for t in expand(sweep) if t.trial_id in records and status(t) == "ok"] if seeded else []
    images = {trial.trial_id: images_of(trial, value(trial)) for trial in known}
    while True:
        plan = next_trials.plan(sweep, records, images, at_once=at_once)
        if not plan.next:
            return plan, records, order
        for trial in plan.next:
            if stop_after is not None and len(order) == stop_after:
                return plan, records, order
            assert trial.trial_id not in records, "run twice"
            order.append(trial)
            records[trial.trial_id] = record_of(trial, value(trial), status(trial))
            if status(trial) == "ok":
                images[trial.trial_id] = images_of(trial, value(trial))


def ids(trials):
    return [trial.trial_id for trial in trials]


def smooth(trial):
    """Best at rank 6 and the sixth rate, falling off around them."""
    rank, rate = trial.config.model.adapter.rank, round(trial.config.train.lr / 1e-5)
    return 0.9 - 0.01 * (rank - 6) ** 2 - 0.01 * (rate - 6) ** 2


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


# --- ranges -----------------------------------------------------------------------------------------------------------


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


# --- Optuna -----------------------------------------------------------------------------------------------------------


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


# --- more seeds -------------------------------------------------------------------------------------------------------


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
    rng = np.random.default_rng(0)
    scores = [{s: 0.02 * k + 0.01 * rng.standard_normal() + np.zeros(20) for s in range(3)} for k in range(3)]
    once, often = compare(scores), compare(scores, looks=4)
    assert [c.p for c in once] == [c.p for c in often]
    assert [c.p_holm for c in often] == holm([4 * c.p for c in once])
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


# --- early stopping ---------------------------------------------------------------------------------------------------


def tell(stopping: EarlyStopping, trial: Trial, losses) -> int:
    """How many epochs a trial with these validation losses lasts."""
    stopping.started(trial)
    for number, loss in enumerate(losses, start=1):
        if not stopping.goes_on(trial, Epoch(number, 1.0, loss, 0.1)):
            return number
    return len(losses)


@NEEDS_OPTUNA
@settings(max_examples=examples(80), deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 10_000))
def test_stops_the_trials_that_optunas_own_successive_halving_prunes(grace, factor, seed):
    """Against an independent implementation of the paper, trials one after the other."""
    losses = np.random.default_rng(seed).random((12, 9))
    trials = expand(sweep_of(12, 1, seeds=(0,)))
    ours = EarlyStopping(EarlyStoppingConfig(grace_epochs=grace, factor=factor), first_seed=0)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=factor)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(pruner=pruner)

    def theirs(of_trial):
        asked = study.ask()
        for number, loss in enumerate(of_trial, start=1):
            asked.report(loss, number)
            if number < len(of_trial) and asked.should_prune():
                study.tell(asked, state=optuna.trial.TrialState.PRUNED)
                return number
        study.tell(asked, of_trial[-1])
        return len(of_trial)

    assert [tell(ours, t, row) for t, row in zip(trials, losses)] == [theirs(row) for row in losses]


def test_only_trials_of_the_first_seed_compete_and_a_nan_is_the_worst():
    good, bad, second, broken = (
        Trial(BASE.model_copy(update={"seed": seed, "train": BASE.train.model_copy(update={"lr": lr})}), ("x",))
        for seed, lr in ((0, 0.1), (0, 0.2), (1, 0.1), (0, 0.3))
    )
    stopping = EarlyStopping(EarlyStoppingConfig(), first_seed=0)
    assert tell(stopping, good, [0.1] * 9) == 9
    assert tell(stopping, bad, [0.2] * 9) == 1 and tell(stopping, second, [5.0] * 9) == 9
    assert tell(stopping, broken, [float("nan")] * 9) == 1


def test_trials_that_ran_before_compete_too():
    before, now = expand(sweep_of(2, 1, seeds=(0,)))
    record = record_of(before, value=0.9)
    stopping = EarlyStopping(EarlyStoppingConfig(), 0, [record])
    assert tell(stopping, now, [0.2] * 9) == 1


def test_the_record_of_a_stopped_trial_has_its_curve_and_no_scores(tmp_path):
    before, now = expand(sweep_of(2, 1, seeds=(0,)))
    stopping = EarlyStopping(EarlyStoppingConfig(grace_epochs=3), 0)
    tell(stopping, before, [0.1] * 9)
    assert tell(stopping, now, [0.9, 0.8, 0.7]) == 3
    stopping.settle(before, tmp_path)
    stopping.settle(now, tmp_path)
    (record,) = load_all(tmp_path)[0].values()
    assert record.status == "stopped early" and record.scores is None and record.test_sets == {}
    assert [p.val_loss for p in record.curve] == [0.9, 0.8, 0.7] and record.timing.total_seconds >= 0
    assert record.error == "stopped after epoch 3 of 9: validation loss 0.7 is not among the best of 2 there"
    assert record.stopped_by == EarlyStoppingConfig(grace_epochs=3)


def test_a_trial_that_ended_before_it_could_be_stopped_keeps_its_record(tmp_path):
    before, now = expand(sweep_of(2, 1, seeds=(0,)))
    stopping = EarlyStopping(EarlyStoppingConfig(), 0)
    tell(stopping, before, [0.1] * 9)
    tell(stopping, now, [0.9])
    assert not stopping.goes_on(now, Epoch(2, 1.0, 0.0, 0.1)), "a late epoch changes nothing"
    record_of(now).save(tmp_path)
    stopping.settle(now, tmp_path)
    assert [record.status for record in load_all(tmp_path)[0].values()] == ["ok"]


def test_a_stopped_configuration_gets_no_other_seed_and_no_place_in_the_table():
    sweep = sweep_of(3, 1, seeds=(0, 1, 2), early_stopping="asha")
    plan, records, order = play(sweep, status=lambda t: "stopped early" if t.point[0] == "2" else "ok")
    assert [(t.point[0], t.seed) for t in order].count(("2", 0)) == 1
    assert [t.seed for t in order if t.point[0] == "2"] == [0] and len(order) == 7
    images = {t.trial_id: images_of(t, 0.5) for t in order if records[t.trial_id].status == "ok"}
    board = summarise(Results(sweep, plan.trials, records, images))
    (table,) = board.tables
    row = table.rows[1]
    assert row.labels[0] == "2" and not row.cells and not row.on_front
    compared = [c for found in table.comparisons.values() for c in found if 1 in (c.first, c.second)]
    assert all(c.p is None for c in compared)
    text = markdown(board)
    assert "0/1 (1 stopped early at epoch 1)" in text and "1 of 3 configurations were stopped" in text


def test_what_was_stopped_early_is_no_result_where_nothing_or_another_rule_stops_trials():
    (trial,) = expand(sweep_of(1, 1, seeds=(0,)))
    record = record_of(trial, status="stopped early").model_copy(update={"stopped_by": EarlyStoppingConfig()})
    records = {trial.trial_id: record}
    assert next_trials.settled(sweep_of(1, 1, seeds=(0,)), records) == {}
    assert next_trials.settled(sweep_of(1, 1, seeds=(0,), early_stopping={"grace_epochs": 2}), records) == {}
    assert next_trials.settled(sweep_of(1, 1, seeds=(0,), early_stopping="asha"), records) == records


# --- mistakes ---------------------------------------------------------------------------------------------------------


FILE = """
name: searched
question: Does the search work?
base:
  model: {name: sam3_unet, encoder: sam3_vit_tiny, decoder: {width: 8}}
  dataset: {name: procedural, train: 8, val: 2, test: 3, side: 32}
  transform: {size: 32}
  train: {epochs: 4, batch_size: 4}
  device: cpu
axes:
  model.adapter.rank: [1, 2, 4]
  train.lr: [1e-5, 1e-3]
seeds: [0]
"""
RANGED = "train.lr={low: 1e-5, high: 1e-3, log: true}"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("searched.yaml").write_text(FILE)
    return "searched.yaml"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["search=random"], "random needs an end. Give at least one of points, trials and hours"),
        (["search=rndom"], "search.name: should be 'grid', 'random' or 'optuna' (got 'rndom')"),
        (["search.trails=3"], "search.trails: unknown key. Did you mean 'trials'?"),
        (["search.trials=0"], "search.trials: should be greater than 0"),
        (["search=[random]"], "search: needs a name, or a mapping as in {name: random, points: 20}"),
        (["search.points=3"], "points is for random and optuna"),
        (["search.first_seeds=2", "seeds=[0,1]"], "search.first_seeds: 2, but seeds lists 2. List at least 3 seeds"),
        (["search.first_seeds=4", "seeds=[0,1,2]"], "Allowed: 2 to 2"),
        (["search.first_seeds=1", "seeds=[0,1,2]"], "greater than or equal to 2"),
        (["search=random", "search.trials=2", "seeds=[0,1,2]"], "2 is too few for one configuration at 3 seeds"),
        ([RANGED], "a grid has no ranges. List values, or search"),
        ([RANGED, "search=random", "search.hours=1"], "is a range and never used up. Give points or trials"),
        (["search=random", "search.points=2", "train.lr={low: 2, high: 1, log: true}"], "low must be less than high"),
        (["search=random", "search.points=2", "train.lr={low: 0, high: 1, log: true}"], "low must be above 0"),
        (
            ["search=random", "search.points=2", "model.adapter.rank={low: 0, high: 9, log: false}"],
            "axes.model.adapter.rank = 0",
        ),
        (["search.early_stopping=asha", "train.validate_every=0"], "Set train.validate_every=1"),
        (["search.early_stopping.grace_epochs=4"], "4 of 4 epochs stops nothing"),
        (["search.early_stopping.name=median"], "should be 'asha'"),
        (["search.early_stopping.factor=1"], "greater than or equal to 2"),
        (["search.early_stopping=asha", "dataset.val=0"], "search.early_stopping uses the validation split"),
        pytest.param(
            ["search=optuna", "search.points=2", "dataset.val=0"],
            "search.name: optuna uses the validation split",
            marks=NEEDS_OPTUNA,
        ),
    ],
)
def test_mistakes_are_said_before_any_trial_runs(file, capsys, arguments, expected):
    assert main([file, *arguments, "--executor", "serial"]) == 2
    said = capsys.readouterr()
    assert expected in said.err and "Traceback" not in said.err, said.err
    assert not list(Path.cwd().rglob("*.json"))


def test_a_cluster_is_asked_for_the_validation_split_too():
    config = BASE.model_copy(update={"dataset": BASE.dataset.model_copy(update={"val": 0})})
    assert cluster.look([config.model_dump_json()]).problems == []
    *_, problem = cluster.look([config.model_dump_json()], validated_by="search.early_stopping").problems
    assert problem == "search.early_stopping uses the validation split, and procedural has none"


@pytest.mark.parametrize(
    ("name", "axis", "problem"),
    [
        pytest.param(
            "optuna", "dataset.side: [32, 64]", "the score on the validation split is compared", marks=NEEDS_OPTUNA
        ),
        ("random, early_stopping: asha", "train.loss: [structure_loss, bce_loss]", "the validation loss is compared"),
        ("random, early_stopping: asha", "train.epochs: [4, 8]", "the validation loss is compared"),
        ("grid, early_stopping: asha", "train: {a: {epochs: 4}, b: {epochs: 8}}", "train.epochs changes what it means"),
    ],
)
def test_what_is_not_comparable_is_not_searched(file, capsys, name, axis, problem):
    text = FILE.replace("train.lr: [1e-5, 1e-3]", axis) + f"search: {{name: {name}, trials: 2}}\n"
    Path(file).write_text(text)
    assert main([file]) == 2
    assert problem in capsys.readouterr().err


def test_without_optuna_it_says_what_to_install(monkeypatch):
    sweep = sweep_of(name="optuna", points=2)
    trials = expand(sweep)
    monkeypatch.setattr(next_trials.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sam3-bench\[search\]', or take random"):
        next_trials.check(sweep, trials)


@pytest.mark.parametrize("log", ["", ", log: 1", ", log: yes!", ", log: null"])
@pytest.mark.parametrize("search", [[], ["search=random", "search.points=2"]])
def test_low_and_high_without_a_truth_value_at_log_are_refused(file, log, search):
    """They were two rows with these labels, also under a search."""
    with pytest.raises(ConfigError, match="axes.train.lr: low and high are the ends of a range, which needs log: true"):
        load_sweep(Path(file), overrides=[f"train.lr={{low: 1e-5, high: 1e-3{log}}}", *search])


def test_labels_among_others_are_labels(file):
    axis = load_sweep(Path(file), overrides=["train.lr={low: 1e-5, mid: 1e-4, high: 1e-3}"]).axes[1]
    assert [label for label, _ in axis.points] == ["low", "mid", "high"] and axis.between is None


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Trials that take no time; a list of the rounds in which they were run."""
    rounds = []

    def run(work, *others, **options):
        rounds.append(work.trials)
        while (index := work.take()) is not None:
            trial = work.trials[index]
            value = 0.5 + 0.1 * trial.config.model.adapter.rank
            work.started(index)
            write_table(images_of(trial, value), work.folder / f"{trial.trial_id}.images.parquet")
            record_of(trial, value).save(work.folder)
            work.settle(index, "")

    monkeypatch.setattr(serial, "run_serially", run)
    return rounds


@NEEDS_OPTUNA
def test_a_search_runs_in_rounds_to_its_end_and_again_runs_nothing(file, quick, capsys):
    arguments = [file, "search=optuna", "search.points=5", "search.batch=2", RANGED, "--executor", "serial"]
    assert main(arguments) == 0
    assert [len(trials) for trials in quick] == [2, 2, 1]
    table = Path("results/searched/leaderboard.md").read_text()
    assert "Search: 5 configurations, chosen by Optuna" in table
    assert main(arguments) == 0 and len(quick) == 3
    assert "0 of 5 trials to run, 5 done before" in capsys.readouterr().out
    assert Path("results/searched/leaderboard.md").read_text() == table


def test_a_spent_budget_is_said_and_is_no_failure_and_a_larger_one_goes_on(file, quick, capsys):
    assert main([file, "search.trials=4", "--executor", "serial"]) == 0
    assert "WARNING: the budget of 4 trials is spent: 2 of 6 trials are not run" in capsys.readouterr().err
    assert "Budget: 4 trials. **2 of 6 trials are pending.**" in Path("results/searched/leaderboard.md").read_text()
    assert main([file, "--executor", "serial"]) == 0
    assert [len(trials) for trials in quick] == [4, 2]
    assert "pending" not in Path("results/searched/leaderboard.md").read_text()


def test_hours_are_spent_trial_by_trial(file, quick):
    assert main([file, "search.hours=0.04", "--executor", "serial"]) == 0  # trials of a minute
    assert [len(trials) for trials in quick] == [1, 1, 1]


def test_a_dry_run_shows_what_comes_first(file, capsys):
    assert main([file, "search=random", "search.points=2", "seeds=[0,1,2]", "search.first_seeds=2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 trials to run" in said and "what else is run depends on the results of these" in said
    assert not Path("results").exists()


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_trials_that_fall_behind_are_stopped_and_the_table_says_so(file, executor):
    """For real: the tiny rate loses against the large one at the first epoch, and its process is ended."""
    Path(file).write_text(FILE.replace("[1, 2, 4]", "[2]").replace("[1e-5, 1e-3]", "[1e-2, 1e-7]"))
    all_cores = str(cores())  # one after the other, so that the outcome is certain
    arguments = [file, "search.early_stopping=asha", "--cpus-per-trial", all_cores, "--executor", executor]
    if executor == "serial":
        assert main(arguments) == 0
    else:
        command = [sys.executable, "-m", "bench.run", *arguments]
        done = warm.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    records = load_all(Path("results/searched"))[0].values()
    assert sorted(record.status for record in records) == ["ok", "stopped early"]
    (stopped,) = [record for record in records if record.status == "stopped early"]
    assert len(stopped.curve) == 1 and stopped.scores is None and stopped.config["train"]["lr"] == 1e-7
    assert "0/1 (1 stopped early at epoch 1)" in Path("results/searched/leaderboard.md").read_text()
    assert len(list(Path("results/searched").glob("*.safetensors"))) == 1
