"""Memory over time, from the readings during trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.leaderboard.leaderboard import Leaderboard, Table
from bench.leaderboard.results import Results
from bench.records.memory import GIB, MEASURES
from bench.records.record import TrialRecord
from bench.records.tables import load_series
from bench.report.plots.style import BLUE, GREY, VERMILLION, WIDTH, canvas, house_style, row_name, shorten

MOST_PANELS = 30
COLUMNS = 3
SHADES = {"training": "0.94", "evaluation": "0.84"}


@dataclass(frozen=True)
class Series:
    """Readings of one trial, above the baseline of their measure."""

    name: str  # of the row or trial
    what: str  # name of the difference between reading and baseline
    phases: dict[str, tuple[list[float], list[float]]]  # seconds since the first phase's start, GiB
    peaks: dict[str, float]  # as the record has them, GiB


def memory_series(results: Results, board: Leaderboard, table: Table) -> Figure | None:
    """Draws memory over time in a panel for each row, of its first seed with readings.

    Phases are shaded, and recorded peaks are dashed lines. Of more than 30 rows the first 30 are drawn, and the small
    print gives both numbers. ``None`` without readings.
    """
    every = [_of_row(results, row.trial_ids, row_name(row, board)) for row in table.rows]
    series = [one for one in every if one is not None]
    if not series:
        return None
    shown = series[:MOST_PANELS]
    note = "panels: the first seed of each row; dashed: the peak that the record holds; phases shaded"
    if len(shown) < len(series):
        note += f"; the first {len(shown)} of {len(series)} rows"
    return _figure(board, table, shown, note)


def trial_memory(results: Results, board: Leaderboard, trial_id: str) -> Figure | None:
    """Draws the memory of one trial over time. ``None`` if it has no readings."""
    for table in board.tables:
        for row in table.rows:
            if trial_id in row.trial_ids:
                name = f"{row_name(row, board)}, seed {row.seeds[row.trial_ids.index(trial_id)]}, trial {trial_id}"
                found = _of_row(results, [trial_id], name)
                return found and _figure(board, table, [found], "dashed: the peak that the record holds; phases shaded")
    return None


def _figure(board: Leaderboard, table: Table, series: Sequence[Series], note: str) -> Figure:
    columns = 2 if len(series) == 4 else min(COLUMNS, len(series))  # four panels fill two lines
    lines = math.ceil(len(series) / columns)
    with house_style():
        height = 2.6 if len(series) == 1 else 0.4 + 1.2 * lines
        figure = canvas(board, table, height, title=f"Memory over time: {series[0].what}", note=note).figure
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axes, one in zip(panels.flat, series):
            _draw(axes, one)
            axes.set_title(shorten(one.name, 0.84 * WIDTH / columns, 8), loc="left", fontsize=8)
        for axes in list(panels.flat)[len(series) :]:
            axes.set_visible(False)
        for column in range(columns):
            last = max(i for i in range(column, len(series), columns))
            panels.flat[last].tick_params(labelbottom=True)
            panels.flat[last].set_xlabel("seconds in the phases", fontsize=8)
        read = [value for one in series for _, values in one.phases.values() for value in values]
        peaks = [peak for one in series for peak in one.peaks.values()]
        panels[0, 0].set(xlim=(0, None), ylim=(min(0, *read), 1.3 * max(*read, *peaks)))
        for axes in panels[:, 0]:
            axes.set_ylabel("GiB", fontsize=8)
    return figure


def _draw(axes: Axes, series: Series) -> None:
    axes.grid(axis="x", visible=False)
    for phase, (seconds, values) in series.phases.items():
        axes.axvspan(seconds[0], seconds[-1], color=SHADES.get(phase, "0.9"), linewidth=0, zorder=0)
        axes.plot(seconds, values, color=BLUE, linewidth=0.9)
        if phase in series.peaks:
            peak = series.peaks[phase]
            axes.hlines(peak, seconds[0], seconds[-1], color=VERMILLION, linewidth=0.9, linestyle=(0, (4, 1.5)))
    if "training" in series.peaks:
        start = series.phases["training"][0][0]
        text = {"fontsize": 7, "color": GREY, "va": "bottom", "textcoords": "offset points"}
        axes.annotate(
            f"peak in training {series.peaks['training']:.3f}", (start, series.peaks["training"]), (3, 2), **text
        )


def _of_row(results: Results, trial_ids: Sequence[str], name: str) -> Series | None:
    for trial_id in trial_ids:
        folder, record = results.folders.get(trial_id), results.records.get(trial_id)
        columns = load_series(folder, trial_id) if folder and record and record.memory else None
        found = _read(columns, record, name) if columns else None
        if found is not None:
            return found
    return None


def _read(columns: Mapping[str, list], record: TrialRecord, name: str) -> Series | None:
    """Returns the readings of the first measure whose baseline the record has."""
    for measure in MEASURES:
        if not measure.above_baseline or measure.name not in columns:
            continue
        phases, peaks, start = {}, {}, 0.0
        readings = zip(columns["phase"], columns["seconds"], columns[measure.name])
        for phase, points in groupby(readings, key=lambda reading: reading[0]):
            memory = record.memory.get(phase)
            baseline = memory and getattr(memory, measure.baseline)
            seconds, values = [], []
            for _, at, value in points:
                if value is not None and baseline is not None:
                    seconds.append(start + at)
                    values.append((value - baseline) / GIB)
            if values:
                phases[phase] = (seconds, values)
                start = seconds[-1]
                peak = getattr(memory, measure.name)
                if peak is not None:
                    peaks[phase] = peak / GIB
        if phases:
            return Series(name, measure.above_baseline, phases, peaks)
    return None
