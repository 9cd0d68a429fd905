"""Which trials will take longest, roughly, so that they start first and none of them runs alone at the end."""

from collections.abc import Mapping, Sequence

from bench.config.expand import Trial
from models.core.size import height_width


def predicted_cost(trial: Trial, counts: Mapping[str, int]) -> float:
    """Epochs x pixels x weights, a trainable weight counted twice: it has a forward and a backward pass of its own.

    A proxy for time that only orders trials of one sweep. Left out, because they seldom differ within a sweep: the
    number of training images, attention's square of the tokens, and precision.
    counts: of parameters, ``total`` and ``trainable``; empty where the model cannot be built here.
    """
    height, width = height_width(trial.config.transform.size)
    weights = counts.get("total", 0) + counts.get("trainable", 0)
    return trial.config.train.epochs * height * width * weights


def longest_first(trials: Sequence[Trial], counts: Mapping[str, Mapping[str, int]]) -> list[Trial]:
    """The trials by falling cost, equal ones in the order of the sweep. counts: of parameters, by trial id."""
    return sorted(trials, key=lambda trial: -predicted_cost(trial, counts.get(trial.trial_id, {})))
