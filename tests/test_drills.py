"""What may go wrong while a sweep runs, done on purpose: every trial ends as one row, nothing finished is lost or
repeated, the exit code tells, and the table says what happened. Random moments are drawn from a seed."""

import random
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from conftest import RANKS, SWEEP, children_named, customise, finished, wait_for

from bench.config.expand import expand
from bench.config.sweep import load_sweep
from bench.config.trial import TrialConfig
from bench.datasets.core import cache
from bench.processes.client import ForkServer
from bench.records.store import load_all
from bench.run import main
from bench.scheduling.serial import run_serially
from bench.scheduling.trial_queue import Limits, TrialQueue
from bench.system.machine import cores
from bench.trial import run_trial

THREE = "train.epochs: [30, 31, 32]"
HALF = -(-cores() // 2)  # cores for a trial, so that two run at once and a third waits
KILLED = {"serial": "trial-", "ray": "ray::ImplicitFunc"}
"""Whose end is that of a trial: its process, or the worker of Ray that waits for it."""


def write_sweep(axis):
    Path("smoke.yaml").write_text(SWEEP.format(axis=axis))
    return expand(load_sweep(Path("smoke.yaml")))


@pytest.fixture
def serially(here):
    """``serially(axis, *arguments)`` runs the smoke sweep with this process as its driver; returns the exit code."""

    def run(axis, *arguments):
        write_sweep(axis)
        return main(["smoke.yaml", "--executor", "serial", *arguments])

    return run


def newest_checkpoints(folder):
    return {path.parent.name: path.name for path in sorted(folder.glob(".resume/*/epoch-*.safetensors"))}


def in_training(folder, before, moment):
    """Waits until some trial has kept an epoch more than ``before``, and then for a random moment of its next ones."""
    wait_for(lambda: newest_checkpoints(folder).items() - before.items())
    time.sleep(moment)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "blows"),
    [
        ("serial", ["kill a trial", "kill the driver", "Ctrl-C twice", "Ctrl-C"]),
        ("ray", ["kill a trial", "kill the driver", "SIGTERM", "Ctrl-C"]),
    ],
)
def test_a_sweep_survives_blow_after_blow_and_scores_as_if_there_had_been_none(here, start, run, executor, blows):
    moments = random.Random(7)
    folder = here / "results" / "smoke"
    options = ("--executor", executor, "--checkpoint-every", "0s", "--cpus-per-trial", str(HALF))
    kept: dict[str, bytes] = {}
    for blow in blows:
        before = newest_checkpoints(folder)
        driver = start(here, THREE, *options)
        in_training(folder, before, moments.uniform(0, 0.5))
        process = psutil.Process(driver.pid)
        trials = children_named(process, "trial-")
        family = [p for trial in trials for p in (trial, *trial.children())] + children_named(process, KILLED[executor])
        if blow == "kill a trial":
            children_named(process, KILLED[executor])[0].kill()
        elif blow == "kill the driver":
            driver.kill()
        else:
            for _ in range(2 if blow == "Ctrl-C twice" else 1):
                driver.send_signal(signal.SIGTERM if blow == "SIGTERM" else signal.SIGINT)
                time.sleep(0.3)
        out, err = driver.communicate(timeout=120)
        assert "Traceback" not in err, err
        psutil.wait_procs(family, timeout=30)
        assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], (
            "none outlives its driver"
        )
        records, broken = load_all(folder)
        assert not broken and kept.items() <= finished(folder).items()
        statuses = sorted(r.status for r in records.values())
        table = folder / "leaderboard.md"
        if blow == "kill a trial":
            assert driver.returncode == 1 and statuses == ["error", "ok", "ok"], out
            assert "0/1 (1 error)" in table.read_text() and table.read_text().count("1/1") == 2
            for path in folder.glob("[0-9a-f]*.json"):  # two that were finished would leave little to disturb
                path.unlink()
        elif blow == "kill the driver":
            assert driver.returncode == -signal.SIGKILL
        else:
            assert driver.returncode == 130 and "run the same command to continue" in out
        if blow == "SIGTERM":
            assert out.count("terminated:") == 1 and err == ""
        if blow == "Ctrl-C":
            assert "stopping: no more trials start" in out and len(finished(folder)) > len(kept), out
            pending = 3 - len(finished(folder))
            assert table.read_text().count("0/1 (1 pending)") == pending
        kept = finished(folder)
    code, said = run(here, THREE, *options)
    assert code == 0 and f"{3 - len(kept)} of 3 trials to run, {len(kept)} done before" in said
    assert kept.items() <= finished(folder).items() and not (folder / ".resume").exists()
    record = max(load_all(folder)[0].values(), key=lambda record: len(record.resumed_from_epochs))
    undisturbed = run_trial(TrialConfig.model_validate(record.config), threads=HALF)
    assert record.resumed_from_epochs and not record.notes and (folder / "leaderboard.md").read_text().count("†") > 1
    assert (record.scores, record.curve) == (undisturbed.scores, undisturbed.curve)


def test_a_trial_that_hangs_is_ended_and_the_sweep_goes_on(here):
    """Stopped by a signal, as by a dead network disk: it cannot end itself."""
    trials = write_sweep("train.epochs: [100000, 1]")
    folder = here / "results"
    folder.mkdir()
    hung = []

    class Hangs:
        def started(self, index): ...

        def epoch(self, index, epoch):
            if not hung:
                hung.extend(children_named(psutil.Process(), "trial-"))
                hung[0].suspend()
                queue.time_limits.limits = Limits(silence=1.5)

        def finished(self, index, record):
            queue.time_limits.limits = Limits()  # the next may take its time to start

    queue = TrialQueue(trials, folder, Hangs(), say=print)
    with ForkServer() as server:
        run_serially(queue, server, threads=1)
    records = [load_all(folder)[0][trial.trial_id] for trial in trials]
    assert [r.status for r in records] == ["error", "ok"], records[1].error
    assert records[0].error == "no sign of life for 2 s (--stall-limit); killed"
    assert not hung[0].is_running()


def test_a_time_limit_is_for_each_trial_and_its_row_says_it(serially, here, capsys):
    assert serially("train.epochs: [100000]", "--trial-time-limit", "3s") == 1
    table = (here / "results" / "smoke" / "leaderboard.md").read_text()
    assert "Row 100000: timed out after 3 s (--trial-time-limit)" in table and "0/1 (1 error)" in table
    assert "[1/1] epochs 100000 seed 0: error: timed out after 3 s (--trial-time-limit)" in capsys.readouterr().out


def test_a_disk_that_is_full_costs_no_result(here, run):
    code = """
import os
real = os.fsync
def fsync(descriptor):
    if "/results/" in os.readlink(f"/proc/self/fd/{descriptor}"):
        raise OSError(28, "No space left on device")
    real(descriptor)
os.fsync = fsync
"""
    options = ("--executor", "serial", "model.adapter.rank=[2]")
    said_code, said = run(here, RANKS, *options, **customise(here, code))
    assert said_code == 1 and "Traceback" not in said
    assert "took no record; it is kept as" in said and "free disk space" in said and "0: ok" in said
    folder = here / "results" / "smoke"
    assert not list(folder.glob("*.json*"))
    said_code, said = run(here, RANKS, *options)
    assert said_code == 0 and "is the same trial, taken over" in said and "0 of 1 trials to run, 1 done before" in said
    assert "1/1" in (folder / "leaderboard.md").read_text() and len(list(folder.glob("*.parquet"))) == 3


def test_two_drivers_share_a_sweep_and_run_nothing_twice(here, start):
    """On a clock that runs backwards, too: nothing that decides anything asks it."""
    code = """
import os, sys, time
start, real = time.time(), time.time
time.time = lambda: 2 * start - real() - 3600
def note():
    with open("started", "a") as file:
        file.write("x")
if "bench.processes.fork_server" in sys.orig_argv:
    os.register_at_fork(after_in_child=note)
"""
    variables = customise(here, code)
    drivers = [start(here, "train.epochs: [20, 21, 22]", "--executor", "serial", **variables) for _ in range(2)]
    ends = [driver.communicate(timeout=120) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], ends
    assert (here / "started").read_text() == "xxx"
    folder = here / "results" / "smoke"
    assert sorted(r.status for r in load_all(folder)[0].values()) == ["ok"] * 3 and not (folder / ".resume").exists()
    assert all(out.count("] epochs 2") == 3 and "[3/3]" in out for out, _ in ends), "both tell the end of every trial"
    assert any("is being run by process" in out for out, _ in ends)
    assert (folder / "leaderboard.md").read_text().count("1/1") == 3


def test_what_is_damaged_at_the_start_is_named_set_aside_and_run_again(serially, here, capsys):
    axis = "train.epochs: [1, 2, 3, 4]"
    trials = write_sweep(axis)
    folder = here / "results" / "smoke"
    folder.mkdir(parents=True)
    before = [run_trial(trial.config) for trial in trials]
    for record in before:
        record.save(folder)
    cut, scores, weights, whole = (folder / trial.trial_id for trial in trials)
    damaged = [cut.with_suffix(".json"), scores.with_suffix(".images.parquet"), weights.with_suffix(".safetensors")]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-40])
    for path in cache.root().glob("*/images.npy"):  # of whatever the tests before have made, too
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    untouched = whole.with_suffix(".json").read_bytes()
    assert serially(axis) == 0
    said = capsys.readouterr().out
    assert "3 of 4 trials to run, 1 done before" in said
    for path in damaged:
        assert re.search(rf"note: {path.relative_to(here)}: .*set aside as {path.name}\.corrupt-1.*run again", said), (
            said
        )
        assert path.with_name(f"{path.name}.corrupt-1").exists()
    records, broken = load_all(folder)
    assert not broken and [records[r.trial_id].scores for r in before] == [r.scores for r in before]
    assert whole.with_suffix(".json").read_bytes() == untouched


def test_a_loss_that_is_no_number_is_a_row_with_its_step_and_is_not_run_again(serially, here, capsys):
    axis = "train.lr: [1e-3, 1e+30]"
    assert serially(axis) == 1
    table = (here / "results" / "smoke" / "leaderboard.md").read_text()
    assert "0/1 (1 diverged)" in table and "the loss became nan at step 2, batch 2 of 2 in epoch 1 of 1" in table
    assert serially(axis) == 1, "the table still lacks a number that was asked for"
    assert "0 of 2 trials to run, 2 done before" in capsys.readouterr().out


def test_a_ray_that_does_not_start_says_why_and_names_the_way_without(here, run):
    deep = here / ("d" * 100)
    deep.mkdir()
    code, said = run(here, RANKS, RAY_TMPDIR=str(deep))  # the paths of its sockets become too long
    assert code == 2 and "Traceback" not in said
    assert re.search(r"Ray does not start: .+\n  -> add --executor serial, which needs no Ray", said), said


def test_without_ray_there_is_the_serial_executor(here, run):
    (here / "site" / "ray").mkdir(parents=True)
    (here / "site" / "ray" / "__init__.py").write_text("raise ImportError('not here')")
    code, said = run(here, RANKS, interpreter=True, **customise(here, ""))
    assert (
        code == 2
        and "Ray cannot be loaded: not here. Install it (pip install -e .), or add --executor serial" in said
        and "Traceback" not in said
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--trial-time-limit", "2"), "--trial-time-limit 2: a number with s, m, h or d is needed"),
        (
            ("--stall-limit", "1s"),
            "--stall-limit 1s: a number with s, m, h or d is needed, as in 90s, 30m or 2h, at least 10s",
        ),
        (("--checkpoint-every", "-1s"), "--checkpoint-every"),
        (("device=cuda", "--gpus", "2"), "--gpus 2: torch sees"),
    ],
)
def test_limits_that_make_no_sense_end_with_code_2(serially, capsys, arguments, expected):
    try:
        assert serially(RANKS, *arguments) == 2
    except SystemExit as left:  # argparse took the minus for an option
        assert left.code == 2
    assert expected in capsys.readouterr().err
