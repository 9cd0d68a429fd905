"""``Results`` and their leaderboard -> figures. The only folder that imports matplotlib."""

import re

import bench.report.plots.no_backend  # noqa: F401  # before matplotlib is imported
from matplotlib.figure import Figure

from bench.leaderboard.leaderboard import Leaderboard
from bench.leaderboard.results import Results
from bench.report.plots.axis_curves import axis_curves
from bench.report.plots.fonts import fonts_for, texts_of, undrawable
from bench.report.plots.heat_map import heat_map
from bench.report.plots.memory import memory_comparison, memory_curves, memory_plan
from bench.report.plots.memory_series import memory_series, trial_memory
from bench.report.plots.pareto import memory_accuracy
from bench.report.plots.placement import placement
from bench.report.plots.predictions import best_samples, sample_comparison, trial_samples
from bench.report.plots.speed import speed_memory
from bench.report.plots.style import save
from bench.report.plots.training import training_curves

__all__ = [
    "figures",
    "fonts_for",
    "memory_accuracy",
    "memory_comparison",
    "memory_curves",
    "memory_plan",
    "save",
    "texts_of",
    "trial_memory",
    "trial_samples",
    "undrawable",
]


def figures(results: Results, board: Leaderboard) -> dict[str, Figure]:
    """Returns all figures that the results can fill, by file name without suffix.

    Names of figures of further environments end in ``_environment_2`` and so on.
    """
    found: dict[str, Figure | None] = {}
    for number, table in enumerate(board.tables, start=1):
        suffix = f"_environment_{number}" if number > 1 else ""
        found[f"memory_accuracy{suffix}"] = memory_accuracy(board, table, results.images, results.records)
        found[f"speed_memory{suffix}"] = speed_memory(results, board, table)
        for axis in range(len(board.axes)):
            name = re.sub(r"\W", "_", board.axes[axis].removeprefix("model."))
            found[f"axis_{name}{suffix}"] = axis_curves(results, board, table, axis)
        found[f"heat_map{suffix}"] = heat_map(board, table)
        found[f"placement{suffix}"] = placement(results, board, table)
        found[f"training_curves{suffix}"] = training_curves(results, board, table)
        found[f"memory_series{suffix}"] = memory_series(results, board, table)
        found[f"samples{suffix}"] = best_samples(results, board, table)
        found[f"sample_comparison{suffix}"] = sample_comparison(results, board, table)
    return {name: figure for name, figure in found.items() if figure is not None}
