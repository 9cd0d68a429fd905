"""What the trials of a sweep would need on a GPU, without one: ``python -m bench.plan ablations/adapter_rank.yaml``.

Everything here is predicted (``bench.memory.predicted_peak``); nothing is measured, and the two never share a column.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
from rich.markup import escape as rich_escape
from rich.table import Table

from bench.config.errors import ConfigError
from bench.config.expand import Trial, expand, sizes
from bench.config.sweep import Sweep, folder_name, load_sweep
from bench.config.trial import TrialConfig, with_value
from bench.memory.card_generations import DEFAULT, GENERATIONS, MIB, Generation, here
from bench.memory.cards import CARDS, USABLE, fits
from bench.memory.predicted_peak import Prediction, Unpredictable, predict, prediction_key
from bench.memory.step_memory import PARTS
from bench.records import sweep_json
from bench.records.record import check_writable
from bench.report import plots
from bench.report.tables import csv, escape
from bench.system.console import ArgumentParser, complain, console_of_command
from bench.system.files import TargetError, check_targets, write_whole
from bench.watching.display import counting
from models.core.paths import expanded
from models.core.registry import InvalidModel, did_you_mean

GIB = 2**30
LARGEST_BATCH = 4096
FILES = ("plan.md", "plan.csv", *(f"{name}.{kind}" for name in ("plan", "plan_curves") for kind in ("png", "svg")))
CURVES = {
    "model.adapter.rank": (4, 8, 16, 32, 64, 128),
    "model.adapter.placement": ("none", "last:8", "last:16", "every:2", "all"),
    "model.decoder.width": (32, 64, 128, 256),
    "transform.size": (224, 336, 504, 672),
    "train.batch_size": (1, 4, 8, 12, 16, 24),
}
"""What ``--curves`` varies, one at a time, around the sweep's base."""


@dataclass(frozen=True)
class PlanRow:
    """One point of a sweep: all its seeds need the same. It has a prediction, or the reason why there is none."""

    labels: tuple[str, ...]
    config: TrialConfig
    prediction: Prediction | None
    largest_batch: int | None = None  # on the card that was asked for; 0 if not even one image fits
    reason: str = ""


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 when no point at all could be predicted, or 2 when the input is wrong."""
    options = _parser().parse_intermixed_args(arguments)
    console = console_of_command()
    try:
        card = None if options.card is None else card_size(options.card)
        generation, why = card_generation(options.generation)
        sweep = load_sweep(options.sweep, options.profile, options.overrides, preferred="full")
        trials = expand(sweep)
        sizes(trials, counting(console))  # says everything that cannot be built, at once
        folder = options.results / folder_name(sweep)
        sweep_json.check_owner(folder, sweep)
        check_targets([folder / name for name in FILES], [options.sweep])
        check_writable(folder)
        rows = plan(trials, card, lambda text: console.print(text, markup=False), generation)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    console.print(_terminal(sweep, rows, card))
    console.print(f"{assumptions(generation)}\nThe generation of the card is {generation.name}: {why}", markup=False)
    frame = as_frame(sweep, rows, card)
    paths = {folder / "plan.md": markdown(sweep, rows, card, generation), folder / "plan.csv": csv(frame)}
    for path, text in paths.items():
        write_whole(path, lambda file, text=text: file.write(text.encode()))
    predicted = [(row.labels, row.prediction) for row in rows if row.prediction]
    texts = [sweep.question, *(label for row in rows for label in row.labels)]
    if lacking := plots.undrawable(texts):
        console.print(f"note: {lacking}", markup=False)
    with plots.fonts_for(texts):
        figures = {"plan": plots.memory_plan(sweep.question, predicted, CARDS)} if predicted else {}
        if options.curves:
            figures["plan_curves"] = plots.memory_curves(curves(sweep.base, generation), sweep.base)
        for name, figure in figures.items():
            for kind in ("png", "svg"):
                paths[folder / f"{name}.{kind}"] = ""
                plots.save(figure, folder / f"{name}.{kind}")
    console.print(f"wrote {', '.join(map(str, paths))}", markup=False)
    return 0 if predicted else 1


def _parser() -> ArgumentParser:
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
    """``8``, ``8GB`` or ``10.5`` to GB. Raises ``ConfigError``."""
    try:
        size = float(text.upper().removesuffix("GB").strip())
    except ValueError:
        size = float("nan")
    if not 0 < size < 10_000:
        raise ConfigError(f"--card {text}: is no card size. Give its memory in GB, as in --card 8")
    return size


def card_generation(name: str | None) -> tuple[Generation, str]:
    """The generation of a card by its name, else that of the card here, and who said so. Raises ``ConfigError``."""
    if name is not None:
        if name not in GENERATIONS:
            known = ", ".join(GENERATIONS)
            raise ConfigError(
                f"--generation {name}: no such generation{did_you_mean(name, GENERATIONS)} Known: {known}"
            )
        return GENERATIONS[name], "given by --generation"
    found = here()
    return (found, "that of the card here") if found else (DEFAULT, "no card is here and --generation names none")


def plan(
    trials: Sequence[Trial],
    card: float | None,
    tell: Callable[[str], None] = lambda text: None,
    generation: Generation = DEFAULT,
) -> list[PlanRow]:
    """One row for each point of the sweep, in its order; one that defies prediction says why."""
    rows: dict[tuple[str, ...], PlanRow] = {}
    known: dict[str, Prediction] = {}
    for trial in trials:
        if trial.point in rows:
            continue
        config = trial.config
        key = prediction_key(config)
        try:
            known[key] = known.get(key) or predict(config, generation)
            batch = None if card is None else largest_batch(config, card, generation)
        except Unpredictable as error:
            tell(f"  {', '.join(trial.point)}: not predicted, {error}")
            rows[trial.point] = PlanRow(trial.point, config, None, reason=str(error))
            continue
        tell(f"  {', '.join(trial.point)}: {known[key].allocated / GIB:.2f} GiB")
        rows[trial.point] = PlanRow(trial.point, config, known[key], batch)
    return list(rows.values())


def largest_batch(config: TrialConfig, card: float, generation: Generation = DEFAULT) -> int:
    """The largest batch, up to 4096, whose predicted total fits a card of so many GB; 0 if one image does not.

    Memory rises with the batch nearly in a straight line, so the edge between two known batches is first looked for on
    the line through them; the allocator's steps bend it, so that halving ends the search.
    """
    totals: dict[int, int] = {}
    low, high = 0, LARGEST_BATCH + 1  # low fits, high does not
    guess, on_the_line = min(config.train.batch_size, LARGEST_BATCH), 0
    while high - low > 1:
        totals[guess] = predict(with_value(config, {"train.batch_size": guess}), generation).device
        low, high = (guess, high) if fits(totals[guess], card) else (low, guess)
        if low == 0:
            guess = max(1, high // 2)
        elif high not in totals:
            guess = min(2 * low, LARGEST_BATCH)
        elif on_the_line < 4:
            on_the_line += 1
            share = (card * USABLE * GIB - totals[low]) / (totals[high] - totals[low])
            guess = min(max(low + int(share * (high - low)), low + 1), high - 1)
        else:
            guess = (low + high) // 2
    return low


def curves(base: TrialConfig, generation: Generation = DEFAULT) -> dict[str, list[tuple[str, Prediction]]]:
    """Predictions around ``base``, one field varied at a time; fields that it lacks are left out."""
    found: dict[str, list[tuple[str, Prediction]]] = {}
    for path, values in CURVES.items():
        try:
            found[path] = [(str(v), predict(with_value(base, {path: v}), generation)) for v in values]
        except (ConfigError, InvalidModel, Unpredictable, KeyError):  # KeyError: the model has no such part
            continue
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def assumptions(generation: Generation) -> str:
    most, least = (f"{generation.outside(handles) / MIB:.0f}" for handles in (2, 0))
    context = f"context of {most} MiB" + f" ({least} if no matrices are multiplied)" * (most != least)
    context = (
        f"a {context}, measured on {generation.measured_on}" if generation.measured_on else f"an assumed {context}"
    )
    return (
        "Predicted, not measured: fake tensors through one training step (forward, backward, AdamW), sizes rounded to "
        "512 bytes as torch's CUDA allocator does; attention in flash or memory-efficient kernels. nvidia-smi = what "
        f"that allocator would reserve + {context}. Counted for a card of the generation {generation.name}: cuBLAS's "
        f"two workspaces of {generation.workspace_bytes / MIB:.3g} MiB. Not counted: cuDNN's workspaces. A card fits "
        f"if the total is at most {USABLE:.0%} of its size."
    )


def _titles(sweep: Sweep, card: float | None) -> list[str]:
    axes = [axis.name for axis in sweep.axes]
    figures = ["allocated", *PARTS, "reserved", "nvidia-smi"]
    return [*axes, "batch", *figures, "cards [GB]"] + ([] if card is None else [f"largest batch on {card:g} GB"])


def _cells(row: PlanRow, card: float | None) -> list[str]:
    p = row.prediction
    first = [*row.labels, str(row.config.train.batch_size)]
    if p is None:
        missing = ["not predicted"] * (card is not None)
        return [*first, *["-"] * (len(PARTS) + 3), f"not predicted: {row.reason}", *missing]
    numbers = (p.allocated, *(p.parts[part] for part in PARTS), p.reserved, p.device)
    fitting = [f"{size}" for size in CARDS if fits(p.device, size)]
    cards = f"{fitting[0]} and up" if fitting else f"none up to {CARDS[-1]}"
    batch = [] if row.largest_batch is None else [str(row.largest_batch) if row.largest_batch else "not one image"]
    return [*first, *(f"{n / GIB:.2f}" for n in numbers), cards, *batch]


def _terminal(sweep: Sweep, rows: Sequence[PlanRow], card: float | None) -> Table:
    title = f"{sweep.name} ({sweep.profile}): predicted peak in training, GiB"
    table = Table(*(t.rsplit(".", 1)[-1] for t in _titles(sweep, card)), title=title)
    for row in rows:
        table.add_row(*map(rich_escape, _cells(row, card)))
    return table


def markdown(sweep: Sweep, rows: Sequence[PlanRow], card: float | None, generation: Generation = DEFAULT) -> str:
    """The plan as a Markdown page."""
    titles = _titles(sweep, card)
    ruler = [":--"] * len(sweep.axes) + ["--:"] * (len(titles) - len(sweep.axes))
    lines = [[escape(title) for title in titles], ruler, *([escape(c) for c in _cells(row, card)] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"# {sweep.name}: predicted memory in training, GiB\n\n{escape(sweep.question)}\n\n{table}\n\n"
        f"{assumptions(generation)}\n"
    )


def as_frame(sweep: Sweep, rows: Sequence[PlanRow], card: float | None) -> pandas.DataFrame:
    """One line per point, in bytes; every figure's name says that it is predicted."""
    lines = []
    for row in rows:
        p = row.prediction
        line: dict[str, object] = {"sweep": sweep.name, "profile": sweep.profile}
        line |= {axis.name: label for axis, label in zip(sweep.axes, row.labels)}
        figures = {"allocated": p.allocated, **p.parts, "reserved": p.reserved, "device": p.device} if p else {}
        line |= {"train.batch_size": row.config.train.batch_size}
        line |= {f"predicted.{name}_bytes": figures.get(name) for name in ("allocated", *PARTS, "reserved", "device")}
        line |= {f"predicted.fits_{size}_gb": fits(p.device, size) if p else None for size in CARDS}
        line["predicted.not_because"] = row.reason or None
        if card is not None:
            line |= {"card_gb": card, "predicted.largest_batch": row.largest_batch}
        lines.append(line)
    frame = pandas.DataFrame(lines)
    numbers = [name for name in frame if name.endswith("_bytes") or name == "predicted.largest_batch"]
    return frame.astype(dict.fromkeys(numbers, "Int64"))  # a gap must not turn its column into floats


if __name__ == "__main__":
    sys.exit(command.run(main))
