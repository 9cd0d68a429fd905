"""Which row of a table is the best by a metric, and which rows the data do not distinguish from it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from bench.leaderboard.leaderboard import Row, Table
from bench.leaderboard.inference.questions import compare_all
from bench.leaderboard.inference.two_way import table_of
from bench.leaderboard.statistics import Comparison
from bench.scoring.metrics import METRICS

Mark = Literal["best", "second", "tied"]
ImageScores = Mapping[str, Mapping[str, Sequence]]
"""Names and scores of the images, by trial id and column."""


def best_row(table: Table, metric: str) -> int | None:
    """Returns the number of the row with the best mean; ``None`` if no row has a mean."""
    means = _means(table, metric)
    pick = max if METRICS[metric].better == "higher" else min
    return pick(means, key=means.get, default=None)


def not_distinguishable(table: Table, metric: str) -> set[int]:
    """Returns the numbers of the rows that the tests do not distinguish from the best row, which is not among them.

    The set is empty if nothing was tested.
    """
    best = best_row(table, metric)
    tied = set()
    for comparison in table.tested(metric):
        if best in (comparison.first, comparison.second) and not comparison.resolved:
            tied.add(comparison.first + comparison.second - best)
    return tied


def mark_underfit(rows: Sequence[Row], metric: str) -> tuple[Row, ...]:
    """Marks the rows whose mean score on training images is worse than the best mean on test images.

    Such a row does not even reproduce images that it has seen: its learning rate, its number of epochs or its capacity
    limits it, not the number of images.
    """
    higher = METRICS[metric].better == "higher"
    tested = [row.cells[f"test.{metric}"].mean for row in rows if f"test.{metric}" in row.cells]
    marked = []
    for row in rows:
        fitted = row.cells.get(f"train.{metric}")
        if fitted is not None and tested:
            worse = fitted.mean < max(tested) if higher else fitted.mean > min(tested)
            row = replace(row, underfit=worse)
        marked.append(row)
    return tuple(marked)


def marks(table: Table, metric: str) -> list[set[Mark]]:
    """Returns the marks of each row: best mean, second-best mean, not distinguishable from the best.

    Nothing is marked in a table of one row.
    """
    found: list[set[Mark]] = [set() for _ in table.rows]
    means = _means(table, metric)
    if len(table.rows) > 1:
        levels = sorted(set(means.values()), reverse=METRICS[metric].better == "higher")
        for number, mean in means.items():
            if mean == levels[0]:
                found[number].add("best")
            elif mean == levels[1]:
                found[number].add("second")
    for number in not_distinguishable(table, metric):
        found[number].add("tied")
    return found


def _means(table: Table, metric: str) -> dict[int, float]:
    """Returns the means on the test split by the number of the row."""
    means = {}
    for number, row in enumerate(table.rows):
        if f"test.{metric}" in row.cells:
            means[number] = row.cells[f"test.{metric}"].mean
    return means


def usual_images(rows: Sequence[Row], images: ImageScores) -> tuple[ImageScores, int | None]:
    """Returns the scores of the trials that have the same images as most trials, and the number of these images."""
    names = {i: tuple(images[i]["name"]) for row in rows for i in row.trial_ids if i in images}
    if len(rows) < 2 or not names:
        return {}, None
    ((usual, _),) = Counter(names.values()).most_common(1)
    return {trial_id: images[trial_id] for trial_id in names if names[trial_id] == usual}, len(usual)


def compare_rows(rows: Sequence[Row], images: ImageScores, looks: int) -> dict[str, tuple[Comparison, ...]]:
    """Compares all pairs of rows on each metric that is a mean over images; returns the comparisons by metric.

    images: of trials with the same images (``usual_images``); looks: number of interim analyses that may have ended
    the sweep.
    """
    comparisons = {}
    for metric in METRICS:
        table = score_table(rows, images, metric) if METRICS[metric].mean_of_images else None
        if table is not None:
            comparisons[metric] = tuple(compare_all(table, looks))
    return comparisons


def score_table(rows: Sequence[Row], images: ImageScores, metric: str) -> np.ndarray | None:
    """Returns the scores [row, seed, image] on a metric, NaN for missing trials; ``None`` without any score."""
    scores = [_scores_by_seed(row, images, metric) for row in rows]
    return table_of(scores) if any(scores) else None


def _scores_by_seed(row: Row, images: ImageScores, metric: str) -> dict[int, np.ndarray]:
    scores = {}
    for trial_id, seed in zip(row.trial_ids, row.seeds):
        if metric in images.get(trial_id, ()):
            scores[seed] = np.asarray(images[trial_id][metric], dtype=float)
    return scores
