"""What is imported before a trial starts, and what never is."""

import json
import os
import subprocess
import sys

from bench.processes import client

PREPARED = """
import json, os, sys, tempfile
import torch
from pathlib import Path
asked = []
def ask(name):
    asked.append(name)
    raise RuntimeError(name)
if sys.argv[1] == "gpu":  # as NVML would say it
    torch.cuda._is_compiled = lambda: True
    torch.cuda._device_count_nvml = lambda: 1
    for name in ("_cuda_getDeviceCount", "_cuda_init"):
        setattr(torch._C, name, lambda name=name: ask(name))
import bench.processes.trial_process
from bench.processes.request import Request
from bench.processes.preload import import_for
configs = json.load(sys.stdin)
def prepare(config):
    import_for([config])
    if sys.argv[1] == "gpu":
        assert torch.cuda.is_available() and not asked, asked
    else:
        run(config)
def run(config):
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")} - {"jemalloc_bg_thd"}
    assert len(threads) == 1, threads  # Arrow's allocator has one, and knows of forks
    before = set(sys.modules)
    from bench.processes.trial_process import run_requested
    run_requested(Request(config, tempfile.mkdtemp(), 1, 0.0))
    print("late", *sorted(set(sys.modules) - before), flush=True)
for config in configs:  # each in a fork, so that what one imports is not there for the next
    child = os.fork()
    if not child:
        prepare(config)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def prepared(configs, machine):
    environment = {**os.environ, **client.ENVIRONMENT}
    command = [sys.executable, "-c", PREPARED, machine]
    said = json.dumps([config.model_dump_json() for config in configs])
    return subprocess.run(command, input=said, capture_output=True, text=True, env=environment)


PEFT = {"model.adapter": {"name": "lora", "rank": 2}}
INT8 = {"model.frozen_weights": "int8", "model.decoder": {"name": "segformer"}}


def test_a_trial_imports_nothing_late_and_its_server_has_no_threads(tiny_with):
    """What a body imports would count as its memory and its time."""
    done = prepared([tiny_with(INT8), tiny_with(PEFT)], "cpu")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("late")] == ["late", "late"]


def test_a_server_does_not_touch_a_gpu(tiny_with):
    done = prepared([tiny_with({}), tiny_with(INT8)], "gpu")
    assert done.returncode == 0, done.stderr


def test_asking_costs_nothing_that_takes_long():
    """Ray starts a worker for each trial, and all that it does is ask."""
    code = "import sys, bench.processes.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "pydantic", "models"} & set(done.stdout.split())
    code = "import sys, bench.scheduling.ray_tune.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "models", "bench.config.sweep"} & set(done.stdout.split())
