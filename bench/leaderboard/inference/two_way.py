"""The error of a difference between rows, from a table of scores by row, seed and image.

Model (two-way, mixed): score = row + image + seed + row x image + row x seed + row x seed x image. The last three are
random. What a seed or an image does to all rows alike cancels in a difference. For a contrast of rows with coefficients
c, at n seeds and N images, the variance of its estimate is (Cochran 1951, a synthesis of mean squares)

    V = S / N + g max(M / n - R / (n N), 0),   g = sum of c^2.

S is the variance over images of the contrast's means over seeds. M is the mean square of rows x seeds, of means over
images. R is the mean square of rows x seeds x images. S / N and M / n both hold R / (n N), so it is taken off once. The
degrees of freedom are Satterthwaite's (1946): V^2 / sum of (term^2 / degrees of freedom of the term).

Where the split is drawn anew with each seed, seeds have different images, and images cannot be taken off. The table
then holds the means over images (``means_over_images``), and seeds count for less if they have images in common
(``effective_seeds``).

S is always that of the compared rows. M and R are *pooled* over all rows if the largest deviation over seeds of a row
is at most ``LIMIT`` times the median. Otherwise they are the comparison's *own*. Two or three seeds seldom show that a
row is restless. So a claim on pooled error has to hold on a second error too
(``bench.leaderboard.inference.questions``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from scipy.special import chdtri

from bench.leaderboard.statistics import product

LIMIT = 2.0
"""Largest deviation over seeds, in medians, with which the error is pooled."""
RESTLESS = 5.0
"""Deviation over seeds that one row may have, in typical ones, without a false claim (``cautious_variance``)."""
LARGEST_OVERLAP = 0.99
"""Share of common images beyond which the error would be infinite."""
MOST_PASSES = 500
NEGLIGIBLE = 1e-12
"""Differences below this are rounding errors."""


@dataclass(frozen=True)
class Components:
    """Error components of a table, pooled over its rows."""

    rows: int  # with at least two seeds
    images: int
    row_seed: float  # M: mean square of rows x seeds, of means over images
    residual: float  # R: mean square of rows x seeds x images
    freedom: int  # degrees of freedom of M
    largest: float  # deviation over seeds of the means over images, of the row that varies most
    median: float  # of these deviations
    typical: float  # estimate of a row's true deviation, from the median

    @property
    def pooled(self) -> bool:
        """The rows allow that their errors are pooled: there are three or more, and none varies much more."""
        return self.rows > 2 and self.largest <= LIMIT * self.median


@dataclass(frozen=True)
class Pairs:
    """Error terms of pairs of rows; arrays with one entry for each pair that has two seeds in common."""

    first: np.ndarray
    second: np.ndarray
    seeds: np.ndarray  # in common
    difference: np.ndarray  # mean of ``first`` minus mean of ``second`` over the common seeds
    by_seed: np.ndarray  # variance of the difference by the pair's own seeds: 2 M / n of these two rows
    by_image: np.ndarray  # S / N
    by_both: np.ndarray  # 2 R / (n N) of these two rows

    def chosen(self, keep: np.ndarray) -> "Pairs":
        """Returns the pairs that a mask or an index selects."""
        return Pairs(*(values[keep] for values in vars(self).values()))


def table_of(scores: Sequence[Mapping[int, np.ndarray]]) -> np.ndarray:
    """Makes the array [row, seed, image] from the images' scores by seed of each row; NaN for missing trials.

    Raises ``ValueError`` where there are no scores, or trials differ in their number of images.
    """
    seeds = sorted({seed for by_seed in scores for seed in by_seed})
    counts = {len(values) for by_seed in scores for values in by_seed.values()}
    if len(counts) != 1:
        raise ValueError(f"all trials need scores of the same images (got {sorted(counts)} images)")
    table = np.full((len(scores), len(seeds), counts.pop()), np.nan)
    for row, by_seed in enumerate(scores):
        for seed, values in by_seed.items():
            table[row, seeds.index(seed)] = values
    return table


def known_trials(table: np.ndarray) -> np.ndarray:
    """Returns which trials [row, seed] a table holds: those with a score of every image."""
    return np.isfinite(table).all(axis=2)


def components(table: np.ndarray) -> Components | None:
    """Estimates the pooled error components; ``None`` without two rows that share two seeds, or with one image.

    Rows and seeds are fitted by least squares, so rows may have different seeds. For a full table the residuals are
    those of the two-way analysis of variance, with (rows - 1) (seeds - 1) degrees of freedom.
    """
    used = known_trials(table).any(axis=0)
    known, values = known_trials(table)[:, used], table[:, used]
    freedom = int(known.sum() - known.any(axis=1).sum() - known.shape[1]) + connected_parts(known)
    images = table.shape[2]
    if freedom < 1 or images < 2:
        return None
    residuals = residuals_of(values, known)
    means = residuals.mean(axis=2)
    row_seed = float((means**2).sum() / freedom)
    inner = (residuals - means[:, :, None]) ** 2
    residual = float(inner.sum() / (freedom * (images - 1)))
    deviations, unbiased = [], []
    for scores, there in zip(values, known):
        seeds = int(there.sum())
        if seeds > 1:
            deviations.append(float(np.std(scores[there].mean(axis=1), ddof=1)))
            unbiased.append(deviations[-1] / np.sqrt(chdtri(seeds - 1, 0.5) / (seeds - 1)))
    largest, median, typical = max(deviations), float(np.median(deviations)), float(np.median(unbiased))
    return Components(len(deviations), images, row_seed, residual, freedom, largest, median, typical)


def means_over_images(table: np.ndarray) -> np.ndarray:
    """Replaces the scores [row, seed, image] by their means, for seeds that have different images.

    What images do then is a part of what seeds do, and the error is that over seeds alone. The mean stands twice in the
    place of the images, so S and R are 0.
    """
    return np.repeat(table.mean(axis=2, keepdims=True), 2, axis=2)


def overlap_of(images: Iterable[Iterable[str]]) -> float:
    """Returns the mean share of images that two seeds have in common, at most ``LARGEST_OVERLAP``.

    images: the names of the images of each seed.
    """
    sets = [set(names) for names in images]
    return min(fmean(len(a & b) / max(len(a), len(b)) for a, b in combinations(sets, 2)), LARGEST_OVERLAP)


def effective_seeds(seeds: np.ndarray | int, overlap: float) -> np.ndarray | float:
    """Returns the number of independent seeds whose mean is as uncertain as that of n seeds with common images.

    overlap: share o of a seed's images that another seed has, too (0 to below 1). Splits that are drawn anew from the
    same images are correlated by about o, so the variance of a mean is M (1/n + o / (1 - o)) (Nadeau and Bengio 2003).
    """
    return seeds / (1 + seeds * overlap / (1 - overlap))


def pairs(table: np.ndarray, overlap: float = 0.0) -> Pairs:
    """Returns the error terms of all pairs of rows with two seeds in common; none with one image.

    overlap: as in ``effective_seeds``.
    """
    found = []
    if table.shape[2] > 1:
        for rows, seeds, wanted in _by_common_seeds(known_trials(table)):
            found.append(_pairs_over(table, rows, seeds, wanted, overlap))
    if not found:
        nothing, numbers = np.zeros(0), np.zeros(0, dtype=int)
        return Pairs(numbers, numbers, numbers, nothing, nothing, nothing, nothing)
    columns = [np.concatenate(column) for column in zip(*(vars(part).values() for part in found))]
    order = np.lexsort((columns[1], columns[0]))
    return Pairs(*(column[order] for column in columns))


def combined(
    by_seed: np.ndarray, by_image: np.ndarray, by_both: np.ndarray, freedom: int, images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns V and Satterthwaite's degrees of freedom, from g M / n, S / N and g R / (n N)."""
    variance = by_image + np.maximum(by_seed - by_both, 0)
    spread = by_image**2 / (images - 1) + by_seed**2 / freedom + by_both**2 / (freedom * (images - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        satterthwaite = np.where(spread > 0, variance**2 / spread, freedom)
    return variance, np.maximum(satterthwaite, 1)


def cautious_variance(error: Components, seeds: np.ndarray) -> np.ndarray:
    """Returns g M / n of pairs of which one row is ``RESTLESS`` times as restless as is typical, or as the largest is.

    Two seeds give a pair's own error one degree of freedom, with which only differences of more than 12 standard errors
    count. This one is larger but known better: a large difference shows at two seeds already.
    """
    restless = max(RESTLESS * error.typical, error.largest)
    return (restless**2 + error.typical**2) / seeds


def t_of(difference: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Returns the absolute difference in standard errors; 0 where nothing differs, infinite where nothing varies."""
    size = np.abs(difference)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size < NEGLIGIBLE, 0.0, size / np.sqrt(variance))


def residuals_of(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns what rows and seeds do not explain, by image [row, seed, image]; 0 for missing trials.

    Means of rows and of seeds are taken off in turn until nothing changes, which converges to least squares. A full
    table needs one pass. It is repeatable to the last digit, which a solver of linear algebra's libraries is not.
    """
    there = known[:, :, None]
    residuals = np.where(there, values, 0.0)
    of_row = np.maximum(known.sum(axis=1), 1)[:, None, None]
    of_seed = known.sum(axis=0)[None, :, None]
    for _ in range(MOST_PASSES):
        residuals -= there * (residuals.sum(axis=1, keepdims=True) / of_row)
        means = residuals.sum(axis=0, keepdims=True) / of_seed
        residuals -= there * means
        if np.abs(means).max() < NEGLIGIBLE:
            break
    return residuals


def connected_parts(known: np.ndarray) -> int:
    """Counts the groups of rows between which no seed is shared: each has a level of its own that nothing fixes."""
    group = np.arange(len(known))
    for seed in known.T:
        rows = np.flatnonzero(seed)
        for row in rows[1:]:
            group[group == group[row]] = group[rows[0]]
    return len(set(group[known.any(axis=1)]))


def _by_common_seeds(known: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, for each set of seeds that some pair has in common: the rows that have it, the seeds, the pairs meant.

    The pairs meant are a mask [rows, rows], the upper triangle only. A sweep has few such sets.
    """
    patterns = [frozenset(np.flatnonzero(row)) for row in known]
    common = {first & second for first in set(patterns) for second in set(patterns)}
    for seeds in sorted((each for each in common if len(each) > 1), key=sorted):
        rows = np.array([number for number, pattern in enumerate(patterns) if pattern >= seeds])
        shared = known[rows].astype(int) @ known[rows].T.astype(int)
        wanted = np.triu(shared == len(seeds), 1)
        meant = wanted.any(axis=0) | wanted.any(axis=1)
        if meant.any():
            yield rows[meant], np.array(sorted(seeds)), wanted[np.ix_(meant, meant)]


def _pairs_over(table: np.ndarray, rows: np.ndarray, seeds: np.ndarray, wanted: np.ndarray, overlap: float) -> Pairs:
    """Returns the error terms of the wanted pairs of these rows, all of which have all of these seeds."""
    values = table[np.ix_(rows, seeds)]
    _, count, images = values.shape
    by_seed, by_image = values.mean(axis=2), values.mean(axis=1)  # [row, seed] and [row, image]
    means = by_seed.mean(axis=1)
    inner = values - by_image[:, None, :] - by_seed[:, :, None] + means[:, None, None]
    first, second = np.nonzero(wanted)
    return Pairs(
        first=rows[first],
        second=rows[second],
        seeds=np.full(len(first), count),
        difference=means[first] - means[second],
        by_seed=_of_difference(by_seed - means[:, None], first, second)
        / (effective_seeds(count, overlap) * (count - 1)),
        by_image=_of_difference(by_image - means[:, None], first, second) / (images * (images - 1)),
        by_both=_of_difference(inner.reshape(len(rows), -1), first, second)
        / (count * images * (count - 1) * (images - 1)),
    )


def _of_difference(centred: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the sums of squares of differences of rows [R, X], from their sums of products."""
    products = product(centred, centred.T)
    squares = np.diagonal(products)
    return np.maximum(squares[first] + squares[second] - 2 * products[first, second], 0)
