"""Processes of ``compare_memory``: they build models beside each other, and are measured alone on the card.

A process builds its model on the CPU, writes ``ready`` and waits for a line on its standard input. The parent lets one
process at a time continue. It holds a lock file until that process has ended and NVML shows no more memory in use than
before it, because a CUDA context outlives the last line that its process writes.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from bench.config.trial import TrialConfig
from bench.memory import nvml
from bench.memory.measure import MemoryMonitor
from bench.memory.snapshot import allocations_at_peak, recording, snapshot
from bench.records.memory import MIB, Memory
from bench.system.device import device_of, float32_products
from bench.tools.upstream import upstream_network
from bench.training.compiled import Compiled
from bench.training.optimiser import make_optimiser
from bench.training.precision import make_scaler
from models import MODELS
from models.core.registry import Config
from models.core.size import height_width

STEPS, TIMED = 3, 7
BESIDE = 3
"""Number of processes that live at a time: one measures, the others build their models."""
READY = "ready"
CLEAN_SECONDS = 20.0
"""Longest time to wait until the card is as it was."""


class Task(Config):
    """What a process measures."""

    config: dict[str, Any]
    upstream: str | None = None
    snapshot: bool = False


class Result(Config):
    """What a process measured. ``live`` are the tensors at the peak: bytes, and where they were made."""

    memory: Memory
    seconds: list[float] = []
    live: list[tuple[int, str]] = []


@dataclass
class Answer:
    """The end of a process: its result, or the last line of its errors."""

    result: Result | None
    error: str = ""


def bytes_in_use() -> int | None:
    """Returns the memory in use on all cards of this machine; ``None`` if NVML shows none."""
    gpus = nvml.Gpus()
    used = [gpus.observe(handle).used for handle in gpus.by_uuid().values()]
    known = [value for value in used if value is not None]
    return sum(known) if known else None


def measured_alone(
    tasks: Sequence[Task],
    command: Sequence[str],
    lock: Path,
    in_use: Callable[[], int | None] = bytes_in_use,
) -> Iterator[Answer]:
    """Yields the answer to each task, in order. Up to ``BESIDE`` processes live at a time; one of them measures.

    command: starts a process that reads a task from its first line; in_use: bytes in use on the card.
    """
    children: list[subprocess.Popen] = []
    try:
        for number in range(len(tasks)):
            for task in tasks[len(children) : number + BESIDE]:
                children.append(_start(task, command))
            with FileLock(lock):
                yield _measure_alone(children[number], in_use)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()


def _start(task: Task, command: Sequence[str]) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(command, text=True, **pipes)
    try:
        child.stdin.write(task.model_dump_json() + "\n")
        child.stdin.flush()
    except BrokenPipeError:  # it has ended; its errors say why
        pass
    return child


def _measure_alone(child: subprocess.Popen, in_use: Callable[[], int | None]) -> Answer:
    """Lets a process measure, and returns once it has ended and its context is gone."""
    while (line := child.stdout.readline()) and line.strip() != READY:
        pass  # a package may print on import
    before = in_use()
    out, errors = child.communicate("go\n" if child.poll() is None else None)
    deadline = time.monotonic() + CLEAN_SECONDS
    while before is not None and (in_use() or 0) > before + 2 * MIB and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = out.strip().splitlines()
    if child.returncode == 0 and lines:
        return Answer(Result.model_validate_json(lines[-1]))
    return Answer(None, (errors.strip().splitlines() or ["no message"])[-1])


# --- in the process ---------------------------------------------------------------------------------------------------


def work() -> Result:
    """Reads a task, builds the model on the CPU, waits for its turn, and measures."""
    task = Task.model_validate_json(sys.stdin.readline())
    config = TrialConfig.model_validate_json(json.dumps(task.config))
    if task.upstream:
        model: nn.Module = _AsTuple(upstream_network(Path(task.upstream), config.transform.size))
    else:
        model = MODELS.build(config.model, config.transform.size, True)
    print(READY, flush=True)
    if not sys.stdin.readline():
        sys.exit("the parent has ended")
    return _measure(task, config, model)


def _measure(task: Task, config: TrialConfig, model: nn.Module) -> Result:
    device = device_of("cuda")
    tf32 = nullcontext() if task.upstream else float32_products(device, config.train.tf32)
    with tf32, MemoryMonitor(device, config.memory) as monitor, recording(task.snapshot):
        steps = Steps(model.to(device).train(), config, device)
        with steps.compiled:
            with monitor.phase("training") as peaks:
                steps.prepare()
                for _ in range(STEPS):
                    steps.take(*batch_of(config, device))
            live = allocations_at_peak(snapshot()) if task.snapshot else []
            seconds = [] if task.snapshot else _timed(steps)  # recording takes time
    return Result(memory=peaks[0], seconds=seconds, live=[(each.bytes, each.made_by) for each in live])


class Steps:
    """Training steps as ``bench.training.loop`` takes them: compiled, scaled and in micro-batches if the trial says so."""

    def __init__(self, model: nn.Module, config: TrialConfig, device: torch.device) -> None:
        self.model, self.config, self.device = model, config, device
        self.compiled = Compiled(model, config.train)
        self.scaler = make_scaler(device, config.train.precision)
        self.optimiser: torch.optim.Optimizer | None = None

    def prepare(self) -> None:
        """Makes the optimiser, and compiles the model if ``train.compile`` says so."""
        self.optimiser = make_optimiser(self.model, self.config.train)
        if self.config.train.compile:
            self.compiled.warm_up(*batch_of(self.config, self.device), self.config.transform, self.scaler)

    def take(self, images: Tensor, masks: Tensor) -> None:
        """Takes one training step."""
        self.optimiser.zero_grad(set_to_none=True)
        self.compiled.gradients(self.model, images, masks, self.config.transform, self.scaler)
        self.scaler.step(self.optimiser)
        self.scaler.update()


def _timed(steps: Steps) -> list[float]:
    """Returns the seconds of each of ``TIMED`` steps on one batch."""
    images, masks = batch_of(steps.config, steps.device)
    seconds = []
    for _ in range(TIMED):
        torch.cuda.synchronize(steps.device)
        started = time.perf_counter()
        steps.take(images, masks)
        torch.cuda.synchronize(steps.device)
        seconds.append(time.perf_counter() - started)
    return seconds


class _AsTuple(nn.Module):
    """Upstream's network returns a tensor, the suite's models a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)


def batch_of(config: TrialConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draws images uint8 [B, H, W, 3] and masks uint8 [B, H, W] at random."""
    shape = (config.train.batch_size, *height_width(config.transform.size))
    images = torch.randint(256, (*shape, 3), dtype=torch.uint8, device=device)
    return images, torch.randint(256, shape, dtype=torch.uint8, device=device)
