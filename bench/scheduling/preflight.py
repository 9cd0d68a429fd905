"""What is looked at before any trial starts: weights, data, devices, and the folders to write to."""

from collections.abc import Iterator

import torch

from bench.config.errors import ConfigError
from bench.config.expand import Trial, data_key, model_key
from bench.config.trial import DATASETS, TrialConfig
from bench.datasets import DataError
from bench.datasets.core import cache
from bench.memory.nvml import nvml_missing, nvml_problem
from bench.system.progress import Progress, silent
from bench.system.wording import first_lines, some
from models.core.registry import Missing
from models.core.skeleton import skeleton
from models.core.weights import WeightsError
from models.core.weights import notes as weight_notes


def absent_of(trials: list[Trial]) -> dict[str, list[Missing]]:
    """Lists what this machine lacks, by the ids of the trials that cannot run here."""
    found = {}
    for trial in trials:
        items = [*trial.config.missing(), *_missing_nvml(trial.config)]
        if items:
            found[trial.trial_id] = items
    return found


def _missing_nvml(config: TrialConfig) -> Iterator[Missing]:
    """Yields an item where a trial must be alone on its GPU, and NVML cannot say whether it is."""
    if config.device == "cuda" and torch.cuda.is_available() and config.memory.foreign_process != "note":
        problem = nvml_problem()
        if problem:
            what, remedy = nvml_missing(problem).rsplit(". ", 1)
            yield Missing("NVML", "memory.foreign_process", what, remedy)


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
