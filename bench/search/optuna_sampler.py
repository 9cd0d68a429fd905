"""Points that Optuna proposes: the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011; Akiba et al., KDD
2019, arXiv 1907.10902), asked for one batch after another."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from bench.config.axes import Axis

STARTUP = 5  # points that are drawn at random before anything is learnt from them
TRIES = 10  # questions for each point that is wanted


class Told(NamedTuple):
    """A point that was proposed before, and what became of it."""

    labels: tuple[str, ...]
    value: float | None  # of a point that was run to its end, higher is better
    stopped: tuple[int, float] | None = None  # epoch and validation loss of one that was stopped early


def propose(axes: Sequence[Axis], told: Sequence[Told], count: int, seed: int) -> list[tuple[str, ...]]:
    """Up to ``count`` points that nobody has told of, by their labels; fewer where Optuna insists on known ones.

    The same points told give the same proposals.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    drawn = int(np.random.SeedSequence([seed, len(told)]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        options = {"n_startup_trials": STARTUP, "multivariate": True, "constant_liar": True}
        sampler = optuna.samplers.TPESampler(seed=drawn, **options)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    space = {str(number): _distribution(axis) for number, axis in enumerate(axes)}
    study.add_trials([_frozen(axes, space, point) for point in told])
    known = {point.labels for point in told}
    proposed: list[tuple[str, ...]] = []
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
    """A range is searched by its share, ascending numbers by their place, everything else as names without order."""
    if axis.between:
        return FloatDistribution(0, 1)
    values = [tuple(changes.values()) for _, changes in axis.points]
    numbers = [v[0] for v in values if len(v) == 1 and type(v[0]) in (int, float)]
    if len(numbers) == len(values) > 1 and numbers == sorted(numbers):
        return IntDistribution(0, len(values) - 1)
    return CategoricalDistribution(range(len(values)))


def _frozen(axes: Sequence[Axis], space: dict[str, BaseDistribution], point: Told) -> optuna.trial.FrozenTrial:
    params = dict(zip(space, (axis.choice(label) for axis, label in zip(axes, point.labels))))
    if point.stopped:
        epoch, loss = point.stopped
        return create_trial(
            state=TrialState.PRUNED, params=params, distributions=space, intermediate_values={epoch: -loss}
        )
    state = TrialState.FAIL if point.value is None else TrialState.COMPLETE
    return create_trial(state=state, value=point.value, params=params, distributions=space)
