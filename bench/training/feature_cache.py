"""Features of the frozen prefix: computed once, kept on disk, and shared over epochs and trials.

Where nothing that is trained or left to chance stands before a block, the encoder gives the same for the same image in
every epoch of every trial. ``through_cache`` cuts the model there and hands it images by number. A flipped image is
another image, so each flip that the transform may draw is a variant of its own: nothing is approximated.

The choice is an execution setting: ``--feature-cache``, which travels to the trials' processes in the environment.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

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
    """Tells the processes of all trials. Raises ``ConfigError`` for a bound or a folder that cannot be. A dry run makes
    no folder."""
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
    """What was chosen; ``None`` for no cache."""
    if FOLDER not in os.environ:
        return None
    return FeatureStore(Path(os.environ[FOLDER]), round(float(os.environ.get(LIMIT, DEFAULT_GIB)) * 2**30))


def outlook(trials: Sequence[Trial]) -> list[str]:
    """With a cache, a line for each kind of model: how many blocks can be kept, or why none. Builds skeletons only."""
    if store() is None:
        return []
    lines: dict[str, list[str]] = {}
    seen: dict[str, str] = {}
    for trial in trials:
        config = trial.config
        key = model_key(config)
        if key not in seen:
            try:
                model = skeleton(config.model, config.transform.size)
                seen[key] = f"features of {frozen_prefix(model)} of {len(model.encoder.blocks)} blocks are kept"
            except (NoFrozenPrefix, InvalidModel) as reason:
                seen[key] = f"no features are kept: {reason}"
        lines.setdefault(seen[key], []).append(", ".join(trial.point))
    return [f"{line} (at {'; '.join(dict.fromkeys(points))})" for line, points in lines.items()]


# --- in a trial -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """A split's place in the numbers of all images, and its variants in the store, by (left-right, upside-down)."""

    start: int
    variants: dict[tuple[bool, bool], str]


def through_cache(
    model: nn.Module, data: Data, config: TrialConfig, device: torch.device, frozen: dict[str, str]
) -> tuple[nn.Module, Data, FeatureCache | None]:
    """The model and the data to train and predict with: those given, or the same behind the cache, and what was done.

    frozen: digests of the frozen weights by name. The model's weights are the same ones in both; the scores are too.
    """
    chosen = store()
    if chosen is None:
        return model, data, None
    started = time.perf_counter()
    try:
        return _through(chosen, model, data, config, device, frozen, started)
    except (NoFrozenPrefix, OSError) as reason:
        return model, data, FeatureCache(refused=str(reason))


def _through(
    chosen: FeatureStore,
    model: nn.Module,
    data: Data,
    config: TrialConfig,
    device: torch.device,
    frozen: dict[str, str],
    started: float,
) -> tuple[nn.Module, Data, FeatureCache]:
    blocks = frozen_prefix(model)
    transform = config.transform
    compute = partial(_features, model, blocks, config, device)
    splits = {"train": data.train, "val": data.val, **{f"test {name}": split for name, split in data.tests.items()}}
    key = _key(model, blocks, config, device, frozen, data.fingerprint)
    places: dict[str, _Block] = {}
    entries: list[Entry] = []
    start = 0
    for name, split in splits.items():
        training = name == "train"
        if not len(split) or (training and not any(p.requires_grad for p in model.parameters())):
            continue
        variants = _variants(transform) if training else [(False, False)]
        names = {flips: cache.digest({"key": key, "split": name, "flips": flips}) for flips in variants}
        entries += [Entry(names[f], len(split), partial(_batches, compute, split, f, training)) for f in variants]
        places[name] = _Block(start, names)
        start += len(split)
    opened = chosen.obtain(entries, partial(_probe, compute, data, device))
    recall = partial(_recall, list(places.values()), opened, device)
    cached = Continued(model, blocks, height_width(transform.size), recall)
    numbered = {
        name: _numbered(split, places[name].start) if name in places else split for name, split in splits.items()
    }
    tests = {name: numbered[f"test {name}"] for name in data.tests}
    behind = replace(
        data,
        train=numbered["train"],
        val=numbered["val"],
        test=next(iter(tests.values())),
        test_sets=tests if data.test_sets else {},
    )
    size = sum(each.bytes for each in opened.values())
    spent = time.perf_counter() - started
    return cached, behind, FeatureCache(blocks=blocks, bytes=size, seconds=spent, remade=chosen.damaged)


def _key(
    model: nn.Module, blocks: int, config: TrialConfig, device: torch.device, frozen: dict[str, str], data: str
) -> dict:
    """All that decides the features of an image, to the bit."""
    behind = {id(p) for block in list(model.encoder.blocks)[blocks:] for p in block.parameters()}
    before = [name for name, p in model.named_parameters() if name in frozen and id(p) not in behind]
    on_cpu = device.type == "cpu"
    tf32 = {"tf32": True} if config.train.tf32 and not on_cpu else {}  # entries without it are older than the setting
    return {
        "format": FORMAT,
        "encoder": config.model.encoder.model_dump(mode="json"),
        "frozen_weights": config.model.frozen_weights,
        "blocks": blocks,
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


def _variants(transform: TransformConfig) -> list[tuple[bool, bool]]:
    """The flips that training may draw: (left-right, upside-down)."""
    sides, ends = ([value for value in (False, True) if _may(value, p)] for p in (transform.hflip, transform.vflip))
    return [(left_right, upside_down) for upside_down in ends for left_right in sides]


def _may(value: bool, probability: float) -> bool:
    return probability > 0 if value else probability < 1


def _features(
    model: nn.Module, blocks: int, config: TrialConfig, device: torch.device, pixels: Tensor, training: bool
) -> tuple[Tensor, ...]:
    """What the frozen blocks make of images uint8 [B, H, W, 3], as training or as evaluation computes it."""
    model.train(training)
    narrow = training and config.train.precision == "bfloat16"
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=narrow):
        return model.encoder.run_to(to_input(pixels, config.transform.normalisation), blocks)


def _batches(compute: partial, split: Split, flips: tuple[bool, bool], training: bool) -> Iterator[tuple[Tensor, ...]]:
    _, _, config, device = compute.args
    for chosen in np.split(np.arange(len(split)), range(config.train.batch_size, len(split), config.train.batch_size)):
        pixels, _ = split.batch(chosen, device)
        axes = [axis for axis, flipped in zip((2, 1), flips) if flipped]
        yield compute(pixels.flip(axes), training)


def _probe(compute: partial, data: Data, device: torch.device) -> int:
    """Bytes of the features of one image. Raises ``NoFrozenPrefix`` where on a CPU, whose scores are exact, an image's
    features depend on where in which batch of an epoch it is: all but the last have one size, and evaluation's batches
    are always the same."""
    _, _, config, _ = compute.args
    split = next(split for split in (data.train, data.val, data.test) if len(split))
    batch = min(config.train.batch_size, len(split))
    pixels, _ = split.batch(np.arange(batch), device)
    whole = compute(pixels, True)
    for size in {batch, len(split) % batch or batch} if device.type == "cpu" else ():
        for part, all_of_them in zip(compute(pixels[-size:].flip(0), True), whole):
            if not torch.equal(part.flip(0), all_of_them[-size:]):
                where = f"batches of {batch} and {size}" if size < batch else "places in a batch"
                raise NoFrozenPrefix(f"features of an image differ in their last bits between {where}")
    return bytes_of(each[:1] for each in whole)


def _numbered(split: Split, start: int) -> Split:
    """The split with images by number instead of by pixels.

    Each is a picture of 2 x 2 whose corners hold 4 n + 0 to 4 n + 3: flips work on it as on any other, and its first
    corner then tells which image it is and how it was flipped.
    """
    corners = np.zeros((len(split.images), 2, 2, 1), np.int64)
    corners[split.indices] = 4 * np.arange(start, start + len(split))[:, None, None, None] + np.arange(4).reshape(
        2, 2, 1
    )
    return replace(split, images=corners)


def _recall(
    places: list[_Block], opened: dict[str, Stored], device: torch.device, images: Tensor
) -> tuple[Tensor, ...]:
    """Features of numbered images int64 [B, 2, 2, 1], which all belong to one split."""
    first = images[:, 0, 0, 0].cpu().numpy()
    numbers, corners = first // 4, first % 4
    place = max((place for place in places if place.start <= numbers[0]), key=lambda place: place.start)
    rows = numbers - place.start
    parts = []
    for corner in np.unique(corners):
        name = place.variants[bool(corner % 2), bool(corner // 2)]
        parts.append((np.flatnonzero(corners == corner), opened[name].read(rows[corners == corner])))
    if len(parts) == 1:
        return tuple(tensor.to(device) for tensor in parts[0][1])
    found = []
    for tensors in zip(*(tensors for _, tensors in parts)):
        whole = torch.empty_strided((len(rows), *tensors[0].shape[1:]), tensors[0].stride(), dtype=tensors[0].dtype)
        for (where, _), tensor in zip(parts, tensors):
            whole[torch.from_numpy(where)] = tensor
        found.append(whole.to(device))
    return tuple(found)
