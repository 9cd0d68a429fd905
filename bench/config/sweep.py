"""A sweep's trials: expanded from its axes and seeds, and checked before any of them runs."""

import itertools
import json
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.config.settings import MOST_ERRORS, MOST_POINTS, ConfigError, Sweep, TrialConfig, with_value
from bench.datasets import DATASETS, DataError, Progress, first_lines, silent, some
from bench.datasets.core import cache
from bench.records.record import TrialRecord
from models.core.encoder_decoder import parameter_counts
from models.core.registry import InvalidModel, Missing
from models.core.skeleton import skeleton
from models.core.weights import WeightsError
from models.core.weights import notes as weight_notes

MOST_PARAMETERS = 10**11


@dataclass(frozen=True)
class Trial:
    """One point of a sweep at one seed."""

    config: TrialConfig
    point: tuple[str, ...]  # the label on each axis, in the order of the sweep's axes

    @property
    def trial_id(self) -> str:
        return self.config.trial_id

    @property
    def seed(self) -> int:
        return self.config.seed


def expand(sweep: Sweep) -> list[Trial]:
    """All points of the product of the axes, each at every seed. Raises ``ConfigError`` for the impossible ones."""
    count = math.prod(len(axis.points) for axis in sweep.axes) * len(sweep.seeds)
    if count > MOST_POINTS:
        raise ConfigError(f"{sweep.name}: axes and seeds multiply to {count:,} trials. At most {MOST_POINTS:,}")
    trials, errors = [], []
    for point in itertools.product(*(axis.points for axis in sweep.axes)):
        labels = tuple(label for label, _ in point)
        changes = {path: value for _, sets in point for path, value in sets.items()}
        try:
            config = with_value(sweep.base, changes)
        except ConfigError as error:
            at = ", ".join(f"{axis.name}={label}" for axis, label in zip(sweep.axes, labels))
            errors += [f"  at {at}: {line}" for line in error.lines]
            continue
        trials += [Trial(config.model_copy(update={"seed": seed}), labels) for seed in sweep.seeds]
    seen: dict[str, Trial] = {}
    for trial in trials:
        first = seen.setdefault(trial.trial_id, trial)
        if first is not trial:
            errors.append(f"  {', '.join(first.point)} and {', '.join(trial.point)} are the same configuration")
    if errors:
        raise ConfigError(f"{sweep.name}:", *list(dict.fromkeys(errors))[:MOST_ERRORS])
    return trials


def model_key(config: TrialConfig) -> str:
    """Equal for trials whose models are built alike."""
    return json.dumps([config.model.model_dump(mode="json"), config.transform.size])


def data_key(config: TrialConfig) -> str:
    """Equal for trials that read the same data in the same way."""
    return json.dumps([part.model_dump(mode="json") for part in (config.dataset, config.transform)])


def sizes(trials: list[Trial], progress: Progress = silent) -> dict[str, dict[str, int]]:
    """Parameter counts by trial id; each distinct shape is built once, without memory. Empty if a package is missing.

    Raises ``ConfigError`` with everything that cannot be built.
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


def absent_of(trials: list[Trial]) -> dict[str, list[Missing]]:
    """What keeps a trial from running on this machine, by the ids of the trials that cannot run."""
    found = {trial.trial_id: list(trial.config.missing()) for trial in trials}
    return {trial_id: items for trial_id, items in found.items() if items}


def prepare_weights(trials: list[Trial]) -> list[str]:
    """Reads, checks and caches each distinct model's checkpoint once; returns what a user should know about them.

    Raises ``ConfigError`` with all that is wrong.
    """
    distinct = {}
    for trial in trials:
        config = trial.config
        if any(config.model.weight_files()):
            distinct[model_key(config)] = config
    errors = []
    with weight_notes() as notes:
        for config in distinct.values():
            try:
                skeleton(config.model, config.transform.size, pretrained=True)
            except WeightsError as error:
                errors.append(f"  {error}")
    if errors:
        raise ConfigError("the weights cannot be used:", *dict.fromkeys(errors))
    return list(dict.fromkeys(notes))


def prepare_data(trials: list[Trial], progress: Progress = silent, validated_by: str | None = None) -> list[str]:
    """Reads, checks and caches each distinct dataset once; returns what a user should know about them.

    Raises ``ConfigError`` with everything that is wrong with them, for a batch that they cannot fill, and for an empty
    validation split where somebody, named by ``validated_by``, needs one.
    """
    distinct: dict[str, list[TrialConfig]] = {}
    for trial in trials:
        distinct.setdefault(data_key(trial.config), []).append(trial.config)
    notes, errors = [], []
    for configs in distinct.values():
        try:
            data = DATASETS.build(configs[0].dataset, configs[0].transform, progress)
        except DataError as error:
            errors += error.errors
            continue
        notes += data.notes
        if any(config.protocol.name == "mirror" for config in configs):
            notes += [
                f"{len(names)} masks of {test} hold levels from 129 to 254, background for the mirror protocol: "
                f"{some(names)}"
                for test, names in data.almost_white.items()
                if names
            ]
        if validated_by and not len(data.val):
            errors.append(f"{validated_by} looks at the validation split, and {configs[0].dataset.name} has none")
        most = len(data.train)
        batches = {config.train.batch_size for config in configs if config.train.batch_size > most}
        errors += [f"train.batch_size: {n} is more than there are training pairs. At most {most}" for n in batches]
    if errors:
        raise ConfigError("the data cannot be used:", *(f"  {line}" for line in first_lines(errors)))
    return list(dict.fromkeys(notes))


def check_cache() -> None:
    """Raises ``ConfigError`` where nothing says which folder caches may lie in."""
    try:
        cache.root()
    except DataError as error:
        raise ConfigError(*error.errors) from None


def check_writable(folder: Path) -> None:
    """Makes the results folder. Raises ``ConfigError`` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write results there ({os.strerror(error.errno)}). Give --results DIR")


def pending(trials: list[Trial], records: dict[str, TrialRecord]) -> list[Trial]:
    """Trials without a record, or whose record is an error."""
    done = {trial_id for trial_id, record in records.items() if record.status != "error"}
    return [trial for trial in trials if trial.trial_id not in done]
