"""How sure it is that a row lies on the Pareto front of accuracy and memory.

Accuracies and memories of all rows are drawn anew 2,000 times from what seeds and images leave open, and the share of
draws in which no other row is at least as accurate with at most the same memory is the row's share. The levels are
those of ``bench.leaderboard.statistics``: seeds by Student's distribution, because resampling two or three of them is far too
confident, and images resampled together for all rows. Where all rows have the same seeds, what a seed does to all of
them is drawn together, so that the difference of any two rows varies as in their paired comparison. What two seeds
leave open is much: then many rows have a share.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from bench.leaderboard.leaderboard import Cell, Row, Table, measured_memory
from bench.leaderboard.statistics import product
from bench.scoring.metrics import METRICS

REPLICATES = 2000


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
    known = _image_scores(rows, table.main_metric, images)
    accuracy = _drawn_together(accuracies, known, rng) if known else _drawn(accuracies, rng)
    if known:
        accuracy = accuracy + _of_images(known, rng)
    memory = _drawn(memories, rng)
    kept = np.zeros(len(rows))
    for a, m in zip(accuracy, memory):
        kept += _on_front(a, m)
    return [float(share) for share in kept / REPLICATES]


def _on_front(accuracy: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Which of the places [rows] no other one beats: as accurate with less memory, or better with as much.

    From the most accurate place on, and from the least memory among those of one accuracy, a place is beaten by one
    before it with less memory, or by one of a higher accuracy with as much.
    """
    order = np.lexsort((memory, -accuracy))
    a, m = accuracy[order], memory[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(m)[:-1]])
    first = np.concatenate([[True], a[1:] != a[:-1]])  # of its accuracy
    better = before[np.maximum.accumulate(np.where(first, np.arange(len(a)), 0))]
    kept = np.empty(len(a), dtype=bool)
    kept[order] = (before >= m) & (better > m)
    return kept


def _drawn(cells: Sequence[Cell], rng: np.random.Generator) -> np.ndarray:
    """Means [REPLICATES, rows] as they may be over all seeds."""
    means = np.array([cell.mean for cell in cells])
    errors = np.array([cell.deviation / np.sqrt(cell.count) for cell in cells])
    freedom = np.array([cell.count - 1 for cell in cells])
    return means + errors * stdtrit(freedom, rng.uniform(size=(REPLICATES, len(cells))))


def _image_scores(
    rows: Sequence[Row], metric: str, images: Mapping[str, Mapping[str, Sequence]]
) -> list[np.ndarray] | None:
    """Per row the images' scores [seeds, images]; ``None`` unless all seeds of all rows have them, on the same images.

    ``None`` too for a metric that is no mean over images.
    """
    found = [[images[i] for i in row.trial_ids if metric in images.get(i, ())] for row in rows]
    counts = [row.cells[f"test.{metric}"].count for row in rows]
    if not METRICS[metric].mean_of_images or [len(scores) for scores in found] != counts:
        return None
    names = list(found[0][0]["name"])
    if any(list(scores["name"]) != names for of_row in found for scores in of_row):
        return None
    return [np.array([scores[metric] for scores in of_row], dtype=float) for of_row in found]


def _drawn_together(cells: Sequence[Cell], known: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """As ``_drawn``, from a multivariate Student distribution whose covariance is that of the rows over the seeds."""
    seeds = len(known[0])
    if any(len(scores) != seeds for scores in known):
        return _drawn(cells, rng)
    levels = np.array([scores.mean(axis=1) for scores in known])
    deviations = (levels - levels.mean(axis=1, keepdims=True)) / np.sqrt(seeds * (seeds - 1))
    normal = product(rng.normal(size=(REPLICATES, seeds)), deviations.T)
    stretched = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=(REPLICATES, 1)))
    return np.array([cell.mean for cell in cells]) + normal * stretched


def _of_images(known: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """By how much the rows' means move when images are resampled, [REPLICATES, rows]."""
    values = np.array([scores.mean(axis=0) for scores in known])
    count = values.shape[1]
    weights = rng.multinomial(count, np.full(count, 1 / count), size=REPLICATES) / count
    return product(weights, values.T) - values.mean(axis=1)
