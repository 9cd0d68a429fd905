"""Checks before any trial starts: weights, data, devices and caches."""

import json
from collections.abc import Iterator, Mapping, Sequence

import torch

from bench.config.errors import ConfigError
from bench.config.expand import Trial, data_key, model_key
from bench.config.settings import ALL_IMAGES, PROTOCOLS
from bench.config.trial import DATASETS, TrialConfig, with_value
from bench.datasets import Data, DataError
from bench.datasets.core import cache
from bench.datasets.masks.stored import OBJECT
from bench.memory.nvml import nvml_missing, nvml_problem
from bench.memory.predicted_peak import Unpredictable, predict_tensors
from bench.system.progress import Progress, silent
from bench.system.wording import first_lines, some
from bench.training.data_parallel import Share
from models.core.registry import Missing
from models.core.skeleton import skeleton
from models.core.weights import WeightsError
from models.core.weights import notes as weight_notes

VALIDATION = "Set dataset.val to hold images back for it"
"""Remedy where a setting needs a validation split."""


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
    """Reads, checks and caches the pretrained weights of each distinct model once; returns notes for the user.

    Raises ``ConfigError`` with every error.
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
    """Reads, checks and caches each distinct dataset once; returns notes for the user.

    validated_by: the setting that needs a validation split. Raises ``ConfigError`` with every error of the data, for a
    batch that is larger than the training split, for two numbers of training images that are the same images, and for
    an empty validation split if one is needed.
    """
    distinct: dict[str, list[TrialConfig]] = {}
    for trial in trials:
        distinct.setdefault(data_key(trial.config), []).append(trial.config)
    notes, errors = [], []
    same_images: dict[str, list[list[TrialConfig]]] = {}  # trials by the digest of their images
    for configs in distinct.values():
        try:
            data = DATASETS.build(configs[0].drawn_dataset, configs[0].transform, progress)
        except DataError as error:
            errors += error.errors
            continue
        notes += data.notes
        for protocol in sorted({config.protocol.name for config in configs}):
            if PROTOCOLS.module(protocol).OBJECT_ABOVE > OBJECT:
                notes += _almost_white_notes(data, protocol)
        if validated_by and not len(data.val):
            errors.append(
                f"{validated_by} uses the validation split, and {configs[0].dataset.name} has none. {VALIDATION}"
            )
        most = len(data.train)
        batches = {config.train.batch_size for config in configs if config.train.batch_size > most}
        count = getattr(configs[0].dataset, "train_images", None)
        pairs = "training pairs" if count is None else f"training pairs with dataset.train_images={count}"
        errors += [f"train.batch_size: {n} is more than there are {pairs}. At most {most}" for n in batches]
        same_images.setdefault(data.fingerprint, []).append(configs)
        errors += _equal_counts(same_images[data.fingerprint], most)
        if not batches:
            errors += _single_images(configs, most)
    if errors:
        raise ConfigError("the data cannot be used:", *(f"  {line}" for line in first_lines(errors)))
    return list(dict.fromkeys(notes))


def _equal_counts(same_images: Sequence[Sequence[TrialConfig]], images: int) -> Iterator[str]:
    """Yields a line for each trial of the last group that differs from one of the others in ``train_images`` only. All
    groups have the same images."""
    *before, last = same_images
    if not before:
        return
    known = {_key_without_count(config): config for group in before for config in group}
    for config in last:
        other = known.get(_key_without_count(config))
        if other is not None:
            counts = [getattr(one.dataset, "train_images", None) for one in (other, config)]
            names = " and ".join(ALL_IMAGES if count is None else str(count) for count in counts)
            yield f"dataset.train_images: {names} are the same {images} images here. Leave one of them out"


def _key_without_count(config: TrialConfig) -> str:
    """Returns a key that is equal for trials with the same settings except ``train_images``."""
    settings = config.model_dump(mode="json")
    settings["dataset"].pop("train_images", None)
    return json.dumps(settings)


def _single_images(configs: Sequence[TrialConfig], images: int) -> Iterator[str]:
    """Yields a line for each batch size that leaves one image alone, with a model that cannot train on it: a batch norm
    behind global pooling needs two values for each channel."""
    asked: dict[str, TrialConfig] = {}
    for config in configs:
        if _leaves_one(config.train.batch_size, config.train.accumulate, images):
            asked.setdefault(f"{model_key(config)} {config.train.batch_size} {config.train.accumulate}", config)
    for config in asked.values():
        size, parts = config.train.batch_size, config.train.accumulate
        try:
            predict_tensors(with_value(config, {"train.batch_size": 1, "train.accumulate": 1}))
        except Unpredictable as error:
            if not isinstance(error.__cause__, ValueError):
                continue
            near = sorted(range(max(2, parts), images + 1), key=lambda n: abs(n - size))
            other = next((n for n in near if not _leaves_one(n, parts, images)), None)
            remedy = "Set train.accumulate=1" if other is None else f"Set train.batch_size={other}"
            split = f", with train.accumulate={parts}," if parts > 1 else ""
            why = f"a batch norm of {config.model.name} needs more ({error.__cause__})"
            yield f"train.batch_size: {size}{split} leaves one of {images} images alone, and {why}. {remedy}"


def _leaves_one(batch: int, parts: int, images: int) -> bool:
    """Whether a batch of an epoch, or a micro-batch, has one image only."""
    counts = {min(batch, images), images % batch} - {0}
    return any(part.stop - part.start == 1 for n in counts for part, _ in Share().micro_batches(n, parts))


def _almost_white_notes(data: Data, protocol: str) -> Iterator[str]:
    """Yields a line for each test set with masks whose light grey pixels are background under a protocol."""
    what = f"hold levels from 129 to 254, background for the {protocol} protocol"
    for test, names in data.almost_white.items():
        if names:
            yield f"{len(names)} masks of {test} {what}: {some(names)}"


def check_cache() -> None:
    """Raises ``ConfigError`` if there is no folder for caches."""
    try:
        cache.root()
    except DataError as error:
        raise ConfigError(*error.errors) from None


def skipped_line(trials: Sequence[Trial], absent: Mapping[str, Sequence[Missing]]) -> str:
    """Names the trials that are left out, in one line; returns an empty text if there are none."""
    skipped = [trial for trial in trials if trial.trial_id in absent]
    if not skipped:
        return ""
    rows = "; ".join(dict.fromkeys(", ".join(trial.point) for trial in skipped))
    return f"WARNING: {len(skipped)} of {len(trials)} trials cannot run here and are left out: {rows}"


def missing_lines(absent: Mapping[str, Sequence[Missing]]) -> list[str]:
    """Returns lines with the items that trials lack, grouped by remedy."""
    by_remedy: dict[str, dict[Missing, None]] = {}
    for items in absent.values():
        for item in items:
            by_remedy.setdefault(item.remedy, {})[item] = None
    lines = []
    for remedy, items in by_remedy.items():
        lines += [f"  missing {item.kind}: {item.field}: {item.what}" for item in items]
        lines.append(f"    -> {remedy}")
    return lines
