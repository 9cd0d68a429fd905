"""The figure of speed and energy against memory."""

from plot_data import assert_readable, results_of, spread, sweep_of

from bench.config.axes import Axis
from bench.config.expand import expand
from bench.records.energy import Energy
from bench.report import plots


def test_speed_against_memory_is_drawn_for_sweeps_that_trade_one_for_the_other(tiny):
    ranks = sweep_of(tiny, Axis.over("model.adapter.rank", {"1": 1, "2": 2}))
    results = results_of(ranks, spread(expand(ranks)))
    assert "speed_memory" not in plots.figures(results, results.board())
    blocks = sweep_of(tiny, Axis.over("model.encoder.checkpointing", {"none": False, "two": 2, "all": True}))
    results = results_of(blocks, spread(expand(blocks)))
    figure = plots.figures(results, results.board())["speed_memory"]
    assert {"checkpointing none", "two", "checkpointing all"} <= {text.get_text() for text in figure.axes[0].texts}
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    assert len(dots) == len(results.trials)  # the small print names them
    assert len(figure.axes) == 1  # no energy was measured


def test_measured_energy_is_drawn_against_memory_and_less_is_better(tiny):
    joules = {"none": 7.0, "two": 3.0, "all": 5.0}
    blocks = sweep_of(tiny, Axis.over("model.encoder.checkpointing", {"none": False, "two": 2, "all": True}))
    trials = expand(blocks)
    records = []
    for trial, record in zip(trials, spread(trials, "nvml_device_bytes")):
        energy = Energy(train_joules_per_image=joules[trial.point[0]])
        records.append(record.model_copy(update={"energy": energy}))
    results = results_of(blocks, records)
    board = results.board()
    figure = plots.figures(results, board)["speed_memory"]
    assert_readable(figure)
    _, energy = figure.axes
    assert energy.get_ylabel() == "energy of the card [J/image]"
    markers = {line.get_ydata()[0]: line.get_marker() for line in energy.lines if line.get_marker() in ("o", "s")}
    memory = {row.labels[0]: row.cells["training.nvml_device_bytes"].mean for row in board.tables[0].rows}
    for name, value in joules.items():
        better = [other for other in joules if memory[other] <= memory[name] and joules[other] < value]
        assert markers[value] == ("s" if better else "o")


def test_where_names_find_no_room_those_of_the_front_stay(tiny):
    """30 rows of almost equal speed and memory."""
    crowd = {f"{n} blocks are computed again": n for n in range(1, 9)} | {"none": False}
    axes = Axis.over("model.encoder.checkpointing", crowd), Axis.over("model.adapter.rank", {"a": 1, "b": 2, "c": 4})
    sweep = sweep_of(tiny, *axes)
    results = results_of(sweep, spread(expand(sweep), low=1.0, high=1.01))
    figure = plots.figures(results, results.board())["speed_memory"]
    assert_readable(figure)
    named = {text.get_text() for text in figure.axes[0].texts}
    rows = results.board().tables[0].rows
    fastest = max(rows, key=lambda row: row.cells["timing.train_images_per_second"].mean)
    assert 1 <= len(named) < len(rows) and any(fastest.labels[1] in name for name in named)
