"""The questions that a sweep may plan: a trend over an axis, each row against a reference, all pairs of rows.

**All pairs** have Tukey's distribution and **each against a reference** has Dunnett's, if the error may be pooled
(``Components.pooled``). A claim has to hold on the pair's own error as well, since either of its rows may vary more
than the others. So p is the larger of the family's p and the pair's own, and the interval is the wider of the two.
Where the error may not be pooled, the family's p is that of rows which vary as is typical (``Components.typical``), and
the pair's own is corrected for all pairs by Bonferroni. Two seeds that happen to agree then make no difference of
nothing.

**A pair's own error** is that of its own seeds, or that of a pair with a row five times as restless as is typical
(``cautious_variance``), whichever is smaller.

**A trend** is the slope over x, by least squares on the rows' means. On pooled error it has to hold on one more error
that no single row can shrink: that of the slopes of the single seeds, or that of the scatter of the rows about the
line. Where the error may not be pooled, the slopes of the single seeds decide alone.

All intervals of a family hold together in 95 % of sweeps, so all statements that rest on them do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from bench.leaderboard.inference.distributions import LargestT, dunnett, half_width_of_sum, p_of_sum, tukey
from bench.leaderboard.inference.two_way import (
    NEGLIGIBLE,
    Components,
    Pairs,
    cautious_variance,
    combined,
    components,
    effective_seeds,
    known_trials,
    pairs,
    t_of,
)
from bench.leaderboard.statistics import LEVEL, Comparison, product


@dataclass(frozen=True)
class Trend:
    """The slope of the rows' means over x, on the seeds that all of these rows have in common."""

    slope: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided, corrected for repeated looks
    freedom: float  # Satterthwaite's, or those of the seeds where the trend has its own error
    components: Components
    rows: tuple[int, ...]
    seeds: int

    @property
    def resolved(self) -> bool:
        return self.p < 1 - LEVEL


def compare_all(table: np.ndarray, looks: int = 1, overlap: float = 0.0) -> list[Comparison]:
    """Compares every pair of rows of scores [row, seed, image], on the seeds that the pair has in common.

    ``p`` of a comparison is the pair's own, ``p_adjusted`` is corrected for all pairs and looks. ``low`` and ``high`` are
    simultaneous. looks: how often results could end the sweep; Bonferroni's factor corrects for it. overlap: of the images
    of different seeds (``effective_seeds``).
    """
    rows = len(table)
    found = pairs(table, overlap)
    family = tukey(max(2, len(set(found.first) | set(found.second))))
    tested = {(c.first, c.second): c for c in _compared(table, found, family, looks, overlap)}
    known = known_trials(table).astype(int)
    common = known @ known.T
    every = []
    for first in range(rows):
        for second in range(first + 1, rows):
            nothing = Comparison(first, second, None, None, None, None, None, int(common[first, second]))
            every.append(tested.get((first, second), nothing))
    return every


def compare_with(table: np.ndarray, reference: int, looks: int = 1, overlap: float = 0.0) -> list[Comparison]:
    """Compares each other row with the reference: ``first`` is the row and ``second`` the reference."""
    found = pairs(table, overlap)
    of_reference = found.chosen((found.first == reference) | (found.second == reference))
    sign = np.where(of_reference.first == reference, -1, 1)
    others = np.where(sign < 0, of_reference.second, of_reference.first)
    turned = Pairs(
        others,
        np.full(len(others), reference),
        of_reference.seeds,
        sign * of_reference.difference,
        of_reference.by_seed,
        of_reference.by_image,
        of_reference.by_both,
    )
    tested = {c.first: c for c in _compared(table, turned, dunnett(max(1, len(others))), looks, overlap)}
    known = known_trials(table)
    every = []
    for row in range(len(table)):
        if row != reference:
            common = int((known[row] & known[reference]).sum())
            every.append(tested.get(row, Comparison(row, reference, None, None, None, None, None, common)))
    return every


def trend(table: np.ndarray, x: Sequence[float], looks: int = 1, overlap: float = 0.0) -> Trend | None:
    """Estimates the slope of the rows' means over x: log2 of the axis's value for a slope per doubling.

    Rows with fewer than two seeds are left out. ``None`` if fewer than three rows, or fewer than two values of x, or
    fewer than two seeds in common are left.
    """
    known = known_trials(table)
    rows = np.flatnonzero(known.sum(axis=1) > 1)
    seeds = np.flatnonzero(known[rows].all(axis=0))
    values = table[np.ix_(rows, seeds)]
    x = np.asarray(x, dtype=float)[rows]
    error = components(values) if len(rows) > 2 and len(seeds) > 1 else None
    if error is None or np.ptp(x) == 0:
        return None
    centred = x - x.mean()
    weights = centred / (centred**2).sum()
    contrast = product(weights[None], values.reshape(len(rows), -1)).reshape(values.shape[1:])  # [seed, image]
    of_seeds, of_images, slope = contrast.mean(axis=1), contrast.mean(axis=0), float(contrast.mean())
    count, images = contrast.shape
    by_image = _variance_of_mean(of_images)
    inner = contrast - of_seeds[:, None] - of_images + slope
    by_both = (inner**2).sum() / ((count - 1) * (images - 1) * count * images)
    error_of_one = (1 - LEVEL) / looks
    effective = effective_seeds(count, overlap)
    own = _own(slope, float(np.var(of_seeds, ddof=1) / effective), by_image, by_both, count, images, error_of_one)
    p, half, freedom = *own, float(count - 1)
    if error.pooled:
        size = (weights**2).sum()
        terms = size * error.row_seed / effective, by_image, size * error.residual / (count * images)
        variance, freedom = (float(value) for value in combined(*terms, error.freedom, images))
        p_pooled = float(2 * stdtr(freedom, -t_of(slope, variance)))
        half_pooled = float(stdtrit(freedom, 1 - error_of_one / 2) * np.sqrt(variance))
        scatter = _about_the_line(values.mean(axis=(1, 2)), centred, slope, error_of_one)
        p, half = max(p_pooled, min(own[0], scatter[0])), max(half_pooled, min(own[1], scatter[1]))
    return Trend(slope, slope - half, slope + half, min(1, looks * p), freedom, error, tuple(map(int, rows)), count)


def within_margin(comparisons: Sequence[Comparison], order: Sequence[int], margin: float) -> list[tuple[int, ...]]:
    """Returns the largest groups of neighbours in ``order`` that all lie within ``margin`` of each other.

    Two rows do if the interval of their difference lies between -margin and margin: two one-sided tests (Schuirmann
    1987). The intervals of a family hold together, so all of the groups are right in 95 % of sweeps.
    """
    close = set()
    for c in comparisons:
        if c.low is not None and -margin < c.low and c.high < margin:
            close |= {(c.first, c.second), (c.second, c.first)}
    groups: list[tuple[int, ...]] = []
    reached = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and all((order[end], other) in close for other in order[start:end]):
            end += 1
        if end - start > 1 and end > reached:
            groups.append(tuple(order[start:end]))
            reached = end
    return groups


def _compared(table: np.ndarray, found: Pairs, family: LargestT, looks: int, overlap: float) -> list[Comparison]:
    """Tests the pairs of a family, on pooled error where the rows allow it."""
    if not len(found.first):
        return []
    images, count = table.shape[2], len(found.first)
    error = (1 - LEVEL) / looks
    pooled = components(table)
    share = 1 if pooled.pooled else count  # the number of pairs for which a pair's own error is corrected
    p_own, half = np.empty(count), np.empty(count)
    for seeds in set(found.seeds.tolist()):
        those = found.seeds == seeds
        part = found.chosen(those)
        terms = part.difference, part.by_seed, part.by_image, part.by_both
        p_own[those], half[those] = _own(*terms, seeds, images, error / share)
    p = share * p_own
    if pooled.rows > 2:
        effective = effective_seeds(found.seeds, overlap)
        by_both = 2 * pooled.residual / (found.seeds * images)
        by_seed = cautious_variance(pooled, effective)
        variance, freedom = combined(by_seed, found.by_image, by_both, pooled.rows - 1, images)
        p_own = np.minimum(p_own, 2 * stdtr(freedom, -t_of(found.difference, variance)))
        half = np.minimum(half, stdtrit(freedom, 1 - error / share / 2) * np.sqrt(variance))
        common, known_by = (pooled.row_seed, pooled.freedom) if pooled.pooled else (pooled.typical**2, pooled.rows - 1)
        variance, freedom = combined(2 * common / effective, found.by_image, by_both, known_by, images)
        p = np.maximum(share * p_own, family.exceeds(t_of(found.difference, variance), freedom))
        half = np.maximum(half, family.critical(freedom, error) * np.sqrt(variance))
    corrected = np.minimum(1, looks * p)
    low, high = found.difference - half, found.difference + half
    columns = (found.first, found.second, found.difference, low, high, p_own, corrected, found.seeds)
    return [Comparison(*values) for values in zip(*(column.tolist() for column in columns))]


def _own(
    difference: np.ndarray,
    by_seed: np.ndarray,
    by_image: np.ndarray,
    by_both: np.ndarray,
    seeds: int,
    images: int,
    error: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns p and half of the interval on the comparison's own error. What both terms hold is counted once."""
    by_image = np.maximum(by_image - by_both, 0)
    size = np.where(np.abs(difference) < NEGLIGIBLE, 0.0, difference)
    p = p_of_sum(size, by_seed, seeds - 1, by_image, images - 1)
    return p, half_width_of_sum(by_seed, seeds - 1, by_image, images - 1, error)


def _about_the_line(means: np.ndarray, centred: np.ndarray, slope: float, error: float) -> tuple[float, float]:
    """Returns p and half of the interval by the scatter of the rows about the line, with two degrees of freedom fewer
    than rows. A single row that is far off cannot feign a trend here: it moves the scatter as much as the slope."""
    freedom = len(means) - 2
    scatter = means - means.mean() - slope * centred
    variance = (scatter**2).sum() / freedom / (centred**2).sum()
    p = 2 * stdtr(freedom, -t_of(slope, variance))
    return float(p), float(stdtrit(freedom, 1 - error / 2) * np.sqrt(variance))


def _variance_of_mean(values: np.ndarray) -> float:
    return float(np.var(values, ddof=1) / len(values))
