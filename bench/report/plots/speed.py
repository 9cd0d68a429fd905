"""Speed and energy against memory: the rows of a table, and the Pareto fronts of their means."""

from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.config import paths
from bench.leaderboard.front import pareto_front
from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table
from bench.leaderboard.noise_floor import memory_span
from bench.leaderboard.results import Results
from bench.leaderboard.rows import quantities, records_of
from bench.records.memory import GIB
from bench.report.plots.labels import Place, label, pieces_of_intervals, pieces_of_steps
from bench.report.plots.spans import SPEED_SHARE, Span, is_cut, limits, mark_cuts, spread_in_words
from bench.report.plots.style import (
    BLACK,
    GREY,
    SEED,
    VERMILLION,
    canvas,
    house_style,
    lay_out,
    memory_in_gib,
    memory_label,
    peak_in_gib,
    row_name,
    shorten,
)

HEIGHT = 3.4  # inches of a panel
LONGEST_NAME = 2.4  # inches
SETTINGS = (
    "train.precision",
    "train.compile",
    "train.accumulate",
    "model.encoder.checkpointing",
    "model.frozen_weights",
)
"""Settings that trade speed for memory: the figure is drawn for sweeps that vary one of them."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that is drawn against memory."""

    key: str  # in Row.cells
    title: str
    axis: str
    better: Literal["higher", "lower"]


SPEED = Quantity("timing.train_images_per_second", "Images per second", "training [images/s]", "higher")
ENERGY = Quantity("energy.train_joules_per_image", "joules per image", "energy of the card [J/image]", "lower")


@dataclass(frozen=True)
class Panel:
    """The rows that have a quantity and memory."""

    quantity: Quantity
    rows: list[Row]
    memory: list[Cell]  # GiB
    values: list[Cell]
    seeds: list[list[Place]]  # of each row: memory and value of its trials
    x_span: Span
    y_span: Span

    @property
    def places(self) -> list[Place]:
        """The means of the rows."""
        return [(x.mean, y.mean) for x, y in zip(self.memory, self.values)]

    @property
    def front(self) -> list[Place]:
        """The Pareto front of the means, from the least memory on."""
        sign = 1 if self.quantity.better == "higher" else -1
        front = pareto_front((-x, sign * y) for x, y in self.places)
        return [(-less, sign * best) for less, best in front]

    @property
    def cut(self) -> bool:
        """Whether an interval leaves the frame."""
        return is_cut(self.memory, self.x_span) or is_cut(self.values, self.y_span)


def speed_memory(results: Results, board: Leaderboard, table: Table) -> Figure | None:
    """Draws the speed of training against its peak memory, with 95 % intervals over the seeds, and in a second panel
    the card's energy for an image of training, where it was measured.

    ``None`` for a sweep that varies none of ``SETTINGS``, and unless two rows have both memory and speed.
    """
    configs = [trial.config.model_dump(mode="json") for trial in results.trials]
    if not any(len({str(paths.get(c, s)) for c in configs}) > 1 for s in SETTINGS):
        return None
    speed, energy = _panel(results, table, SPEED), _panel(results, table, ENERGY)
    if speed is None:
        return None
    panels = [speed, energy] if energy else [speed]
    with house_style():
        title = f"{' and '.join(panel.quantity.title for panel in panels)} in training against peak memory in training"
        note = f"{spread_in_words(board, 'bars', any(panel.cut for panel in panels))}; line: Pareto front"
        place = canvas(board, table, HEIGHT * len(panels), title=title, note=note)
        axes = place.figure.subplots(len(panels), squeeze=False)[:, 0]
        ink = [_draw(each, panel, memory_label(table)) for each, panel in zip(axes, panels)]
        lay_out(place.figure)  # names are placed by it
        for each, panel, drawn in zip(axes, panels, ink):
            names = [shorten(row_name(row, board), LONGEST_NAME, 7) for row in panel.rows]
            if not label(each, names, drawn, 7, reach=6):  # no room: at least the front has names
                on_front = [i for i, place in enumerate(drawn[: len(names)]) if place in panel.front]
                others = [place for i, place in enumerate(drawn) if i not in on_front]
                label(each, [names[i] for i in on_front], [*(drawn[i] for i in on_front), *others], 7, reach=9)
    return place.figure


def _panel(results: Results, table: Table, quantity: Quantity) -> Panel | None:
    """Returns what a panel shows; ``None`` unless two rows have the quantity and memory."""
    rows = [row for row in table.rows if memory_in_gib(row, table) and row.cells.get(quantity.key)]
    if len(rows) < 2:
        return None
    memory, values = [memory_in_gib(row, table) for row in rows], [row.cells[quantity.key] for row in rows]
    seeds = [_seeds(results, row, table, quantity) for row in rows]
    x_span = limits(memory, [x for of_row in seeds for x, _ in of_row], memory_span(table) / GIB)
    least = SPEED_SHARE * max(cell.mean for cell in values)
    y_span = limits(values, [y for of_row in seeds for _, y in of_row], least)
    return Panel(quantity, rows, memory, values, seeds, x_span, y_span)


def _seeds(results: Results, row: Row, table: Table, quantity: Quantity) -> list[Place]:
    """Returns memory and the quantity of the trials of a row that have both."""
    found = []
    for record in records_of(row, results.records):
        memory, value = peak_in_gib(record, table), quantities(record).get(quantity.key)
        if memory is not None and value is not None:
            found.append((memory, value))
    return found


def _draw(axes: Axes, panel: Panel, x_label: str) -> list[Place]:
    """Draws the rows and their front; returns the places where something is drawn, those of the rows first."""
    places, front = panel.places, panel.front
    axes.set(xlabel=x_label, ylabel=panel.quantity.axis, xlim=panel.x_span, ylim=panel.y_span)
    axes.step(*zip(*front), where="post", color=VERMILLION, linestyle=(0, (4, 1.5)), linewidth=1.2, zorder=1)
    colours = [BLACK if point in front else GREY for point in places]
    across, up = ([cell.half_width or 0 for cell in cells] for cells in (panel.memory, panel.values))
    axes.errorbar(*zip(*places), xerr=across, yerr=up, fmt="none", ecolor=colours, elinewidth=0.6, alpha=0.6, zorder=2)
    for number, (x, y) in enumerate(places):
        for of_seed in panel.seeds[number]:
            axes.plot(*of_seed, ".", color=colours[number], **SEED)
        axes.plot(x, y, "o" if (x, y) in front else "s", color=colours[number], markersize=5, zorder=3)
    mark_cuts(axes, panel.memory, [y for _, y in places], colours, "x")
    mark_cuts(axes, panel.values, [x for x, _ in places], colours, "y")
    seeds = [of_seed for of_row in panel.seeds for of_seed in of_row]
    return [*places, *seeds, *pieces_of_steps(front), *pieces_of_intervals(axes, places, across, up)]
