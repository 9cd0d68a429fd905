"""What the suite itself costs, as ratios.

``pytest tests/benchmarks/bench_performance.py -o python_files='bench_*.py'``, not part of the
test run: the two sweeps of the first group take about 15 minutes on one core. docs/performance.md shows the ratios. With ``SAM3_UPSTREAM=CLONE`` the training of upstream's own code is measured too.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.compare_speed import Measured, Task, _config, _in_a_process, _parser
from bench.record import load_all
from models import _weights

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
    "code", ["import torch", "import bench.trial", "import bench.run", "import bench.schedule_ray"]
)
def bench_imports(benchmark, code):
    benchmark.pedantic(subprocess.run, ([sys.executable, "-c", code],), {"check": True}, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="a trial's process, embedded default with one epoch")
def bench_overhead_of_a_trial(benchmark, tmp_path):
    """``overhead_seconds``: from its start to its end, without the trial's body, which the record tells."""
    config = json.loads(_default())
    config["train"]["epochs"] = 1
    command = [sys.executable, "-m", "bench.trial", str(tmp_path), "1"]

    def run():
        subprocess.run(command, input=json.dumps(config), text=True, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    (record,) = load_all(tmp_path)[0].values()
    if benchmark.stats is not None:
        overhead = benchmark.stats.stats.min - record.timing.total_seconds
        benchmark.extra_info["overhead_seconds"] = round(overhead, 2)


def _default() -> str:
    from bench.config import load_sweep

    return load_sweep(ROOT / "ablations" / "adapter_rank.yaml").base.model_dump_json()


@pytest.mark.benchmark(group="400 MB of weights into a module")
@pytest.mark.parametrize("way", ["mapped", "read from the checkpoint"])
def bench_weights(benchmark, way, tmp_path, monkeypatch):
    monkeypatch.setenv("SAM3_BENCH_CACHE", str(tmp_path / "cache"))
    module, path = nn.Linear(10_000, 10_000), tmp_path / "large.pt"
    torch.save(module.state_dict(), path)
    if way == "mapped":
        _weights.load(module, path)
        benchmark(_weights.load, module, path)
    else:
        benchmark(lambda: module.load_state_dict(torch.load(path, weights_only=True)))


@pytest.mark.skipif("SAM3_UPSTREAM" not in os.environ, reason="$SAM3_UPSTREAM names no clone of WZH0120/SAM3-UNet")
@pytest.mark.benchmark(group="a training step of SAM3-UNet at full size, 168 px, batch 1, float32")
@pytest.mark.parametrize("side", ["upstream", "here"])
def bench_training_step_at_full_size(benchmark, side):
    clone = os.environ["SAM3_UPSTREAM"]
    config = _config(_parser().parse_args(["--upstream", clone, "--device", "cpu", "--size", "168", "--batch", "1"]))
    task = Task(config=config.model_dump(mode="json"), steps=3, upstream=clone if side == "upstream" else None)
    measured: list[Measured] = []
    benchmark.pedantic(lambda: measured.append(_in_a_process(task)), rounds=1)
    benchmark.extra_info["seconds_per_step"] = round(min(measured[0].seconds[1:]), 3)
