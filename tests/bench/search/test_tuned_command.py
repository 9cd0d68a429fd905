"""A sweep with tuned values as a user runs it; at the end real sweeps with both executors."""

import csv
import json
import sys
from pathlib import Path

import pytest
import warm
from simulated_search import images_of, record_of

from bench import report
from bench.leaderboard import results
from bench.records.record import write_table
from bench.records.store import load_all
from bench.run import main
from bench.scheduling import serial
from bench.system.machine import cores

FILE = """
name: tuned
question: Which rank, each at its best rate?
base:
  model: {name: sam3_unet, encoder: sam3_vit_tiny, decoder: {width: 8}}
  dataset: {name: procedural, train: 8, val: 2, test: 3, side: 32}
  transform: {size: 32}
  train: {epochs: 1, batch_size: 4}
  device: cpu
axes:
  model.adapter.rank: [1, 2]
tune: {train.lr: [1e-4, 1e-2]}
seeds: [0, 1, 2]
"""
SERIAL = ("--executor", "serial")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tuned.yaml").write_text(FILE)
    return "tuned.yaml"


def value(trial):
    return 0.7 if trial.config.train.lr == 1e-2 else 0.6


@pytest.fixture
def quick(monkeypatch):
    """Trials that take no time; ``rounds`` lists them, ``statuses`` tells how a rate ends."""

    class Quick:
        rounds: list = []
        statuses: dict = {}

    def run(queue, *others, **options):
        Quick.rounds.append(queue.trials)
        while (index := queue.take()) is not None:
            trial = queue.trials[index]
            queue.start(index)
            status = Quick.statuses.get(trial.config.train.lr, "ok")
            if status == "ok":
                write_table(images_of(trial, value(trial)), queue.folder / f"{trial.trial_id}.images.parquet")
            record_of(trial, value(trial), status).save(queue.folder)
            queue.finish(index, "")

    monkeypatch.setattr(serial, "run_serially", run)
    Quick.rounds, Quick.statuses = [], {}
    return Quick


def test_a_run_chooses_then_fills_the_table_and_again_runs_nothing(file, quick, capsys):
    assert main([file, *SERIAL]) == 0
    assert [len(trials) for trials in quick.rounds] == [4, 4]
    assert {trial.seed for trial in quick.rounds[0]} == {0}
    assert {(trial.config.train.lr, trial.seed) for trial in quick.rounds[1]} == {(1e-2, 1), (1e-2, 2)}
    assert "tune: 4 trials at seed 0 choose train.lr for 2 rows" in capsys.readouterr().out
    table = Path("results/tuned/leaderboard.md").read_text()
    assert "train.lr 0.01 (tuned)" in table and "3/3" in table
    assert main([file, *SERIAL]) == 0 and len(quick.rounds) == 2
    assert "0 of 8 trials to run, 8 done before" in capsys.readouterr().out
    assert Path("results/tuned/leaderboard.md").read_text() == table


def test_a_dry_run_shows_the_cost(file, capsys):
    assert main([file, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "4 of 4 trials to run" in said and "train.lr" in said
    assert "then 4 trials run the rows' other seeds: 8 trials in all" in said
    assert not Path("results").exists()


def test_data_without_a_validation_split_are_refused_before_any_trial(file, quick, capsys):
    assert main([file, "dataset.val=0", *SERIAL]) == 2
    assert "tune uses the validation split, and procedural has none. Set dataset.val" in capsys.readouterr().err
    assert not quick.rounds


def test_a_loser_that_diverged_is_no_failure_of_the_run(file, quick, capsys):
    quick.statuses = {1e-4: "diverged"}
    assert main([file, *SERIAL]) == 0
    assert "lost: train.lr 0.0001 (diverged)" in Path("results/tuned/leaderboard.md").read_text()


def test_rows_without_any_value_are_said_loudly_and_fail_the_run(file, quick, capsys):
    quick.statuses = {1e-4: "diverged", 1e-2: "diverged"}
    assert main([file, *SERIAL]) == 1
    said = capsys.readouterr()
    assert "WARNING: 1: no value of train.lr can be chosen, because all 2 trials of the choice failed" in said.err
    assert [len(trials) for trials in quick.rounds] == [4]


def test_an_error_of_a_candidate_fails_the_run_and_is_repeated(file, quick):
    quick.statuses = {1e-2: "error"}
    assert main([file, *SERIAL]) == 1
    assert {trial.config.train.lr for trial in quick.rounds[1]} == {1e-4}
    quick.statuses = {}
    assert main([file, *SERIAL]) == 0
    assert [len(trials) for trials in quick.rounds[2:]] == [2, 4]
    assert "1 | train.lr 0.01 (tuned) |" in Path("results/tuned/leaderboard.md").read_text()


def test_a_candidate_that_another_sweep_has_run_is_taken_over(file, quick):
    assert main([file, "tune=null", "train.lr=1e-2", "name=plain", *SERIAL]) == 0
    assert main([file, *SERIAL]) == 0
    assert [len(trials) for trials in quick.rounds] == [6, 2]  # 1e-4 at seed 0; the other trials are known


@pytest.mark.parametrize("executor", ["serial", "ray"])
def test_a_real_sweep_is_tuned_and_its_folder_gives_the_same_report(file, executor, tmp_path):
    Path(file).write_text(FILE.replace("seeds: [0, 1, 2]", "seeds: [0, 1]").replace("[1, 2]", "[2]"))
    arguments = [file, "--cpus-per-trial", str(cores()), "--executor", executor]
    if executor == "serial":
        assert main(arguments) == 0
    else:
        done = warm.run([sys.executable, "-m", "bench.run", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    folder = Path("results/tuned")
    records = load_all(folder)[0]
    assert len(records) == 3 and all(record.status == "ok" for record in records.values())
    by_rate = {r.config["train"]["lr"]: r.val_scores["s_measure"] for r in records.values() if r.config["seed"] == 0}
    best = max(by_rate, key=by_rate.get)
    assert {r.config["train"]["lr"] for r in records.values() if r.config["seed"] == 1} == {best}
    lines = list(csv.DictReader((folder / "tuning.csv").read_text().splitlines()))
    assert [line["tuned.train.lr"] for line in lines if line["chosen"] == "True"] == [json.dumps(best)]
    (tmp_path / "again").mkdir()
    report.write(results.load(folder)[0], tmp_path / "again")
    for name in ("leaderboard.md", "leaderboard.csv", "tuning.csv", "page.html"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
