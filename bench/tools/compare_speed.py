"""Training speed, here and in the authors' own code: ``python -m bench.tools.compare_speed --upstream CLONE``.

Both train the same weights on the same batches, in every round in new processes, one after the other, so that neither
uses caches of the other. Upstream's network, loss and optimiser are those of the clone, always in float32 as published,
with TF32 where upstream's import allows it. ``--precision``, ``--compile`` and ``--fused`` change the suite's side.
Loading of images is not included: it has benchmarks of its own.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from bench.config.errors import ConfigError
from bench.config.trial import TrialConfig, with_value
from bench.datasets.core.transforms import to_input, to_target
from bench.records.store import check_writable
from bench.system.console import ArgumentParser, complain
from bench.system.device import device_of, float32_products, tf32_flags
from bench.system.files import TargetError, check_targets, write_whole
from bench.tools.upstream import UPSTREAM, check_upstream, function_of, upstream_network
from bench.training.batch_loss import batch_loss
from bench.training.optimiser import make_optimiser
from models import MODELS
from models.core.encoder_decoder import upstream_state
from models.core.paths import expanded
from models.core.registry import Config
from models.core.size import height_width

FILE = "speed_comparison.md"
FULL = {
    "model": {"name": "sam3_unet", "encoder": {"weights": "random"}},
    "dataset": "procedural",
    "train": {"loss": "structure_loss"},
}
EQUAL = {False: 1e-4, True: 1e-2}
"""Largest accepted relative difference between losses of float32 steps, by TF32: the same arithmetic in another order.
TF32's products have 11 bits instead of 24; its limit has not been measured yet."""


class Task(Config):
    """Task of a child process."""

    config: dict
    steps: int
    upstream: str | None = None
    compile: str | None = None
    fused: bool = False


class Measured(Config):
    """Seconds and losses of all steps of one process, with the first one, which is the warm-up.

    On a CPU they are seconds of processor time, which do not depend on other processes of the machine.
    """

    seconds: list[float]
    losses: list[float]
    device: str
    tf32: bool = False
    """Whether matrix products were allowed to use TF32."""


def main(arguments: list[str]) -> int:
    """Compares, prints and writes. Exit code: 0 measured, 1 a process failed or float32 losses differ, 2 the input is
    wrong."""
    options = _parser().parse_args(arguments)
    if options.one:
        print(measure(Task.model_validate_json(sys.stdin.read())).model_dump_json())
        return 0
    try:
        config = _config(options)
        check_upstream(options.upstream, {**UPSTREAM, "train.py": "structure_loss"})
        check_targets([options.results / FILE])
        check_writable(options.results)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    shared = {"config": config.model_dump(mode="json"), "steps": options.steps + 1}
    theirs = Task(**shared, upstream=str(options.upstream.resolve()))
    ours = Task(**shared, compile=options.compile, fused=options.fused)
    measured: dict[str, list[Measured]] = {"upstream": [], "here": []}
    for number in range(options.rounds):
        for name, task in (("upstream", theirs), ("here", ours)):
            try:
                measured[name].append(_in_a_process(task))
            except subprocess.CalledProcessError as error:
                lines = (error.stderr or "").strip().splitlines() or ["no message"]
                complain(f"{name}: {lines[-1]}")
                return 1
            print(f"round {number + 1}, {name}: {_per_step(measured[name][-1:]):.3f} s per step", flush=True)
    lines, equal = _conclusion(measured["upstream"], measured["here"], options, config)
    print("\n".join(lines))
    page = "\n".join(["# Training speed", "", *lines, ""])
    write_whole(options.results / FILE, lambda file: file.write(page.encode()))
    return 0 if equal or config.train.precision != "float32" else 1


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.tools.compare_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--upstream", type=expanded, metavar="DIR", required="--one" not in sys.argv, help="a clone")
    parser.add_argument("--results", type=expanded, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=336, help="default: 336")
    parser.add_argument("--batch", type=int, default=12, help="default: 12, the paper's")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a process, after one that warms up")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side, in turns")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", nargs="?", const="inductor", metavar="BACKEND", help="torch.compile here")
    parser.add_argument("--fused", action="store_true", help="torch's fused AdamW here")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a child: one task on stdin
    return parser


def _config(options: argparse.Namespace) -> TrialConfig:
    if options.steps < 1 or options.rounds < 1:
        raise ConfigError(f"--steps {options.steps} --rounds {options.rounds}: at least 1 of each is needed")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device cuda: torch {torch.__version__} sees no NVIDIA GPU here. Use --device cpu")
    changes = {
        "transform.size": options.size,
        "train.batch_size": options.batch,
        "train.precision": options.precision,
        "device": options.device,
    }
    return with_value(TrialConfig.model_validate(FULL), changes)


# --- in a process of its own ------------------------------------------------------------------------------------------


def _in_a_process(task: Task) -> Measured:
    command = [sys.executable, "-m", "bench.tools.compare_speed", "--one"]
    done = subprocess.run(command, input=task.model_dump_json(), capture_output=True, text=True, check=True)
    return Measured.model_validate_json(done.stdout.splitlines()[-1])


def measure(task: Task) -> Measured:
    """Measures seconds and losses of some training steps on random pixels."""
    config = TrialConfig.model_validate_json(json.dumps(task.config))
    device = device_of(config.device)
    with nullcontext() if task.upstream else float32_products(device, config.train.tf32):
        return _measure(task, config, device)


def _measure(task: Task, config: TrialConfig, device: torch.device) -> Measured:
    step = _upstream_step(task, config, device) if task.upstream else _our_step(task, config, device)
    seconds, losses = [], []
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    draws = torch.Generator().manual_seed(0)
    shape = config.train.batch_size, *height_width(config.transform.size)
    torch.manual_seed(0)  # stochastic depth draws the same on both sides
    for _ in range(task.steps):
        images = torch.randint(256, (*shape, 3), dtype=torch.uint8, generator=draws).to(device)
        masks = torch.randint(256, shape, dtype=torch.uint8, generator=draws).to(device)
        _wait(device)
        started = clock()
        loss = step(images, masks)
        _wait(device)
        seconds.append(clock() - started)
        losses.append(loss.item())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Measured(seconds=seconds, losses=losses, device=name, tf32=tf32_flags()[0])


Step = Callable[[Tensor, Tensor], Tensor]


def _our_step(task: Task, config: TrialConfig, device: torch.device) -> Step:
    model = MODELS.build(config.model, config.transform.size, False)
    fill(upstream_state(model, config.model))
    model.to(device).train()
    optimiser = make_optimiser(model, config.train)
    if task.fused:
        groups = [{"params": group["params"], "lr": group["lr"]} for group in optimiser.param_groups]
        optimiser = torch.optim.AdamW(groups, weight_decay=config.train.weight_decay, fused=True)
    runs = torch.compile(model, backend=task.compile) if task.compile else model

    def step(images: Tensor, masks: Tensor) -> Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = batch_loss(runs, images, masks, config.train, config.transform)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def _upstream_step(task: Task, config: TrialConfig, device: torch.device) -> Step:
    """Makes a step of upstream's train.py, with the normalisation of images, which upstream's loader does."""
    folder = Path(task.upstream)
    network = upstream_network(folder, config.transform.size)
    fill(dict(network.state_dict()))
    network.to(device).train()
    loss_of = function_of(folder / "train.py", "structure_loss")
    train = config.train
    optimiser = torch.optim.AdamW(network.parameters(), lr=train.lr, weight_decay=train.weight_decay)

    def step(images: Tensor, masks: Tensor) -> Tensor:
        pixels, target = to_input(images, config.transform.normalisation), to_target(masks)
        optimiser.zero_grad()
        loss = loss_of(network(pixels), target)
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def fill(state: dict[str, Tensor]) -> None:
    """Fills tensors by their names alone: matrices at random, weights of norms with 1, biases with 0."""
    with torch.no_grad():
        for name, tensor in state.items():
            if name.endswith(("running_mean", "running_var", "num_batches_tracked", "freqs_cis")):
                continue
            if tensor.ndim < 2:
                tensor.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
                tensor.normal_(0, 0.02, generator=torch.Generator().manual_seed(seed))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- output -----------------------------------------------------------------------------------------------------


def _per_step(measured: Sequence[Measured]) -> float:
    """Computes the median over all steps but the warm-up, in seconds."""
    return median(second for each in measured for second in each.seconds[1:])


def _conclusion(
    theirs: Sequence[Measured], ours: Sequence[Measured], options: argparse.Namespace, config: TrialConfig
) -> tuple[list[str], bool]:
    """Returns the lines of the report, and whether the losses agree."""
    differences = []
    for their_process, our_process in zip(theirs, ours):
        for their_loss, our_loss in zip(their_process.losses, our_process.losses):
            differences.append(abs(their_loss / our_loss - 1))
    off = max(differences)
    there, here = _per_step(theirs), _per_step(ours)
    settings = [f"{options.size} px", f"batch {options.batch}"]
    if options.compile:
        settings.append(f"compile ({options.compile})")
    if options.fused:
        settings.append("fused AdamW")
    setting = ", ".join(settings)
    unit = "CPU seconds" if ours[0].device == "cpu" else "seconds"
    lines = [
        f"On {ours[0].device} ({torch.get_num_threads()} threads), {setting}; {options.rounds} processes of each side "
        f"in turns, {options.steps} timed steps each.",
        "",
        f"| | {unit} per step | images in such a second |",
        "| :-- | --: | --: |",
        f"| upstream, float32{_tf32(theirs)} | {there:.3f} | {options.batch / there:.3f} |",
        f"| here, {config.train.precision}{_tf32(ours)} | {here:.3f} | {options.batch / here:.3f} |",
        "",
        f"Ratio {there / here:.2f}. Losses of the {options.steps + 1} steps lie at most {off:.1e} apart, as a share.",
    ]
    return lines, off <= EQUAL[theirs[0].tf32 or ours[0].tf32]


def _tf32(measured: Sequence[Measured]) -> str:
    return " (TF32 allowed)" if measured[0].tf32 else ""


if __name__ == "__main__":
    sys.exit(command.run(main))
