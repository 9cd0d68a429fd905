"""What the suite itself costs, as ratios.

``pytest tests/benchmarks/bench_performance.py -o python_files='bench_*.py'``, not part of the test run: the two sweeps
of the first group take about 15 minutes on one core. docs/performance.md shows the ratios. With
``SAM3_UPSTREAM=CLONE`` the training of upstream's own code is measured too.
"""

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray.cluster_utils import Cluster
from torch import nn

from bench.config.expand import Trial
from bench.config.sweep import load_sweep
from bench.config.trial import TrialConfig, with_value
from bench.processes.client import ForkServer, start
from bench.processes.request import Request
from bench.records.record import TrialRecord
from bench.records.store import load_all
from bench.scheduling.executor import Executor
from bench.scheduling.resources import Resources
from bench.scheduling.trial_queue import TrialQueue
from bench.system.interrupt import Interrupts
from bench.system.machine import cores
from bench.system.progress import silent
from bench.tools.compare_speed import Measured, Task, _config, _in_a_process, _parser
from bench.training.loop import Epoch
from bench.trial import run_trial
from models.core import weights

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTHS = (8, 16, 32, 64)
ENCODER = (
    "{name: sam3_vit_tiny, weights: random, dim: 768, heads: 12, depth: 12, patch: 16, global_blocks: [11], "
    "drop_path: 0.0}"
)
FROZEN = (
    f"model={{name: sam3_unet, encoder: {ENCODER}, adapter: {{placement: none}}, decoder: {{width: 32}}}}",
    *("transform.size=112", "transform.vflip=0", "dataset.train=24", "dataset.val=2", "dataset.test=4"),
    *("train.validate_every=0", "seeds=0"),
)
"""An encoder of 95 M parameters in which nothing is trained or left to chance: what the cache is for."""
SMALL = ("model.adapter.placement=none", "model.encoder.drop_path=0", "seeds=0")
"""The embedded sweep with a frozen encoder, whose encoder is so small that the cache hardly matters."""


def sweep(folder, *arguments):
    """Runs ``ablations/decoder_width.yaml`` one trial after the other, each with one thread; its records by width."""
    command = [sys.executable, "-m", "bench.run", "ablations/decoder_width.yaml", "--executor", "serial"]
    subprocess.run([*command, "--cpus-per-trial", "1", "--results", folder, *arguments], cwd=ROOT, check=True)
    records, broken = load_all(Path(folder) / "decoder_width")
    assert not broken and all(record.status == "ok" for record in records.values())
    return {record.config["model"]["decoder"]["width"]: record for record in records.values()}


@pytest.mark.benchmark(group="a sweep of four decoder widths over a frozen encoder, 40 epochs")
@pytest.mark.parametrize("cache", ["off", "auto"])
def bench_frozen_encoder(benchmark, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    sweep(str(tmp_path / "data"), *FROZEN, "train.epochs=1")  # paints the scenes, which both find ready
    arguments = (str(tmp_path / "results"), *FROZEN, "train.epochs=40", "--feature-cache", cache)
    _same(benchmark.pedantic(sweep, arguments, rounds=1), "frozen")


@pytest.mark.benchmark(group="the embedded sweep of four decoder widths, frozen encoder")
@pytest.mark.parametrize("cache", ["off", "auto"])
def bench_embedded_sweep(benchmark, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    sweep(str(tmp_path / "data"), *SMALL, "train.epochs=1", "model.decoder.width=[8]")
    arguments = (str(tmp_path / "results"), *SMALL, "--feature-cache", cache)
    _same(benchmark.pedantic(sweep, arguments, rounds=1), "embedded")


SEEN: dict[str, dict] = {}


def _same(records, name):
    """With and without the cache all scores are equal, to the bit."""
    scores = {width: (record.scores, record.curve) for width, record in records.items()}
    assert len(scores) == len(WIDTHS) and SEEN.setdefault(name, scores) == scores


@pytest.mark.benchmark(group="starting a process")
@pytest.mark.parametrize(
    "code", ["import torch", "import bench.trial", "import bench.run", "import bench.scheduling.ray_tune.worker"]
)
def bench_imports(benchmark, code):
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", code],), {"check": True}, rounds=5, warmup_rounds=1)


def embedded(epochs: int) -> TrialConfig:
    """The base of the embedded rank ablation."""
    config = load_sweep(ROOT / "ablations" / "adapter_rank.yaml").base
    return with_value(config, {"train.epochs": epochs})


@pytest.mark.benchmark(group="a trial of one epoch, embedded default")
@pytest.mark.parametrize("process", ["none of its own", "forked", "a fresh interpreter"])
def bench_process_of_a_trial(benchmark, process, tmp_path):
    """What a process of its own costs a trial: its body by itself, in a fork, and in an interpreter that is started."""
    config = embedded(1)
    request = Request(config.model_dump_json(), str(tmp_path), 1, 600.0)
    fresh = {"input": request.to_json(), "text": True, "check": True, "cwd": ROOT, "stdout": subprocess.DEVNULL}
    with ForkServer([request.config]) as server:
        ways = {
            "none of its own": lambda: run_trial(config),
            "forked": lambda: list(start(request, server.address)),
            "a fresh interpreter": lambda: subprocess.run(
                [sys.executable, "-m", "bench.processes.trial_process"], **fresh
            ),
        }
        benchmark.pedantic(ways[process], rounds=5, warmup_rounds=1)


class Clock:
    """A watcher that notes when trials end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def started(self, index: int) -> None: ...

    def epoch(self, index: int, epoch: Epoch) -> None: ...

    def finished(self, index: int, record: TrialRecord) -> None:
        self.ends.append(time.monotonic())


@pytest.mark.benchmark(group="trials one after another, embedded default; what passes beside their bodies")
@pytest.mark.parametrize("executor", ["serial", "ray", "ray on a cluster"])
@pytest.mark.parametrize("epochs", [1, 60], ids=["short trials", "a trial of more than two minutes"])
def bench_executor(benchmark, executor, epochs, tmp_path):
    """From the end of one trial to the end of the next, without what its record says that it took. The first is left
    out: it waits until the fork server, or Ray, has started."""
    bodies = [embedded(1)] + ([embedded(epochs)] if epochs > 1 else [embedded(n) for n in (2, 3, 4)])
    trials = [Trial(config, (str(index),)) for index, config in enumerate(bodies)]
    clock, resources = Clock(), Resources(threads=cores())
    queue = TrialQueue(trials, tmp_path, clock, say=print)

    def run():
        with Executor(resources, executor != "serial", {}) as runs, Interrupts() as interrupts:
            assert not runs.absent(trials)
            runs.prepare(trials, silent)
            runs.run(queue, interrupts)

    with ExitStack() as stack:
        if executor == "ray on a cluster":
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores(), "object_store_memory": 10**8})
            stack.callback(cluster.shutdown)
            resources = replace(resources, address=cluster.address)
        benchmark.pedantic(run, rounds=1)
    assert [record.status for record in queue.records.values()] == ["ok"] * len(trials)
    seconds = [queue.records[trial.trial_id].timing.total_seconds for trial in trials[1:]]
    beside = [end - before - body for before, end, body in zip(clock.ends, clock.ends[1:], seconds)]
    benchmark.extra_info["body_seconds"] = round(statistics.median(seconds), 1)
    benchmark.extra_info["seconds_beside"] = round(statistics.median(beside), 2)
    benchmark.extra_info["largest_share"] = f"{max(b / body for b, body in zip(beside, seconds)):.1%}"


@pytest.mark.benchmark(group="400 MB of weights into a module")
@pytest.mark.parametrize("way", ["mapped", "read from the checkpoint"])
def bench_weights(benchmark, way, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    module, path = nn.Linear(10_000, 10_000), tmp_path / "large.pt"
    torch.save(module.state_dict(), path)
    if way == "mapped":
        weights.load(module, path)
        benchmark(weights.load, module, path)
    else:
        benchmark(lambda: module.load_state_dict(torch.load(path, weights_only=True)))


@pytest.mark.skipif("SAM3_UPSTREAM" not in os.environ, reason="$SAM3_UPSTREAM names no clone of WZH0120/SAM3-UNet")
@pytest.mark.benchmark(group="a training step of SAM3-UNet at full size, 336 px, batch 1, float32")
@pytest.mark.parametrize("side", ["upstream", "here"])
def bench_training_step_at_full_size(benchmark, side):
    clone = os.environ["SAM3_UPSTREAM"]
    config = _config(_parser().parse_args(["--upstream", clone, "--device", "cpu", "--batch", "1"]))
    task = Task(config=config.model_dump(mode="json"), steps=3, upstream=clone if side == "upstream" else None)
    measured: list[Measured] = []
    benchmark.pedantic(lambda: measured.append(_in_a_process(task)), rounds=1)
    benchmark.extra_info["seconds_per_step"] = round(min(measured[0].seconds[1:]), 3)
