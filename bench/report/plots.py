"""``Leaderboard`` -> figures. The only file that imports matplotlib."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.config import TrialConfig
from bench.footprint import PARTS
from bench.predicted_memory import Prediction
from bench.report.leaderboard import GIB, MEMORY_MEASURES, Leaderboard, Row, Table, measured_memory
from models._size import in_words

CROWDED = 110  # characters in all names, beyond which they get in each other's way
AXIS_LABELS = {"s_measure": "S-measure", "iou": "IoU", "mean_class_iou": "mean IoU of the classes"}
FRONT_COLOUR = "#b3424a"
POINT_COLOUR = "#2f5d8a"
PART_COLOURS = dict(zip(PARTS, ("#30506e", "#5a86ad", "#c9a227", "#8c6d46", "#b3424a", "#e0a3a0")))
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "sam3-bench",  # so that the same figure is the same file
}


def memory_accuracy(board: Leaderboard, table: Table) -> Figure | None:
    """Peak training memory against accuracy by the main metric, both with their deviation over seeds, and the Pareto
    front. Where names would not find room beside the points, numbers stand there and a key explains them.

    ``None`` when no row has both.
    """
    rows = [row for row in table.rows if measured_memory(row, table) and f"test.{table.main_metric}" in row.cells]
    if not rows:
        return None
    with matplotlib.rc_context(STYLE):
        names = [_name(row, board) for row in rows]
        numbered = sum(map(len, names)) > CROWDED
        figure = Figure(figsize=(8.6 if numbered else 6.4, 4.6), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        if numbered:
            _key(figure, names)
            names = [str(number) for number in range(1, len(rows) + 1)]
        ink = _points(axes, rows, board, table)
        axes.set_xlabel(f"peak memory in training [GiB]: {MEMORY_MEASURES[table.memory_measure]}")
        axes.set_ylabel(f"{AXIS_LABELS[table.main_metric]} on the test split")
        _title(axes, board)
        figure.supxlabel(_small_print(board, table), x=0.99, ha="right", fontsize=6.5, color="0.35")
        figure.canvas.draw()
        _label(axes, names, [_place(row, table) for row in rows], ink)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as its suffix says; the same figure gives the same bytes."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def _title(axes: Axes, board: Leaderboard) -> None:
    axes.set_title(
        "\n".join(textwrap.wrap(board.question, 72)), loc="left", fontsize=10, pad=20 if board.embedded else 6
    )
    if board.embedded:
        warning = f"EMBEDDED RUN ({', '.join(board.embedded)}): not results of SAM3-UNet"
        axes.annotate(
            warning,
            (0, 1),
            (0, 5),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=8,
            color=FRONT_COLOUR,
        )


def _points(axes: Axes, rows: Sequence[Row], board: Leaderboard, table: Table) -> list[tuple[float, float]]:
    """Draws one point a row, full and joined by steps on the front, hollow elsewhere; returns where ink lies."""
    front = sorted(_place(row, table) for row in rows if row.on_front)
    axes.step(*zip(*front), where="post", color=FRONT_COLOUR, linewidth=1.2, zorder=1)
    ink = [(x, y0 + (y1 - y0) * k / 9) for (_, y0), (x, y1) in zip(front, front[1:]) for k in range(10)]
    ink += [(x0 + (x1 - x0) * k / 9, y0) for (x0, y0), (x1, _) in zip(front, front[1:]) for k in range(10)]
    for on_front, marker, fill in ((True, "o", FRONT_COLOUR), (False, "s", "white")):
        colour = FRONT_COLOUR if on_front else POINT_COLOUR
        for row in (row for row in rows if row.on_front == on_front):
            x, y = _place(row, table)
            dx = (measured_memory(row, table).deviation or 0) / GIB
            dy = row.cells[f"test.{table.main_metric}"].deviation or 0
            look = {"color": colour, "markerfacecolor": fill, "markersize": 6, "elinewidth": 0.8, "zorder": 2}
            axes.errorbar(x, y, xerr=dx, yerr=dy, fmt=marker, **look)
            ink += [(x + dx * k / 4, y + dy * m / 4) for k in range(-4, 5) for m in range(-4, 5) if not k * m]
    keys = [
        Line2D([], [], color=FRONT_COLOUR, marker="o", label="Pareto front"),
        Line2D(
            [], [], color=POINT_COLOUR, marker="s", markerfacecolor="white", linestyle="", label="beaten by another"
        ),
    ]
    title = f"labels: {', '.join(_fields(board))}" if len(board.axes) > 1 else None
    shown = keys[: 1 + (len(front) < len(rows))]
    axes.legend(handles=shown, title=title, loc="best", frameon=False, fontsize=8, title_fontsize=8)
    axes.margins(0.14)
    return ink


def _key(figure: Figure, names: Sequence[str]) -> None:
    """The names by number, in a column right of the axes."""
    lines = [f"{number}  {textwrap.shorten(name, 48)}" for number, name in enumerate(names, start=1)]
    handles = [Line2D([], [], linestyle="", label=line) for line in lines]
    look = {"frameon": False, "handlelength": 0, "handletextpad": 0, "labelspacing": 0.35}
    figure.legend(handles=handles, loc="outside right upper", fontsize=8 if len(names) <= 20 else 6.5, **look)


def _label(
    axes: Axes, names: Sequence[str], places: Sequence[tuple[float, float]], ink: Sequence[tuple[float, float]]
) -> None:
    """Writes each row's name beside its point, moved apart from one another and from what is drawn."""
    texts = [axes.text(x, y, name, fontsize=8, zorder=3) for (x, y), name in zip(places, names)]
    adjust_text(
        texts,
        *map(list, zip(*places, *ink)),
        ax=axes,
        expand=(1.25, 1.7),
        force_static=(0.2, 0.4),
        iter_lim=400,  # a limit in time would place them differently on every run
        arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
    )


def _name(row: Row, board: Leaderboard) -> str:
    """``rank 8``; of several axes the values only, ``all, last:2``, which the legend's title explains."""
    if len(row.labels) == 1 and row.labels[0][:1].isdigit():
        return f"{_fields(board)[0]} {row.labels[0]}"
    return ", ".join(row.labels)


def _fields(board: Leaderboard) -> list[str]:
    return [axis.rsplit(".", 1)[-1] for axis in board.axes]


def _place(row: Row, table: Table) -> tuple[float, float]:
    return measured_memory(row, table).mean / GIB, row.cells[f"test.{table.main_metric}"].mean


def _small_print(board: Leaderboard, table: Table) -> str:
    """What the numbers are: sweep, settings, device, spread."""
    seeds = len(board.seeds)
    bars = f"bars: standard deviation over {seeds} seeds" if seeds > 1 else "one seed: no spread known"
    parts = [f"{board.name} ({board.profile})", board.settings, table.environment.get("device", ""), bars]
    return "\n".join(textwrap.wrap("; ".join(part for part in parts if part), 120))


def memory_plan(question: str, rows: Sequence[tuple[tuple[str, ...], Prediction]], cards: Sequence[int]) -> Figure:
    """Predicted peaks of a sweep's points: one bar each, stacked by part, with the sizes of cards."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.6 + 0.34 * len(rows)), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        left = [0.0] * len(rows)
        for part in PARTS:
            widths = [prediction.parts[part] / GIB for _, prediction in rows]
            axes.barh(range(len(rows)), widths, left=left, height=0.62, color=PART_COLOURS[part], label=part)
            left = [a + b for a, b in zip(left, widths)]
        totals = [prediction.device / GIB for _, prediction in rows]
        axes.plot(totals, range(len(rows)), "k|", markersize=9, label="nvidia-smi")
        for card in cards:
            if card <= 1.1 * max(totals):
                axes.axvline(card, color="0.6", linewidth=0.8, linestyle=":")
                axes.annotate(
                    f"{card} GB",
                    (card, 1),
                    (0, 2),
                    xycoords=("data", "axes fraction"),
                    fontsize=7,
                    textcoords="offset points",
                    color="0.35",
                    ha="center",
                    va="bottom",
                    rotation=90,
                )
        axes.set_yticks(range(len(rows)), [", ".join(labels) for labels, _ in rows])
        axes.invert_yaxis()
        axes.set_xlabel("PREDICTED peak allocated in training [GiB]")
        figure.suptitle("\n".join(textwrap.wrap(question, 90)), x=0.01, ha="left", fontsize=10)
        axes.grid(axis="y", visible=False)
        figure.legend(fontsize=7, frameon=False, ncols=len(PARTS) + 1, loc="outside lower center", columnspacing=1)
    return figure


def memory_curves(curves: Mapping[str, Sequence[tuple[str, Prediction]]], base: TrialConfig) -> Figure:
    """Predicted memory by one field at a time, the others as in ``base``: one panel for each field."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(curves), 2.8), dpi=160, layout="constrained")
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, (path, points) in zip(panels, curves.items()):
            for name, marker, colour in (("device", "s", POINT_COLOUR), ("allocated", "o", FRONT_COLOUR)):
                heights = [getattr(prediction, name) / GIB for _, prediction in points]
                label = {"device": "nvidia-smi", "allocated": "allocated"}[name]
                axes.plot(range(len(points)), heights, marker=marker, color=colour, markersize=4, label=label)
            axes.set_xticks(range(len(points)), [label for label, _ in points], rotation=45)
            axes.set_xlabel(path.removeprefix("model."))
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("PREDICTED peak in training [GiB]")
        panels[0].legend(fontsize=7, frameon=False)
        figure.suptitle(
            f"{in_words(base.transform.size)} px, batch {base.train.batch_size}, {base.train.precision}", fontsize=9
        )
    return figure


def memory_comparison(pairs: Sequence[tuple[int, int]], where: str, goal: float) -> Figure:
    """Predicted against measured peaks, in bytes, with the band of the goal around their equality."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 4.2), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        top = 1.08 * max((value for pair in pairs for value in pair), default=GIB) / GIB
        axes.fill_between((0, top), (0, top * (1 - goal)), (0, top * (1 + goal)), color="0.9", label=f"± {goal:.0%}")
        axes.plot((0, top), (0, top), color="0.6", linewidth=0.8)
        measured, predicted = [m / GIB for _, m in pairs], [p / GIB for p, _ in pairs]
        axes.plot(measured, predicted, "o", color=POINT_COLOUR, markersize=4, label="one configuration")
        axes.set(
            xlim=(0, top), ylim=(0, top), xlabel=f"measured peak allocated [GiB], {where}", ylabel="predicted [GiB]"
        )
        axes.legend(fontsize=8, frameon=False)
    return figure
