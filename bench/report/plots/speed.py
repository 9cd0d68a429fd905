"""Speed against memory: the rows of a table, and the Pareto front of their means."""

from math import inf

from matplotlib.figure import Figure

from bench.config import paths
from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table
from bench.leaderboard.results import Results
from bench.report.plots.labels import label
from bench.report.plots.spans import limits, spread_in_words
from bench.report.plots.style import (
    BLACK,
    GREY,
    VERMILLION,
    canvas,
    house_style,
    lay_out,
    memory_in_gib,
    memory_label,
    row_name,
    shorten,
)

HEIGHT = 3.4
LONGEST_NAME = 2.4  # inches
SETTINGS = (
    "train.precision",
    "train.compile",
    "train.accumulate",
    "model.encoder.checkpointing",
    "model.frozen_weights",
)
"""Settings that trade speed for memory: the figure is drawn for sweeps that vary one of them."""


def speed_memory(results: Results, board: Leaderboard, table: Table) -> Figure | None:
    """Draws the speed of training against its peak memory, with 95 % intervals over the seeds.

    ``None`` for a sweep that varies none of ``SETTINGS``, and unless two rows have both quantities.
    """
    rows = [row for row in table.rows if memory_in_gib(row, table) and _speed(row)]
    configs = [trial.config.model_dump(mode="json") for trial in results.trials]
    if len(rows) < 2 or not any(len({str(paths.get(c, s)) for c in configs}) > 1 for s in SETTINGS):
        return None
    places = [(memory_in_gib(row, table).mean, _speed(row).mean) for row in rows]
    front = _front(places)
    with house_style():
        title = "Images per second in training against peak memory in training"
        place = canvas(board, table, HEIGHT, title=title, note=f"{spread_in_words(board, 'bars')}; line: Pareto front")
        axes = place.figure.add_subplot()
        axes.set(xlabel=memory_label(table), ylabel="training [images/s]")
        axes.set_xlim(limits([memory_in_gib(row, table) for row in rows]))
        axes.set_ylim(limits([_speed(row) for row in rows]))
        axes.step(*zip(*front), where="post", color=VERMILLION, linestyle=(0, (4, 1.5)), linewidth=1.2, zorder=1)
        for row, (x, y) in zip(rows, places):
            colour = BLACK if (x, y) in front else GREY
            widths = {"xerr": memory_in_gib(row, table).half_width or 0, "yerr": _speed(row).half_width or 0}
            axes.errorbar(x, y, **widths, fmt="none", ecolor=colour, elinewidth=0.6, alpha=0.6, zorder=2)
            axes.plot(x, y, "o" if (x, y) in front else "s", color=colour, markersize=5, zorder=3)
        lay_out(place.figure)  # names are placed by it
        label(axes, [shorten(row_name(row, board), LONGEST_NAME, 7) for row in rows], places, 7, reach=6)
    return place.figure


def _speed(row: Row) -> Cell | None:
    return row.cells.get("timing.train_images_per_second")


def _front(places: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the places (memory, speed) that no other place beats in both, by memory."""
    front, fastest = [], -inf
    for memory, speed in sorted(set(places), key=lambda place: (place[0], -place[1])):
        if speed > fastest:
            front.append((memory, speed))
            fastest = speed
    return front
