"""Predicts the memory of a sweep's trials on a GPU, without one: ``python -m bench.plan ablations/adapter_rank.yaml``.

All figures are predicted (``bench.memory.predicted_peak``), none is measured, and the two never share a column.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas
from rich.markup import escape as rich_escape
from rich.table import Table

from bench.config.errors import ConfigError
from bench.config.expand import expand, sizes
from bench.config.sweep import Sweep, folder_name, load_sweep
from bench.memory.card_generations import DEFAULT, GENERATIONS, MIB, Generation, here
from bench.memory.cards import CARDS, MARGIN, USABLE, fits, with_margin
from bench.memory.predicted_peak import PredictedPeak
from bench.memory.step_memory import PARTS
from bench.memory.sweep_plan import PlanRow, curves, plan
from bench.records import sweep_json
from bench.records.memory import GIB
from bench.records.store import check_writable
from bench.report import plots
from bench.report.tables import csv, escape
from bench.system.console import ArgumentParser, complain, console_of_command
from bench.system.files import TargetError, check_targets, write_whole
from bench.watching.display import counting
from models.core.paths import expanded
from models.core.registry import did_you_mean

FILES = ("plan.md", "plan.csv", *(f"{name}.{kind}" for name in ("plan", "plan_curves") for kind in ("png", "svg")))


def main(arguments: list[str]) -> int:
    """Predicts, prints and writes. Exit code: 0, 1 if no point could be predicted, 2 if the input is wrong."""
    options = parser().parse_intermixed_args(arguments)
    console = console_of_command()
    try:
        card = None if options.card is None else card_size(options.card)
        generation, why = card_generation(options.generation)
        sweep = load_sweep(options.sweep, options.profile, options.overrides, preferred="full", answers=False)
        trials = expand(sweep)
        sizes(trials, counting(console))  # reports all models that cannot be built, at once
        for axis in sweep.tune:
            console.print(f"note: the sweep tunes {axis.name}; {axis.points[0][0]} is predicted", markup=False)
        folder = options.results / folder_name(sweep)
        sweep_json.check_owner(folder, sweep)
        check_targets([folder / name for name in FILES], [options.sweep])
        check_writable(folder)
        rows = plan(trials, card, lambda text: console.print(text, markup=False), generation)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    console.print(_terminal(sweep, rows, card))
    console.print(
        f"{assumptions(generation, rows)}\nThe generation of the card is {generation.name}: {why}", markup=False
    )
    frame = as_frame(sweep, rows, card)
    texts = {folder / "plan.md": markdown(sweep, rows, card, generation), folder / "plan.csv": csv(frame)}
    for path, text in texts.items():
        write_whole(path, lambda file, text=text: file.write(text.encode()))
    labels = [label for row in rows for label in row.labels]
    lacking = plots.undrawable([sweep.question, *labels])
    if lacking:
        console.print(f"note: {lacking}", markup=False)
    varied = curves(sweep.base, generation) if options.curves else None
    with plots.fonts_for([sweep.question, *labels]):
        drawn = _draw(folder, sweep, rows, varied)
    console.print(f"wrote {', '.join(map(str, [*texts, *drawn]))}", markup=False)
    return 0 if any(row.prediction for row in rows) else 1


def _draw(
    folder: Path, sweep: Sweep, rows: Sequence[PlanRow], varied: dict[str, list[tuple[str, PredictedPeak]]] | None
) -> list[Path]:
    """Draws the plan and, if they are given, the curves; returns the paths of the figures."""
    figures = {}
    predicted = [(row.labels, row.prediction) for row in rows if row.prediction]
    if predicted:
        figures["plan"] = plots.memory_plan(sweep.question, predicted, CARDS)
    if varied is not None:
        figures["plan_curves"] = plots.memory_curves(varied, sweep.base)
    paths = []
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            paths.append(folder / f"{name}.{kind}")
            plots.save(figure, paths[-1])
    return paths


def parser() -> ArgumentParser:
    """Returns the parser of the command line."""
    parser = ArgumentParser(prog="python -m bench.plan", description="Predict a sweep's training memory.")
    parser.add_argument("sweep", type=expanded, help="a sweep file, e.g. ablations/adapter_rank.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.batch_size=4")
    parser.add_argument("--profile", help="a profile of the sweep file (default: full, or else its first)")
    parser.add_argument("--card", metavar="GB", help="also find the largest batch that fits a card of this size")
    parser.add_argument(
        "--generation",
        metavar="NAME",
        help=f"of the card: {', '.join(GENERATIONS)} (default: that of the card here, or {DEFAULT.name})",
    )
    parser.add_argument(
        "--curves", action="store_true", help="also plot rank, placement, width, size and batch (1 min)"
    )
    parser.add_argument("--results", type=expanded, default=Path("results"), metavar="DIR", help="default: results")
    return parser


def card_size(text: str) -> float:
    """Converts ``8``, ``8GB`` or ``10.5`` to GB. Raises ``ConfigError``."""
    try:
        size = float(text.upper().removesuffix("GB").strip())
    except ValueError:
        size = float("nan")
    if not 0 < size < 10_000:
        raise ConfigError(f"--card {text}: is no card size. Give its memory in GB, as in --card 8")
    return size


def card_generation(name: str | None) -> tuple[Generation, str]:
    """Returns the generation of this name, else that of the card here, and the source. Raises ``ConfigError``."""
    if name is not None:
        if name not in GENERATIONS:
            known = ", ".join(GENERATIONS)
            raise ConfigError(
                f"--generation {name}: no such generation{did_you_mean(name, GENERATIONS)} Known: {known}"
            )
        return GENERATIONS[name], "given by --generation"
    found = here()
    return (found, "that of the card here") if found else (DEFAULT, "no card is here and --generation names none")


# --- tables -----------------------------------------------------------------------------------------------------------


def assumptions(generation: Generation, rows: Sequence[PlanRow] = ()) -> str:
    """Words the assumptions behind the figures."""
    most, least = (f"{generation.outside(handles) / MIB:.0f}" for handles in (2, 0))
    context = f"context of {most} MiB"
    if most != least:
        context += f" ({least} if no matrices are multiplied)"
    if generation.measured_on:
        context = f"a {context}, measured on {generation.measured_on}"
    else:
        context = f"an assumed {context}"
    modes = {row.config.train.compile for row in rows}
    compiled = "" if modes <= {False} else " Compilation is not counted: on an H200 it needed less."
    if "step" in modes:
        compiled += (
            " A recorded step keeps its memory while the last, smaller batch of an epoch runs, so its reserved memory and "
            "nvidia-smi are upper bounds with a second batch."
        )
    return (
        "Predicted, not measured: fake tensors through one training step (forward, backward, AdamW), sizes rounded to "
        "512 bytes as torch's CUDA allocator does; attention in flash or memory-efficient kernels. nvidia-smi = memory "
        f"that this allocator would reserve + {context}. Counted for a card of the generation {generation.name}: "
        f"cuBLAS's two workspaces of {generation.workspace_bytes / MIB:.3g} MiB. Not counted: cuDNN's workspaces. A card "
        f"fits if the total and a margin of {MARGIN:.0%} are at most {USABLE:.0%} of its size.{compiled}"
    )


def _titles(sweep: Sweep, card: float | None) -> list[str]:
    axes = [axis.name for axis in sweep.axes]
    titles = [*axes, "batch", "allocated", *PARTS, "reserved", "nvidia-smi", "cards [GB]"]
    if card is not None:
        titles.append(f"largest batch on {card:g} GB")
    return titles


def _cells(row: PlanRow, card: float | None) -> list[str]:
    p = row.prediction
    first = [*row.labels, str(row.config.train.batch_size)]
    if p is None:
        figures = ["-"] * (len(PARTS) + 3)
        last = [] if card is None else ["not predicted"]
        return [*first, *figures, f"not predicted: {row.reason}", *last]
    numbers = (p.allocated, *(p.parts[part] for part in PARTS), p.reserved, p.device)
    fitting = [f"{size}" for size in CARDS if fits(with_margin(p.device), size)]
    cards = f"{fitting[0]} and up" if fitting else f"none up to {CARDS[-1]}"
    cells = [*first, *(f"{n / GIB:.2f}" for n in numbers), cards]
    if row.largest_batch is not None:
        cells.append(str(row.largest_batch) if row.largest_batch else "not one image")
    return cells


def _terminal(sweep: Sweep, rows: Sequence[PlanRow], card: float | None) -> Table:
    title = f"{sweep.name} ({sweep.profile}): predicted peak in training, GiB"
    axes = len(sweep.axes)
    titles = _titles(sweep, card)
    table = Table(*(t.rsplit(".", 1)[-1] for t in titles[:axes]), *titles[axes:], title=title)
    for row in rows:
        table.add_row(*map(rich_escape, _cells(row, card)))
    return table


def markdown(sweep: Sweep, rows: Sequence[PlanRow], card: float | None, generation: Generation = DEFAULT) -> str:
    """Returns the plan as a Markdown page."""
    titles = _titles(sweep, card)
    ruler = [":--"] * len(sweep.axes) + ["--:"] * (len(titles) - len(sweep.axes))
    lines = [[escape(title) for title in titles], ruler, *([escape(c) for c in _cells(row, card)] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"# {sweep.name}: predicted memory in training, GiB\n\n{escape(sweep.question)}\n\n{table}\n\n"
        f"{assumptions(generation, rows)}\n"
    )


def as_frame(sweep: Sweep, rows: Sequence[PlanRow], card: float | None) -> pandas.DataFrame:
    """Returns one line for each point, in bytes; the name of every figure contains ``predicted``."""
    lines = []
    for row in rows:
        p = row.prediction
        line: dict[str, object] = {"sweep": sweep.name, "profile": sweep.profile}
        line |= {axis.name: label for axis, label in zip(sweep.axes, row.labels)}
        figures = {"allocated": p.allocated, **p.parts, "reserved": p.reserved, "device": p.device} if p else {}
        line |= {"train.batch_size": row.config.train.batch_size}
        line |= {f"predicted.{name}_bytes": figures.get(name) for name in ("allocated", *PARTS, "reserved", "device")}
        line |= {f"predicted.fits_{size}_gb": fits(with_margin(p.device), size) if p else None for size in CARDS}
        line["predicted.not_because"] = row.reason or None
        if card is not None:
            line |= {"card_gb": card, "predicted.largest_batch": row.largest_batch}
        lines.append(line)
    frame = pandas.DataFrame(lines)
    numbers = [name for name in frame if name.endswith("_bytes") or name == "predicted.largest_batch"]
    return frame.astype(dict.fromkeys(numbers, "Int64"))  # a gap must not turn its column into floats


if __name__ == "__main__":
    sys.exit(command.run(main))
