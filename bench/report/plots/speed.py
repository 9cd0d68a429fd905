"""Speed against memory: the rows of a table, and the Pareto front of their means."""

from matplotlib.figure import Figure

from bench.config import paths
from bench.leaderboard.front import pareto_front
from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.noise_floor import memory_span
from bench.leaderboard.results import Results
from bench.leaderboard.rows import records_of
from bench.records.memory import GIB
from bench.report.plots.labels import label
from bench.report.plots.spans import SPEED_SHARE, is_cut, limits, mark_cuts, spread_in_words
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
    training_speed,
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
    rows = [row for row in table.rows if memory_in_gib(row, table) and training_speed(row)]
    configs = [trial.config.model_dump(mode="json") for trial in results.trials]
    if len(rows) < 2 or not any(len({str(paths.get(c, s)) for c in configs}) > 1 for s in SETTINGS):
        return None
    memory, speed = [memory_in_gib(row, table) for row in rows], [training_speed(row) for row in rows]
    places = [(x.mean, y.mean) for x, y in zip(memory, speed)]
    front = [(-less, fast) for less, fast in pareto_front((-x, y) for x, y in places)]
    seeds = [_seeds(results, row, table) for row in rows]
    x_span = limits(memory, [x for of_row in seeds for x, _ in of_row], memory_span(table) / GIB)
    fastest = max(cell.mean for cell in speed)
    y_span = limits(speed, [y for of_row in seeds for _, y in of_row], SPEED_SHARE * fastest)
    with house_style():
        title = "Images per second in training against peak memory in training"
        bars = spread_in_words(board, "bars", is_cut(memory, x_span) or is_cut(speed, y_span))
        place = canvas(board, table, HEIGHT, title=title, note=f"{bars}; line: Pareto front")
        axes = place.figure.add_subplot()
        axes.set(xlabel=memory_label(table), ylabel="training [images/s]", xlim=x_span, ylim=y_span)
        axes.step(*zip(*front), where="post", color=VERMILLION, linestyle=(0, (4, 1.5)), linewidth=1.2, zorder=1)
        colours = [BLACK if point in front else GREY for point in places]
        for number, (x, y) in enumerate(places):
            colour = colours[number]
            widths = {"xerr": memory[number].half_width or 0, "yerr": speed[number].half_width or 0}
            axes.errorbar(x, y, **widths, fmt="none", ecolor=colour, elinewidth=0.6, alpha=0.6, zorder=2)
            for of_seed in seeds[number]:
                axes.plot(*of_seed, ".", color=colour, **SEED)
            axes.plot(x, y, "o" if (x, y) in front else "s", color=colour, markersize=5, zorder=3)
        mark_cuts(axes, memory, [y for _, y in places], colours, "x")
        mark_cuts(axes, speed, [x for x, _ in places], colours, "y")
        lay_out(place.figure)  # names are placed by it
        label(axes, [shorten(row_name(row, board), LONGEST_NAME, 7) for row in rows], places, 7, reach=6)
    return place.figure


def _seeds(results: Results, row: Row, table: Table) -> list[tuple[float, float]]:
    """Returns memory and speed of the trials of a row that have both."""
    found = []
    for record in records_of(row, results.records):
        memory, speed = peak_in_gib(record, table), record.timing and record.timing.train_images_per_second
        if record.status == "ok" and memory is not None and speed is not None:
            found.append((memory, speed))
    return found
