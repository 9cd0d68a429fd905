"""Early stopping by successive halving."""

import numpy as np
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_search import BASE, NEEDS_OPTUNA, images_of, play, record_of, sweep_of

from bench.config.expand import Trial, expand
from bench.config.search import EarlyStoppingConfig
from bench.leaderboard.results import Results, summarise
from bench.records.store import load_all
from bench.report.tables import markdown
from bench.search import next_trials
from bench.search.early_stopping import EarlyStopping
from bench.training.loop import Epoch


def tell(stopping: EarlyStopping, trial: Trial, losses) -> int:
    """How many epochs a trial with these validation losses lasts."""
    stopping.start(trial)
    for number, loss in enumerate(losses, start=1):
        if not stopping.continues(trial, Epoch(number, 1.0, loss, 0.1)):
            return number
    return len(losses)


@NEEDS_OPTUNA
@settings(max_examples=examples(80), deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 10_000))
def test_stops_the_trials_that_optunas_own_successive_halving_prunes(grace, factor, seed):
    """Against an independent implementation of the paper, trials one after the other."""
    import optuna

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
    stopping.save_record(before, tmp_path)
    stopping.save_record(now, tmp_path)
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
    assert not stopping.continues(now, Epoch(2, 1.0, 0.0, 0.1)), "a late epoch changes nothing"
    record_of(now).save(tmp_path)
    stopping.save_record(now, tmp_path)
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
