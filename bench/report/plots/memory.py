"""Figures of predicted memory, for ``bench.plan`` and ``bench.tools.compare_memory``."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bench.config.trial import TrialConfig
from bench.memory.predicted_peak import PredictedPeak
from bench.memory.step_memory import PARTS
from bench.records.memory import GIB
from bench.report.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    YELLOW,
    house_style,
    shorten,
    wrap,
)
from models.core.size import in_words

PART_LOOKS = dict(
    zip(
        PARTS,
        (
            {"color": BLUE},
            {"color": SKY, "hatch": "////"},
            {"color": YELLOW},
            {"color": VERMILLION, "hatch": "...."},
            {"color": PURPLE, "hatch": "\\\\\\\\"},
            {"color": ORANGE, "hatch": "xxxx"},
        ),
        strict=True,
    )
)
LONGEST_LABEL = 2.4  # inches


def memory_plan(question: str, rows: Sequence[tuple[tuple[str, ...], PredictedPeak]], cards: Sequence[int]) -> Figure:
    """Draws the predicted peak of each point of a sweep as a bar, stacked by part, with the sizes of cards as lines."""
    with house_style():
        figure = Figure(figsize=(WIDTH, 1.6 + 0.34 * len(rows)), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        left = [0.0] * len(rows)
        for part, look in PART_LOOKS.items():
            widths = [prediction.parts[part] / GIB for _, prediction in rows]
            edge = {"edgecolor": "black", "linewidth": 0.4}
            axes.barh(range(len(rows)), widths, left=left, height=0.62, label=part, **look, **edge)
            left = [a + b for a, b in zip(left, widths)]
        totals = [prediction.device / GIB for _, prediction in rows]
        axes.plot(totals, range(len(rows)), "k|", markersize=9, label="nvidia-smi")
        for card in cards:
            if card <= 1.1 * max(totals):
                axes.axvline(card, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
                place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"{card} GB", (card, 1), (0, 2), fontsize=7, color=GREY, va="bottom", **place)
        names = [shorten(", ".join(labels), LONGEST_LABEL, 8) for labels, _ in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("PREDICTED peak allocated in training [GiB]")
        figure.suptitle("\n".join(wrap(question, WIDTH - 0.2, 10)), x=0.01, ha="left", fontsize=10)
        axes.grid(axis="y", visible=False)
        look = {"columnspacing": 1, "handlelength": 1.4, "handletextpad": 0.5}
        figure.legend(fontsize=7, ncols=len(PARTS) + 1, loc="outside lower center", **look)
    return figure


def memory_curves(curves: Mapping[str, Sequence[tuple[str, PredictedPeak]]], base: TrialConfig) -> Figure:
    """Draws predicted memory by one field at a time, the others as in ``base``: one panel for each field."""
    with house_style():
        figure = Figure(figsize=(2.4 * len(curves), 2.8), dpi=160, layout="constrained")
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for axes, (path, points) in zip(panels, curves.items()):
            for name, marker, colour in (("device", "s", BLUE), ("allocated", "o", VERMILLION)):
                heights = [getattr(prediction, name) / GIB for _, prediction in points]
                label = {"device": "nvidia-smi", "allocated": "allocated"}[name]
                axes.plot(range(len(points)), heights, marker=marker, color=colour, markersize=4, label=label)
            axes.set_xticks(range(len(points)), [label for label, _ in points], rotation=45)
            axes.set_xlabel(path.removeprefix("model."))
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("PREDICTED peak in training [GiB]")
        panels[0].legend(fontsize=7)
        setting = f"{in_words(base.transform.size)} px, batch {base.train.batch_size}, {base.train.precision}"
        figure.suptitle(setting, fontsize=9)
    return figure


def memory_comparison(pairs: Sequence[tuple[int, int]], where: str, goal: float) -> Figure:
    """Draws predicted against measured peaks.

    pairs: predicted and measured bytes; where: the device; goal: relative error of the band around equality.
    """
    with house_style():
        figure = Figure(figsize=(4.4, 4.2), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        top = 1.08 * max((value for pair in pairs for value in pair), default=GIB) / GIB
        axes.fill_between((0, top), (0, top * (1 - goal)), (0, top * (1 + goal)), color="0.9", label=f"± {goal:.0%}")
        axes.plot((0, top), (0, top), color="0.6", linewidth=0.8)
        measured, predicted = [m / GIB for _, m in pairs], [p / GIB for p, _ in pairs]
        axes.plot(measured, predicted, "o", color=BLUE, markersize=4, label="one configuration")
        axes.set(
            xlim=(0, top), ylim=(0, top), xlabel=f"measured peak allocated [GiB], {where}", ylabel="predicted [GiB]"
        )
        axes.legend(fontsize=8)
    return figure
