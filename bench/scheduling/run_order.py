"""The order in which trials start: clearly longer ones first, and within these seed by seed."""

import math
from collections.abc import Mapping, Sequence

from bench.config.expand import Trial
from models.core.size import height_width


def predicted_cost(trial: Trial, counts: Mapping[str, int]) -> float:
    """Epochs x pixels x weights, where a trainable weight counts twice: it has a backward pass, too.

    It is no time, and only orders trials of one sweep. The number of training images, the quadratic cost of attention
    and the precision are left out, because they seldom differ within a sweep.
    counts: numbers of parameters, ``total`` and ``trainable``; empty where the model cannot be built here.
    """
    height, width = height_width(trial.config.transform.size)
    weights = counts.get("total", 0) + counts.get("trainable", 0)
    return trial.config.train.epochs * height * width * weights


def seed_by_seed(trials: Sequence[Trial]) -> list[Trial]:
    """Sorts trials by the order of the seeds, and equal ones by the sweep's order.

    All rows then meet the same drift of the machine's speed, and an interrupted sweep has the same seeds of all rows.
    """
    places: dict[int, int] = {}
    for trial in trials:
        places.setdefault(trial.seed, len(places))
    return sorted(trials, key=lambda trial: places[trial.seed])


def longest_first(trials: Sequence[Trial], counts: Mapping[str, Mapping[str, int]]) -> list[Trial]:
    """Sorts trials by falling cost, in steps of a factor of two, so that no long one runs alone at the end; equal ones
    seed by seed. counts: numbers of parameters by trial id."""

    def step(trial: Trial) -> int:
        cost = predicted_cost(trial, counts.get(trial.trial_id, {}))
        return round(math.log2(cost)) if cost else 0

    return sorted(seed_by_seed(trials), key=step, reverse=True)
