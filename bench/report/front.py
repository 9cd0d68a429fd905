"""How sure it is that a row lies on the Pareto front of accuracy and memory.

Accuracies and memories of all rows are drawn anew 2,000 times from what seeds and images leave open, and the share of
draws in which no other row is at least as accurate with at most the same memory is the row's share. The levels are
those of ``bench.statistics``: seeds by Student's distribution, because resampling two or three of them is far too
confident, and images resampled together for all rows. What two seeds leave open is much: then many rows have a share.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from bench.report.leaderboard import Cell, Row, Table, measured_memory
from bench.scores import METRICS

REPLICATES = 2000
CHUNK = 100  # replicates at a time: bounds the memory that comparing all pairs takes


def front_shares(
    table: Table, rows: Sequence[Row], images: Mapping[str, Mapping[str, Sequence]], seed: int = 0
) -> list[float] | None:
    """For each row, the share of draws in which it is on the front of these rows; the same input, the same shares.

    rows: those of the table that have accuracy and memory. images: per-image scores by trial id; where a row has none,
    the images are held fixed. ``None`` unless every row has at least two seeds.
    """
    accuracies = [row.cells[f"test.{table.main_metric}"] for row in rows]
    memories = [measured_memory(row, table) for row in rows]
    if not rows or any(cell is None or cell.count < 2 for cell in (*accuracies, *memories)):
        return None
    rng = np.random.default_rng(seed)
    accuracy = _drawn(accuracies, rng) + _of_images(rows, table.main_metric, images, rng)
    memory = _drawn(memories, rng)
    kept = np.zeros(len(rows))
    for start in range(0, REPLICATES, CHUNK):
        a, m = accuracy[start : start + CHUNK], memory[start : start + CHUNK]
        better = (a[:, :, None] > a[:, None, :]) & (m[:, :, None] <= m[:, None, :])
        cheaper = (a[:, :, None] >= a[:, None, :]) & (m[:, :, None] < m[:, None, :])
        kept += (~(better | cheaper).any(axis=1)).sum(axis=0)
    return [float(share) for share in kept / REPLICATES]


def _drawn(cells: Sequence[Cell], rng: np.random.Generator) -> np.ndarray:
    """Means [REPLICATES, rows] as they may be over all seeds."""
    means = np.array([cell.mean for cell in cells])
    errors = np.array([cell.deviation / np.sqrt(cell.count) for cell in cells])
    freedom = np.array([cell.count - 1 for cell in cells])
    return means + errors * stats.t.ppf(rng.uniform(size=(REPLICATES, len(cells))), freedom)


def _of_images(
    rows: Sequence[Row], metric: str, images: Mapping[str, Mapping[str, Sequence]], rng: np.random.Generator
) -> np.ndarray:
    """By how much the rows' means move when images are resampled, [REPLICATES, rows]; 0 where that is unknown."""
    moved = np.zeros((REPLICATES, len(rows)))
    found = {i: [images[t] for t in row.trial_ids if metric in images.get(t, ())] for i, row in enumerate(rows)}
    known = [scores for of_row in found.values() for scores in of_row]
    if not known or not METRICS[metric].mean_of_images:
        return moved
    names = list(known[0]["name"])
    if any(list(scores["name"]) != names for scores in known):
        return moved
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=REPLICATES) / len(names)
    for i, of_row in found.items():
        if of_row:
            values = np.mean([scores[metric] for scores in of_row], axis=0, dtype=float)
            moved[:, i] = weights @ values - values.mean()
    return moved
