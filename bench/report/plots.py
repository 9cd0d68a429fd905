"""``Leaderboard`` -> figures. The only file that imports matplotlib."""

import textwrap
from collections.abc import Sequence

import matplotlib
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.leaderboard import GIB, MEMORY_MEASURES, Leaderboard, Row, Table, measured_memory

FRONT_COLOUR = "#b3424a"
POINT_COLOUR = "#2f5d8a"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "sam3-bench",  # so that the same figure is the same file
}


def memory_accuracy(board: Leaderboard, table: Table) -> Figure | None:
    """Peak training memory against S-measure, both with their deviation over seeds, and the Pareto front.

    ``None`` when no row has both.
    """
    rows = [row for row in table.rows if measured_memory(row, table) and "test.s_measure" in row.cells]
    if not rows:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        _points(axes, rows, table)
        axes.set_xlabel(f"peak memory in training [GiB]: {MEMORY_MEASURES[table.memory_measure]}")
        axes.set_ylabel("S-measure on the test split")
        axes.set_title("\n".join(textwrap.wrap(f"{board.name}: {board.question}", 72)), loc="left", fontsize=10)
        axes.legend(loc="best", frameon=False, fontsize=8)
        figure.supxlabel(_small_print(board, table), x=0.99, ha="right", fontsize=6.5, color="0.35")
        figure.canvas.draw()
        _label(axes, rows, table)
    return figure


def _points(axes: Axes, rows: Sequence[Row], table: Table) -> None:
    """One point a row, full and joined by steps where it lies on the front, hollow where it does not."""
    front = sorted((row for row in rows if row.on_front), key=lambda row: _place(row, table))
    places = [_place(row, table) for row in front]
    axes.step(*zip(*places), where="post", color=FRONT_COLOUR, linewidth=1.2, label="Pareto front", zorder=1)
    for row in rows:
        x, y = _place(row, table)
        memory, accuracy = measured_memory(row, table), row.cells["test.s_measure"]
        colour = FRONT_COLOUR if row.on_front else POINT_COLOUR
        axes.errorbar(
            x,
            y,
            xerr=(memory.deviation or 0) / GIB,
            yerr=accuracy.deviation or 0,
            fmt="o" if row.on_front else "s",
            markerfacecolor=colour if row.on_front else "white",
            markersize=6,
            color=colour,
            elinewidth=0.8,
            alpha=0.95,
            zorder=2,
        )
    axes.margins(0.12)


def _label(axes: Axes, rows: Sequence[Row], table: Table) -> None:
    """Writes each row's settings beside its point, moved apart where they would overlap."""
    places = [_place(row, table) for row in rows]
    texts = [axes.text(x, y, ", ".join(row.labels), fontsize=8) for (x, y), row in zip(places, rows)]
    adjust_text(
        texts,
        *map(list, zip(*places)),
        ax=axes,
        expand=(1.3, 1.6),
        arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
    )


def _place(row: Row, table: Table) -> tuple[float, float]:
    return measured_memory(row, table).mean / GIB, row.cells["test.s_measure"].mean


def _small_print(board: Leaderboard, table: Table) -> str:
    """What the numbers are: labels of the axes, stand-ins, device, spread."""
    parts = [f"labels: {', '.join(board.axes)}", board.settings, table.environment.get("device", "")]
    if board.embedded:
        parts.insert(0, f"EMBEDDED ({', '.join(board.embedded)}): not results of SAM3-UNet")
    seeds = len(board.seeds)
    parts.append(f"bars: standard deviation over {seeds} seeds" if seeds > 1 else "one seed: no spread known")
    return "\n".join(textwrap.wrap("; ".join(part for part in parts if part), 120))
