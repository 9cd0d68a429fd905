"""Processes of ``compare_memory``: they build models beside each other, and are measured alone on the card.

A process builds its model on the CPU, writes ``ready`` and waits for a line on its standard input. The parent lets one
process at a time continue. Before its steps are timed it writes ``timing`` and waits again; the others, which may be
building models, are stopped meanwhile, because launches from a busy CPU are slower. The parent holds a lock file until
the process has ended and NVML shows no more memory in use than before it, because a CUDA context outlives the last line
that its process writes.
"""

import ctypes
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock
from pydantic import ValidationError
from torch import Tensor, nn

from bench.config.trial import TrialConfig
from bench.memory import nvml
from bench.memory.energy import SHORTEST_SECONDS, Meter, joules_per_image
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
"""Numbers of steps whose memory is measured, and of steps that are timed at least. Energy needs a longer window than a
second, so more of the fast ones are timed."""
BESIDE = 3
"""Number of processes that live at a time: one measures, the others build their models."""
READY, TIMING = "ready", "timing"
CLEAN_SECONDS = 20.0
"""Longest time to wait until the card is as it was."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Task(Config):
    """What a process measures."""

    config: dict[str, Any]
    upstream: str | None = None
    snapshot: bool = False


class Result(Config):
    """What a process measured. ``live`` are the tensors at the peak: bytes, and where they were made."""

    memory: Memory
    seconds: list[float] = []
    joules_per_image: float | None = None
    live: list[tuple[int, str]] = []


@dataclass
class Answer:
    """The end of a process: its result, or the last line of its errors."""

    result: Result | None
    error: str = ""


@dataclass
class _Child:
    """A process, and the file with its errors: a pipe that is not read would block it."""

    process: subprocess.Popen
    errors: IO[bytes]

    def reaches(self, word: str) -> bool:
        """Waits until the process writes this line; false if it ends before. A package may print lines on import."""
        return any(line.strip() == word for line in iter(self.process.stdout.readline, ""))

    def send(self, line: str) -> None:
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it has ended; its errors say why
            pass

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def answer(self) -> Answer:
        """Waits for the end of the process, and returns its answer. A package may print lines at the end, too."""
        out, _ = self.process.communicate()
        code = self.process.returncode
        for line in reversed(out.splitlines() if code == 0 else []):
            with suppress(ValidationError):
                return Answer(Result.model_validate_json(line))
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return Answer(None, said[-1] if said and code > 0 else f"it ended {how} and without a result")


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
    children: list[_Child] = []
    try:
        for number in range(len(tasks)):
            for task in tasks[len(children) : number + BESIDE]:
                children.append(_start(task, command))
            with FileLock(lock):
                yield _measure_alone(children[number], children[number + 1 :], in_use)
    finally:
        for child in children:
            child.signal(signal.SIGKILL)
            child.process.wait()
            child.errors.close()


def end_with_parent() -> None:
    """Ends this process when its parent ends. A process that is stopped at that moment would never continue."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(task: Task, command: Sequence[str]) -> _Child:
    errors = tempfile.TemporaryFile()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
    # from its first moment on: it may be stopped during its imports, which take seconds
    process = subprocess.Popen(command, text=True, errors="replace", preexec_fn=end_with_parent, **pipes)
    child = _Child(process, errors)
    child.send(task.model_dump_json())
    return child


def _measure_alone(child: _Child, others: Sequence[_Child], in_use: Callable[[], int | None]) -> Answer:
    """Lets a process measure, and returns once it has ended and its context is gone."""
    child.reaches(READY)
    before = in_use()
    child.send("go")
    try:
        if child.reaches(TIMING):
            for other in others:
                other.signal(signal.SIGSTOP)
            child.send("go")
        answer = child.answer()
    finally:
        for other in others:
            other.signal(signal.SIGCONT)
    deadline = time.monotonic() + CLEAN_SECONDS
    while before is not None and (in_use() or 0) > before + 2 * MIB and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


# --- in the process ---------------------------------------------------------------------------------------------------


def work() -> Result:
    """Reads a task, builds the model on the CPU, waits for its turn, and measures."""
    task = Task.model_validate_json(sys.stdin.readline())
    config = TrialConfig.model_validate_json(json.dumps(task.config))
    if task.upstream:
        model: nn.Module = _AsTuple(upstream_network(Path(task.upstream), config.transform.size))
    else:
        model = MODELS.build(config.model, config.transform.size, True)
    _wait_after(READY)
    return _measure(task, config, model)


def _wait_after(word: str) -> None:
    """Writes a line, and waits for the parent."""
    print(word, flush=True)
    if not sys.stdin.readline():
        sys.exit("the parent has ended")


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
            _wait_after(TIMING)
            meter = Meter(monitor.counters)
            seconds = [] if task.snapshot else timed(steps, meter)  # recording takes time
    tensors = [(each.bytes, each.made_by) for each in live]
    return Result(memory=peaks[0], seconds=seconds, joules_per_image=joules_per_image(meter, peaks[0]), live=tensors)


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


def timed(steps: Steps, meter: Meter) -> list[float]:
    """Returns the seconds of each of at least ``TIMED`` steps on one batch; the meter measures their energy."""
    images, masks = batch_of(steps.config, steps.device)
    seconds: list[float] = []
    meter.start()
    while len(seconds) < TIMED or sum(seconds) < SHORTEST_SECONDS:
        torch.cuda.synchronize(steps.device)
        started = time.perf_counter()
        steps.take(images, masks)
        torch.cuda.synchronize(steps.device)
        seconds.append(time.perf_counter() - started)
    meter.stop(len(seconds) * len(images))
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
