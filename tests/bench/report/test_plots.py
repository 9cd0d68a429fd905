"""Figures: nothing overlaps or leaves the page, greys differ, and what is drawn is what was measured."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from plot_data import assert_readable, four, record, results_of, spread, sweep_of, write_samples, write_series

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.report import plots
from bench.report.plots import predictions, style
from bench.report.plots.axis_curves import axis_curves
from bench.report.plots.heat_map import heat_map
from bench.report.plots.placement import placement


LONG = "an uncommonly long name with a $ and a % in it, number"


def crowd(tiny, count, words=LONG):
    axis = Axis.over("model.adapter.rank", {f"{words} {r}": r for r in range(1, count + 1)})
    return sweep_of(tiny, axis, question="Does anything overlap " + "when a question goes on and on " * 5 + "?")


@pytest.mark.parametrize("count", [2, 12, 30])
@pytest.mark.parametrize("words", [LONG, "x"])
def test_nothing_overlaps_or_leaves_the_figure(tiny, tmp_path, count, words):
    sweep = crowd(tiny, count, words)
    results = results_of(sweep, spread(expand(sweep), "nvml_device_bytes"), folder=tmp_path)
    for trial in results.trials:
        write_series(tmp_path, trial.trial_id)
        write_samples(tmp_path, trial.trial_id)
    figures = plots.figures(results, results.board())
    expected = {"memory_accuracy", "axis_adapter_rank", "training_curves", "memory_series", "samples"}
    assert set(figures) == expected | {"sample_comparison"}
    for figure in figures.values():
        assert_readable(figure)


def test_two_axes_of_many_values_can_be_read(tiny):
    axes = (
        Axis.over("model.adapter.rank", {str(2**k): 2**k for k in range(6)}),
        Axis.over("model.decoder.width", {f"a decoder that is {8 * k} wide": 8 * k for k in range(1, 6)}),
    )
    sweep = sweep_of(tiny, *axes)
    results = results_of(sweep, spread(expand(sweep)))
    figures = plots.figures(results, results.board())
    assert {"heat_map", "axis_adapter_rank", "axis_decoder_width"} <= set(figures)
    for figure in figures.values():
        assert_readable(figure)


@pytest.mark.parametrize("measure, expected", [("nvml_device_bytes", ["6 GB card", "8 GB card"]), ("rss_bytes", [])])
def test_card_sizes_are_lines_only_where_the_memory_is_a_cards(tiny, measure, expected):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2, "4": 4}))
    results = results_of(sweep, spread(expand(sweep), measure, 4.0, 10.0))
    figure = plots.memory_accuracy(results.board(), results.board().tables[0])
    assert [t.get_text() for t in figure.axes[0].texts if "card" in t.get_text()] == expected


def test_bars_are_students_intervals(tiny):
    results = four(tiny, [[0.70, 0.72, 0.71], [0.74, 0.75, 0.76]], [[1.0, 1.1, 1.2], [2.0, 2.1, 2.2]])
    axes = plots.memory_accuracy(results.board(), results.board().tables[0]).axes[0]
    segments = [path.vertices for c in axes.collections for path in c.get_paths() if len(path.vertices) == 2]
    half = 4.302653 * 0.01 / 3**0.5
    vertical = sorted((s for s in segments if s[0, 0] == s[1, 0]), key=lambda s: s[0, 0])
    assert vertical[0][:, 1] == pytest.approx([0.71 - half, 0.71 + half], rel=1e-5)


def test_an_axis_of_powers_of_two_is_drawn_to_log_scale_and_names_are_not(tiny):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"small": 1, "middle": 4, "large": 16}))
    results = results_of(sweep, spread(expand(sweep)))
    board = results.board()
    first = axis_curves(results, board, board.tables[0], 0).axes
    assert [axes.get_xscale() for axes in first] == ["log"] * 3
    assert list(first[0].lines[0].get_xdata()) == [1, 4, 16]
    assert [t.get_text() for t in first[0].get_xticklabels()] == ["small", "middle", "large"]
    names = sweep_of(tiny, Axis.over("model.adapter.placement", {"none": "none", "all": "all"}))
    results = results_of(names, spread(expand(names)))
    board = results.board()
    axes = axis_curves(results, board, board.tables[0], 0).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["none", "all"]


def test_curves_show_the_means(tiny):
    results = four(tiny, [[0.70, 0.72, 0.71], [0.74, 0.75, 0.76]], [[1.0, 1.1, 1.2], [2.0, 2.1, 2.2]])
    board = results.board()
    accuracy, memory, speed = axis_curves(results, board, board.tables[0], 0).axes
    assert accuracy.lines[0].get_ydata() == pytest.approx([0.71, 0.75])
    assert memory.lines[0].get_ydata() == pytest.approx([1.1, 2.1], rel=1e-6)
    assert speed.lines[0].get_ydata() == pytest.approx([45.5, 47.5])


def test_cells_without_a_number_say_why(tiny):
    axes = (Axis.over("model.adapter.rank", {"1": 1, "2": 2}), Axis.over("model.decoder.width", {"8": 8, "16": 16}))
    sweep = sweep_of(tiny, *axes, seeds=(0,))
    trials = expand(sweep)
    results = results_of(sweep, [record(trials[0], 0.5, 1.0), record(trials[1], 0, 1, status="oom")])
    board = results.board()
    panel = heat_map(board, board.tables[0]).axes[0]
    assert sorted(t.get_text() for t in panel.texts) == ["0.500", "oom", "pending", "pending"]
    assert sum(p.get_hatch() is not None for p in panel.patches) == 3


def test_placement_is_drawn_where_adapters_stand(tiny):
    axes = (Axis.over("model.adapter.placement", {"none": "none", "last:2": "last:2", "[0]": [0]}),)
    sweep = sweep_of(tiny, *axes)
    results = results_of(sweep, spread(expand(sweep)))
    board = results.board()
    panel = placement(results, board, board.tables[0]).axes[0]
    filled = {
        (int(p.get_x()), round(p.get_y() + 0.4))
        for p in panel.patches
        if to_rgb(p.get_facecolor()) == to_rgb(style.BLUE)
    }
    assert filled == {(6, 1), (7, 1), (0, 2)}  # of the tiny encoder's 8 blocks


def test_only_sweeps_that_vary_placement_get_its_figure(tiny):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2}))
    results = results_of(sweep, spread(expand(sweep)))
    assert "placement" not in plots.figures(results, results.board())


def test_nothing_measured_is_no_figure(tiny):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2}))
    assert plots.figures(results_of(sweep, []), results_of(sweep, []).board()) == {}
    failed = results_of(sweep, [record(t, 0, 0, status="oom") for t in expand(sweep)])
    assert plots.figures(failed, failed.board()) == {}


def test_each_environment_has_its_own_figures_and_says_so(tiny):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2, "4": 4, "8": 8}))
    trials = expand(sweep)
    records = spread(trials[:4]) + [record(t, 0.5, 1.0, device="cpu", platform="Mac") for t in trials[4:]]
    results = results_of(sweep, records)
    figures = plots.figures(results, results.board())
    assert "memory_accuracy" in figures and "memory_accuracy_environment_2" in figures
    for figure in figures.values():
        assert any("not comparable with the others" in text.get_text() for text in figure.texts)


def test_embedded_runs_are_labelled_in_every_figure(tiny, tiny_with, tmp_path):
    sweep = sweep_of(tiny, Axis.over("model.adapter.placement", {"none": "none", "all": "all"}))
    results = results_of(sweep, spread(expand(sweep)), folder=tmp_path)
    write_samples(tmp_path, results.trials[0].trial_id)
    write_series(tmp_path, results.trials[0].trial_id)
    figures = plots.figures(results, results.board())
    assert {"placement", "samples", "memory_series"} <= set(figures)
    for figure in figures.values():
        red = [t.get_text() for t in figure.texts if t.get_color() == style.WARNING]
        assert any(text.startswith("EMBEDDED RUN (encoder sam3_vit_tiny") for text in red)
    real = tiny_with(
        {"model": {"name": "unet", "width": 4}, "dataset": {"name": "folder", "images": "i", "masks": "m"}}
    )
    plain = sweep_of(real, Axis.over("model.width", {"4": 4, "8": 8}))
    results = results_of(plain, spread(expand(plain)))
    texts = [t.get_text() for f in plots.figures(results, results.board()).values() for t in f.texts]
    assert texts and not any("EMBEDDED" in text for text in texts)


def test_samples_are_those_of_the_best_row_and_rows_are_compared_on_the_same_images(tiny, tmp_path):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2}), seeds=(0,))
    trials = expand(sweep)
    results = results_of(sweep, [record(t, s, 1.0) for t, s in zip(trials, (0.5, 0.6))], folder=tmp_path)
    for trial in trials:
        write_samples(tmp_path, trial.trial_id)
    figures = plots.figures(results, results.board())
    assert any("rank 2, seed 0" in text.get_text() for text in figures["samples"].texts)
    shown = [image for axes in figures["sample_comparison"].axes for image in axes.images]
    assert len(shown) == 4 * 2  # image, mask and two rows, of the two images that are shared


@pytest.mark.parametrize("count", [2, 3])
def test_rows_that_samples_leave_out_are_counted(tiny, tmp_path, monkeypatch, count):
    monkeypatch.setattr(predictions, "MOST_ROWS", 2)
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {str(r): r for r in range(1, count + 1)}), seeds=(0,))
    trials = expand(sweep)
    results = results_of(sweep, [record(t, 0.5, 1.0) for t in trials], folder=tmp_path)
    for trial in trials:
        write_samples(tmp_path, trial.trial_id)
    board = results.board()
    figure = predictions.sample_comparison(results, board, board.tables[0])
    said = " ".join(text.get_text() for text in figure.texts)
    assert ("the first 2 of 3 rows" in said) == (count == 3) and ("the first 2 of" in said) == (count == 3)


def test_the_series_ends_where_the_record_has_its_peak(tiny, tmp_path):
    sweep = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2}), seeds=(0,))
    results = results_of(sweep, [record(t, 0.5, 1.0) for t in expand(sweep)], folder=tmp_path)
    write_series(tmp_path, results.trials[0].trial_id)
    figure = plots.trial_memory(results, results.board(), results.trials[0].trial_id)
    training, evaluation = figure.axes[0].lines
    assert list(training.get_xdata()) == [0, 1, 2] and list(training.get_ydata()) == [0, 1, 1]
    assert list(evaluation.get_xdata()) == [2, 2.5] and list(evaluation.get_ydata()) == [0, 0.5]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_results_are_the_same_files(tiny, tmp_path, kind):
    sweep = sweep_of(tiny, Axis.over("model.adapter.placement", {"none": "none", "all": "all"}))
    contents = []
    for _ in range(2):
        results = results_of(sweep, spread(expand(sweep)))
        for name, figure in plots.figures(results, results.board()).items():
            plots.save(figure, tmp_path / f"{name}.{kind}")
        contents.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert contents[0] == contents[1] and len(contents[0]) == 4


def test_curves_differ_without_their_colour():
    looks = [style.line_look(i) for i in range(40)]
    assert len({(look["marker"], look["linestyle"]) for look in looks}) == 40
    for a, b in zip(looks, looks[1:]):
        assert a["marker"] != b["marker"] and a["linestyle"] != b["linestyle"] and a["color"] != b["color"]


def test_shades_of_the_front_are_told_apart_in_grey():
    from bench.report.plots.pareto import SHADES

    greys = [float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))) for _, colour, _ in SHADES] + [1.0]
    assert all(b - a > 0.15 for a, b in zip(greys, greys[1:]))


@pytest.mark.parametrize("count", [3, 30])
def test_names_that_find_no_room_in_the_figure_are_numbers_with_a_key(tiny, count):
    names = {f"a rather long name, number {r}": r for r in range(1, count + 1)}
    many = sweep_of(tiny, Axis.over("model.adapter.rank", names), seeds=(0,))
    trials = expand(many)
    board = results_of(many, [record(t, 0.5 + i / 100, 1 + i / 10) for i, t in enumerate(trials)]).board()
    figure = plots.memory_accuracy(board, board.tables[0])
    beside = {text.get_text() for text in figure.axes[0].texts}
    if count == 3:
        assert set(names) <= beside and len(figure.legends) == 1
    else:
        assert {str(number) for number in range(1, 31)} <= beside and not set(names) & beside
        key = [line for text in figure.texts if text.get_gid() == "key" for line in text.get_text().splitlines()]
        assert key == [f"{number}  {name}" for number, name in enumerate(names, start=1)]
