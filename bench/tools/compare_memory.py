"""Predicted and measured memory over a grid of configurations: ``python -m bench.tools.compare_memory``.

On a GPU every configuration trains three steps in a process of its own, on random pixels and random weights, which
need the same memory as real ones. ``--upstream CLONE`` also measures the authors' own SAM3UNet.py. ``--cpu`` compares
small models with their real allocations on a CPU instead, as ``bench.memory.step_memory`` tracks them.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor, nn

from bench.config.errors import ConfigError
from bench.config.trial import TrialConfig, with_value
from bench.memory.card_generations import DEFAULT, here
from bench.memory.measure import MemoryMonitor
from bench.memory.predicted_peak import fake_step_memory, predict_peak
from bench.memory.step_memory import Tracker, follow_step
from bench.records.memory import GIB, Memory
from bench.records.store import check_writable
from bench.report import plots
from bench.system.console import ArgumentParser, complain
from bench.system.device import device_of, float32_products
from bench.system.files import TargetError, check_targets, write_whole
from bench.system.sanitize import harmless
from bench.tools.upstream import UPSTREAM, check_upstream, upstream_network
from bench.training.batch_loss import batch_loss
from bench.training.optimiser import make_optimiser
from models import MODELS
from models.core.paths import expanded
from models.core.registry import Config
from models.core.size import height_width

STEPS = 3
GOAL = 0.05
"""Largest accepted error of a prediction, as a share of the measured peak."""
FULL = {"model": {"name": "sam3_unet", "encoder": {"weights": "random"}}, "dataset": "procedural"}
SMALL = {
    "model": {
        "name": "sam3_unet",
        "encoder": {"name": "sam3_vit_tiny", "weights": "random", "depth": 2, "global_blocks": [1]},
        "decoder": {"width": 16},
        "adapter": {"rank": 4},
    },
    "dataset": "procedural",
    "transform": {"size": 64},
    "train": {"batch_size": 2},
    "device": "cpu",
}
NARROW = {"train.precision": "bfloat16", "model.frozen_weights": "bfloat16", "model.encoder.residual": "bfloat16"}
GRID: tuple[dict[str, Any], ...] = (
    {},
    *({"model.adapter.rank": rank} for rank in (4, 128)),
    *({"model.adapter.placement": place} for place in ("none", "last:8", "every:2")),
    *({"model.decoder.width": width} for width in (32, 256)),
    *({"train.batch_size": batch} for batch in (1, 4, 16)),
    *({"transform.size": size, "train.batch_size": 4} for size in (224, 672)),
    {"model.encoder.checkpointing": False, "train.batch_size": 4},
    {"model.encoder.checkpointing": False, "model.adapter.placement": "last:8"},
    {"model.tuned_blocks": "last:4"},
    {"model.tuned_blocks": "all", "model.tuned_stem": True, "train.batch_size": 4},
    {"train.precision": "bfloat16"},
    {"model.checkpoint_decoder": True},
    NARROW,
    {**NARROW, "model.checkpoint_decoder": True},
    {**NARROW, "model.frozen_weights": "int8", "model.checkpoint_decoder": True},
    {**NARROW, "model.frozen_weights": "nf4", "model.checkpoint_decoder": True},
    {"model": {"name": "unet"}, "train.batch_size": 4},
)
CPU_SCALE = {"last:8": "last:1", "last:4": "last:1", 224: 32, 672: 128, 256: 32, 16: 4, 12: 2}
"""Values of the grid, each with its replacement for the small models of ``--cpu``."""


class Measured(Config):
    """One row of the comparison, in bytes; ``None`` is unknown."""

    label: str
    predicted_allocated_bytes: int
    predicted_reserved_bytes: int | None
    predicted_device_bytes: int | None
    memory: Memory | None = None
    error: str = ""

    @property
    def off(self) -> float | None:
        """Relative error of the peak allocated: (predicted - measured) / measured."""
        if self.memory is None or not self.memory.torch_allocated_bytes:
            return None
        return self.predicted_allocated_bytes / self.memory.torch_allocated_bytes - 1


def main(arguments: list[str]) -> int:
    """Compares, prints and writes. Exit code: 0 all are within the goal, 1 some are not or failed, 2 there is no GPU or
    the input is wrong."""
    options = _parser().parse_args(arguments)
    if options.one:
        print(_train(json.loads(sys.stdin.read())).model_dump_json())
        return 0
    folder = options.results / "memory_comparison"
    paths = [folder / f"comparison.{kind}" for kind in ("csv", "md", "png", "svg")]
    if not options.cpu and not torch.cuda.is_available():
        text = f"torch {torch.__version__} sees no NVIDIA GPU. On one, this would measure {len(GRID)} configurations"
        if options.upstream:
            text += " and upstream's own code"
        complain(f"{text}, and write {', '.join(map(str, paths))}. On a CPU: --cpu")
        return 2
    try:
        if options.upstream:
            check_upstream(options.upstream, UPSTREAM)
        check_targets(paths)
        check_writable(folder)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    where = "CPU, small models" if options.cpu else torch.cuda.get_device_name()
    rows = []
    for row in _compare(options):
        rows.append(row)
        print(harmless(_line(row)), flush=True)
    write(rows, where, paths)
    print(harmless(f"wrote {', '.join(map(str, paths))}"))
    return 0 if all(row.off is not None and abs(row.off) <= GOAL for row in rows) else 1


def _compare(options: argparse.Namespace) -> Iterator[Measured]:
    """Yields a row for each configuration of the grid, and one for upstream's own code if it is given."""
    for changes in GRID:
        yield compare_on_cpu(changes) if options.cpu else compare_on_gpu(changes)
    if options.upstream and not options.cpu:
        yield compare_on_gpu({}, options.upstream)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.tools.compare_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=expanded, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--upstream", type=expanded, metavar="DIR", help="a clone of WZH0120/SAM3-UNet to measure too")
    parser.add_argument("--cpu", action="store_true", help="small models against their real allocations on a CPU")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a child: one configuration on stdin
    return parser


def label(changes: dict[str, Any]) -> str:
    """Names a configuration by what differs from the paper's setting."""
    texts = []
    for path, value in changes.items():
        text = value["name"] if isinstance(value, dict) else value
        texts.append(f"{path.rsplit('.', 1)[-1]}={text}")
    return ", ".join(texts) or "paper's setting"


# --- on a CPU ---------------------------------------------------------------------------------------------------------


def compare_on_cpu(changes: dict[str, Any]) -> Measured:
    """Compares a small model's step on fake tensors with one on real tensors."""
    scaled = {path: CPU_SCALE.get(v, v) if isinstance(v, str | int) else v for path, v in changes.items()}
    if "model" in scaled:
        scaled["model"] = {"name": "unet", "width": 4}
    config = with_value(TrialConfig.model_validate(SMALL), scaled)
    with Tracker(cuda=False) as tracker:
        model = MODELS.build(config.model, config.transform.size, True).train()
        optimiser = make_optimiser(model, config.train, foreach=False)
        images, masks = _batch(config, torch.device("cpu"))  # held here, as in a prediction, in every version of Python
        real = follow_step(tracker, model, optimiser, images, masks, config)
    return Measured(
        label=label(changes),
        predicted_allocated_bytes=fake_step_memory(config, cuda=False).allocated,
        predicted_reserved_bytes=None,
        predicted_device_bytes=None,
        memory=Memory(torch_allocated_bytes=real.allocated),
    )


# --- on a GPU ---------------------------------------------------------------------------------------------------------


def compare_on_gpu(changes: dict[str, Any], upstream: Path | None = None) -> Measured:
    """Predicts in this process and measures in a new one, whose context and caches are its own."""
    config = with_value(TrialConfig.model_validate(FULL), changes)
    prediction = predict_peak(config, here() or DEFAULT)
    task = json.dumps({"config": config.model_dump(mode="json"), "upstream": str(upstream) if upstream else None})
    command = [sys.executable, "-m", "bench.tools.compare_memory", "--one"]
    done = subprocess.run(command, input=task, capture_output=True, text=True, check=False)
    failed = done.returncode != 0
    return Measured(
        label="upstream's own code" if upstream else label(changes),
        predicted_allocated_bytes=prediction.allocated,
        predicted_reserved_bytes=prediction.reserved,
        predicted_device_bytes=prediction.device,
        memory=None if failed else Memory.model_validate_json(done.stdout.splitlines()[-1]),
        error=(done.stderr.strip().splitlines() or ["no message"])[-1] if failed else "",
    )


def _train(task: dict[str, Any]) -> Memory:
    """Measures three training steps on the GPU; runs in the child process."""
    config = TrialConfig.model_validate_json(json.dumps(task["config"]))
    device = device_of("cuda")
    clone = task["upstream"]
    tf32 = nullcontext() if clone else float32_products(device, config.train.tf32)
    with tf32, MemoryMonitor(device, config.memory) as monitor:
        if clone:
            model = _AsTuple(upstream_network(Path(clone), config.transform.size))
        else:
            model = MODELS.build(config.model, config.transform.size, True)
        model.to(device).train()
        with monitor.phase("training") as peaks:
            optimiser = make_optimiser(model, config.train)
            for _ in range(STEPS):
                images, masks = _batch(config, device)
                optimiser.zero_grad(set_to_none=True)
                batch_loss(model, images, masks, config.train, config.transform).backward()
                optimiser.step()
    return peaks[0]


class _AsTuple(nn.Module):
    """Upstream's network returns a tensor, the suite's models a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images),)


def _batch(config: TrialConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draws images uint8 [B, H, W, 3] and masks uint8 [B, H, W] at random."""
    shape = (config.train.batch_size, *height_width(config.transform.size))
    images = torch.randint(256, (*shape, 3), dtype=torch.uint8, device=device)
    return images, torch.randint(256, shape, dtype=torch.uint8, device=device)


# --- output --------------------------------------------------------------------------------------------------


def _line(row: Measured) -> str:
    if row.off is None:
        return f"{row.label}: predicted {row.predicted_allocated_bytes / GIB:.3f} GiB, not measured: {row.error}"
    measured = row.memory.torch_allocated_bytes / GIB
    predicted = row.predicted_allocated_bytes / GIB
    return f"{row.label}: predicted {predicted:.3f}, measured {measured:.3f} GiB ({row.off:+.1%})"


def as_frame(rows: Sequence[Measured]) -> pandas.DataFrame:
    """Returns one line for each row, in bytes."""
    lines = []
    for row in rows:
        line = {"configuration": row.label, **row.model_dump(exclude={"label", "memory", "error"})}
        measured = row.memory.model_dump(exclude={"foreign_processes"}) if row.memory else {}
        line |= {f"measured_{name}": value for name, value in measured.items()}
        lines.append({**line, "off": row.off, "error": row.error})
    return pandas.DataFrame(lines)


def write(rows: Sequence[Measured], where: str, paths: Sequence[Path]) -> None:
    """Writes table and plot; ``paths`` are the CSV, the Markdown page and the figures."""
    table = ["| configuration | predicted GiB | measured GiB | off |", "| :-- | --: | --: | --: |"]
    for row in rows:
        measured, off = "–", row.error or "–"
        if row.off is not None:
            measured, off = f"{row.memory.torch_allocated_bytes / GIB:.4f}", f"{row.off:+.2%}"
        table.append(f"| {row.label} | {row.predicted_allocated_bytes / GIB:.4f} | {measured} | {off} |")
    known = [abs(row.off) for row in rows if row.off is not None]
    within = sum(off <= GOAL for off in known)
    facts = f"{len(known)} of {len(rows)} measured on {where}"
    facts += f"; {within} within {GOAL:.0%} of the measured peak allocated."
    csv, page, *figures = paths
    write_whole(csv, lambda file: file.write(as_frame(rows).to_csv(index=False).encode()))
    text = "\n".join(["# Memory: predicted and measured", "", facts, "", *table, ""])
    write_whole(page, lambda file: file.write(text.encode()))
    pairs = [(r.predicted_allocated_bytes, r.memory.torch_allocated_bytes) for r in rows if r.off is not None]
    for path in figures:
        plots.save(plots.memory_comparison(pairs, where, GOAL), path)


if __name__ == "__main__":
    sys.exit(command.run(main))
