"""What a few seeds and a test set can say: intervals, paired comparisons, Holm's correction. numpy and scipy only.

**A cell's interval** is Student's over seeds, with the test set held fixed: published numbers are of a fixed set too,
so the question is where the mean over all seeds would lie on these images. A bootstrap over two or three seeds cannot
answer it: it knows three (or ten) distinct means, and its intervals are far too short.

**A comparison** of two configurations is a hierarchical bootstrap of their paired differences: the same seed and the
same image on both sides, images resampled together for all configurations (crossed with seeds, since all seeds are
scored on the same images). The level of the seeds is drawn from Student's distribution instead of being resampled:
with two seeds, resampling would call every second difference real where there is none. The two levels add up, and what
seeds and images share is counted twice, so the test errs on the side of saying nothing. It assumes that the
differences between seeds are roughly normal; it does not assume that all configurations are equally noisy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # as scipy.stats.t computes, which takes a second to import

LEVEL = 0.95
REPLICATES = 2000
CHUNK = 250  # replicates at a time: bounds the memory that resampling takes


@dataclass(frozen=True)
class Comparison:
    """``first`` minus ``second`` on one metric. Nothing can be said (``None``) without two seeds in common."""

    first: int  # numbers of the configurations
    second: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None  # two-sided, of this pair alone
    p_holm: float | None  # corrected for all pairs that were compared on this metric, and for repeated looks
    seeds: int  # in common

    @property
    def resolved(self) -> bool:
        """The data decide which of the two is better."""
        return self.p_holm is not None and self.p_holm < 1 - LEVEL


def half_width(deviation: float | None, count: int) -> float | None:
    """Half of the 95 % Student interval of a mean, from the sample deviation; ``None`` for fewer than two values."""
    if deviation is None or count < 2:
        return None
    return float(stdtrit(count - 1, (1 + LEVEL) / 2) * deviation / np.sqrt(count))


def compare(scores: Sequence[Mapping[int, np.ndarray]], seed: int = 0, looks: int = 1) -> list[Comparison]:
    """Compares every pair of configurations; the same input gives the same output, to the last bit.

    scores: per configuration, the images' scores [N] by seed. All arrays have the same images in the same order.
    looks: how often such a comparison was allowed to decide whether more seeds are run. Stopping at the first one that
    finds a difference finds up to so many times as many where there are none; Bonferroni's factor undoes that.
    """
    pairs = [(a, b) for a in range(len(scores)) for b in range(a + 1, len(scores))]
    common = {(a, b): sorted(scores[a].keys() & scores[b].keys()) for a, b in pairs}
    means = _resampled_means(scores, seed) if any(len(s) > 1 for s in common.values()) else {}
    found = {pair: _difference(scores, means, pair, seeds, seed) for pair, seeds in common.items() if len(seeds) > 1}
    corrected = dict(zip(found, holm([looks * p for *_, p in found.values()])))
    nothing = (None, None, None, None)
    return [Comparison(*pair, *found.get(pair, nothing), corrected.get(pair), len(common[pair])) for pair in pairs]


def compare_on_images(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Comparison:
    """``first`` minus ``second``, scores [N] of the same images by one training each: a paired bootstrap over images.

    It decides which of two trained networks is better, not which configuration: what another seed would change is
    unknown. p is Student's, which has no smallest value as a share of replicates has.
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
    """Two-sided p of a difference of two means of so many values, with a deviation that was pooled elsewhere."""
    scale = deviation * np.sqrt(1 / counts[0] + 1 / counts[1])
    if scale == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(difference) / scale))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values such that rejecting all below 0.05 errs at all in at most 5 % of families (Holm 1979)."""
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    adjusted[order] = np.maximum.accumulate(np.asarray(ps)[order] * np.arange(len(ps), 0, -1))
    return [float(p) for p in np.minimum(adjusted, 1)]


def smallest_resolvable(seeds: int, comparisons: int) -> float:
    """How many standard errors (over seeds) a difference needs at least to be told from none; ``seeds`` > 1."""
    return float(stdtrit(seeds - 1, 1 - (1 - LEVEL) / 2 / comparisons))


def _resampled_means(scores: Sequence[Mapping[int, np.ndarray]], seed: int) -> dict[tuple[int, int], np.ndarray]:
    """Means [REPLICATES] over images drawn with replacement, the same draws for every (configuration, seed)."""
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
    """The matrix product of [R, N] and [N, K], summed over N from the first to the last.

    BLAS sums in an order of its own for every kind of processor, and reports would differ in their last digits.
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
    """Difference, its 95 % interval and p."""
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
