"""Training and validation curves of all trials."""

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.leaderboard.leaderboard import Leaderboard, Table
from bench.leaderboard.results import Results
from bench.leaderboard.rows import records_of
from bench.records.record import CurvePoint
from bench.report.plots.style import (
    MOST_CURVES,
    canvas,
    fields,
    house_style,
    legend_height,
    line_look,
    row_name,
    shorten,
    text_width,
)

LONGEST_NAME = 2.2  # inches


def training_curves(results: Results, board: Leaderboard, table: Table) -> Figure | None:
    """Draws the loss by epoch on the training and the validation split: thin lines are seeds, thick ones their mean.

    Of more than ``MOST_CURVES`` rows the first ones are drawn, and the small print gives both numbers. ``None`` if no
    trial was trained for two epochs.
    """
    curves = []
    for row in table.rows:
        of_seeds = [record.curve for record in records_of(row, results.records) if len(record.curve) > 1]
        if of_seeds:
            curves.append((row_name(row, board), of_seeds))
    if not curves:
        return None
    count, curves = len(curves), curves[:MOST_CURVES]
    with_val = any(point.val_loss is not None for _, of_seeds in curves for curve in of_seeds for point in curve)
    kinds = ["train_loss", "val_loss"] if with_val else ["train_loss"]
    with house_style():
        columns = _columns([name for name, _ in curves])
        lines = math.ceil(len(curves) / columns)
        note = "thin: one seed; thick: mean over the seeds"
        if len(curves) < count:
            note += f"; the first {len(curves)} of {count} rows"
        title = f"Loss by epoch. Names: {', '.join(fields(board))}"
        place = canvas(board, table, 2.7, title=title, note=note, below=legend_height(lines, 7))
        panels = place.figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(panels, kinds):
            for number, (_, of_seeds) in enumerate(curves):
                look = line_look(number)
                points = [_points(curve, kind) for curve in of_seeds]
                if len(points) > 1:
                    thin = [sorted(line.items()) for line in points if line]
                    axes.add_collection(LineCollection(thin, linewidths=0.5, colors=look["color"], alpha=0.55))
                mean = _mean(points)
                if mean:
                    axes.plot(*zip(*mean), markersize=4, markerfacecolor="white", markevery=[len(mean) - 1], **look)
            axes.set_title({"train_loss": "training", "val_loss": "validation"}[kind], loc="left", fontsize=8)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        panels[0].set_ylabel("loss")
        handles = [
            Line2D(
                [], [], markersize=4, markerfacecolor="white", label=shorten(name, LONGEST_NAME, 7), **line_look(number)
            )
            for number, (name, _) in enumerate(curves)
        ]
        look = {"ncols": columns, "handlelength": 2.4, "columnspacing": 1.2, "labelspacing": 0.3}
        place.legend(handles, fontsize=7, **look)
    return place.figure


def _columns(names: Sequence[str]) -> int:
    longest = min(LONGEST_NAME, max(text_width(name, 7) for name in names))
    return max(1, min(len(names), int(6.9 / (longest + 0.45))))


def _points(curve: Sequence[CurvePoint], kind: str) -> dict[int, float]:
    values = {point.epoch: getattr(point, kind) for point in curve}
    return {epoch: value for epoch, value in values.items() if value is not None and math.isfinite(value)}


def _mean(curves: Sequence[dict[int, float]]) -> list[tuple[int, float]]:
    """Returns the mean of the curves over the epochs that all of them have."""
    common = set.intersection(*map(set, curves))
    return [(epoch, fmean(curve[epoch] for curve in curves)) for epoch in sorted(common)]
