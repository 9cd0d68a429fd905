"""Intervals, paired comparisons and Holm's correction for a few seeds and one test set. numpy and scipy only.

**The interval of a cell** is Student's over seeds, with the test set held fixed: published numbers are those of a fixed
set, too, so the interval is that of the mean over all seeds on these images. A bootstrap over two or three seeds has
three (or ten) distinct means only, and its intervals are far too short.

**A comparison** of two configurations is a hierarchical bootstrap of their paired differences: the same seed and the
same image on both sides, images resampled together for all configurations (crossed with seeds, since all seeds are
scored on the same images). The level of the seeds is drawn from Student's distribution instead of being resampled:
with two seeds, resampling would find a difference between equal configurations in every second test. The two levels
add up, and variance that seeds and images share is counted twice, so the test is conservative. It assumes that the
differences between seeds are roughly normal; it does not assume that all configurations are equally noisy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import stdtr, stdtrit  # the functions behind scipy.stats.t, which takes a second to import

LEVEL = 0.95
REPLICATES = 2000
CHUNK = 250  # replicates at a time, which bounds the memory of resampling


@dataclass(frozen=True)
class Comparison:
    """``first`` minus ``second`` on one metric. The numbers are ``None`` without two seeds in common."""

    first: int  # number of a configuration
    second: int  # number of the other one
    difference: float | None
    low: float | None
    high: float | None
    p: float | None  # two-sided, of this pair alone
    p_adjusted: float | None  # corrected for all pairs that were compared on this metric, and for interim analyses
    seeds: int  # number of common seeds

    @property
    def resolved(self) -> bool:
        """Whether the data decide which of the two is better."""
        return self.p_adjusted is not None and self.p_adjusted < 1 - LEVEL


def half_width(deviation: float | None, count: int) -> float | None:
    """Returns half of the 95 % Student interval of a mean of ``count`` values with this sample deviation.

    ``None`` for fewer than two values.
    """
    if deviation is None or count < 2:
        return None
    return float(stdtrit(count - 1, (1 + LEVEL) / 2) * deviation / np.sqrt(count))


def compare(scores: Sequence[Mapping[int, np.ndarray]], seed: int = 0, looks: int = 1) -> list[Comparison]:
    """Compares every pair of configurations; the same input gives the same output, to the last bit.

    scores: for each configuration the images' scores [N] by seed. All arrays have the same images in the same order.
    looks: number of interim analyses. Optional stopping multiplies false positives by up to ``looks``, so p values are
    multiplied by it (Bonferroni).
    """
    common = {}
    for pair in combinations(range(len(scores)), 2):
        common[pair] = sorted(scores[pair[0]].keys() & scores[pair[1]].keys())
    means = _resampled_means(scores, seed) if any(len(seeds) > 1 for seeds in common.values()) else {}
    found = {pair: _difference(scores, means, pair, seeds, seed) for pair, seeds in common.items() if len(seeds) > 1}
    corrected = dict(zip(found, holm([looks * p for *_, p in found.values()])))
    nothing = (None, None, None, None)
    comparisons = []
    for pair, seeds in common.items():
        comparisons.append(Comparison(*pair, *found.get(pair, nothing), corrected.get(pair), len(seeds)))
    return comparisons


def compare_on_images(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Comparison:
    """Compares scores [N] of the same images by two trained networks: a paired bootstrap over images.

    It decides which of the two networks is better, not which configuration: the effect of another seed is unknown. p is
    Student's, because a share of replicates has a smallest value above zero.
    """
    differences = np.asarray(first) - np.asarray(second)
    count, difference = len(differences), float(np.mean(differences))
    scale = float(np.std(differences, ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    if scale == 0:
        p = 1.0 if difference == 0 or count < 2 else 0.0
        return Comparison(0, 1, difference, difference, difference, p, p, 1)
    drawn = np.random.default_rng(seed).integers(0, count, (REPLICATES, count))
    means = differences[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p = float(2 * stdtr(count - 1, -abs(difference) / scale))
    return Comparison(0, 1, difference, float(low), float(high), p, p, 1)


def pooled_p(difference: float, deviation: float, freedom: int, counts: tuple[int, int]) -> float:
    """Returns the two-sided p of a difference of two means.

    deviation, freedom: a pooled standard deviation and its degrees of freedom; counts: numbers of values of the means.
    """
    scale = deviation * np.sqrt(1 / counts[0] + 1 / counts[1])
    if scale == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(difference) / scale))


def holm(ps: Sequence[float]) -> list[float]:
    """Corrects p values such that the family-wise error rate of all p < 0.05 is at most 5 % (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    adjusted[order] = np.maximum.accumulate(np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    return [float(p) for p in np.minimum(adjusted, 1)]


def _resampled_means(scores: Sequence[Mapping[int, np.ndarray]], seed: int) -> dict[tuple[int, int], np.ndarray]:
    """Returns means [REPLICATES] over images drawn with replacement, by configuration and seed, which share draws."""
    keys = [(k, s) for k, by_seed in enumerate(scores) for s in sorted(by_seed)]
    values = np.stack([scores[k][s] for k, s in keys], axis=1)
    count = len(values)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, REPLICATES, CHUNK):
        size = min(CHUNK, REPLICATES - start)
        drawn = rng.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        means.append(product(weights, values) / count)
    return dict(zip(keys, np.concatenate(means).T))


def product(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns the matrix product of [R, N] and [N, K], summed over N from the first to the last.

    The order in which BLAS sums depends on the processor, and reports would differ in their last digits.
    """
    total = np.zeros((len(weights), values.shape[1]))
    for weight, value in zip(weights.T, values):
        total += np.multiply.outer(weight, value)
    return total


def _difference(
    scores: Sequence[Mapping[int, np.ndarray]],
    means: Mapping[tuple[int, int], np.ndarray],
    pair: tuple[int, int],
    seeds: Sequence[int],
    seed: int,
) -> tuple[float, float, float, float]:
    """Returns the mean difference, its 95 % interval and p."""
    first, second = pair
    of_seeds = np.array([np.mean(scores[first][s] - scores[second][s]) for s in seeds])
    difference, freedom = of_seeds.mean(), len(seeds) - 1
    scale = of_seeds.std(ddof=1) / np.sqrt(len(seeds))
    by_images = np.mean([means[first, s] - means[second, s] for s in seeds], axis=0) - difference

    rng = np.random.default_rng(seed)
    ranks = rng.permutation(REPLICATES)  # every quantile of Student's distribution once, in random order
    by_seeds = scale * stdtrit(freedom, (ranks + 0.5) / REPLICATES)
    low, high = np.quantile(difference - by_images - by_seeds, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])

    if scale == 0:
        beyond = np.abs(by_images) >= abs(difference)
    else:  # Student's level in closed form: p is not limited to multiples of 1 / REPLICATES
        reach = abs(difference)
        beyond = stdtr(freedom, (by_images - reach) / scale) + stdtr(freedom, (-by_images - reach) / scale)
    p = (beyond.sum() + (scale == 0)) / (REPLICATES + (scale == 0))
    return float(difference), float(low), float(high), float(min(p, 1))
