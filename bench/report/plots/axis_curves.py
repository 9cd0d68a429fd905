"""Accuracy, memory and speed along one axis of a sweep: curves over numbers, dots over names."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table
from bench.leaderboard.noise_floor import memory_span, score_span
from bench.leaderboard.results import Results
from bench.leaderboard.rows import records_of
from bench.records.memory import GIB
from bench.records.record import TrialRecord
from bench.report.plots.fonts import drawable
from bench.report.plots.spans import SPEED_SHARE, Span, is_cut, limits, mark_cuts, spread_in_words
from bench.report.plots.style import (
    MOST_CURVES,
    SEED,
    Canvas,
    accuracy,
    accuracy_label,
    canvas,
    fields,
    house_style,
    legend_height,
    line_look,
    memory_in_gib,
    memory_label,
    peak_in_gib,
    shorten,
    text_width,
    training_speed,
    wrap,
)

LONGEST_LABEL = 2.3  # inches
LONGEST_TICK = 0.45  # inches; numbers with longer labels are drawn as names
BANDED = 2  # most curves with bands; more curves have bars, since bands would hide each other
BAR = {"elinewidth": 1.1, "capsize": 2}  # heavier than a line of the grid, with ends
BESIDE = 0.3  # lines between the dots of seeds and the interval, which would cover them
LOG_FROM = 4  # ratio of the largest to the smallest value from which the axis is logarithmic


@dataclass(frozen=True)
class Panel:
    """A quantity that is drawn against the axis."""

    title: str
    cell: Callable[[Row], Cell | None]  # mean of a row
    of_record: Callable[[TrialRecord], float | None]  # value of one trial that is ok
    least: float  # shortest axis


def axis_curves(results: Results, board: Leaderboard, table: Table, axis: int) -> Figure | None:
    """Draws accuracy, peak memory and training speed against the board's axis of this number.

    Rows that differ on the other axes are curves of their own. An axis of numbers is drawn to scale (log2 if they span
    a factor of 4), an axis of names as dots in the sweep's order. ``None`` with fewer than two measured points.
    """
    rows = [row for row in table.rows if accuracy(row, table)]
    labels = list(dict.fromkeys(row.labels[axis] for row in rows))
    if len(labels) < 2:
        return None
    panels = [
        Panel(
            f"{accuracy_label(table)}, test split",
            lambda row: accuracy(row, table),
            lambda record: record.scores.get(table.main_metric),
            score_span(table),
        ),
        Panel(
            memory_label(table) if table.memory_measure else "",
            lambda row: memory_in_gib(row, table),
            lambda record: peak_in_gib(record, table),
            memory_span(table) / GIB,
        ),
        Panel(
            "training speed [images/s]",
            training_speed,
            lambda record: record.timing and record.timing.train_images_per_second,
            SPEED_SHARE * max((cell.mean for cell in map(training_speed, rows) if cell), default=0),
        ),
    ]
    panels = [panel for panel in panels if any(panel.cell(row) for row in rows)]
    groups: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        rest = row.labels[:axis] + row.labels[axis + 1 :]
        groups.setdefault(rest, {})[row.labels[axis]] = row
    shown = dict(list(groups.items())[:MOST_CURVES])
    values = _numbers(results, board.axes[axis], labels)
    with house_style():
        if values and max(text_width(label, 8) for label in labels) > LONGEST_TICK:
            values = None
        draw = _curves if values else _dots
        places = values or dict(zip(labels, range(len(labels))))
        note = f"the first {len(shown)} of {len(groups)} curves; " if len(shown) < len(groups) else ""
        return draw(Drawing(results, board, table, axis, panels, shown, places, note))


@dataclass(frozen=True)
class Drawing:
    """The content of the figure: panels of curves against the places of the labels on an axis."""

    results: Results
    board: Leaderboard
    table: Table
    axis: int
    panels: Sequence[Panel]
    groups: Mapping[tuple[str, ...], Mapping[str, Row]]  # rows by label, of each curve
    values: Mapping[str, float]  # places by label
    note: str

    def span(self, panel: Panel) -> Span:
        """Returns the ends of a panel's axis."""
        rows = [row for by_label in self.groups.values() for row in by_label.values()]
        seeds = [value for row in rows for value in _of_seeds(self.results, row, panel)]
        return limits(_cells(panel, self.groups), seeds, panel.least)

    def small_print(self, mark: str) -> str:
        """Returns how to read the figure; mark: bars or bands."""
        cut = any(is_cut(_cells(panel, self.groups), self.span(panel)) for panel in self.panels)
        return self.note + spread_in_words(self.board, mark, cut)


def _of_seeds(results: Results, row: Row, panel: Panel) -> list[float]:
    """Returns the values of the trials of a row."""
    values = [panel.of_record(record) for record in records_of(row, results.records) if record.scores]
    return [value for value in values if value is not None]


def _numbers(results: Results, axis: str, labels: Sequence[str]) -> dict[str, float] | None:
    """Returns the numbers of an axis by label; ``None`` unless all are numbers and differ."""
    chosen = next((a for a in results.sweep.axes if a.name == axis), None)
    given = {label: changes.get(axis) for label, changes in chosen.points} if chosen else {}
    values = {label: given.get(label, label) for label in labels}
    try:
        numbers = {label: float(value) for label, value in values.items() if not isinstance(value, bool | None)}
    except (TypeError, ValueError):
        return None
    distinct = len(set(numbers.values())) == len(labels)
    return numbers if distinct and all(map(math.isfinite, numbers.values())) else None


def _cells(panel: Panel, groups: Mapping[tuple[str, ...], Mapping[str, Row]]) -> list[Cell]:
    """Returns the cells of all rows that the panel's quantity was measured for."""
    cells = [panel.cell(row) for by_label in groups.values() for row in by_label.values()]
    return [cell for cell in cells if cell is not None]


def _seeds(
    drawing: Drawing, panel: Panel, by_label: Mapping[str, Row], shift: float = 0
) -> tuple[list[float], list[float]]:
    """Returns the places on the axis and the values of all seeds of a curve."""
    places, values = [], []
    for label, row in by_label.items():
        found = _of_seeds(drawing.results, row, panel)
        places += [drawing.values[label] + shift] * len(found)
        values += found
    return places, values


def _curves(drawing: Drawing) -> Figure:
    groups, values, panels, board = drawing.groups, drawing.values, drawing.panels, drawing.board
    banded = len(groups) <= BANDED
    note = drawing.small_print("bands" if banded else "bars")
    title = f"By {board.axes[drawing.axis]}"
    place = canvas(board, drawing.table, 2.4, title=title, note=note, below=_below(groups))
    every = place.figure.subplots(1, len(panels), squeeze=False)[0]
    ordered = sorted(values, key=values.get)
    for panel, axes in zip(panels, every):
        axes.set_ylim(drawing.span(panel))
        for number, by_label in enumerate(groups.values()):
            measured = [label for label in ordered if label in by_label and panel.cell(by_label[label])]
            if not measured:
                continue
            x = [values[label] for label in measured]
            cells = [panel.cell(by_label[label]) for label in measured]
            y = np.array([cell.mean for cell in cells])
            reach = np.array([cell.half_width or 0 for cell in cells])
            look = line_look(number)
            axes.plot(x, y, markersize=5, markerfacecolor="white", zorder=3, **look)
            axes.plot(*_seeds(drawing, panel, by_label), ".", color=look["color"], **SEED)
            if banded:
                axes.fill_between(x, y - reach, y + reach, color=look["color"], alpha=0.16, linewidth=0)
            else:
                axes.errorbar(x, y, yerr=reach, fmt="none", ecolor=look["color"], **BAR, alpha=0.7)
            mark_cuts(axes, cells, x, [look["color"]] * len(x), "y")
        _scale(axes, [values[label] for label in ordered], [*map(drawable, ordered)], 0.8 * 7.2 / len(panels))
        axes.set_title("\n".join(wrap(panel.title, 6.6 / len(panels), 8)), loc="left", fontsize=8)
        axes.set_xlabel(fields(board)[drawing.axis])
    _legend(place, board, drawing.axis, groups)
    return place.figure


def _scale(axes: Axes, values: Sequence[float], labels: Sequence[str], width: float) -> None:
    """Puts ticks at the values; labels that would touch the one before are left out."""
    if values[0] > 0 and values[-1] / values[0] >= LOG_FROM:
        axes.set_xscale("log", base=2)
    places = [math.log2(v) for v in values] if axes.get_xscale() == "log" else list(values)
    inch = width / (1.1 * (places[-1] - places[0]))
    shown, end = [], -math.inf
    for value, place, label in zip(values, places, labels):
        half = text_width(label, 8) / 2 + 0.03
        if (place - places[0]) * inch - half >= end:
            shown.append((value, label))
            end = (place - places[0]) * inch + half
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([value for value, _ in shown], [label for _, label in shown], fontsize=8)
    axes.grid(axis="x", visible=False)


def _dots(drawing: Drawing) -> Figure:
    """Draws names on the left, one in each line, and a dot in every panel; names are neither turned nor cut."""
    groups, values, panels, board = drawing.groups, drawing.values, drawing.panels, drawing.board
    room = 0.24 + 0.1 * (len(groups) - 1)
    height = 0.75 + room * len(values)
    title = f"By {board.axes[drawing.axis]}"
    note = drawing.small_print("bars")
    place = canvas(board, drawing.table, height, title=title, note=note, below=_below(groups))
    every = place.figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    step = 0.7 / max(1, len(groups))
    for panel, axes in zip(panels, every):
        axes.set_xlim(drawing.span(panel))
        for number, by_label in enumerate(groups.values()):
            shift = (number - (len(groups) - 1) / 2) * step
            look = {k: v for k, v in line_look(number).items() if k != "linestyle"}
            measured = [label for label, row in by_label.items() if panel.cell(row)]
            cells = [panel.cell(by_label[label]) for label in measured]
            y = [values[label] + shift for label in measured]
            reach = [cell.half_width or 0 for cell in cells]
            bar = {**BAR, "markersize": 5, "markerfacecolor": "white", "zorder": 3}
            axes.errorbar([cell.mean for cell in cells], y, xerr=reach, linestyle="", **bar, **look)
            dots = reversed(_seeds(drawing, panel, by_label, shift + BESIDE * step))
            axes.plot(*dots, ".", color=look["color"], **SEED)
            mark_cuts(axes, cells, y, [look["color"]] * len(y), "x")
        axes.set_title("\n".join(wrap(panel.title, 4.9 / len(panels), 8)), loc="left", fontsize=8)
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="y", visible=False)  # a line of the grid would look like an interval
    names = [shorten(label, LONGEST_LABEL, 8) for label in values]
    every[0].set_yticks(range(len(values)), names, fontsize=8)
    every[0].set_ylim(len(values) - 0.4, -0.6)
    _legend(place, board, drawing.axis, groups)
    return place.figure


def _columns(groups: Mapping[tuple[str, ...], object]) -> int:
    longest = max(text_width(", ".join(rest), 7.5) for rest in groups)
    return max(1, int(6.6 / (min(longest, 3) + 0.45)))


def _below(groups: Mapping[tuple[str, ...], object]) -> float:
    """Returns the height in inches of the legend below the panels."""
    return legend_height(math.ceil(len(groups) / _columns(groups)) + 1, 7.5) if len(groups) > 1 else 0


def _legend(place: Canvas, board: Leaderboard, axis: int, groups: Mapping[tuple[str, ...], object]) -> None:
    """Adds a legend that names the curves if there are several."""
    if len(groups) < 2:
        return
    others = [field for number, field in enumerate(fields(board)) if number != axis]
    handles = [
        Line2D(
            [], [], markersize=4.5, markerfacecolor="white", label=shorten(", ".join(rest), 3, 7.5), **line_look(number)
        )
        for number, rest in enumerate(groups)
    ]
    look = {
        "ncols": _columns(groups),
        "fontsize": 7.5,
        "title_fontsize": 7.5,
        "handlelength": 2.4,
        "labelspacing": 0.35,
    }
    place.legend(handles, title=f"{', '.join(others)}:", alignment="left", **look)
