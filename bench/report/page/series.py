"""A trial's memory over time, thinned out for the page."""

from pathlib import Path
from typing import Any

from bench.records.tables import load_series

MIB = 2**20
MEASURES = {
    "nvml_device_bytes": "memory in use on the card (NVML)",
    "nvml_process_bytes": "memory of the process on the card (NVML)",
    "rss_bytes": "resident memory of the process",
}
"""The first that was read is shown."""
POINTS = 30_000  # of all trials together


def memory_series(folder: Path | None, trial_id: str, trials: int) -> dict[str, Any] | None:
    """Readings by phase as [seconds, MiB] pairs; ``None`` where none were kept or nothing could be read.

    Of neighbouring readings the highest stands for all: a peak is what the series is looked at for.
    """
    columns = load_series(folder, trial_id) if folder else None
    if columns is None:
        return None
    measure = next((m for m in MEASURES if any(v is not None for v in columns.get(m, ()))), None)
    if measure is None:
        return None
    phases: dict[str, list[tuple[float, int]]] = {}
    for phase, seconds, value in zip(columns["phase"], columns["seconds"], columns[measure]):
        if value is not None:
            phases.setdefault(phase, []).append((seconds, value))
    most = max(20, min(120, POINTS // max(1, trials)))
    return {"measure": MEASURES[measure], "phases": {p: _thinned(points, most) for p, points in phases.items()}}


def _thinned(points: list[tuple[float, int]], most: int) -> list[list[float]]:
    size = -(-len(points) // most)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    highest = [max(group, key=lambda point: point[1]) for group in groups]
    return [[round(seconds, 2), round(value / MIB, 1)] for seconds, value in highest]
