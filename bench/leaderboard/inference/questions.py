"""Two of the questions that a sweep may plan: each row against a reference, and all pairs of rows.

**All pairs** have Tukey's distribution and **each against a reference** has Dunnett's, if the error may be pooled
(``Components.pooled``). A claim has to hold on the pair's own error as well, since either of its rows may vary more
than the others. So p is the larger of the family's p and the pair's own, and the interval is the wider of the two.
Where the error may not be pooled, the family's p is that of rows which vary as is typical (``Components.typical``), and
the pair's own is corrected for all pairs by Bonferroni. Two seeds that happen to agree then make no difference of
nothing.

**A pair's own error** is that of its own seeds, or that of a pair with a row five times as restless as is typical
(``cautious_variance``), whichever is smaller.

**Rows with equal scores** of every image at every seed compute the same, and their interval is a point.

All intervals of a family hold together in 95 % of sweeps, so all statements that rest on them do.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from bench.leaderboard.inference.distributions import LargestT, dunnett, half_width_of_sum, p_of_sum, tukey
from bench.leaderboard.inference.two_way import (
    NEGLIGIBLE,
    Pairs,
    cautious_variance,
    combined,
    components,
    effective_seeds,
    known_trials,
    pairs,
    t_of,
)
from bench.leaderboard.statistics import LEVEL, Comparison


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


def within_margin(comparisons: Sequence[Comparison], order: Sequence[int], margin: float) -> list[tuple[int, ...]]:
    """Returns the largest groups of neighbours in ``order`` that all lie within ``margin`` of each other.

    The intervals of a family hold together, so all of the groups are right in 95 % of sweeps.
    """
    close = set()
    for c in comparisons:
        if c.within(margin):
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
        p_own[those], half[those] = own_error(*terms, seeds - 1, images, error / share)
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
    same = np.maximum(np.abs(found.difference), np.sqrt(found.by_seed + found.by_image)) < NEGLIGIBLE
    half = np.where(same, 0.0, half)  # the rows compute the same, as with and without checkpointing
    corrected = np.minimum(1, looks * p)
    low, high = found.difference - half, found.difference + half
    columns = (found.first, found.second, found.difference, low, high, p_own, corrected, found.seeds)
    return [Comparison(*values) for values in zip(*(column.tolist() for column in columns))]


def own_error(
    difference: np.ndarray,
    by_seed: np.ndarray,
    by_image: np.ndarray,
    by_both: np.ndarray,
    freedom: float,
    images: int,
    error: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns p and half of the interval on the comparison's own error. What both terms hold is counted once.

    by_seed has ``freedom`` degrees of freedom; ``by_both`` is the part of it that ``by_image`` holds, too.
    """
    by_image = np.maximum(by_image - by_both, 0)
    size = np.where(np.abs(difference) < NEGLIGIBLE, 0.0, difference)
    p = p_of_sum(size, by_seed, freedom, by_image, images - 1)
    return p, half_width_of_sum(by_seed, freedom, by_image, images - 1, error)
