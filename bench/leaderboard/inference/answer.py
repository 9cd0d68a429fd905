"""The answer to a sweep's planned question, as data and in one to three sentences that all outputs share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.config.ask import AskConfig, scale
from bench.config.axes import Axis
from bench.config.row_names import row_name
from bench.leaderboard.inference.questions import compare_all, compare_with, within_margin
from bench.leaderboard.inference.trend import Trend, trend
from bench.leaderboard.inference.two_way import LIMIT, Components, components
from bench.leaderboard.statistics import Comparison

MOST_NAMED = 5
"""Rows that a sentence names; it counts the others."""


@dataclass(frozen=True)
class Answer:
    """What the scores say about the planned question."""

    ask: AskConfig
    metric: str  # label
    sentences: tuple[str, ...]
    error: Components | None = None  # ``None`` where nothing can be tested
    trend: Trend | None = None
    comparisons: tuple[Comparison, ...] = ()  # with the reference, or else of all pairs
    groups: tuple[tuple[int, ...], ...] = ()  # rows within the margin of each other
    ends_equivalent: bool = False  # the trend's whole change over the axis is within the margin

    @property
    def text(self) -> str:
        return " ".join(self.sentences)

    @property
    def claim(self) -> str:
        """The text without its last sentence if that is the assumption about the error."""
        return " ".join(self.sentences[: max(1, len(self.sentences) - 1)])


@dataclass(frozen=True)
class _Question:
    """The planned question, with the scores that answer it."""

    ask: AskConfig
    metric: str  # label
    names: Sequence[str]  # of the rows
    table: np.ndarray  # scores [row, seed, image]
    sign: int  # 1 if higher is better, else -1
    looks: int
    overlap: float | None  # ``None`` unless each seed has images of its own
    error: Components

    def answered(self, sentences: Sequence[str], error: Components | None = None, **data: Any) -> Answer:
        """Returns the answer with these sentences, and the one about its error (by default the question's) as the last.

        data: further fields of ``Answer``.
        """
        error = error or self.error
        assumption = _assumption(error, self.looks)
        if self.overlap is not None:
            assumption += f" {_of_own_images(self.overlap)}"
        return Answer(self.ask, self.metric, (*sentences, assumption), error, **data)


def answer(
    ask: AskConfig,
    axes: Sequence[Axis],
    rows: Sequence[tuple[str, ...]],
    table: np.ndarray,
    metric: str,
    better: str = "higher",
    looks: int = 1,
    overlap: float | None = None,
    pairs: Sequence[Comparison] | None = None,
) -> Answer:
    """Answers the planned question of a sweep.

    rows: labels on each axis; table: scores [row, seed, image] on one metric, NaN for missing trials; better: "higher"
    or "lower"; looks: how often results could end the sweep; overlap: share of images that two seeds have in common,
    for a table of ``means_over_images``, else ``None``; pairs: ``compare_all`` of the table, if it is known.
    """
    names = [_named(labels, axes) for labels in rows]
    error = components(table)
    if error is None:
        return Answer(ask, metric, (_untestable(metric, table),))
    sign = 1 if better == "higher" else -1
    question = _Question(ask, metric, names, table, sign, looks, overlap, error)
    if ask.name == "reference":
        return _of_reference(question, [", ".join(labels) for labels in rows])
    if pairs is None:
        pairs = compare_all(table, looks, overlap or 0.0)
    return _of_trend(question, axes, rows, pairs) if ask.name == "trend" else _of_best(question, pairs)


def nothing_to_compare(ask: AskConfig, metric: str) -> Answer:
    """Returns the answer for a table of a single row."""
    return Answer(ask, metric, (f"There is a single row: its {metric} has nothing to be compared with.",))


def _untestable(metric: str, table: np.ndarray) -> str:
    reason = "no two rows have two seeds in common" if table.shape[2] > 1 else "there is a single image"
    return f"No difference of {metric} can be tested: {reason}."


def _of_trend(
    question: _Question, axes: Sequence[Axis], rows: Sequence[tuple[str, ...]], pairs: Sequence[Comparison]
) -> Answer:
    """Answers by the slope, and by the groups of neighbours on the axis that are equivalent."""
    ask, metric = question.ask, question.metric
    found = scale(axes[0]) if len(axes) == 1 else None
    if found is None:
        return question.answered([f"No trend of {metric} can be tested: it needs one axis whose values are ordered."])
    labels = [row[0] for row in rows]
    places = [found.place(label) for label in labels]
    line = trend(question.table, places, question.looks, question.overlap or 0.0)
    if line is None:
        needed = "three rows that have two seeds in common"
        return question.answered([f"No trend of {metric} can be tested: it needs {needed}."])
    order = sorted(line.rows, key=lambda row: places[row])
    groups = within_margin(pairs, order, ask.margin)
    noun = axes[0].name.rpartition(".")[2].replace("_", " ")
    per = f"per doubling of the {noun}" if found.unit == "doubling" else f"per step on the axis {noun}"
    numbers = f"(95 % interval {line.low:.4f} to {line.high:.4f}, {_p(line.p)})"
    if line.resolved:
        word = "rises" if line.slope > 0 else "falls"
        said = f"{metric} {word} by {_size(line.slope, line.low, line.high, line.p, f' {per}')}"
    else:
        said = f"No trend of {metric} is resolved: it changes by {line.slope:.4f} {per} {numbers}"
    ends_equivalent = max(-line.low, line.high) * (places[order[-1]] - places[order[0]]) < ask.margin
    if ends_equivalent:
        ends = f"{labels[order[0]]} to {labels[order[-1]]}"
        said += f"; from {ends} the line changes by less than {ask.margin:g}, so its ends are equivalent"
    sentences = [f"{said}."]
    if groups:
        plural = noun if noun.endswith("s") else f"{noun}s"
        spans = [f"{plural} {labels[group[0]]} to {labels[group[-1]]}" for group in groups]
        sentences.append(_equivalent(spans, ask.margin))
    data = {"comparisons": tuple(pairs), "groups": tuple(groups), "ends_equivalent": ends_equivalent}
    return question.answered(sentences, line.components, trend=line, **data)


def _of_reference(question: _Question, labels: Sequence[str]) -> Answer:
    """Answers which rows are better and worse than the reference, which are equivalent, and what is open.

    labels: of the rows, as ``ask.reference`` gives them.
    """
    ask, metric, names = question.ask, question.metric, question.names
    if ask.reference not in labels:
        text = f"Nothing is compared with '{ask.reference}': it is not among the rows."
        return Answer(ask, metric, (text,), question.error)
    number = labels.index(ask.reference)
    reference = names[number]
    comparisons = compare_with(question.table, number, question.looks, question.overlap or 0.0)
    claims, close, still_open, untested = [], [], [], []
    for c in comparisons:
        if c.difference is None:
            untested.append(names[c.first])
        elif c.resolved:
            word = "better" if question.sign * c.difference > 0 else "worse"
            claims.append(f"{names[c.first]} is {word} by {_size(c.difference, c.low, c.high, c.p_adjusted)}")
        elif c.within(ask.margin):
            close.append(names[c.first])
        else:
            still_open.append(f"{names[c.first]} ({c.difference:+.4f}, 95 % interval {c.low:.4f} to {c.high:.4f})")
    if claims:
        sentences = [f"Against {reference}, in {metric}: {'; '.join(_some(claims))}."]
    else:
        sentences = [f"No row differs certainly from {reference} in {metric}."]
    rest = []
    if close:
        rest.append(f"within {ask.margin:g} of it: {', '.join(_some(close))}")
    if still_open:
        rest.append(f"not resolved: {', '.join(_some(still_open))}")
    if untested:
        rest.append(f"not tested, for want of two seeds in common: {', '.join(_some(untested))}")
    if rest:
        text = "; ".join(rest)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    groups = tuple((c.first, c.second) for c in comparisons if names[c.first] in close)
    return question.answered(sentences, comparisons=tuple(comparisons), groups=groups)


def _of_best(question: _Question, pairs: Sequence[Comparison]) -> Answer:
    """Answers which row has the best mean, which rows it is better than, and which rows are equivalent."""
    ask, metric, names, table, sign = question.ask, question.metric, question.names, question.table, question.sign
    tested = [c for c in pairs if c.difference is not None]
    if not tested:
        return Answer(ask, metric, (_untestable(metric, table),))
    rows = sorted({row for c in tested for row in (c.first, c.second)})
    means = {row: float(np.nanmean(table[row])) for row in rows}
    order = sorted(rows, key=lambda row: -sign * means[row])
    first = [names[row] for row in order if means[row] == means[order[0]]]
    best = f"the best {metric}, {means[order[0]]:.4f}"
    if len(first) == len(order):
        lead = f"{len(order)} rows have the same {metric}, {means[order[0]]:.4f}: none is the best"
    elif len(first) > 1:
        after = _lead(names, order, tested, sign).partition(" ")[2]
        lead = f"{', '.join(_some(first))} share {best}; {first[0]} {after}"
    else:
        lead = f"{first[0]} has {best}, {_lead(names, order, tested, sign)}"
    left_out = [name for row, name in enumerate(names) if row not in means]
    if left_out:
        listed = ", ".join(_some(left_out))
        lead = f"Among the rows that can be tested, {lead}. Not tested, for want of two seeds in common: {listed}"
    sentences = [f"{lead}."]
    groups = within_margin(pairs, order, ask.margin)
    if groups:
        listed = []
        for group in groups:
            *before, last = _some([names[row] for row in group])
            listed.append(f"{', '.join(before)} and {last}")
        sentences.append(_equivalent(listed, ask.margin))
    return question.answered(sentences, comparisons=tuple(pairs), groups=tuple(groups))


def _lead(names: Sequence[str], order: Sequence[int], comparisons: Sequence[Comparison], sign: int) -> str:
    """Returns the half of a sentence that says which rows the first one in ``order`` is better than."""
    beaten, bounds, others = [], [], 0
    for c in comparisons:
        if order[0] in (c.first, c.second):
            others += 1
            turn = sign if c.first == order[0] else -sign
            if c.resolved and turn * c.difference > 0:
                beaten.append(c.second if c.first == order[0] else c.first)
            else:
                bounds += [turn * c.low, turn * c.high]
    if not bounds:
        return "and is better than " + (f"all {others} other rows" if others > 1 else "the other row")
    if beaten:
        listed = ", ".join(_some([names[row] for row in order if row in beaten]))
        said, rest = f"and is better than {len(beaten)} of {others} other rows ({listed})", "the rest"
    else:
        said, rest = "but is not resolved from any other row", "the others"
    return f"{said}; its lead over {rest} is between {min(bounds):.4f} and {max(bounds):.4f} (95 % interval)"


def _equivalent(groups: Sequence[str], margin: float) -> str:
    """Returns the sentence about groups of rows that are within the margin."""
    if len(groups) == 1:
        return f"{groups[0][0].upper()}{groups[0][1:]} are within {margin:g} of each other."
    return f"Groups within {margin:g} of each other: {'; '.join(_some(groups))}."


def _assumption(error: Components, looks: int) -> str:
    """Returns the sentence about the error on which the answer rests."""
    if error.median > 0:
        ratio = f"the largest deviation over seeds is {error.largest / error.median:.1f} times the median"
    else:
        ratio = f"the largest deviation over seeds is {error.largest:.4f}, the median is 0"
    if error.rows < 3:
        text = "The error is that of these two rows alone"
    elif error.pooled:
        text = (
            f"The error is pooled over rows, which assumes that all vary alike over seeds: {ratio} (allowed: {LIMIT:g})"
        )
    else:
        text = f"The error is not pooled, since some rows vary more than others: {ratio} (allowed: {LIMIT:g})"
    if looks > 1:
        text += f"; p is corrected for {looks} looks at the results"
    return f"{text}."


def _of_own_images(overlap: float) -> str:
    """Returns the sentence about a split that is drawn anew with each seed."""
    text = "Each seed has test images of its own, so the error is that over seeds alone"
    if overlap > 0:
        text += f"; as two seeds share {overlap:.0%} of their images, it is enlarged (Nadeau and Bengio 2003)"
    return f"{text}."


def _size(value: float, low: float, high: float, p: float, unit: str = "") -> str:
    """Returns size, interval and p of a resolved difference, whichever its direction."""
    if value < 0:
        value, low, high = -value, -high, -low
    return f"{value:.4f}{unit} (95 % interval {low:.4f} to {high:.4f}, {_p(p)})"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _named(labels: Sequence[str], axes: Sequence[Axis]) -> str:
    """Returns a row's name, in quotes where its labels have several words."""
    name = row_name(labels, [axis.name for axis in axes])
    return f"'{name}'" if " " in ", ".join(labels) else name


def _some(texts: Sequence[str]) -> list[str]:
    """Returns the first texts and the number of the others."""
    shown = list(texts[:MOST_NAMED])
    if len(texts) > MOST_NAMED:
        shown.append(f"{len(texts) - MOST_NAMED} more")
    return shown
