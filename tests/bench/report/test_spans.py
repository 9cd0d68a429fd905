"""Axes of figures: seeds and intervals lie within, or arrows say so, and no axis is finer than the measurement."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from plot_data import four, record, results_of, spread, sweep_of
from synthetic import images_of

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.leaderboard.leaderboard import Cell
from bench.leaderboard.noise_floor import memory_span, score_span
from bench.report import plots
from bench.report.plots import spans, style
from bench.report.plots.axis_curves import axis_curves
from bench.report.plots.placement import placement

MIB = 2**-10  # GiB


def cell(mean, half=0.0):
    """A cell whose interval reaches ``half`` to either side."""
    made = Cell(mean, 1.0, 2)
    return Cell(mean, half / made.half_width, 2)


def test_intervals_widen_an_axis_until_they_ask_for_twice_its_length():
    low, high = spans.limits([cell(1.0, 0.4), cell(2.0, 0.4)])
    assert low < 0.6 and high > 2.4 and not spans.is_cut([cell(1.0, 0.4), cell(2.0, 0.4)], (low, high))
    long = [cell(1.0, 1.5), cell(2.0, 0.1)]
    low, high = spans.limits(long)
    assert 0.8 < low < 1.0 and 2.0 < high < 2.2 and spans.is_cut(long, (low, high))
    low, high = spans.limits([cell(1.0), cell(2.0)], seeds=[0.2, 2.9])
    assert low < 0.2 and high > 2.9


def test_an_axis_is_as_long_as_what_can_be_resolved():
    low, high = spans.limits([cell(5.0), cell(5.01)], least=1.0)
    assert low < 4.505 and high > 5.505
    assert spans.limits([cell(0.1), cell(0.1)], least=1.0) == (0.0, 1.0)  # a quantity that is never negative


def test_resident_memory_never_has_a_fine_axis_and_exact_memory_may(tiny):
    for measure, least in (("rss_bytes", 40 * MIB), ("torch_allocated_bytes", 0.1 * MIB)):
        results = four(tiny, [[0.7, 0.7], [0.8, 0.8]], [[0.170, 0.170], [0.172, 0.172]], seeds=(0, 1))
        records = [record(t, 0.7 + i / 100, 0.17 + i / 2000, measure) for i, t in enumerate(results.trials)]
        results = results_of(results.sweep, records)
        board = results.board()
        left, right = plots.memory_accuracy(board, board.tables[0], None, results.records).axes[0].get_xlim()
        assert right - left >= least and (right - left < 20 * MIB) == (measure != "rss_bytes")
        assert memory_span(board.tables[0]) >= least * 2**30 * 0.99 or measure != "rss_bytes"


def test_the_axis_of_scores_is_as_long_as_the_smallest_resolved_difference(tiny):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2, "4": 4}), seeds=(0, 1, 2))
    trials = expand(sweep)
    rng = np.random.default_rng(0)
    levels = 0.7 + rng.normal(0, 0.03, len(trials))
    images = images_of(trials, levels)
    same = [record(t, 0.7, 1.0) for t in trials]  # the means alone would give an axis without any length
    results = results_of(sweep, same, images)
    board = results.board()
    least = score_span(board.tables[0])
    assert least > 0.02
    for axes in (
        plots.memory_accuracy(board, board.tables[0]).axes[0],
        axis_curves(results, board, board.tables[0], 0).axes[0],
    ):
        low, high = axes.get_ylim()
        assert high - low >= least
    untested = results_of(sweep, same).board()
    assert score_span(untested.tables[0]) == 0.01


def dots(axes):
    """Places and colours of single seeds in a panel: of lines of dots, or of a collection of small ones."""
    found = []
    for line in axes.lines:
        if line.get_marker() == ".":
            found += [(x, y, to_hex(line.get_color())) for x, y in zip(line.get_xdata(), line.get_ydata())]
    for collection in axes.collections:
        if isinstance(collection, PathCollection) and collection.get_sizes().tolist() == [9]:
            colours = [to_hex(colour) for colour in collection.get_facecolors()]
            found += [(x, y, colour) for (x, y), colour in zip(collection.get_offsets(), colours)]
    return found


def test_every_seed_is_a_dot_in_the_colour_of_its_row(tiny):
    accuracies = [[0.70, 0.72, 0.71], [0.74, 0.75, 0.76]]
    memories = [[1.0, 1.1, 1.2], [2.0, 2.1, 2.2]]
    results = four(tiny, accuracies, memories)
    board = results.board()
    axes = plots.memory_accuracy(board, board.tables[0], None, results.records).axes[0]
    colours = [style.COLOURS[row] for row in (0, 0, 0, 1, 1, 1)]
    values = [(m, a) for row in zip(memories, accuracies) for m, a in zip(*row)]
    assert [(round(x, 6), round(y, 6), c.upper()) for x, y, c in dots(axes)] == [
        (*v, c) for v, c in zip(values, colours)
    ]
    accuracy, memory, speed = axis_curves(results, board, board.tables[0], 0).axes
    assert [y for _, y, _ in dots(accuracy)] == [a for row in accuracies for a in row]
    assert [y for _, y, _ in dots(memory)] == pytest.approx([m for row in memories for m in row], rel=1e-6)
    assert len(dots(speed)) == 6
    sweep = sweep_of(tiny, Axis.over("model.adapter.placement", {"none": "none", "all": "all"}), seeds=(0, 1, 2))
    trials = expand(sweep)
    results = results_of(sweep, [record(t, s, 1.0) for t, s in zip(trials, [*accuracies[0], *accuracies[1]])])
    board = results.board()
    panel = placement(results, board, board.tables[0]).axes[1]
    assert [x for x, _, _ in dots(panel)] == [a for row in accuracies for a in row]


@pytest.mark.parametrize("scores, cut", [([[0.70, 0.74], [0.80, 0.80]], True), ([[0.70, 0.701], [0.80, 0.801]], False)])
def test_an_interval_that_leaves_the_frame_ends_in_an_arrow_and_the_small_print_says_so(tiny, scores, cut):
    for sweep in (
        sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2})),
        sweep_of(tiny, Axis.over("model.adapter.placement", {"none": "none", "all": "all"})),
    ):
        records = [record(t, s, 1.0) for t, s in zip(expand(sweep), [score for row in scores for score in row])]
        results = results_of(sweep, records)
        figures = plots.figures(results, results.board())
        for name, figure in figures.items():
            if name in ("training_curves",):
                continue
            arrows = [c for axes in figure.axes for c in axes.collections if c.get_gid() == "cut"]
            said = any("arrows: the interval goes on" in text.get_text() for text in figure.texts)
            assert bool(arrows) == said
            if name in ("memory_accuracy", "placement"):
                assert said == cut
            for arrow in arrows:
                axes = arrow.axes
                (left, right), (low, high) = axes.get_xlim(), sorted(axes.get_ylim())
                assert all(x in (left, right) or y in (low, high) for x, y in arrow.get_offsets())


def test_the_answer_stands_in_the_title_of_every_figure(tiny):
    sweep = sweep_of(tiny, Axis.over("model.adapter.placement", {"none": "none", "all": "all"}), seeds=(0, 1, 2))
    trials = expand(sweep)
    results = results_of(sweep, spread(trials), images_of(trials, [0.6, 0.61, 0.6, 0.8, 0.81, 0.8]))
    board = results.board()
    answer = board.tables[0].answer
    assert answer.claim and answer.text.startswith(answer.claim) and "The error" not in answer.claim
    for figure in plots.figures(results, board).values():
        lines = [text.get_text() for text in figure.texts]
        assert answer.claim in " ".join(lines)
