"""Sorts trials by their predicted run time, so that the longest start first and none of them runs alone at the end."""

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


def longest_first(trials: Sequence[Trial], counts: Mapping[str, Mapping[str, int]]) -> list[Trial]:
    """Sorts trials by falling cost, and equal ones by the sweep's order. counts: numbers of parameters by trial id."""
    return sorted(trials, key=lambda trial: -predicted_cost(trial, counts.get(trial.trial_id, {})))
