"""The planned trend over an ordered axis: the slope of the rows' levels over x, from all trials of rows with two seeds.

Levels of rows and seeds are fitted by least squares, so a failed trial takes nothing but itself away. The slope is the
sum of all scores with coefficients c [row, seed] that add up to 0 over each seed. Without a missing trial c is the
weight of the row divided by the number of seeds.

On pooled error a trend has to hold on one more error that no single row can shrink: the *trend's own*, or that of the
scatter of the rows about the line. Where the error may not be pooled, the trend's own decides alone. That is the
scatter of what single seeds contribute to the slope, with the degrees of freedom of Bell and McCaffrey (2002); without
a missing trial it is the error of the slopes of the single seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from bench.leaderboard.inference.questions import own_error
from bench.leaderboard.inference.two_way import (
    MOST_PASSES,
    NEGLIGIBLE,
    Components,
    combined,
    components,
    connected_parts,
    effective_seeds,
    known_trials,
    residuals_of,
    t_of,
)
from bench.leaderboard.statistics import LEVEL


@dataclass(frozen=True)
class Trend:
    """The slope of the rows' levels over x."""

    slope: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided, corrected for repeated looks
    freedom: float  # Satterthwaite's, or those of the seeds where the trend has its own error
    components: Components
    rows: tuple[int, ...]  # with two seeds or more
    trials: int

    @property
    def resolved(self) -> bool:
        return self.p < 1 - LEVEL


def trend(table: np.ndarray, x: Sequence[float], looks: int = 1, overlap: float = 0.0) -> Trend | None:
    """Estimates the slope of scores [row, seed, image] over x: log2 of the axis's value for a slope per doubling.

    Rows with fewer than two seeds are left out. ``None`` if fewer than three rows, or fewer than two values of x are
    left, or if common seeds do not link all of these rows. overlap: of the images of different seeds
    (``effective_seeds``).
    """
    known = known_trials(table)
    rows = np.flatnonzero(known.sum(axis=1) > 1)
    seeds = np.flatnonzero(known[rows].any(axis=0))
    known, values = known[np.ix_(rows, seeds)], table[np.ix_(rows, seeds)]
    x = np.asarray(x, dtype=float)[rows]
    if len(rows) < 3 or np.ptp(x) == 0 or connected_parts(known) > 1:
        return None
    error = components(values)
    if error is None:
        return None
    centred = x - x.mean()
    weights = centred / (centred**2).sum()
    c = _coefficients(weights, known)
    images = values.shape[2]
    by_image = (c[:, :, None] * np.where(known[:, :, None], values, 0.0)).sum(axis=(0, 1))
    slope, image_variance = float(by_image.mean()), float(np.var(by_image, ddof=1) / images)
    error_of_one = (1 - LEVEL) / looks
    own = _own_terms(c, values, known)
    if own is None:
        return None
    by_seed, by_both, own_freedom = own
    enlarged = len(seeds) / effective_seeds(len(seeds), overlap)
    p, half = own_error(slope, enlarged * by_seed, image_variance, by_both, own_freedom, images, error_of_one)
    freedom = own_freedom
    if error.pooled:
        size = float((c**2).sum())
        terms = enlarged * size * error.row_seed, image_variance, size * error.residual / images
        variance, freedom = (float(value) for value in combined(*terms, error.freedom, images))
        p_pooled = float(2 * stdtr(freedom, -t_of(slope, variance)))
        half_pooled = float(stdtrit(freedom, 1 - error_of_one / 2) * np.sqrt(variance))
        p_scatter, half_scatter = _about_the_line(_levels(values, known), centred, error_of_one)
        p, half = max(p_pooled, min(p, p_scatter)), max(half_pooled, min(half, half_scatter))
    corrected = float(min(1, looks * p))
    numbers = tuple(map(int, rows))
    return Trend(slope, float(slope - half), float(slope + half), corrected, freedom, error, numbers, int(known.sum()))


def _coefficients(weights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns c [row, seed]: the sum of weights times the least-squares levels of the rows is that of c times scores.

    c is a value of the row less the mean of these values over the rows of the seed, and adds up to the row's weight
    over its seeds. The values are found by repeated substitution, which is repeatable to the last digit.
    """
    of_row, of_seed = known.sum(axis=1), known.sum(axis=0)
    value = np.zeros(len(weights))
    for _ in range(MOST_PASSES):
        mean = (known * value[:, None]).sum(axis=0) / of_seed
        before, value = value, (weights + (known * mean).sum(axis=1)) / of_row
        if np.abs(value - before).max() <= 1e-14 * np.abs(weights).max():
            break
    mean = (known * value[:, None]).sum(axis=0) / of_seed
    return known * (value[:, None] - mean)


def _own_terms(c: np.ndarray, values: np.ndarray, known: np.ndarray) -> tuple[float, float, float] | None:
    """Returns the trend's own variance by seeds, the part of it that images share, and the degrees of freedom.

    What a seed contributes to the slope is the sum of c times its residuals. Residuals are smaller than the errors, so
    the squares are scaled to be unbiased where all rows vary alike (Bell and McCaffrey 2002). ``None`` if nothing is left.
    """
    residuals = residuals_of(values, known)
    of_seeds = (c[:, :, None] * residuals).sum(axis=0)  # [seed, image]
    means = of_seeds.mean(axis=1)
    count, images = of_seeds.shape
    single = c[:, :, None] * np.eye(count)  # c of one seed each, [row, seed, seed]
    left = residuals_of(single, known)
    covariance = np.array([[(single[:, :, s] * left[:, :, t]).sum() for t in range(count)] for s in range(count)])
    expected = float(np.trace(covariance))
    if expected < NEGLIGIBLE * float((c**2).sum()):
        return None
    scale = float((c**2).sum()) / expected
    freedom = round(expected**2 / float((covariance**2).sum()), 9)
    inner = of_seeds - means[:, None]
    return scale * float((means**2).sum()), scale * float((inner**2).sum()) / ((images - 1) * images), freedom


def _levels(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns the least-squares levels of the rows, up to a constant."""
    means = np.where(known[:, :, None], values, 0.0).mean(axis=2)
    levels = np.zeros(len(known))
    for _ in range(MOST_PASSES):
        of_seed = (known * (means - levels[:, None])).sum(axis=0) / known.sum(axis=0)
        before, levels = levels, (known * (means - of_seed)).sum(axis=1) / known.sum(axis=1)
        if np.abs(levels - before).max() < NEGLIGIBLE:
            break
    return levels


def _about_the_line(levels: np.ndarray, centred: np.ndarray, error: float) -> tuple[float, float]:
    """Returns p and half of the interval by the scatter of the rows about the line, with two degrees of freedom fewer
    than rows. A single row that is far off cannot feign a trend here: it moves the scatter as much as the slope."""
    freedom = len(levels) - 2
    slope = float((centred * levels).sum() / (centred**2).sum())
    scatter = levels - levels.mean() - slope * centred
    variance = (scatter**2).sum() / freedom / (centred**2).sum()
    p = 2 * stdtr(freedom, -t_of(slope, variance))
    return float(p), float(stdtrit(freedom, 1 - error / 2) * np.sqrt(variance))
