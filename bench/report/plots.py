"""``Leaderboard`` -> figures. The only file that imports matplotlib."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

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
        _title(axes, board)
        axes.legend(loc="best", frameon=False, fontsize=8)
        figure.supxlabel(_small_print(board, table), x=0.99, ha="right", fontsize=6.5, color="0.35")
        figure.canvas.draw()
        _label(axes, rows, board, table)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as its suffix says; the same figure gives the same bytes."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def _title(axes: Axes, board: Leaderboard) -> None:
    axes.set_title("\n".join(textwrap.wrap(board.question, 72)), loc="left", fontsize=10, pad=20 if board.embedded else 6)
    if board.embedded:
        warning = f"EMBEDDED RUN ({', '.join(board.embedded)}): not results of SAM3-UNet"
        axes.annotate(
            warning, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=8, color=FRONT_COLOUR
        )


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


def _label(axes: Axes, rows: Sequence[Row], board: Leaderboard, table: Table) -> None:
    """Writes each row's settings beside its point, moved apart where they would overlap."""
    places = [_place(row, table) for row in rows]
    texts = [axes.text(x, y, _name(row, board), fontsize=8) for (x, y), row in zip(places, rows)]
    adjust_text(
        texts,
        *map(list, zip(*places)),
        ax=axes,
        expand=(1.3, 1.6),
        arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
    )


def _name(row: Row, board: Leaderboard) -> str:
    """``rank 8, last:2``: a number alone would not say what it is the number of."""
    fields = [axis.rsplit(".", 1)[-1] for axis in board.axes]
    return ", ".join(f"{f} {label}" if label[:1].isdigit() else label for f, label in zip(fields, row.labels))


def _place(row: Row, table: Table) -> tuple[float, float]:
    return measured_memory(row, table).mean / GIB, row.cells["test.s_measure"].mean


def _small_print(board: Leaderboard, table: Table) -> str:
    """What the numbers are: sweep, settings, device, spread."""
    seeds = len(board.seeds)
    bars = f"bars: standard deviation over {seeds} seeds" if seeds > 1 else "one seed: no spread known"
    parts = [f"{board.name} ({board.profile})", board.settings, table.environment.get("device", ""), bars]
    return "\n".join(textwrap.wrap("; ".join(part for part in parts if part), 120))
