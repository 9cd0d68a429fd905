"""The memory of a trial over time, thinned out for the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.memory import MEASURES
from bench.records.tables import load_series


MIB = 2**20
POINTS = 30_000  # of all trials together


def memory_series(folder: Path | None, trial_id: str, trials: int) -> dict[str, Any] | None:
    """Returns the readings of the first measure that was read, by phase, as pairs of seconds and MiB.

    Of neighbouring readings the highest is kept, because readers look for peaks. ``None`` if there are no readings.
    """
    columns = load_series(folder, trial_id) if folder else None
    if columns is None:
        return None
    for measure in MEASURES:
        if measure.baseline and any(value is not None for value in columns.get(measure.name, ())):
            return {"measure": measure.label, "phases": _phases(columns, measure.name, trials)}
    return None


def _phases(columns: Mapping[str, Sequence], measure: str, trials: int) -> dict[str, list[list[float]]]:
    phases: dict[str, list[tuple[float, int]]] = {}
    for phase, seconds, value in zip(columns["phase"], columns["seconds"], columns[measure]):
        if value is not None:
            phases.setdefault(phase, []).append((seconds, value))
    most = max(20, min(120, POINTS // max(1, trials)))
    return {phase: _thinned(points, most) for phase, points in phases.items()}


def _thinned(points: list[tuple[float, int]], most: int) -> list[list[float]]:
    size = -(-len(points) // most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    highest = [max(group, key=lambda point: point[1]) for group in groups]
    return [[round(seconds, 2), round(value / MIB, 1)] for seconds, value in highest]
