"""Points at random, each at most once.

Optuna's samplers are not used here: Optuna is an optional package, its ``RandomSampler`` repeats points, and its
``GridSampler`` takes no ranges.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bench.config.axes import Axis
from bench.search.methods import Labels, Observation

PACKAGE = INSTALL = None
LEARNS = False
EXHAUSTIVE = False
CHOSEN = "at random"
MOST_REPEATS = 1000
"""Number of known points drawn in a row after which a space with ranges counts as used up."""


def propose(axes: Sequence[Axis], observations: Sequence[Observation], count: int, seed: int) -> list[Labels]:
    """The next points of the random order that were not proposed before; fewer where the space is used up."""
    known = {observation.labels for observation in observations}
    proposed: list[Labels] = []
    for point in _in_random_order(axes, seed):
        if len(proposed) >= count:
            break
        if point not in known:
            proposed.append(point)
    return proposed


def _in_random_order(axes: Sequence[Axis], seed: int) -> Iterator[Labels]:
    """Yields distinct points of the space in random order; all of them where there are no ranges."""
    rng = np.random.default_rng(seed)
    if not any(axis.between for axis in axes):
        shape = tuple(len(axis.points) for axis in axes)
        for number in rng.permutation(math.prod(shape)):
            places = np.unravel_index(number, shape)
            yield tuple(axis.chosen(int(place))[0] for axis, place in zip(axes, places))
        return
    seen: set[Labels] = set()
    repeats = 0
    while repeats < MOST_REPEATS:
        choice = [rng.random() if axis.between else int(rng.integers(len(axis.points))) for axis in axes]
        point = tuple(axis.chosen(c)[0] for axis, c in zip(axes, choice))
        repeats = repeats + 1 if point in seen else 0
        if point not in seen:
            seen.add(point)
            yield point
