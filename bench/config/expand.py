"""Expands the axes and seeds of a sweep into trials, and checks them before any of them runs."""

import itertools
import json
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.config.axes import MOST_POINTS
from bench.config.errors import MOST_ERRORS, ConfigError
from bench.config.row_names import row_name
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig, with_value
from bench.system.progress import Progress, silent
from bench.system.wording import some
from models.core.encoder_decoder import parameter_counts
from models.core.registry import InvalidModel
from models.core.skeleton import skeleton

MOST_PARAMETERS = 10**11


@dataclass(frozen=True)
class Trial:
    """One point of a sweep at one seed."""

    config: TrialConfig
    point: tuple[str, ...]  # the label on each axis, in the order of the sweep's axes
    tried: tuple[str, ...] = field(default=(), kw_only=True)  # each tuned field with its value, in words
    axes: tuple[str, ...] = field(default=(), kw_only=True, compare=False)  # names of the axes, for the trial's name

    @property
    def trial_id(self) -> str:
        return self.config.trial_id

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def name(self) -> str:
        """The trial in words, as progress and trackers name it."""
        row = row_name(self.point, self.axes) if self.axes else ", ".join(self.point)
        return f"{', '.join(filter(None, (row, *self.tried)))} seed {self.seed}"


class Candidates(NamedTuple):
    """Trials among which the tuned values of a row are chosen: one for each combination of values, at each seed of
    the choice."""

    fields: tuple[str, ...]
    """Dotted paths of the tuned fields."""
    trials: tuple[Trial, ...]


def expand(sweep: Sweep) -> list[Trial]:
    """Returns all points of the product of the axes, each with every combination of tuned values and at every seed.

    The seeds of a combination follow each other. Raises ``ConfigError`` for invalid points.
    """
    count = math.prod(len(axis.points) for axis in (*sweep.axes, *sweep.tune)) * len(sweep.seeds)
    if count > MOST_POINTS:
        raise ConfigError(f"{sweep.name}: axes and seeds multiply to {count:,} trials. At most {MOST_POINTS:,}")
    trials, errors, axes = [], [], tuple(axis.name for axis in sweep.axes)
    for point in itertools.product(*(axis.points for axis in sweep.axes)):
        labels = tuple(label for label, _ in point)
        for values in itertools.product(*(axis.points for axis in sweep.tune)):
            changes = {path: value for _, sets in (*point, *values) for path, value in sets.items()}
            try:
                config = with_value(sweep.base, changes)
            except ConfigError as error:
                named = zip((*sweep.axes, *sweep.tune), (*labels, *(label for label, _ in values)))
                at = ", ".join(f"{axis.name}={label}" for axis, label in named)
                errors += [f"  at {at}: {line}" for line in error.lines]
                continue
            tried = tuple(f"{axis.name} {label}" for axis, (label, _) in zip(sweep.tune, values))
            for seed in sweep.seeds:
                trials.append(Trial(config.model_copy(update={"seed": seed}), labels, tried=tried, axes=axes))
    seen: dict[str, Trial] = {}
    for trial in trials:
        first = seen.setdefault(trial.trial_id, trial)
        if first is not trial:
            names = [", ".join((*of.point, *of.tried)) for of in (first, trial)]
            cause = "An override may have replaced what tells them apart. Leave one of them, or the override, out"
            errors.append(f"  {names[0]} and {names[1]} are the same configuration. {cause}")
    if errors:
        raise ConfigError(f"{sweep.name}:", *list(dict.fromkeys(errors))[:MOST_ERRORS])
    return trials


def row_key(trial: Trial) -> str:
    """Returns a text that is equal for trials that differ in their seed only."""
    return json.dumps(trial.config.model_dump(mode="json", exclude={"seed"}), sort_keys=True)


def model_key(config: TrialConfig) -> str:
    """Returns a key that is equal for trials with the same model."""
    return json.dumps([config.model.model_dump(mode="json"), config.transform.size])


def data_key(config: TrialConfig) -> str:
    """Returns a key that is equal for trials with the same data and preprocessing."""
    return json.dumps([part.model_dump(mode="json") for part in (config.drawn_dataset, config.transform)])


def sizes(trials: list[Trial], progress: Progress = silent) -> dict[str, dict[str, int]]:
    """Returns parameter counts by trial id; empty ones if a package is missing. Each shape is built once, on the meta
    device.

    Raises ``ConfigError`` with every model that cannot be built.
    """
    keys = {trial.trial_id: _shape_key(trial.config) for trial in trials}
    distinct = {keys[trial.trial_id]: trial for trial in reversed(trials)}  # the first of each
    by_shape: dict[str, dict[str, int]] = {}
    points: dict[str, list[str]] = {}  # of each error
    for key, trial in progress(list(reversed(distinct.items())), len(distinct)):
        config = trial.config
        by_shape[key] = {}
        if any(item.kind == "package" for item in config.model.missing()):
            continue
        try:
            by_shape[key] = parameter_counts(skeleton(config.model, config.transform.size))
            if (total := by_shape[key]["total"]) > MOST_PARAMETERS:
                raise InvalidModel(
                    f"name: {total:.2g} parameters are beyond any machine. At most {MOST_PARAMETERS:.0e}"
                )
        except InvalidModel as error:
            points.setdefault(str(error), []).append(", ".join(trial.point))
    if points:
        lines = [f"model.{error} (at {some(where)})" for error, where in points.items()]
        raise ConfigError(*lines[:MOST_ERRORS])
    return {trial_id: by_shape[key] for trial_id, key in keys.items()}


def _shape_key(config: TrialConfig) -> str:
    return json.dumps([config.model.shape(), config.transform.size])
