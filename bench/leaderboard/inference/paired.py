"""The comparison of two result sets of one configuration, paired by seed and image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench.leaderboard.inference.questions import compare_all
from bench.leaderboard.inference.two_way import means_over_images, overlap_of, table_of
from bench.leaderboard.statistics import Comparison, t_test

ImageScores = Mapping[str, Sequence]
"""Names and scores of the images of a trial, by column."""


class Paired(NamedTuple):
    """What two result sets say about one metric."""

    comparison: Comparison  # of the new scores (first) with the old ones (second)
    new: float  # mean
    old: float


def compare_paired(new: Mapping[int, ImageScores], old: Mapping[int, ImageScores], metric: str) -> Paired | None:
    """Compares the scores of two result sets, by seed, with the two-way error of seeds and images.

    It takes the seeds that have the same images on both sides, and of these seeds the ones with the images that most of
    them have. If each seed has images of its own, the error is that over seeds alone (``means_over_images``). With one
    seed left it is a paired t test over images. That decides which of the two networks is better, not which result set:
    the effect of another seed is unknown. Returns ``None`` without two images.
    """
    names = {}
    for seed in sorted(new.keys() & old.keys()):
        a, b = new[seed], old[seed]
        if metric in a and metric in b and list(a["name"]) == list(b["name"]) and len(a["name"]) > 1:
            names[seed] = tuple(a["name"])
    if not names:
        return None
    sides = [{seed: np.asarray(side[seed][metric], dtype=float) for seed in names} for side in (new, old)]
    ((usual, count),) = Counter(names.values()).most_common(1)
    if count == 1 < len(names):
        means = [{seed: values.mean(keepdims=True) for seed, values in side.items()} for side in sides]
        table = means_over_images(table_of(means))
        found = compare_all(table, overlap=overlap_of(names.values()))[0]
    else:
        seeds = [seed for seed in names if names[seed] == usual]
        table = table_of([{seed: side[seed] for seed in seeds} for side in sides])
        found = compare_all(table)[0] if len(seeds) > 1 else _over_images(*table[:, 0])
    return Paired(found, *table.mean(axis=(1, 2)).tolist())


def _over_images(first: np.ndarray, second: np.ndarray) -> Comparison:
    differences = first - second
    count, difference = len(differences), float(np.mean(differences))
    p, half = t_test(difference, float(np.std(differences, ddof=1)), count - 1, 1 / count)
    return Comparison(0, 1, difference, difference - half, difference + half, p, p, 1)
