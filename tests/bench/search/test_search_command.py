"""Searches as a user runs them: mistakes, rounds and budgets; two real sweeps at the end, one with Ray."""

import sys
from pathlib import Path

import pytest
import warm
from simulated_search import BASE, NEEDS_OPTUNA, images_of, record_of, sweep_of

from bench.config.errors import ConfigError
from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.records.record import write_table
from bench.records.store import load_all
from bench.run import main
from bench.scheduling import cluster, serial
from bench.search import requirements
from bench.system.machine import cores

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
        (
            ["search=rndom"],
            "search.name: unknown search method 'rndom'. Did you mean 'random'? Available: grid, optuna, random",
        ),
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
    assert cluster.inspect_node([config.model_dump_json()]).problems == []
    *_, problem = cluster.inspect_node([config.model_dump_json()], validated_by="search.early_stopping").problems
    expected = "search.early_stopping uses the validation split, and procedural has none"
    assert problem == f"{expected}. Set dataset.val to hold images back for it"


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
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[search\]', or take random"):
        requirements.check(sweep, trials)


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

    def run(queue, *others, **options):
        rounds.append(queue.trials)
        while (index := queue.take()) is not None:
            trial = queue.trials[index]
            value = 0.5 + 0.1 * trial.config.model.adapter.rank
            queue.start(index)
            write_table(images_of(trial, value), queue.folder / f"{trial.trial_id}.images.parquet")
            record_of(trial, value).save(queue.folder)
            queue.finish(index, "")

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
