"""The feature cache: a trial behind it ends with the same weights and scores, to the bit, or says why there is none."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import examples
from fake_cuda import FakeCuda
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from bench.config.expand import Trial
from bench.config.settings import TransformConfig
from bench.config.trial import DATASETS
from bench.datasets.core.transforms import flip, to_input
from bench.leaderboard.rows import memory_notes, quantities
from bench.records.record import TrialRecord
from bench.training import feature_cache
from bench.training.checks import frozen_digests
from bench.trial import run_trial
from models import MODELS
from models.encoders.sam3_vit import SAM3ViT

CPU = torch.device("cpu")
FROZEN = {
    "model.adapter.placement": "none",
    "model.encoder.drop_path": 0.0,
    "dataset": {"name": "procedural", "train": 11, "val": 3, "test": 5, "side": 40},
    "transform.vflip": 0.0,
    "train.epochs": 2,
}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # as in a trial; it is part of what decides the last bits


@pytest.fixture
def frozen(tiny_with):
    return lambda changes={}: tiny_with({**FROZEN, **changes})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache is on, in an empty folder, until the test ends."""
    monkeypatch.setenv(feature_cache.FOLDER, str(tmp_path / "features"))
    return tmp_path / "features"


def outcome(record: TrialRecord):
    assert record.status == "ok", record.error
    learnt = {name: value.numpy().tobytes() for name, value in load(record.checkpoint).items()}
    return record.scores, record.val_scores, record.image_scores, record.curve, learnt


def test_features_with_tf32_are_others(monkeypatch, frozen, cache):
    """On a card the setting decides their last bits; entries that were made before there was the setting had none."""
    FakeCuda(monkeypatch)
    model = MODELS.build(frozen().model, 32, False)

    def key(device, tf32):
        config = frozen({"train.tf32": tf32})
        return feature_cache._key(feature_cache._Prefix(model, 1, config, torch.device(device, 0)), {}, "data")

    assert key("cpu", True) == key("cpu", False)
    on_card = key("cuda", True)
    assert on_card.pop("tf32") is True and on_card == key("cuda", False)


def feed(config):
    """What ``through_cache`` says to a trial of this configuration."""
    data = DATASETS.build(config.dataset, config.transform)
    torch.manual_seed(config.seed)
    model = MODELS.build(config.model, config.transform.size, True)
    return feature_cache.through_cache(model, data, config, CPU, frozen_digests(model))[2]


def entries(cache):
    return {path.name for path in cache.iterdir() if path.is_dir()} if cache.exists() else set()


@pytest.mark.parametrize(
    "changes, blocks",
    [
        ({"transform.vflip": 0.5, "train.batch_size": 3}, 8),
        ({"model.adapter.placement": "last:2", "transform.hflip": 1.0}, 6),
        ({"model.tuned_blocks": "last:1", "model.encoder.checkpointing": True}, 7),
        ({"model.encoder.features": "global", "model.decoder": {"name": "fpn"}, "train.precision": "bfloat16"}, 8),
        ({"model.encoder": {"name": "timm_backbone", "model": "vit_tiny_patch16_224", "weights": "random"}}, 12),
    ],
)
def test_the_same_to_the_bit(frozen, monkeypatch, tmp_path, changes, blocks):
    config = frozen(changes)
    plain = run_trial(config)
    monkeypatch.setenv(feature_cache.FOLDER, str(tmp_path))
    cached = run_trial(config)
    assert plain.feature_cache is None and cached.feature_cache.blocks == blocks, cached.feature_cache
    assert outcome(plain) == outcome(cached)


def test_computed_once_for_all_trials_that_share_it(frozen, cache, monkeypatch):
    made, batches = [], feature_cache._Prefix.batches

    def noted(prefix, split, flips, training):
        made.append(flips)
        return batches(prefix, split, flips, training)

    monkeypatch.setattr(feature_cache._Prefix, "batches", noted)
    whole = outcome(run_trial(frozen()))
    assert made == [(False, False), (True, False), (False, False), (False, False)]  # train in two ways, val, test
    made.clear()
    assert outcome(run_trial(frozen())) == whole
    for same in ({"model.decoder.width": 16}, {"seed": 1}, {"train.lr": 1e-3}, {"train.loss": "bce_loss"}):
        assert feed(frozen(same)).blocks == 8 and made == []
    feed(frozen({"transform.vflip": 0.5}))
    assert made == [(False, True), (True, True)]  # only the ways that are new


def test_nothing_is_shared_between_trials_whose_features_differ(frozen, cache):
    others = [
        {},
        {"train.batch_size": 2},
        {"train.precision": "bfloat16"},
        {"transform.normalisation": "sam3"},
        {"transform.size": 40},
        {"dataset.seed": 1},
        {"model.adapter.placement": "last:1"},
        {"model.frozen_weights": "int8"},
        {"model.encoder.features": "global", "model.decoder": {"name": "fpn"}},
    ]
    for number, changes in enumerate(others, start=1):
        assert feed(frozen(changes)).blocks
        assert len(entries(cache)) == 4 * number, changes


def test_random_weights_are_told_apart_by_what_they_are(frozen, cache):
    for seed, count in ((0, 4), (1, 8), (0, 8)):
        assert feed(frozen({"model.encoder.weights": "random", "seed": seed})).blocks == 8
        assert len(entries(cache)) == count


def test_a_damaged_entry_is_named_in_the_record_and_changes_nothing(frozen, cache):
    plain = outcome(run_trial(frozen()))
    for path in cache.glob("*/0"):
        path.write_bytes(b"?" * path.stat().st_size)
    record = run_trial(frozen())
    assert outcome(record) == plain and len(record.feature_cache.remade) == 4
    assert feed(frozen()).remade == []


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"model.adapter.placement": "all"}, "is trained"),
        ({"model.encoder.drop_path": 0.1}, "DropPath is active"),
        ({"model": {"name": "unet", "width": 4}}, "no frozen encoder"),
    ],
)
def test_a_refusal_is_in_the_record_and_measures_as_ever(tiny_with, cache, changes, reason):
    base = {key: value for key, value in FROZEN.items() if not ("model" in changes and key.startswith("model"))}
    record = run_trial(tiny_with({**base, **changes}))
    assert record.status == "ok" and record.feature_cache.blocks is None and reason in record.feature_cache.refused
    assert "training.rss_bytes" in quantities(record) and not list(memory_notes(record))
    assert not entries(cache)


def test_too_much_for_the_bound_is_refused(frozen, cache, monkeypatch):
    monkeypatch.setenv(feature_cache.LIMIT, "0.00001")
    assert "more than --feature-cache-gib allows" in feed(frozen()).refused


def test_features_that_depend_on_the_batch_are_refused(frozen, cache, monkeypatch):
    def uneven(encoder, images, block, run_to=SAM3ViT.run_to):
        return tuple(each + 1e-7 * len(images) for each in run_to(encoder, images, block))

    monkeypatch.setattr(SAM3ViT, "run_to", uneven)
    assert "differ in their last bits" in feed(frozen()).refused


def test_tables_leave_out_what_was_not_measured(frozen, cache):
    record = TrialRecord.model_validate_json(run_trial(frozen()).model_dump_json())
    assert record.memory["training"].rss_bytes is not None  # kept in the record
    assert not {name.partition(".")[0] for name in quantities(record)} & {"training", "evaluation", "timing"}
    assert "features of the first 8 blocks were read from a cache" in "".join(memory_notes(record))


def test_a_model_that_is_only_scored_keeps_no_flips(frozen, cache, monkeypatch):
    still = MODELS.build(frozen().model, 32, True).requires_grad_(False)
    config = frozen()
    data = DATASETS.build(config.dataset, config.transform)
    frozen_weights = {name: "x" for name, _ in still.named_parameters()}
    _, fed, record = feature_cache.through_cache(still, data, config, CPU, frozen_weights)
    assert record.blocks == 8 and len(entries(cache)) == 2
    assert fed.train is data.train


# --- flips ------------------------------------------------------------------------------------------------------------


@settings(max_examples=examples(50), deadline=None)
@given(
    hflip=st.sampled_from([0.0, 0.3, 1.0]),
    vflip=st.sampled_from([0.0, 0.6, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_features_of_flipped_images_are_asked_for_by_their_flips(hflip, vflip, seed):
    """Pixels and features that are flipped with the same draws: numbers and flips lead to the pixels."""
    rng = np.random.default_rng(seed)
    count, transform = 6, TransformConfig(hflip=hflip, vflip=vflip)
    pixels = rng.integers(0, 256, (count, 3, 4, 3), dtype=np.uint8)
    config = DATASETS.parse({"name": "procedural", "train": count, "val": 1, "test": 1, "side": 8})
    split = replace(DATASETS.build(config, TransformConfig(size=8)).train, images=pixels)
    variants, requests = feature_cache._variants(transform), []

    def read(numbers, flips):
        requests.append((numbers, flips))
        return (torch.zeros(len(numbers), 1),)

    chosen = rng.permutation(count)
    seen, masks = flip(*split.batch(chosen, CPU), transform, torch.Generator().manual_seed(seed))
    given = split.with_features(read).batch(chosen, CPU)
    features, same = flip(*given, transform, torch.Generator().manual_seed(seed))
    assert torch.equal(masks, same) and requests == []
    assert [tensor.shape for tensor in to_input(features[2:], "imagenet")] == [(4, 1)]
    to_input(features, "imagenet")
    (_, part_flips), (numbers, flips) = requests
    assert np.array_equal(numbers, chosen) and np.array_equal(part_flips, flips[2:])
    for image, number, (left_right, upside_down) in zip(seen, numbers, flips.tolist()):
        assert (left_right, upside_down) in variants
        axes = [1] * left_right + [0] * upside_down
        assert np.array_equal(np.flip(pixels[split.indices[number]], axes), image.numpy())


class Numbered:
    """An opened entry whose features are the numbers that are read, plus a constant."""

    def __init__(self, constant):
        self.constant = constant

    def read(self, numbers):
        return torch.from_numpy(numbers + self.constant).view(-1, 1, 1).permute(0, 2, 1), torch.from_numpy(numbers)


@pytest.mark.parametrize("flips", [[(0, 0)] * 4, [(1, 0)] * 4, [(1, 0), (0, 0), (1, 1), (0, 0)]])
def test_features_of_different_flips_are_put_into_one_batch_in_order(flips):
    stored = {(False, False): Numbered(0), (True, False): Numbered(10), (True, True): Numbered(20)}
    numbers = np.array([3, 1, 2, 0])
    first, second = feature_cache._read(stored, numbers, np.array(flips, bool))
    constants = np.array([stored[bool(a), bool(b)].constant for a, b in flips])
    assert first.flatten().tolist() == (numbers + constants).tolist() and second.tolist() == numbers.tolist()


# --- before the trials ------------------------------------------------------------------------------------------------


def test_the_outlook_names_rows_and_reasons(frozen, cache):
    configs = [frozen(), frozen({"model.decoder.width": 16}), frozen({"model.adapter.placement": "all"})]
    configs.append(frozen({"device": "cuda", "train.compile": "step"}))
    lines = feature_cache.outlook([Trial(config, (label,)) for config, label in zip(configs, "abcd")])
    assert lines[0] == "features of 8 of 8 blocks are kept (at a; b)"
    assert lines[1].startswith("no features are kept: only 0 of 8") and lines[1].endswith("(at c)")
    assert lines[2].startswith("no features are kept: a recorded step") and lines[2].endswith("(at d)")


def test_without_a_cache_there_is_no_outlook(frozen, monkeypatch):
    monkeypatch.delenv(feature_cache.FOLDER, raising=False)
    assert feature_cache.outlook([Trial(frozen(), ("a",))]) == []


@pytest.mark.parametrize("module", ["bench.trial", "bench.run"])
def test_starting_costs_no_libraries_that_are_not_needed_yet(module):
    """Every trial is a process of its own and pays for what it imports."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"sklearn", "matplotlib", "adjustText", "ray", "peft", "transformers", "torch._dynamo", "torchvision"}
    assert heavy & set(done.stdout.split()) == set()
