"""Predicted and measured memory over a grid of configurations: ``python -m bench.tools.compare_memory``.

On a GPU every configuration trains three steps in a process of its own, on random pixels and random weights, which
need the same memory as real ones. ``--upstream CLONE`` also measures the authors' own SAM3UNet.py. ``--cpu`` compares
small models with their real allocations on a CPU instead, as ``bench.memory.step_memory`` tracks them.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.config.errors import ConfigError
from bench.config.trial import TrialConfig, with_value
from bench.datasets.core import cache
from bench.memory.card_generations import DEFAULT, here
from bench.memory.predicted_peak import PredictedPeak, fake_step_memory, predict_peak
from bench.memory.snapshot import Live, differences
from bench.memory.step_memory import Tracker, follow_step
from bench.records.memory import GIB, MIB, Memory
from bench.records.provenance import provenance
from bench.records.store import check_writable
from bench.report import plots
from bench.system.console import ArgumentParser, complain
from bench.system.device import device_of
from bench.system.files import TargetError, check_targets, write_whole
from bench.system.sanitize import harmless
from bench.tools.memory_grid import CPU_SCALE, GRID, QUICK, SMALL, label, planned
from bench.tools.memory_record import (
    FILE,
    Comparison,
    Measured,
    Origin,
    accuracy,
    as_cell,
    as_frame,
    load,
    side_by_side,
)
from bench.tools.memory_worker import Answer, Result, Task, batch_of, measured_alone, work
from bench.tools.upstream import UPSTREAM, check_upstream
from bench.training.optimiser import make_optimiser
from models import MODELS
from models.core.paths import expanded

GOAL = 0.05
"""Largest accepted error of a prediction, as a share of the measured peak."""


def main(arguments: list[str]) -> int:
    """Compares, prints and writes. Exit code: 0 all are within the goal, 1 some are not or failed, 2 there is no GPU or
    the input is wrong."""
    options = _parser().parse_args(arguments)
    if options.one:
        print(work().model_dump_json())
        return 0
    folder = options.results / "memory_comparison"
    paths = [folder / f"comparison.{kind}" for kind in ("csv", "md", "png", "svg")]
    try:
        if options.report:
            return _report(options.report)
        if not options.cpu and not torch.cuda.is_available():
            complain(_without_a_gpu(options, paths))
            return 2
        if options.upstream:
            check_upstream(options.upstream, UPSTREAM)
        check_targets([*paths, folder / FILE])
        check_writable(folder)
        comparison = _begin(options, folder)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    where = comparison.provenance.device if not options.cpu else "CPU, small models"
    rows = list(comparison.rows)
    for row in _compare(options, rows, folder):
        rows.append(row)
        print(harmless(_line(row)), flush=True)
        comparison.model_copy(update={"rows": rows}).save(folder)
    write(rows, where, paths)
    print(harmless(f"wrote {', '.join(map(str, [folder / FILE, *paths]))}"))
    return 0 if all(row.memory and (row.off is None or abs(row.off) <= GOAL) for row in rows) else 1


def _without_a_gpu(options: argparse.Namespace, paths: Sequence[Path]) -> str:
    count = len(QUICK if options.quick else GRID)
    text = f"torch {torch.__version__} sees no NVIDIA GPU. On one, this would measure {count} configurations"
    if options.upstream:
        text += " and upstream's own code"
    return f"{text}, and write {', '.join(map(str, paths))}. On a CPU: --cpu"


def _report(folders: Sequence[Path]) -> int:
    """Prints the results of several cards side by side, with the predictions of this version of the suite.

    The small models of ``--cpu`` keep the predictions of their record: a row's configuration is that of a card.
    """
    again = []
    for comparison in [load(folder) for folder in folders]:
        rows = comparison.rows
        if comparison.provenance.device != "cpu":
            rows = [row.predicted_again(comparison.generation) for row in rows]
        again.append(comparison.model_copy(update={"rows": rows}))
    lines = side_by_side(again)
    for comparison in again:
        lines += ["", comparison.provenance.device, *accuracy(comparison.rows)]
    print("\n".join(map(harmless, lines)))
    return 0


def _begin(options: argparse.Namespace, folder: Path) -> Comparison:
    """Returns an empty comparison, or with ``--resume`` the finished rows of an earlier run on the same card."""
    generation = DEFAULT if options.cpu else here() or DEFAULT
    device = torch.device("cpu") if options.cpu else device_of("cuda")
    origin = Origin(**provenance(device, 1).model_dump())
    begun = Comparison(generation=generation.name, provenance=origin)
    if not options.resume or not (folder / FILE).exists():
        return begun
    earlier = load(folder)
    for name in ("device", "commit", "driver", "versions"):
        was, now = getattr(earlier.provenance, name), getattr(origin, name)
        if was != now:
            text = f"--resume: {folder / FILE} was measured with {name} {was}, and here it is {now}"
            raise ConfigError(f"{text}. Leave --resume out, or give another --results")
    return earlier.model_copy(update={"rows": [row for row in earlier.rows if row.memory]})


def _compare(options: argparse.Namespace, done: Sequence[Measured], folder: Path) -> Iterator[Measured]:
    """Yields a row for each configuration that is not among those ``done``."""
    plan = [planned(changes) for changes in (QUICK if options.quick else GRID)]
    if options.cpu:
        plan = [row for row in plan if "train.compile" not in row.changes]  # it would compile nothing there
    elif options.upstream:
        plan.insert(0, Measured(label="upstream's own code", code="upstream"))
    finished = {(row.label, row.code) for row in done}
    plan = [row for row in plan if (row.label, row.code) not in finished]
    for row in plan:
        if row.error:
            print(harmless(f"skipped {row.label}: {row.error}"), file=sys.stderr, flush=True)
    plan = [row for row in plan if not row.error]
    if options.cpu:
        yield from (compare_on_cpu(row.changes) for row in plan)
    elif plan:
        yield from compare_on_gpu(plan, options.upstream, folder if options.snapshot else None)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.tools.compare_memory", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=expanded, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument("--upstream", type=expanded, metavar="DIR", help="a clone of WZH0120/SAM3-UNet to measure too")
    parser.add_argument("--cpu", action="store_true", help="small models against their real allocations on a CPU")
    parser.add_argument("--quick", action="store_true", help="fewer configurations, and those of the speed goals")
    parser.add_argument("--resume", action="store_true", help="keep what an interrupted run has measured")
    parser.add_argument("--snapshot", action="store_true", help="list tensors at the peak beside predicted ones")
    parser.add_argument(
        "--report", type=expanded, nargs="+", metavar="DIR", help="print earlier results side by side; needs no GPU"
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a child: one task on stdin
    return parser


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
        # held here, as in a prediction, in every version of Python
        images, masks = batch_of(config, torch.device("cpu"))
        real = follow_step(tracker, model, optimiser, images, masks, config)
    return Measured(
        label=label(changes),
        changes=changes,
        predicted_allocated_bytes=fake_step_memory(config, cuda=False).allocated,
        predicted_reserved_bytes=None,
        predicted_device_bytes=None,
        memory=Memory(torch_allocated_bytes=real.allocated),
    )


# --- on a GPU ---------------------------------------------------------------------------------------------------------


def compare_on_gpu(plan: Sequence[Measured], upstream: Path | None, snapshots: Path | None) -> Iterator[Measured]:
    """Measures each row in a process of its own, whose context and caches are its own, and predicts it meanwhile.

    snapshots: folder for the tables of tensors at the peak.
    """
    tasks = []
    for row in plan:
        clone = str(upstream.resolve()) if row.code == "upstream" else None
        config = row.config().model_dump(mode="json")
        tasks.append(Task(config=config, upstream=clone, snapshot=snapshots is not None))
    command = [sys.executable, "-m", "bench.tools.compare_memory", "--one"]
    lock = cache.root() / "card.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    for row, answer in zip(plan, measured_alone(tasks, command, lock)):
        prediction = predict_peak(row.config(), here() or DEFAULT)
        if answer.result is not None and snapshots is not None:
            _write_differences(row, answer.result, prediction, snapshots)
        yield _row(row.with_prediction(prediction), answer)


def _row(row: Measured, answer: Answer) -> Measured:
    if answer.result is None:
        return row.model_copy(update={"error": answer.error})
    seconds = answer.result.seconds
    result = answer.result
    values = {"memory": result.memory, "steps": len(seconds), "joules_per_image": result.joules_per_image}
    if seconds:
        values |= {"step_seconds_median": median(seconds), "step_seconds_min": min(seconds)}
    return row.model_copy(update=values)


def _write_differences(row: Measured, result: Result, prediction: PredictedPeak, folder: Path) -> None:
    """Writes the sizes that live at the peak, measured and predicted, largest difference first."""
    found = differences([Live(*each) for each in result.live], prediction.step.live)
    lines = [
        f"# {row.label}",
        "",
        "| MiB more than predicted | MiB each | measured | predicted | made by | predicted by |",
    ]
    lines.append("| --: | --: | --: | --: | :-- | :-- |")
    for each in found:
        sizes = f"{each.missing / MIB:+.2f} | {each.bytes / MIB:.3f} | {each.measured} | {each.predicted}"
        lines.append(f"| {sizes} | {each.measured_by or '–'} | {each.predicted_by or '–'} |")
    name = "".join(letter if letter.isalnum() else "_" for letter in row.label)
    text = "\n".join([*lines, ""])
    write_whole(folder / f"tensors_{name}.md", lambda file: file.write(text.encode()))


# --- output --------------------------------------------------------------------------------------------------


def _line(row: Measured) -> str:
    speed = row.images_per_second
    parts = [
        f"predicted {_gib(row.predicted_allocated_bytes)} GiB",
        f"measured {_gib(row.measured('allocated'))} GiB",
        "" if row.off is None else f"{row.off:+.1%}",
        f"{speed:.1f} images/s" if speed else "",
        "" if row.joules_per_image is None else f"{row.joules_per_image:.2f} J/image",
        f"not measured: {row.error}" if row.error else "",
    ]
    return f"{row.label}: {', '.join(filter(None, parts))}"


def _gib(count: int | None, digits: int = 3) -> str:
    return "–" if count is None else f"{count / GIB:.{digits}f}"


def write(rows: Sequence[Measured], where: str, paths: Sequence[Path]) -> None:
    """Writes table and plot; ``paths`` are the CSV, the Markdown page and the figures."""
    table = ["| configuration | predicted GiB | measured GiB | off |", "| :-- | --: | --: | --: |"]
    for row in rows:
        predicted, measured = _gib(row.predicted_allocated_bytes, 4), _gib(row.measured("allocated"), 4)
        off = row.error or ("–" if row.off is None else f"{row.off:+.2%}")
        table.append(f"| {' | '.join(map(as_cell, [row.label, predicted, measured, off]))} |")
    known = [abs(row.off) for row in rows if row.off is not None]
    within = sum(off <= GOAL for off in known)
    facts = (
        f"{sum(row.memory is not None for row in rows)} of {len(rows)} measured on {where}, {len(known)} predicted, too"
    )
    facts += f"; {within} of them within {GOAL:.0%} of the measured peak allocated."
    csv, page, *figures = paths
    write_whole(csv, lambda file: file.write(as_frame(rows).to_csv(index=False).encode()))
    text = "\n".join(["# Memory: predicted and measured", "", facts, "", *table, ""])
    write_whole(page, lambda file: file.write(text.encode()))
    pairs = [(r.predicted_allocated_bytes, r.memory.torch_allocated_bytes) for r in rows if r.off is not None]
    for path in figures:
        plots.save(plots.memory_comparison(pairs, where, GOAL), path)


if __name__ == "__main__":
    sys.exit(command.run(main))
