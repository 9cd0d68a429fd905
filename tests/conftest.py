"""Small things that many tests need. Nothing here needs a GPU, weights, a network or data."""

import gc
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import warm
from hypothesis import is_hypothesis_test, settings

from bench import score
from bench.config.trial import TrialConfig, with_value
from bench.processes import client, multi_gpu

REPOSITORY = Path(__file__).resolve().parent.parent

FULL = False
"""Whether properties are tried on all of their examples, and not on a tenth: in a run of what is slow (``-m slow``)."""


def pytest_configure(config: pytest.Config) -> None:
    """Before test modules are imported, whose decorators ask ``examples``."""
    global FULL
    FULL = config.option.markexpr == "slow"
    settings.register_profile("same", derandomize=True, max_examples=examples(100))
    settings.register_profile("explore", max_examples=examples(100))
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
    """The same examples in every run, so that what passed passes; ``HYPOTHESIS_PROFILE=explore`` looks for new ones."""


def examples(number: int) -> int:
    """How many of a property's examples are tried in this run."""
    return number if FULL else math.ceil(number / 10)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs come first, for they take longest, and no worker shall wait for another at the end. A run of what is
    slow tries all properties, too."""
    items.sort(key=lambda item: item.path.parent.name != "tests")
    for item in items:
        if FULL and hasattr(item, "obj") and is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def _nothing_old_to_collect() -> None:
    """Trials collect garbage before they measure memory, which is quick if what was there before does not count."""
    gc.collect()
    gc.freeze()


signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
torch.set_num_threads(1)
"""Tests side by side, and what they start, must not take each other's cores, and sums come in the same order."""


RAY_HAS_RUN = False
"""Set by tests that are Ray's driver themselves: its library ends what is forked from their process later."""


@pytest.fixture(autouse=True)
def _no_fork_after_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """``bench.score``, which never runs in a process with Ray, forks its workers."""
    if RAY_HAS_RUN:
        spawn = multiprocessing.get_context("spawn")
        monkeypatch.setattr(score, "multiprocessing", SimpleNamespace(get_context=lambda method: spawn))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache."""
    before = os.environ.get("SAM3_BENCH_CACHE")
    os.environ["SAM3_BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SAM3_BENCH_CACHE"]
    else:
        os.environ["SAM3_BENCH_CACHE"] = before


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Every test starts with the same random state and leaves torch as it found it."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


client.subprocess = multi_gpu.subprocess = warm.HERE
"""Fork servers and ranks are forked from a process that has imported everything, as trials are."""


@pytest.fixture
def interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that asks for this gets fork servers and ranks as users do: each is a new interpreter."""
    monkeypatch.setattr(client, "subprocess", subprocess)
    monkeypatch.setattr(multi_gpu, "subprocess", subprocess)


@pytest.fixture
def every_kind() -> None:
    """A test that asks for this gets its figures as users do."""


@pytest.fixture
def png() -> None:
    """A test that asks for this gets its figures as PNG."""


@pytest.fixture(autouse=True)
def _figures_where_they_are_looked_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are always made, and written where a test asks for it: that takes longer than most of what tests do."""
    if "every_kind" not in request.fixturenames:
        monkeypatch.setattr("bench.report.KINDS", ("png",) if "png" in request.fixturenames else ())


@pytest.fixture
def tiny() -> TrialConfig:
    """A real trial that takes a second: tiny encoder, eight training scenes of 32 px, one epoch."""
    return TrialConfig.model_validate(
        {
            "model": {"name": "sam3_unet", "encoder": "sam3_vit_tiny", "decoder": {"width": 8}, "adapter": {"rank": 2}},
            "dataset": {"name": "procedural", "train": 8, "val": 2, "test": 3, "side": 32},
            "transform": {"size": 32},
            "train": {"epochs": 1, "batch_size": 4},
            "device": "cpu",
        }
    )


@pytest.fixture
def tiny_with(tiny: TrialConfig) -> Any:
    """``tiny_with({"model.adapter.rank": 4})`` is ``tiny`` with some fields changed."""
    return lambda changes: with_value(tiny, changes)


SWEEP = """
name: smoke
question: Does the whole line work?
base:
  model: {{name: sam3_unet, encoder: sam3_vit_tiny, decoder: {{width: 8}}}}
  dataset: {{name: procedural, train: 8, val: 2, test: 3, side: 32}}
  transform: {{size: 32}}
  train: {{epochs: 1, batch_size: 4}}
  device: cpu
axes:
  {axis}
seeds: [0]
"""
RANKS = "model.adapter.rank: [1, 4]"


RUN = """
from bench.system import command
command.begin()
import os, sys
import bench.processes.client, bench.report, bench.run
bench.processes.client.END_SECONDS = float(os.environ.get("END_SECONDS", 10))
bench.report.KINDS = ()
sys.exit(command.run(bench.run.main))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder from which the sweep of a drill is run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def customise(folder, code):
    """Variables with which Python runs ``code`` before anything else, in the driver and in every trial."""
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site" / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder / "site"), str(REPOSITORY)])}


def children_named(driver, name):
    """Those that a driver has started, by the start of their names in a list of processes, or of what Python runs."""
    found = []
    for process in driver.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            command = process.cmdline()
            program = " ".join(command[2:]).removeprefix("bench.processes.")
            if any(word.startswith(name) for word in (process.name(), *command[:1], program)):
                found.append(process)
    return found


def finished(folder):
    """Content of all records that are results; what was finished must never change."""
    contents = {path.name: path.read_bytes() for path in folder.glob("[0-9a-f]*.json")}
    return {name: content for name, content in contents.items() if json.loads(content)["status"] == "ok"}


@pytest.fixture
def start():
    """``start(folder, axis, *arguments, VARIABLE=value)`` runs the smoke sweep in a process of its own.

    None outlives its test.
    """
    drivers = []

    def begin(
        folder: Path, axis: str, *arguments: str, interpreter: bool = False, as_a_user: bool = False, **variables: str
    ) -> subprocess.Popen:
        """interpreter: by a new one, and so is all that it starts; as_a_user: with figures of every kind, too."""
        (folder / "smoke.yaml").write_text(SWEEP.format(axis=axis))
        program = ["-m", "bench.run"] if as_a_user else ["-c", RUN]
        command = [sys.executable, *program, "smoke.yaml", *arguments]
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": {**os.environ, **variables},
        }
        begins = subprocess.Popen if interpreter or as_a_user else warm.Popen
        drivers.append(begins(command, cwd=folder, start_new_session=True, **options))
        return drivers[-1]

    yield begin
    for driver in drivers:
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
            driver.communicate()


@pytest.fixture
def run(start):
    """The same, to its end: exit code and all that was said."""

    def to_the_end(folder: Path, axis: str, *arguments: str, **variables: Any) -> tuple[int, str]:
        process = start(folder, axis, *arguments, **variables)
        out, err = process.communicate(timeout=240)
        return process.returncode, out + err

    return to_the_end


def wait_for(condition, seconds=120):
    """The first true value of ``condition()``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
