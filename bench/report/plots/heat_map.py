"""Two axes of a sweep as a heat map: accuracy and memory in every cell, or the status of its trials."""

from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.leaderboard.columns import show
from bench.leaderboard.leaderboard import Cell, Leaderboard, Row, Table
from bench.leaderboard.noise_floor import memory_span, score_span
from bench.records.memory import GIB
from bench.report.plots.style import (
    GREY,
    WIDTH,
    accuracy,
    accuracy_label,
    canvas,
    fields,
    house_style,
    memory_in_gib,
    memory_label,
    shorten,
    text_width,
    wrap,
)

MOST_CELLS = 40  # in a row or column; numbers in smaller cells cannot be read
MOST_BLOCKS = 6  # most pairs of maps, one for each point of further axes
LONGEST_LABEL = 1.6  # inches
SIZE = 7.5
COLOURS = "cividis"  # its brightness rises evenly, also in grey and for colour-blind readers
DARK = 0.5  # luminance below which a cell's numbers are white


def heat_map(board: Leaderboard, table: Table) -> Figure | None:
    """Draws accuracy and peak memory over the board's first two axes that vary, for each point of further axes.

    Cells without a number are hatched and show the status. ``None`` for fewer than two axes or too many cells.
    """
    labels = [list(dict.fromkeys(column)) for column in zip(*(row.labels for row in table.rows))]  # of each axis
    varied = [axis for axis, found in enumerate(labels) if len(found) > 1]
    if len(varied) < 2 or not any(accuracy(row, table) for row in table.rows):
        return None
    down, across = varied[:2]
    blocks: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        rest = tuple(label for i, label in enumerate(row.labels) if i not in (down, across))
        blocks.setdefault(rest, []).append(row)
    names = [labels[down], labels[across]]
    if max(map(len, names)) > MOST_CELLS or len(blocks) > MOST_BLOCKS:
        return None
    maps: list[tuple[str, Callable[[Row], Cell | None], float]] = [
        (accuracy_label(table), lambda row: accuracy(row, table), score_span(table))
    ]
    if table.memory_measure:
        maps.append((memory_label(table), lambda row: memory_in_gib(row, table), memory_span(table) / GIB))
    with house_style():
        seeds = "one seed"
        if len(board.seeds) > 1:
            seeds = f"mean over {len(board.seeds)} seeds, ± half of its 95 % interval"
        seeds += "; colours span the means of each map, and at least what the measurement can resolve"
        margin = 0.5 + min(LONGEST_LABEL, max(text_width(name, SIZE) for name in names[0]))
        room = ((WIDTH - margin) / len(maps) - 0.15) / len(names[1])  # inches across a cell
        longest = min(LONGEST_LABEL, max(text_width(name, SIZE) for name in names[1]))
        height = len(blocks) * (0.75 + 0.36 * len(names[0]) + (longest if longest > room else 0))
        figure = canvas(board, table, height, title=f"{board.axes[down]} by {board.axes[across]}", note=seeds).figure
        every = figure.subplots(len(blocks), len(maps), squeeze=False, sharey=True)
        for line, (rest, rows) in zip(every, blocks.items()):
            for axes, (title, cell, least) in zip(line, maps):
                means = [cell(row).mean for row in table.rows if cell(row)]
                wanting = max(0.0, least - (max(means) - min(means))) / 2
                scale = Normalize(min(means) - wanting, max(means) + wanting)
                _map(axes, rows, names, (down, across), cell, scale, room)
                title = f"{title} ({', '.join(rest)})" if rest else title
                axes.set_title("\n".join(wrap(title, room * len(names[1]), 8)), loc="left", fontsize=8)
                axes.set_xlabel(fields(board)[across], fontsize=8)
            line[0].set_ylabel(fields(board)[down], fontsize=8)
    return figure


def _map(
    axes: Axes,
    rows: Sequence[Row],
    names: Sequence[Sequence[str]],
    order: tuple[int, int],
    cell: Callable[[Row], Cell | None],
    scale: Normalize,
    room: float,
) -> None:
    """Fills the cells of a map; ``room`` is the width of a cell in inches."""
    colours = matplotlib.colormaps[COLOURS]
    by_place = {(row.labels[order[0]], row.labels[order[1]]): row for row in rows}
    for y, first in enumerate(names[0]):
        for x, second in enumerate(names[1]):
            row = by_place.get((first, second))
            found = cell(row) if row else None
            corner = (x - 0.5, y - 0.5)
            if found is None:
                axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="0.7", hatch="////", linewidth=0))
                text = _status(row)
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axes.text(
                    x, y, shorten(text, room, SIZE), ha="center", va="center", fontsize=SIZE, color=GREY, bbox=box
                )
                continue
            colour = colours(scale(found.mean))
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=1))
            ink = "white" if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < DARK else "black"
            number, _, width = show(found, 3).partition(" ± ")
            spread = f"± {width}" if width else ""
            size = SIZE if text_width(number, SIZE) < room else SIZE * room / text_width(number, SIZE)
            shown = number + (f"\n{spread}" if spread and text_width(spread, 0.8 * size) < room else "")
            axes.text(x, y, shown, ha="center", va="center", fontsize=size, color=ink, linespacing=1.1)
    axes.set(xlim=(-0.5, len(names[1]) - 0.5), ylim=(len(names[0]) - 0.5, -0.5))
    longest = max(text_width(name, SIZE) for name in names[1])
    turned = {"rotation": 90} if longest > room else {}
    axes.set_xticks(range(len(names[1])), [shorten(n, LONGEST_LABEL, SIZE) for n in names[1]], fontsize=SIZE, **turned)
    axes.set_yticks(range(len(names[0])), [shorten(n, LONGEST_LABEL, SIZE) for n in names[0]], fontsize=SIZE)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _status(row: Row | None) -> str:
    """Returns the status of the trials of a cell without a number."""
    if row is None:
        return "no trial"
    return ", ".join(dict.fromkeys(status for status in row.statuses if status != "ok")) or "not measured"
