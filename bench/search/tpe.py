"""Proposes points by Optuna's tree-structured Parzen estimator, TPE (Bergstra et al., NeurIPS 2011; Akiba et al., KDD
2019, arXiv 1907.10902), one batch after another."""

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from bench.config.axes import Axis
from bench.search.methods import Labels, Observation

STARTUP = 5
"""Number of points that are drawn at random before the sampler learns from them."""
TRIES = 10
"""Number of proposals that are requested for each new point."""


def propose(axes: Sequence[Axis], observations: Sequence[Observation], count: int, seed: int) -> list[Labels]:
    """Up to ``count`` new points; fewer where Optuna proposes known ones again and again.

    The same observations give the same proposals.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler_seed = int(np.random.SeedSequence([seed, len(observations)]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        options = {"n_startup_trials": STARTUP, "multivariate": True, "constant_liar": True}
        sampler = optuna.samplers.TPESampler(seed=sampler_seed, **options)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    space = {str(number): _distribution(axis) for number, axis in enumerate(axes)}
    study.add_trials([_frozen(axes, space, observation) for observation in observations])
    known = {observation.labels for observation in observations}
    proposed: list[Labels] = []
    for _ in range(TRIES * count):
        trial = study.ask(space)
        point = tuple(axis.chosen(trial.params[name])[0] for name, axis in zip(space, axes))
        if point in known:
            study.tell(trial, state=TrialState.FAIL)
            continue
        known.add(point)
        proposed.append(point)
        if len(proposed) == count:
            break
    return proposed


def _distribution(axis: Axis) -> BaseDistribution:
    """Searches a range by its share, ascending numbers by their place, and all other values as unordered categories."""
    if axis.between:
        return FloatDistribution(0, 1)
    values = [tuple(changes.values()) for _, changes in axis.points]
    numbers = [v[0] for v in values if len(v) == 1 and type(v[0]) in (int, float)]
    if len(numbers) == len(values) > 1 and numbers == sorted(numbers):
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(range(len(values)))


def _frozen(
    axes: Sequence[Axis], space: dict[str, BaseDistribution], observation: Observation
) -> optuna.trial.FrozenTrial:
    """An observation as a trial of Optuna: complete, pruned where it was stopped early, or failed without a result."""
    choices = (axis.choice(label) for axis, label in zip(axes, observation.labels))
    params = dict(zip(space, choices))
    if observation.stopped:
        epoch, loss = observation.stopped
        return create_trial(
            state=TrialState.PRUNED, params=params, distributions=space, intermediate_values={epoch: -loss}
        )
    state = TrialState.FAIL if observation.value is None else TrialState.COMPLETE
    return create_trial(state=state, value=observation.value, params=params, distributions=space)
