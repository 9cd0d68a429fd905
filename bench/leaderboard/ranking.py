"""Which row of a table is the best by a metric, and which rows the data do not distinguish from it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from bench.leaderboard.inference.questions import compare_all
from bench.leaderboard.inference.two_way import means_over_images, overlap_of, table_of
from bench.leaderboard.leaderboard import Row, Table
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


def mark_underfit(rows: Sequence[Row], metric: str, margin: float) -> tuple[Row, ...]:
    """Marks the rows whose mean score on training images is worse, by more than ``margin``, than the best test mean.

    Such a row does not even reproduce images that it has seen: its learning rate, its number of epochs or its capacity
    limits it, not the number of images.
    """
    higher = METRICS[metric].better == "higher"
    tested = [row.cells[f"test.{metric}"].mean for row in rows if f"test.{metric}" in row.cells]
    marked = []
    for row in rows:
        fitted = row.cells.get(f"train.{metric}")
        if fitted is not None and tested:
            worse = fitted.mean < max(tested) - margin if higher else fitted.mean > min(tested) + margin
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


class Compared(NamedTuple):
    """Scores of the trials that are compared with each other."""

    images: ImageScores = {}
    count: int | None = None
    """Number of images of a trial."""
    overlap: float | None = None
    """Share of images that two seeds have in common, if the split was drawn anew with each seed; else ``None``."""


def usual_images(rows: Sequence[Row], images: ImageScores, redrawn: bool = False) -> Compared:
    """Returns the scores of the trials that have the same images as most trials, and the number of these images.

    redrawn: whether the split was drawn anew with each seed. Then a trial needs the images of most trials with its seed.
    """
    names: dict[int, dict[str, tuple[str, ...]]] = defaultdict(dict)  # by seed, or under 0 for all seeds, and by trial
    for row in rows:
        for trial_id, seed in zip(row.trial_ids, row.seeds):
            if trial_id in images:
                names[seed if redrawn else 0][trial_id] = tuple(images[trial_id]["name"])
    if len(rows) < 2 or not names:
        return Compared()
    usual = {seed: Counter(found.values()).most_common(1)[0][0] for seed, found in names.items()}
    (count, _), *_ = Counter(map(len, usual.values())).most_common(1)
    kept = {}
    for seed, found in names.items():
        for trial_id, of_trial in found.items():
            if of_trial == usual[seed] and len(of_trial) == count:
                kept[trial_id] = images[trial_id]
    is_one_set = len(set(usual.values())) == 1  # as that of a dataset with a test set of its own
    return Compared(kept, count, None if is_one_set else overlap_of(usual.values()))


def compare_rows(rows: Sequence[Row], compared: Compared, looks: int) -> dict[str, tuple[Comparison, ...]]:
    """Compares all pairs of rows on each metric that is a mean over images; returns the comparisons by metric.

    compared: ``usual_images``; looks: number of interim analyses that may have ended the sweep.
    """
    comparisons = {}
    for metric in METRICS:
        table = score_table(rows, compared, metric) if METRICS[metric].mean_of_images else None
        if table is not None:
            comparisons[metric] = tuple(compare_all(table, looks, compared.overlap or 0.0))
    return comparisons


def score_table(rows: Sequence[Row], compared: Compared, metric: str) -> np.ndarray | None:
    """Returns the scores [row, seed, image] on a metric, NaN for missing trials; ``None`` without any score.

    They are ``means_over_images`` where seeds have different images.
    """
    scores = [_scores_by_seed(row, compared.images, metric) for row in rows]
    if not any(scores):
        return None
    return table_of(scores) if compared.overlap is None else means_over_images(table_of(scores))


def _scores_by_seed(row: Row, images: ImageScores, metric: str) -> dict[int, np.ndarray]:
    scores = {}
    for trial_id, seed in zip(row.trial_ids, row.seeds):
        if metric in images.get(trial_id, ()):
            scores[seed] = np.asarray(images[trial_id][metric], dtype=float)
    return scores
