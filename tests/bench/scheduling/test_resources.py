"""What a run may use: checked against a machine whose GPUs are simulated."""

import argparse

import pytest
from fake_cuda import FakeCuda

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.scheduling.resources import Resources, add_options, check_parallel, resources_of
from bench.system import machine


@pytest.fixture
def asked(monkeypatch, tiny_with):
    """``asked("--gpus 2", device="cuda", visible=4)`` on 16 cores."""

    def ask(arguments: str, device: str = "cuda", visible: int = 4) -> Resources:
        FakeCuda(monkeypatch, count=visible)
        monkeypatch.setattr("bench.scheduling.resources.cores", lambda: 16)
        parser = argparse.ArgumentParser()
        add_options(parser)
        sweep = Sweep("name", "?", "default", tiny_with({"device": device}), (), (0,))
        return resources_of(parser.parse_args(arguments.split()), sweep)

    return ask


@pytest.mark.parametrize(
    ("arguments", "threads", "gpus", "each", "at_once"),
    [
        ("", 4, 4, 1, 4),
        ("--gpus 2", 8, 2, 1, 2),
        ("--gpus-per-trial 2", 8, 4, 2, 2),
        ("--gpus-per-trial 3", 16, 4, 3, 1),
        ("--gpus-per-trial 4 --executor serial", 16, 4, 4, 1),
    ],
)
def test_cores_are_divided_among_the_trials_that_run_at_once(asked, arguments, threads, gpus, each, at_once):
    resources = asked(arguments)
    assert (resources.threads, resources.gpus, resources.gpus_per_trial) == (threads, gpus, each)
    assert type(resources.gpus_per_trial) is int
    assert resources.slots(16, gpus) == at_once


def test_a_trial_on_the_cpu_has_one_core_and_no_gpu(asked):
    assert asked("", device="cpu") == Resources(threads=1, gpus=0, gpus_per_trial=0)
    assert asked("", device="cpu").slots(16, 4) == 16
    assert asked("", visible=0) == Resources(threads=1, gpus=0, gpus_per_trial=1), "what is missing is said elsewhere"


def test_a_cluster_says_itself_what_it_has(asked):
    assert asked("--address auto --gpus-per-trial 8") == Resources(1, 0, 8, "auto")
    assert asked("--address [::1]:6379", device="cpu").address == "[::1]:6379"


@pytest.mark.parametrize(
    ("arguments", "device", "expected"),
    [
        ("--gpus-per-trial 0.5", "cpu", "this profile runs on the CPU. Leave it out, or add device=cuda"),
        ("--gpus-per-trial 2", "cpu", "this profile runs on the CPU"),
        ("--gpus 1", "cpu", "this profile runs on the CPU"),
        ("--gpus 5", "cuda", "Allowed: 1 to 4"),
        ("--gpus-per-trial 5", "cuda", "there are 4 GPUs to use. Allowed: up to 4"),
        ("--gpus-per-trial 2 --gpus 1", "cuda", "there are 1 GPUs to use"),
        ("--gpus-per-trial 1.5", "cuda", "is no number of GPUs. Allowed: whole numbers from 1"),
        ("--gpus-per-trial 0", "cuda", "is no number of GPUs. Allowed: whole numbers from 1"),
        ("--gpus-per-trial -1", "cuda", "is no number of GPUs. Allowed: whole numbers from 1"),
        ("--gpus-per-trial nan", "cuda", "is no number of GPUs. Allowed: whole numbers from 1"),
        ("--gpus-per-trial inf", "cuda", "is no number of GPUs. Allowed: whole numbers from 1"),
        (
            "--gpus-per-trial 0.5",
            "cuda",
            "trials do not share a GPU, because neither memory nor speed can be measured",
        ),
        ("--gpus-per-trial 0.25 --address auto", "cuda", "on a shared one. Allowed: whole numbers from 1"),
        ("--gpus-per-trial 0.7 --executor serial", "cuda", "trials do not share a GPU"),
        ("--cpus-per-trial 17", "cuda", "Allowed: 1 to 16"),
        ("--cpus-per-trial 0 --address auto", "cuda", "at least 1"),
        ("--address auto --executor serial", "cpu", "runs on this machine only"),
        ("--address auto --gpus 1", "cuda", "nodes report their GPUs"),
        ("--address here", "cpu", "Allowed: auto, or HOST:PORT"),
        ("--address host:99999", "cpu", "Allowed: auto, or HOST:PORT"),
        ("--address :6379", "cpu", "Allowed: auto, or HOST:PORT"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_option(asked, arguments, device, expected):
    with pytest.raises(ConfigError, match=arguments.split()[0]) as caught:
        asked(arguments, device=device)
    assert expected in str(caught.value) and len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("usable", "words"), [(16, "this machine has 16 cores"), (4, "this process may use 4 of 16 cores")]
)
def test_a_limit_below_the_machines_cores_is_said(monkeypatch, tiny_with, usable, words):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.setattr(machine, "_bound", lambda: usable)
    monkeypatch.setattr(machine, "_quota", lambda group: None)
    parser = argparse.ArgumentParser()
    add_options(parser)
    sweep = Sweep("name", "?", "default", tiny_with({"device": "cpu"}), (), (0,))
    with pytest.raises(ConfigError, match=f"{words}. Allowed: 1 to {usable}"):
        resources_of(parser.parse_args(["--cpus-per-trial", "17"]), sweep)
    assert Resources(1).slots_here() == usable


def test_every_gpu_needs_an_image_of_each_batch_and_a_recorded_step_has_one_gpu(tiny_with):
    def trial(label, changes):
        return Trial(tiny_with({"device": "cuda", **changes}), (label,))

    usual, small, tiny = (trial(f"{n} images", {"train.batch_size": n}) for n in (8, 4, 2))
    recorded = trial("recorded", {"train.batch_size": 8, "train.compile": "step"})
    check_parallel(Resources(1, 4, 4), [small, usual])
    check_parallel(Resources(1, 4, 1), [tiny, recorded])
    with pytest.raises(ConfigError, match="--gpus-per-trial 4: .* train.batch_size is 2 at 2 images"):
        check_parallel(Resources(1, 4, 4), [usual, tiny])
    with pytest.raises(ConfigError, match="train.compile is step at recorded.* Set train.compile=blocks"):
        check_parallel(Resources(1, 4, 4), [usual, recorded])
