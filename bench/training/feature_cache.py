"""Features of the frozen prefix: computed once, kept on disk, and shared over epochs and trials.

The encoder's first blocks give the same output for the same image in every epoch of every trial, as long as nothing in
them is trained or random. ``through_cache`` cuts the model behind them and hands it their output. A flipped image is
another image, so each flip that the transform may draw has an entry of its own: nothing is approximated.

``--feature-cache`` is an execution setting. It reaches the trials' processes through the environment.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.config.errors import ConfigError
from bench.config.expand import Trial, model_key
from bench.config.settings import TransformConfig
from bench.config.trial import TrialConfig
from bench.datasets import Data, DataError, Split
from bench.datasets.core import cache
from bench.datasets.core.transforms import to_input
from bench.records.record import FeatureCache
from bench.system.files import TargetError, check_targets
from bench.training.feature_store import Entry, FeatureStore, Stored, bytes_of
from bench.training.precision import autocast
from models.core.frozen_prefix import Continued, NoFrozenPrefix, frozen_prefix
from models.core.paths import expanded
from models.core.registry import InvalidModel
from models.core.size import height_width
from models.core.skeleton import skeleton

FORMAT = 1
FOLDER, LIMIT = "SAM3_BENCH_FEATURES", "SAM3_BENCH_FEATURES_GIB"
DEFAULT_GIB = 20.0


# --- the setting ------------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--feature-cache",
        default="off",
        metavar="auto|off|DIR",
        help="compute features of frozen blocks once and keep them; memory and speed are then not measured",
    )
    parser.add_argument(
        "--feature-cache-gib", type=float, default=DEFAULT_GIB, metavar="GIB", help=f"default: {DEFAULT_GIB:g}"
    )


def choose(options: argparse.Namespace) -> None:
    """Sets the environment of all trials' processes. Raises ``ConfigError`` for an impossible bound or folder.

    A dry run makes no folder.
    """
    for name in (FOLDER, LIMIT):
        os.environ.pop(name, None)
    if not options.feature_cache_gib > 0:
        raise ConfigError(f"--feature-cache-gib {options.feature_cache_gib:g}: must be above 0, as in 20")
    if options.feature_cache == "off":
        return
    if getattr(options, "address", None) is not None:
        text = "features are kept on this machine, and --address runs trials elsewhere. Leave one of the two out"
        raise ConfigError(f"--feature-cache {options.feature_cache}: {text}")
    auto = options.feature_cache == "auto"
    try:
        folder = cache.root() / "features" if auto else expanded(options.feature_cache)
        if getattr(options, "dry_run", False):
            check_targets([folder / FOLDER])  # any name
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except DataError as error:
        raise ConfigError(*error.errors) from None
    except (OSError, TargetError) as error:
        reason = getattr(error, "strerror", error)
        raise ConfigError(f"--feature-cache {folder}: {reason}. Give auto, off or a folder") from None
    os.environ[FOLDER] = str(folder.resolve())
    os.environ[LIMIT] = str(options.feature_cache_gib)


def store() -> FeatureStore | None:
    """Returns the store that the environment names; ``None`` for no cache."""
    if FOLDER not in os.environ:
        return None
    return FeatureStore(Path(os.environ[FOLDER]), round(float(os.environ.get(LIMIT, DEFAULT_GIB)) * 2**30))


def outlook(trials: Sequence[Trial]) -> list[str]:
    """Describes for each kind of model how many blocks can be cached, or why none. Builds skeletons only.

    Without a cache there are no lines.
    """
    if store() is None:
        return []
    points: dict[str, list[str]] = {}
    outcomes: dict[str, str] = {}
    for trial in trials:
        config = trial.config
        key = f"{model_key(config)} {config.train.compile == 'step'}"
        if key not in outcomes:
            try:
                model = skeleton(config.model, config.transform.size)
                outcomes[key] = (
                    f"features of {_kept_blocks(model, config)} of {len(model.encoder.blocks)} blocks are kept"
                )
            except (NoFrozenPrefix, InvalidModel) as reason:
                outcomes[key] = f"no features are kept: {reason}"
        points.setdefault(outcomes[key], []).append(", ".join(trial.point))
    return [f"{outcome} (at {'; '.join(dict.fromkeys(labels))})" for outcome, labels in points.items()]


# --- in a trial -------------------------------------------------------------------------------------------------------


Flips = tuple[bool, bool]
"""Whether an image is flipped: left-right, upside-down."""


def through_cache(
    model: nn.Module, data: Data, config: TrialConfig, device: torch.device, frozen: dict[str, str]
) -> tuple[nn.Module, Data, FeatureCache | None]:
    """Returns the model and the data to train and predict with, and the outcome for the record.

    Without a cache, and where it is refused, both are those given. Otherwise the data hand out features, and the model
    continues from them: it has the same weights, and its scores are the same.

    frozen: digests of the frozen weights by name.
    """
    chosen = store()
    if chosen is None:
        return model, data, None
    started = time.perf_counter()
    try:
        prefix = _Prefix(model, _kept_blocks(model, config), config, device)
        fed, size = _features_of(prefix, data, chosen, frozen)
    except (NoFrozenPrefix, OSError) as reason:
        return model, data, FeatureCache(refused=str(reason))
    cached = Continued(model, prefix.blocks, height_width(config.transform.size))
    spent = time.perf_counter() - started
    return cached, fed, FeatureCache(blocks=prefix.blocks, bytes=size, seconds=spent, remade=chosen.damaged)


def _kept_blocks(model: nn.Module, config: TrialConfig) -> int:
    """Returns the number of blocks whose features can be kept. Raises ``NoFrozenPrefix``."""
    if config.train.compile == "step":
        raise NoFrozenPrefix("a recorded step (train.compile: step) reads images from a fixed place")
    return frozen_prefix(model)


@dataclass(frozen=True)
class _Prefix:
    """The first ``blocks`` blocks of a trial's encoder, which never change."""

    model: nn.Module
    blocks: int
    config: TrialConfig
    device: torch.device

    def features(self, pixels: Tensor, training: bool) -> tuple[Tensor, ...]:
        """Computes the output for images uint8 [B, H, W, 3], as training or as evaluation computes it."""
        self.model.train(training)
        precision = self.config.train.precision if training else "float32"
        with torch.no_grad(), autocast(self.device.type, precision):
            images = to_input(pixels, self.config.transform.normalisation)
            return self.model.encoder.run_to(images, self.blocks)

    def batches(self, split: Split, flips: Flips, training: bool) -> Iterator[tuple[Tensor, ...]]:
        """Yields the features of all images of a split, in batches of training's size."""
        size = self.config.train.batch_size
        axes = [axis for axis, flipped in zip((2, 1), flips) if flipped]
        for start in range(0, len(split), size):
            pixels, _ = split.batch(np.arange(start, min(start + size, len(split))), self.device)
            yield self.features(pixels.flip(axes), training)

    def bytes_per_image(self, data: Data) -> int:
        """Computes the size of one image's features.

        On a CPU, where scores are exact, it raises ``NoFrozenPrefix`` if an image's features depend on its place in a
        batch, or on the size of the batch. All batches of an epoch but the last have one size; evaluation's batches
        are always the same.
        """
        split = next(split for split in (data.train, data.val, data.test) if len(split))
        batch = min(self.config.train.batch_size, len(split))
        pixels, _ = split.batch(np.arange(batch), self.device)
        whole = self.features(pixels, True)
        for size in {batch, len(split) % batch or batch} if self.device.type == "cpu" else ():
            for part, all_of_them in zip(self.features(pixels[-size:].flip(0), True), whole):
                if not torch.equal(part.flip(0), all_of_them[-size:]):
                    where = f"batches of {batch} and {size}" if size < batch else "places in a batch"
                    raise NoFrozenPrefix(f"features of an image differ in their last bits between {where}")
        return bytes_of(each[:1] for each in whole)


def _features_of(prefix: _Prefix, data: Data, chosen: FeatureStore, frozen: dict[str, str]) -> tuple[Data, int]:
    """Returns the data with features instead of images, and the bytes of these features on disk."""
    splits = {"train": data.train, "val": data.val, **{f"test {name}": split for name, split in data.tests.items()}}
    trains = any(parameter.requires_grad for parameter in prefix.model.parameters())
    key = _key(prefix, frozen, data.fingerprint)
    entries: dict[str, dict[Flips, Entry]] = {}
    for name, split in splits.items():
        training = name == "train"
        if len(split) and (trains or not training):
            entries[name] = {}
            for flips in _variants(prefix.config.transform) if training else [(False, False)]:
                digest = cache.digest({"key": key, "split": name, "flips": flips})
                make = partial(prefix.batches, split, flips, training)
                entries[name][flips] = Entry(digest, len(split), make)
    wanted = [entry for of_split in entries.values() for entry in of_split.values()]
    opened = chosen.obtain(wanted, partial(prefix.bytes_per_image, data))
    for name, of_split in entries.items():
        stored = {flips: opened[entry.name] for flips, entry in of_split.items()}
        splits[name] = splits[name].with_features(partial(_read, stored))
    tests = {name: splits[f"test {name}"] for name in data.tests}
    fed = replace(
        data,
        train=splits["train"],
        val=splits["val"],
        test=next(iter(tests.values())),
        test_sets=tests if data.test_sets else {},
    )
    return fed, sum(each.bytes for each in opened.values())


def _key(prefix: _Prefix, frozen: dict[str, str], data: str) -> dict[str, Any]:
    """Returns everything that decides the features of an image, to the bit."""
    model, config, device = prefix.model, prefix.config, prefix.device
    behind = {id(p) for block in list(model.encoder.blocks)[prefix.blocks :] for p in block.parameters()}
    before = [name for name, p in model.named_parameters() if name in frozen and id(p) not in behind]
    on_cpu = device.type == "cpu"
    tf32 = {"tf32": True} if config.train.tf32 and not on_cpu else {}  # entries without it are older than the setting
    return {
        "format": FORMAT,
        "encoder": config.model.encoder.model_dump(mode="json"),
        "frozen_weights": config.model.frozen_weights,
        "blocks": prefix.blocks,
        "weights": sorted((name, frozen[name]) for name in before if name.startswith("encoder.")),
        "data": data,
        "transform": config.transform.model_dump(mode="json", exclude={"hflip", "vflip"}),
        "precision": config.train.precision,
        "batch_size": config.train.batch_size,
        "torch": torch.__version__,
        "device": torch.backends.cpu.get_cpu_capability() if on_cpu else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads() if on_cpu else None,
        **tf32,
    }


def _variants(transform: TransformConfig) -> list[Flips]:
    """Returns the flips that training may draw."""
    left_right, upside_down = _values(transform.hflip), _values(transform.vflip)
    return [(a, b) for b in upside_down for a in left_right]


def _values(probability: float) -> list[bool]:
    """Returns the possible outcomes of a draw."""
    possible = {False: probability < 1, True: probability > 0}
    return [value for value in possible if possible[value]]


def _read(stored: dict[Flips, Stored], numbers: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
    """Reads the features of images, given by their numbers in a split [B] and their flips bool [B, 2]."""
    variants = {(bool(a), bool(b)) for a, b in flips}
    if len(variants) == 1:
        return stored[variants.pop()].read(numbers)
    features: list[Tensor] = []
    for variant in sorted(variants):
        where = np.flatnonzero((flips == variant).all(axis=1))
        for i, tensor in enumerate(stored[variant].read(numbers[where])):
            if i == len(features):
                shape = len(numbers), *tensor.shape[1:]
                features.append(torch.empty_strided(shape, tensor.stride(), dtype=tensor.dtype))
            features[i][torch.from_numpy(where)] = tensor
    return tuple(features)
