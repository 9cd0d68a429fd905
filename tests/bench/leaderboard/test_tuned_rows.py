"""Tuned values in a leaderboard: rows, caveats, cost, tables; from a folder, merged, selected and bundled."""

import csv
from dataclasses import replace

import pytest
from simulated_search import images_of, sweep_of
from synthetic import provenance, record

from bench import report
from bench.config.axes import Axis
from bench.config.expand import Candidates, expand
from bench.config.trial import with_value
from bench.leaderboard import results
from bench.leaderboard.against import against
from bench.leaderboard.merge import merge
from bench.leaderboard.results import Results
from bench.leaderboard.select import select
from bench.leaderboard.tuning.choice import in_rows
from bench.leaderboard.tuning.facts import tuning_of
from bench.records import sweep_json
from bench.report import bundle, tables
from bench.report.latex import latex
from bench.report.legend import legend
from bench.scheduling.dry_run import tuning_lines
from bench.search.next_trials import plan
from models.core.registry import Missing

RATES = {"0.001": 1e-3, "0.005": 5e-3, "0.02": 2e-2}
TEST = {1e-3: 0.9, 5e-3: 0.6, 2e-2: 0.7}
"""The test score of each rate; it would choose 0.001."""


def tuned_sweep(ranks=2, seeds=(0, 1), rates=RATES):
    sweep = sweep_of(ranks=ranks, rates=1, seeds=seeds)
    return sweep._replace(axes=sweep.axes[:1], tune=(Axis.over("train.lr", rates),))


def made(trial, val, status="ok"):
    """A record whose validation score is ``val(rank, rate)``."""
    config = trial.config
    found = record(trial, TEST.get(config.train.lr, 0.5), status=status, error="" if status == "ok" else "broken")
    if status == "ok":
        found = found.model_copy(update={"val_scores": {"s_measure": val(config.model.adapter.rank, config.train.lr)}})
    return found.model_copy(update={"config": config.model_dump(mode="json")})


def middle(rank, rate):
    return 0.8 if rate == 5e-3 else 0.5


def run(sweep, val=middle, status=lambda trial: "ok", rounds=9):
    """What a run of the sweep leaves: the last plan, and the records."""
    records = {}
    for _ in range(rounds):
        found = plan(sweep, records)
        records |= {trial.trial_id: made(trial, val, status(trial)) for trial in found.next}
    return plan(sweep, records), records


def saved(folder, sweep, val=middle, status=lambda trial: "ok", rounds=9, manifest_rounds=None):
    """A results folder; its manifest may be older than its records."""
    found, records = run(sweep, val, status, rounds)
    if manifest_rounds is not None:
        found, _ = run(sweep, val, status, manifest_rounds)
    folder.mkdir(exist_ok=True)
    sweep_json.of(sweep, found.trials, candidates=found.candidates).save(folder)
    for trial_id, kept in records.items():
        trial = next(t for t in expand(sweep) if t.trial_id == trial_id)
        images = images_of(trial, TEST.get(trial.config.train.lr, 0.5)) if kept.status == "ok" else None
        kept.model_copy(update={"image_scores": images}).save(folder)
    return results.load(folder)[0]


def plain(folder, ranks, rate):
    """The folder of a sweep that tunes nothing."""
    sweep = sweep_of(ranks=ranks, rates=1)
    base = with_value(sweep.base, {"train.lr": rate})
    sweep = sweep._replace(name="other", axes=sweep.axes[:1], base=base)
    folder.mkdir()
    sweep_json.of(sweep, expand(sweep)).save(folder)
    for trial in expand(sweep):
        made(trial, middle).save(folder)
    return results.load(folder)[0]


def rows(found):
    return {row.labels: row for table in found.board().tables for row in table.rows}


def chosen(row):
    return dict(row.tuned.values)["train.lr"]


def test_a_report_from_a_folder_reproduces_the_choice_by_validation(tmp_path):
    found = saved(tmp_path / "a", tuned_sweep())
    assert {trial.config.train.lr for trial in found.trials} == {5e-3} and len(found.trials) == 4
    for row in rows(found).values():
        assert chosen(row) == "0.005" and row.tuned.text == "train.lr 0.005 (tuned)" and row.seeds == (0, 1)
        assert row.cells["test.s_measure"].mean == pytest.approx(0.6) and not row.notes


def test_the_table_the_csv_and_the_latex_name_the_values_and_the_settings_do_not(tmp_path):
    board = saved(tmp_path / "a", tuned_sweep(), val=lambda rank, rate: rate if rank == 1 else -rate).board()
    text = tables.markdown(board)
    assert "| 1 | train.lr 0.02 (tuned) |" in text and "| 2 | train.lr 0.001 (tuned) |" in text
    assert "train.lr 0.02 (tuned)" in latex(board).replace("{}", "")
    assert "lr 0.0002" not in board.settings and "lr" not in board.settings
    (first, second) = csv.DictReader(tables.as_csv(board).splitlines())
    assert (first["tuned.train.lr"], second["tuned.train.lr"]) == ("0.02", "0.001")
    assert "† 1: the chosen train.lr 0.02 is the largest that was tried: a larger one may be better" in text
    assert "† 2: the chosen train.lr 0.001 is the smallest that was tried: a smaller one may be better" in text


def test_the_legend_says_how_the_values_were_chosen_and_the_cost(tmp_path):
    board = saved(tmp_path / "a", tuned_sweep(seeds=(3, 4))).board()
    text = " ".join(entry.text for entry in legend(board))
    assert "train.lr from 0.001, 0.005, 0.02, chosen for each row by S on the validation split (2 images)" in text
    assert "at seed 3. The test split had no part in the choice" in text
    assert "6 of 6 trials have run; 4 of them are in no row and took 0.0022 device hours" in text  # of 2 seconds each


def test_all_validation_scores_are_kept(tmp_path):
    found = saved(tmp_path / "a", tuned_sweep())
    assert tmp_path / "tuning.csv" in report.write(found, tmp_path)
    lines = list(csv.DictReader((tmp_path / "tuning.csv").read_text().splitlines()))
    assert [line["tuned.train.lr"] for line in lines] == ["0.001", "0.005", "0.02"] * 2
    assert [line["chosen"] for line in lines] == ["False", "True", "False"] * 2
    assert {line["validation_score"] for line in lines} == {"0.5", "0.8"} and {line["seed"] for line in lines} == {"0"}


def test_a_sweep_without_tuning_has_neither_the_column_nor_the_file(tmp_path):
    sweep = sweep_of(ranks=2, rates=1)
    found = Results(sweep, expand(sweep), {t.trial_id: record(t) for t in expand(sweep)})
    assert "tuned" not in tables.as_csv(found.board()) + tables.markdown(found.board())
    assert tmp_path / "tuning.csv" not in report.write(found, tmp_path)


def test_values_that_failed_are_named(tmp_path):
    found = saved(tmp_path / "a", tuned_sweep(1), status=lambda t: "diverged" if t.config.train.lr == 2e-2 else "ok")
    (row,) = rows(found).values()
    assert row.notes == ("trials of the choice that failed, and so lost: train.lr 0.02 (diverged)",)
    assert row.statuses == ("ok", "ok")


def test_a_row_whose_values_all_failed_says_so(tmp_path):
    found = saved(tmp_path / "a", tuned_sweep(), status=lambda t: "oom" if t.config.model.adapter.rank == 1 else "ok")
    row = rows(found)["1",]
    assert row.tuned.text == "none: all failed" and row.statuses == ("oom",)
    assert "no value of train.lr can be chosen, because all 3 trials of the choice failed" in row.errors[-1]
    assert "train.lr 0.001 (oom), train.lr 0.005 (oom), train.lr 0.02 (oom)" in row.errors[-1]
    assert chosen(rows(found)["2",]) == "0.005"


def test_a_row_that_cannot_run_here_is_missing_and_has_not_failed():
    sweep = tuned_sweep(1)
    done, _ = run(sweep, rounds=0)
    absent = {trial.trial_id: [Missing("weights", "w", "not there", "get it")] for trial in done.trials}
    found = Results(sweep, in_rows(done.trials, done.candidates, {}, absent), absent=absent, tuned=done.candidates)
    (row,) = rows(found).values()
    assert row.statuses == ("missing",) and row.errors == ("missing weights: not there; get it",)
    assert row.tuned.text == "not chosen: no record of 3 of 3 trials"


def test_while_the_choice_is_open_no_candidate_is_scored_in_a_row(tmp_path):
    sweep = tuned_sweep(1)
    found, records = run(sweep, rounds=0)
    folder = tmp_path / "a"
    folder.mkdir()
    sweep_json.of(sweep, found.trials, candidates=found.candidates).save(folder)
    for number, trial in enumerate(found.trials):
        loaded = results.load(folder)[0]
        (row,) = rows(loaded).values()
        assert row.statuses == ("pending",) and not row.cells
        assert row.tuned.text == f"not chosen: no record of {len(found.trials) - number} of {len(found.trials)} trials"
        assert row.trial_ids == (found.trials[number].trial_id,)
        made(trial, middle).save(folder)
    (row,) = rows(results.load(folder)[0]).values()
    assert chosen(row) == "0.005" and row.statuses == ("ok",)  # the manifest is older than the choice


def test_other_seeds_of_an_earlier_choice_are_in_no_row(tmp_path):
    sweep = tuned_sweep(1, seeds=(0, 1, 2))
    found, records = run(sweep)
    stale = [t for t in expand(sweep) if t.config.train.lr == 2e-2]
    assert {t.config.train.lr for t in in_rows([*found.trials, *stale], found.candidates, records)} == {5e-3}


def test_merged_sweeps_keep_tuned_rows_and_tell_settings_apart(tmp_path):
    first = saved(tmp_path / "a", tuned_sweep())
    merged, _ = merge([first, plain(tmp_path / "b", 3, 2e-4)])
    board = merged.board()
    assert board.axes == ("model.adapter.rank", "train.lr")
    texts = {row.labels: row.tuned.text if row.tuned else "default" for row in board.tables[0].rows}
    tuned = {labels: text for labels, text in texts.items() if text != "default"}
    assert tuned == {(rank, "0.005"): "train.lr 0.005 (tuned)" for rank in ("1", "2")} and len(texts) == 5
    assert "| 3 | 0.0002 | default |" in tables.markdown(board)
    same, _ = merge([first, first])
    assert [t.trial_id for t in same.trials] == [t.trial_id for t in first.trials] and same.sweep.tune
    assert len(same.tuned) == 2 and len(board.tuning.candidates) == 6


def test_a_loser_that_another_sweep_ran_is_a_row_of_that_sweep(tmp_path):
    first = saved(tmp_path / "a", tuned_sweep(1))
    merged, _ = merge([first, plain(tmp_path / "b", 1, 1e-3)])
    bundle.pack(merged, tmp_path / "merged.zip")
    with bundle.opened(tmp_path / "merged.zip") as folder:
        for found in (merged, results.load(folder)[0]):
            texts = {row.labels: row.tuned and row.tuned.text for row in rows(found).values()}
            assert texts == {("1", "0.005"): "train.lr 0.005 (tuned)", ("1", "0.001"): None}
            assert [row.statuses for row in rows(found).values()] == [("ok", "ok")] * 2


@pytest.mark.parametrize("where", ["model.adapter.rank == 1", "seed == 1"])
def test_a_selection_and_its_bundle_keep_the_choice(tmp_path, where):
    found = select(saved(tmp_path / "a", tuned_sweep()), [where])
    assert all(chosen(row) == "0.005" for row in rows(found).values())
    bundle.pack(found, tmp_path / "b.zip")
    with bundle.opened(tmp_path / "b.zip") as folder:
        again = results.load(folder)[0]
    assert [t.trial_id for t in again.trials] == [t.trial_id for t in found.trials]
    assert tables.markdown(again.board()) == tables.markdown(found.board())
    assert tables.tuning_csv(again.board()) == tables.tuning_csv(found.board())


def test_equal_results_stay_equal_in_a_gate_although_candidates_are_in_no_row(tmp_path):
    found = saved(tmp_path / "a", tuned_sweep())
    assert not against(found, found).worse and against(found, found).compared


def test_a_model_that_is_not_trained_has_no_tuned_value():
    sweep = tuned_sweep(1)
    done, records = run(sweep)
    none = {"total": 10, "trainable": 0}
    records = {i: kept.model_copy(update={"parameters": none}) for i, kept in records.items()}
    found = Results(sweep, in_rows(done.trials, done.candidates, records), records, tuned=done.candidates)
    (row,) = rows(found).values()
    assert row.untrained and row.tuned is None and row.notes == ()


def test_values_without_an_order_have_no_border():
    sweep = tuned_sweep(1)._replace(tune=(Axis.over("train.loss", {"a": "structure_loss", "b": "bce_loss"}),))
    trials = expand(sweep)[::2]
    records = {trial.trial_id: made(trial, lambda rank, rate: 0.5) for trial in trials}
    found = Results(sweep, trials[:1], records, tuned=[Candidates(("train.loss",), tuple(trials))])
    assert rows(found)["1",].tuned.text == "train.loss structure_loss (tuned)" and rows(found)["1",].notes == ()


def test_environments_do_not_share_a_table(tmp_path):
    """The candidates in no row do not make a table of their own."""
    found = saved(tmp_path / "a", tuned_sweep(1))
    losers = {t.trial_id for group in found.tuned for t in group.trials} - {t.trial_id for t in found.trials}
    records = {
        i: kept.model_copy(update={"provenance": provenance(device="other")}) if i in losers else kept
        for i, kept in found.records.items()
    }
    assert len(replace(found, records=records).board().tables) == 1


def test_the_cost_of_trials_without_a_known_time_is_unknown_and_not_0(tmp_path):
    def text(name, status):
        return " ".join(saved(tmp_path / name, tuned_sweep(), status=status).board().tuning.sentences)

    some = text("a", lambda trial: "diverged" if trial.config.train.lr == 2e-2 else "ok")
    assert "took at least 0.0011 device hours (2 of them failed without a known time)" in some
    assert "took an unknown time (4 of them failed without a known time)" in text("b", lambda trial: "diverged")


def test_tuned_parts_of_one_name_are_told_apart_by_the_fields_that_differ(tmp_path):
    points = {
        "small": {"name": "bottleneck", "rank": 4},
        "large": {"name": "bottleneck", "rank": 8},
        "other": {"name": "ia3"},
    }
    sweep = sweep_of(ranks=1, rates=2)
    sweep = sweep._replace(axes=sweep.axes[1:], tune=(Axis.over("model.adapter", points),))
    first = [trial for trial in expand(sweep) if trial.seed == 0][:3]
    found = tuning_of([Candidates(("model.adapter",), tuple(first))], {})
    texts = [dict(candidate.values)["model.adapter"] for candidate in found.candidates]
    assert texts == ["bottleneck (rank 4)", "bottleneck (rank 8)", "ia3"]
    assert "model.adapter from bottleneck (rank 4), bottleneck (rank 8), ia3" in found.sentences[0]


def test_one_of_a_kind_is_no_plural(tmp_path):
    sweep = tuned_sweep()
    sweep = sweep._replace(base=with_value(sweep.base, {"train.epochs": 1}))
    found = saved(tmp_path / "a", sweep)
    alone = {
        i: kept.model_copy(update={"provenance": provenance(trials_at_once=1)}) for i, kept in found.records.items()
    }
    board = replace(found, records=alone).board()
    assert "1 epoch," in f"{board.settings}," and "speeds with 1 trial at once" in tables.markdown(board)
    searched = sweep._replace(search=sweep.search.model_copy(update={"first_seeds": 2}), seeds=(0, 1, 2))
    assert "runs at least 1 more seed with" in tuning_lines(searched, plan(searched, {}))[0]
