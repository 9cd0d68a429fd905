"""Memory against accuracy: all rows with intervals, the Pareto front and its probability, and sizes of cards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.leaderboard.front import front_shares
from bench.leaderboard.leaderboard import Leaderboard, Row, Table
from bench.leaderboard.noise_floor import memory_span, score_span
from bench.leaderboard.rows import records_of
from bench.memory.cards import CARDS
from bench.records.memory import GIB
from bench.records.record import TrialRecord
from bench.report.plots.labels import REACHES, label, pieces, pieces_of_intervals, pieces_of_steps
from bench.report.plots.spans import Span, is_cut, limits, mark_cuts, spread_in_words
from bench.report.plots.style import (
    BLACK,
    COLOURS,
    GREY,
    ORANGE,
    Canvas,
    accuracy,
    accuracy_label,
    canvas,
    fields,
    house_style,
    lay_out,
    legend_height,
    memory_in_gib,
    memory_label,
    peak_in_gib,
    row_name,
    shorten,
    text_width,
)
from bench.scoring.metrics import METRICS

HEIGHT = 3.7
CROWDED = 160  # characters in all names together, beyond which names become numbers
KEY_WIDTH = 2.6  # largest width of the key, in inches
PER_COLUMN = 50  # names in the key
AVOIDED = 40  # most rows whose intervals and seeds the names avoid
PUBLISHED_SHOWN = 4
SHADES = ((0.95, "#1A1A1A", "at least 95 %"), (0.5, "#757575", "50 to 95 %"), (0.05, "#C4C4C4", "5 to 50 %"))
"""Smallest share, colour and meaning of each fill of a marker; a marker with a smaller share is white."""


@dataclass(frozen=True)
class Seeds:
    """The trials of one row, each with both quantities."""

    memory: tuple[float, ...]  # GiB
    scores: tuple[float, ...]


def memory_accuracy(
    board: Leaderboard,
    table: Table,
    images: Mapping[str, Mapping[str, Sequence]] | None = None,
    records: Mapping[str, TrialRecord] | None = None,
) -> Figure | None:
    """Draws peak training memory against accuracy by the main metric, with 95 % intervals and the Pareto front.

    images: per-image scores by trial id, for the share of draws in which a row is on the front; records: records by
    trial id, for the dots of single seeds. If there is no room for names beside the points, numbers with a key replace
    them. ``None`` if no row has both accuracy and memory.
    """
    rows = [row for row in table.rows if memory_in_gib(row, table) and accuracy(row, table)]
    if not rows:
        return None
    shares = front_shares(table, rows, images or {})
    seeds = [_seeds(row, table, records or {}) for row in rows]
    names = [row_name(row, board) for row in rows]
    if sum(map(len, names)) <= CROWDED:
        figure = _drawn(board, table, rows, seeds, shares, names, numbered=False)
        if figure is not None:
            return figure
    return _drawn(board, table, rows, seeds, shares, names, numbered=True)


def _seeds(row: Row, table: Table, records: Mapping[str, TrialRecord]) -> Seeds:
    memory, scores = [], []
    for record in records_of(row, records):
        peak = peak_in_gib(record, table)
        score = (record.scores or {}).get(table.main_metric)
        if peak is not None and score is not None:
            memory.append(peak)
            scores.append(score)
    return Seeds(tuple(memory), tuple(scores))


def _drawn(
    board: Leaderboard,
    table: Table,
    rows: Sequence[Row],
    seeds: Sequence[Seeds],
    shares: Sequence[float] | None,
    names: Sequence[str],
    numbered: bool,
) -> Figure | None:
    """Returns the figure; ``None`` if there is no room for the names."""
    with house_style():
        columns = math.ceil(len(names) / PER_COLUMN)
        size = 7 if len(names) <= 20 else 6
        key = _key_lines(names, KEY_WIDTH / columns, size) if numbered else []
        widest = columns * (max((text_width(line, size) for line in key), default=0) + 0.15)
        tall = 0.125 * math.ceil(len(names) / columns) + 0.2 if numbered else 0
        title = f"{accuracy_label(table)} on the test split against peak memory in training"
        if len(board.axes) > 1:
            title += f". Names: {', '.join(fields(board))}"
        room = {"below": legend_height(1, 7), "right": widest}
        x, y = _spans(rows, seeds, table)
        cut = is_cut([memory_in_gib(row, table) for row in rows], x) or is_cut([accuracy(r, table) for r in rows], y)
        place = canvas(board, table, max(HEIGHT, tall), title=title, note=_note(board, shares, cut), **room)
        figure = place.figure
        axes = figure.add_subplot()
        axes.set(xlabel=memory_label(table), ylabel=f"{accuracy_label(table)} on the test split")
        axes.set_xlim(x)
        axes.set_ylim(_with_published(y, board, table))
        if numbered:
            place.key(key, columns, widest / columns, size)
        ink = _points(axes, rows, seeds, table, shares)
        _legend(place, rows, shares)
        _published(axes, board, table)
        lay_out(figure)  # names are placed by it
        lines, texts = _cards(axes, table)
        shown = [str(number) for number in range(1, len(rows) + 1)] if numbered else names
        look = {"size": 7, "reach": len(REACHES)} if numbered else {"size": 8, "reach": 6}
        placed = label(axes, shown, ink + lines, texts=texts, **look)
    return figure if placed or numbered else None


def _spans(rows: Sequence[Row], seeds: Sequence[Seeds], table: Table) -> tuple[Span, Span]:
    """Returns the ends of the axes of memory and of accuracy."""
    memory = [value for one in seeds for value in one.memory]
    scores = [value for one in seeds for value in one.scores]
    return (
        limits([memory_in_gib(row, table) for row in rows], memory, memory_span(table) / GIB),
        limits([accuracy(row, table) for row in rows], scores, score_span(table)),
    )


def _note(board: Leaderboard, shares: Sequence[float] | None, cut: bool) -> str:
    if shares is None:
        sure = "how sure the front is cannot be said before every row has two seeds"
    else:
        sure = (
            "fill: share of 2,000 draws from what seeds and images leave open in which no other row is at least as "
            "accurate with at most the same memory"
        )
    return f"{spread_in_words(board, 'bars', cut)}; {sure}"


def _points(
    axes: Axes, rows: Sequence[Row], seeds: Sequence[Seeds], table: Table, shares: Sequence[float] | None
) -> list[tuple[float, float]]:
    """Draws a marker for each row, round on the front of the means and else square, its intervals and its seeds.

    Returns the places where something is drawn, markers first.
    """
    memory, scores = [memory_in_gib(row, table) for row in rows], [accuracy(row, table) for row in rows]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(rows))]
    places = [(x.mean, y.mean) for x, y in zip(memory, scores)]
    front = sorted(place for place, row in zip(places, rows) if row.on_front)
    axes.step(*zip(*front), where="post", color=GREY, linestyle=(0, (4, 1.5)), linewidth=1.0, zorder=1)
    ink = pieces_of_steps(front)
    faint = 0.75 if len(rows) <= 12 else 0.3
    reach = {"xerr": [cell.half_width or 0 for cell in memory], "yerr": [cell.half_width or 0 for cell in scores]}
    axes.errorbar(*zip(*places), **reach, fmt="none", ecolor=colours, elinewidth=1.1, alpha=faint, zorder=2)
    every = [(x, y, colour) for one, colour in zip(seeds, colours) for x, y in zip(one.memory, one.scores)]
    if every:
        dots = {"s": 9, "linewidths": 0, "alpha": faint, "zorder": 2.5}
        axes.scatter([x for x, _, _ in every], [y for _, y, _ in every], c=[colour for _, _, colour in every], **dots)
    fills = [_fill(row, shares and shares[i], colours[i]) for i, row in enumerate(rows)]
    for on_front, marker, size in ((True, "o", 6.5), (False, "s", 5.5)):
        chosen = [i for i, row in enumerate(rows) if row.on_front == on_front]
        look = {"facecolors": [fills[i] for i in chosen], "edgecolors": [colours[i] for i in chosen]}
        if chosen:
            spots = zip(*(places[i] for i in chosen))
            axes.scatter(*spots, s=size**2, marker=marker, linewidths=1.5, zorder=3, **look)
    mark_cuts(axes, memory, [y for _, y in places], colours, "x")
    mark_cuts(axes, scores, [x for x, _ in places], colours, "y")
    if len(rows) <= AVOIDED:
        ink += pieces_of_intervals(axes, places, *reach.values())
        ink += [(x, y) for x, y, _ in every]
    return places + ink


def _fill(row: Row, share: float | None, colour: str) -> str:
    if share is None:
        return colour if row.on_front else "white"
    return next((colour for least, colour, _ in SHADES if share >= least), "white")


def _legend(place: Canvas, rows: Sequence[Row], shares: Sequence[float] | None) -> None:
    """Adds the legend below the axes, where it covers no point."""
    plain = {"linestyle": "", "markeredgecolor": BLACK, "markeredgewidth": 0.9}
    front = {"color": GREY, "linestyle": (0, (4, 1.5)), "marker": "o", "markeredgecolor": BLACK}
    handles = [Line2D([], [], **front, markerfacecolor="white", label="Pareto front of the means")]
    if not all(row.on_front for row in rows):
        handles.append(Line2D([], [], marker="s", markerfacecolor="white", **plain, label="beaten by another"))
    if shares is not None:
        handles.append(Line2D([], [], linestyle="", label="on the front in:"))
        handles += [Line2D([], [], marker="o", markerfacecolor=c, **plain, label=words) for _, c, words in SHADES]
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", **plain, label="below 5 %"))
    look = {"columnspacing": 1.0, "handletextpad": 0.4, "handlelength": 1.6, "fontsize": 7}
    place.legend(handles, ncols=len(handles), **look)


def _key_lines(names: Sequence[str], width: float, size: float) -> list[str]:
    """Returns the numbered names, each at most ``width`` inches wide."""
    numbers = [f"{number}  " for number in range(1, len(names) + 1)]
    return [number + shorten(name, width - text_width(number, size), size) for number, name in zip(numbers, names)]


def _cards(axes: Axes, table: Table) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Draws sizes of cards as lines if the memory is that of a card; returns the places of the lines and of labels."""
    lines: list[tuple[float, float]] = []
    texts: list[tuple[float, float]] = []
    if table.memory_measure != "nvml_device_bytes":
        return lines, texts
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    for card in CARDS:
        if not left < card < right:
            continue
        axes.axvline(card, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
        text = {"fontsize": 7, "color": GREY, "ha": "right", "va": "top", "rotation": 90}
        axes.annotate(
            f"{card} GB card",
            (card, 1),
            (-2, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            **text,
        )
        lines += pieces((card, low), (card, high))
        beside = card - 7 / 72 * (right - left) / (axes.get_window_extent().width / axes.figure.dpi)
        texts += pieces((beside, high), (beside, high - 0.22 * (high - low)))
    return lines, texts


def _of_papers(board: Leaderboard, table: Table) -> list[tuple[float, str]]:
    """Returns the best published scores by the main metric with the names of the methods, each method once."""
    found: dict[str, float] = {}
    for row in board.beside.published:
        value = row.result.scores.get(table.main_metric)
        if value is not None:
            found[row.result.method] = max(value, found.get(row.result.method, 0.0))
    return sorted(((value, method) for method, value in found.items()), reverse=True)[:PUBLISHED_SHOWN]


def _with_published(span: tuple[float, float], board: Leaderboard, table: Table) -> tuple[float, float]:
    values = [value for value, _ in _of_papers(board, table)]
    if not values:
        return span
    margin = 0.06 * (max(*values, span[1]) - min(*values, span[0]))
    return min(span[0], min(values) - margin), max(span[1], max(values) + margin)


def _published(axes: Axes, board: Leaderboard, table: Table) -> None:
    """Draws published scores as horizontal lines, because papers do not report the memory on this axis."""
    lines = _of_papers(board, table)
    for value, _ in lines:
        axes.axhline(value, color=ORANGE, linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=0)
    if lines:
        words = "; ".join(f"{method} {value:.3f}" for value, method in lines)
        size = 6.5
        text = shorten(f"dotted: published {METRICS[table.main_metric].label}, not measured here: {words}", 6.9, size)
        axes.set_title(text, loc="left", fontsize=size, color=GREY)
