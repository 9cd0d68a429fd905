"""The Pareto front of accuracy and memory, and the probability that a row lies on it.

Accuracy and memory of all rows are drawn 2,000 times from their sampling distributions. The share of a row is that of
the draws in which no other row is at least as accurate with at most the same memory. Seeds are drawn by Student's
distribution, because a bootstrap over two or three seeds is far too confident; images are resampled together for all
rows. If all rows have the same seeds, the effect of a seed is drawn jointly for all rows, so that the difference of two
rows varies as in their paired comparison. Two seeds leave a large uncertainty: then many rows have a share.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf

import numpy as np
from scipy.special import stdtrit

from bench.leaderboard.leaderboard import Cell, Row, Table, measured_memory
from bench.leaderboard.ranking import ImageScores
from bench.leaderboard.statistics import product
from bench.scoring.metrics import METRICS

REPLICATES = 2000


def mark_front(rows: Sequence[Row], measure: str | None, metric: str) -> tuple[Row, ...]:
    """Marks the rows on the front of the means: high accuracy by ``metric``, low training memory by ``measure``."""
    if measure is None:
        return tuple(rows)
    places: list[tuple[float, float] | None] = []
    for row in rows:
        accuracy, memory = row.cells.get(f"test.{metric}"), row.cells.get(f"training.{measure}")
        places.append((accuracy.mean, -memory.mean) if accuracy and memory else None)
    front = pareto_front(place for place in places if place is not None)
    return tuple(replace(row, on_front=place in front) for row, place in zip(rows, places))


def pareto_front(places: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the pairs of numbers, higher is better, that no other pair beats in both; the highest first numbers first."""
    front, highest = [], -inf
    for place in sorted(set(places), reverse=True):
        if place[1] > highest:
            front.append(place)
            highest = place[1]
    return front


def front_shares(table: Table, rows: Sequence[Row], images: ImageScores, seed: int = 0) -> list[float] | None:
    """Returns for each row the share of draws in which it is on the front; the same input gives the same shares.

    rows: those of the table that have accuracy and memory. images: per-image scores by trial id; without the scores of
    all rows the images are held fixed. ``None`` unless every row has at least two seeds.
    """
    accuracies = [row.cells[f"test.{table.main_metric}"] for row in rows]
    memories = [measured_memory(row, table) for row in rows]
    if not rows or any(cell is None or cell.count < 2 for cell in (*accuracies, *memories)):
        return None
    rng = np.random.default_rng(seed)
    known = _image_scores(rows, table.main_metric, images)
    if known:
        accuracy = _drawn_together(accuracies, known, rng) + _of_images(known, rng)
    else:
        accuracy = _drawn(accuracies, rng)
    memory = _drawn(memories, rng)
    kept = np.zeros(len(rows))
    for a, m in zip(accuracy, memory):
        kept += _on_front(a, m)
    return [float(share) for share in kept / REPLICATES]


def _on_front(accuracy: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Returns for places [rows] whether no other place dominates them.

    A place dominates another if it is as accurate with less memory, or more accurate with at most the same memory.
    Places are sorted by falling accuracy, then by rising memory. A place is dominated by an earlier one with less
    memory, or by one of a higher accuracy with the same memory.
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
    """Draws means over all seeds, [REPLICATES, rows]."""
    means = np.array([cell.mean for cell in cells])
    errors = np.array([cell.standard_error for cell in cells])
    freedom = np.array([cell.count - 1 for cell in cells])
    return means + errors * stdtrit(freedom, rng.uniform(size=(REPLICATES, len(cells))))


def _image_scores(rows: Sequence[Row], metric: str, images: ImageScores) -> list[np.ndarray] | None:
    """Returns the images' scores of each row, [seeds, images].

    ``None`` unless all seeds of all rows have scores of the same images, and for a metric that is no mean over images.
    """
    if not METRICS[metric].mean_of_images:
        return None
    names: list[str] | None = None
    scores = []
    for row in rows:
        known = [images[trial_id] for trial_id in row.trial_ids if metric in images.get(trial_id, ())]
        if len(known) != row.cells[f"test.{metric}"].count:
            return None
        for columns in known:
            names = names or list(columns["name"])
            if list(columns["name"]) != names:
                return None
        scores.append(np.array([columns[metric] for columns in known], dtype=float))
    return scores


def _drawn_together(cells: Sequence[Cell], known: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draws as ``_drawn``, from a multivariate Student distribution with the covariance of the rows over the seeds."""
    seeds = len(known[0])
    if any(len(scores) != seeds for scores in known):
        return _drawn(cells, rng)
    levels = np.array([scores.mean(axis=1) for scores in known])
    deviations = (levels - levels.mean(axis=1, keepdims=True)) / np.sqrt(seeds * (seeds - 1))
    normal = product(rng.normal(size=(REPLICATES, seeds)), deviations.T)
    stretched = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=(REPLICATES, 1)))
    return np.array([cell.mean for cell in cells]) + normal * stretched


def _of_images(known: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draws the change of the rows' means when images are resampled, [REPLICATES, rows]."""
    values = np.array([scores.mean(axis=0) for scores in known])
    count = values.shape[1]
    weights = rng.multinomial(count, np.full(count, 1 / count), size=REPLICATES) / count
    return product(weights, values.T) - values.mean(axis=1)
