"""One trial, run for real at the smallest size: what it records, and what becomes of everything that goes wrong."""

import math

import numpy as np
import pyarrow.parquet
import pytest
import torch
from changed_model import run_with

from bench import trial as trial_module
from bench.memory.predicted_peak import predict_peak
from bench.scoring.metrics import OF_PROTOCOL
from bench.trial import run_trial


def test_a_record_says_everything(tiny):
    epochs = []
    record = run_trial(tiny, on_epoch=epochs.append)
    assert (record.status, record.error, record.trial_id) == ("ok", "", tiny.trial_id)
    assert type(tiny).model_validate(record.config) == tiny
    assert set(record.scores) == set(record.val_scores) == set(OF_PROTOCOL["sod"])
    assert set(record.train_scores) == set(record.scores)
    assert all(math.isfinite(value) for value in record.scores.values())
    assert record.image_scores["name"] == [f"salient-test-{i:04d}" for i in range(3)]
    assert record.scores["mae"] == pytest.approx(np.mean(record.image_scores["mae"]))
    assert record.test_sets == {"test": record.scores} and record.image_scores["set"] == ["test"] * 3
    assert record.parameters["adapter"] == 8 * (2 * 64 * 2 + 64 + 2)
    assert record.memory["training"].rss_bytes > 0 and record.memory["training"].nvml_device_bytes is None
    assert [e.epoch for e in epochs] == [point.epoch for point in record.curve] == [1]
    assert record.timing.train_images_per_second > 0 < record.timing.inference_images_per_second
    source = record.provenance
    assert source.images == {"train": 8, "val": 2, "test": 3} and len(source.dataset_fingerprint) == 32
    assert (
        list(source.weights) == ["sam3_vit_tiny.safetensors"] and len(source.weights["sam3_vit_tiny.safetensors"]) == 64
    )
    assert source.versions["torch"] == torch.__version__.split("+")[0] or source.versions["torch"] == torch.__version__
    assert source.deterministic and source.device == "cpu" and source.threads == 1


def test_the_same_trial_twice_gives_identical_scores(tiny_with):
    config = tiny_with({"train.epochs": 2, "seed": 5})
    first, second = run_trial(config), run_trial(config)
    assert first.scores == second.scores and first.image_scores == second.image_scores
    assert first.curve == second.curve
    other = run_trial(tiny_with({"train.epochs": 2, "seed": 6}))
    assert other.scores != first.scores


def test_training_learns(tiny_with):
    record = run_trial(tiny_with({"train.epochs": 12, "train.lr": 5e-3, "model.decoder.width": 32}))
    assert record.curve[-1].train_loss < 0.9 * record.curve[0].train_loss


def test_the_schedule_is_a_cosine_per_epoch(tiny_with):
    curve = run_trial(tiny_with({"train.epochs": 4, "train.lr": 1e-3, "train.min_lr": 1e-5})).curve
    expected = [1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * e / 4)) / 2 for e in range(4)]
    assert [point.lr for point in curve] == pytest.approx(expected)


def test_training_scores_are_those_of_training_images_in_evaluation(monkeypatch, tiny_with):
    seen = []
    predict = trial_module.predict
    monkeypatch.setattr(
        trial_module, "predict", lambda model, split, *more: seen.append(split.names) or predict(model, split, *more)
    )
    monkeypatch.setattr(trial_module, "TRAINING_IMAGES", 3)
    before = run_trial(tiny_with({"train.lr": 1e-12, "model.decoder.width": 32}))
    assert ("salient-train-0000", "salient-train-0004", "salient-train-0007") in seen  # of 8, evenly spaced
    after = run_trial(tiny_with({"train.epochs": 30, "train.lr": 5e-3, "model.decoder.width": 32}))
    assert after.train_scores["mae"] < before.train_scores["mae"]


def test_without_validation_images_nothing_is_validated(tiny_with):
    record = run_trial(tiny_with({"dataset.val": 0}))
    assert record.val_scores is None and record.curve[0].val_loss is None


def test_validation_changes_no_score(tiny_with):
    """Looking at the validation split must not disturb training: no random number, no statistic may depend on it."""
    base = {"train.epochs": 2}
    seldom = run_trial(tiny_with({**base, "train.validate_every": 0}))
    often = run_trial(tiny_with({**base, "train.validate_every": 1}))
    assert seldom.scores == often.scores and often.curve[1].val_loss is not None


def test_a_dead_adapter_fails_the_trial_by_name(monkeypatch, tiny):
    def kill(model):
        block = model.encoder.blocks[3]
        block.forward = block.block.forward

    record = run_with(monkeypatch, tiny, kill)
    assert record.status == "error"
    assert "no gradient ever reached encoder.trunk.blocks.3.adapter.0.bias" in record.error
    assert "blocks.2" not in record.error


def test_a_frozen_weight_that_changes_fails_the_trial_by_name(monkeypatch, tiny):
    def spoil(model):
        norm = model.encoder.blocks[1].block.norm1

        def leak(*arguments):
            norm.bias.data += 1e-3 * model.training

        model.encoder.register_forward_hook(leak)

    record = run_with(monkeypatch, tiny, spoil)
    assert record.status == "error"
    assert record.error == "frozen, yet changed by training: encoder.trunk.blocks.1.block.norm1.bias"
    assert record.scores is None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 8 TB"),
        MemoryError("no"),
    ],
)
def test_out_of_memory_is_a_result(monkeypatch, tiny, error):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(trial_module, "train", fail)
    record = run_trial(tiny)
    assert (record.status, record.scores) == ("oom", None)
    assert record.error == str(error) and record.parameters["total"] > 0


def test_what_is_known_at_an_oom_is_in_the_record(monkeypatch, tiny):
    def fail(*arguments, **more):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trial_module, "train", fail)
    at_failure = run_trial(tiny).memory_at_failure
    assert at_failure.torch_reserved_bytes is None  # there is no allocator to ask on a CPU
    assert at_failure.predicted_allocated_bytes == predict_peak(tiny).allocated
    assert at_failure.budget_bytes is None


def test_far_over_budget_is_not_run(monkeypatch, tiny_with):
    monkeypatch.setattr(trial_module, "train", None)  # would fail if it were called
    predicted = predict_peak(tiny_with({})).allocated
    record = run_trial(tiny_with({"memory.budget_gib": predicted / 2**30 / 1.3}))
    assert record.status == "over budget" and record.scores is None
    assert record.error.startswith("not run: predicted to allocate") and "\n" not in record.error
    assert record.memory_at_failure.predicted_allocated_bytes == predicted


def test_a_little_over_budget_is_run_and_left_to_the_allocator(tiny_with):
    predicted = predict_peak(tiny_with({})).allocated
    assert run_trial(tiny_with({"memory.budget_gib": predicted / 2**30 / 1.1})).status == "ok"


def test_conditions_of_the_measurement_and_its_series_are_kept(tiny_with, tmp_path):
    record = run_trial(tiny_with({"train.precision": "bfloat16", "model.encoder.checkpointing": True}))
    assert record.status == "ok"
    known = record.memory_conditions
    assert (known.activation_checkpointing, known.precision, known.cudnn_benchmark) == (True, "bfloat16", False)
    assert {"flash", "math"} <= set(known.attention_backends) and known.allocator is None
    record.save(tmp_path)
    series = pyarrow.parquet.read_table(tmp_path / f"{record.trial_id}.memory.parquet").to_pydict()
    assert set(series["phase"]) == {"training", "evaluation"} and len(series["phase"]) <= 1000
    highest = max(r for p, r in zip(series["phase"], series["rss_bytes"]) if p == "training")
    assert highest == record.memory["training"].rss_bytes + record.memory["training"].rss_baseline_bytes
    assert set(series["nvml_device_bytes"]) == {None}


@pytest.mark.parametrize(("step", "where"), [(1, "batch 1 of 2 in epoch 1 of 3"), (4, "batch 2 of 2 in epoch 2 of 3")])
def test_a_loss_that_is_no_number_is_a_result_with_its_step(monkeypatch, tiny_with, step, where):
    def spoil(model):
        seen = []

        def poison(module, arguments):
            seen.append(1)
            if model.training and len(seen) == step:
                model.decoder.head.weight.data.fill_(math.nan)

        model.register_forward_pre_hook(poison)

    record = run_with(monkeypatch, tiny_with({"train.epochs": 3, "train.validate_every": 0}), spoil)
    assert record.status == "diverged" and record.error == f"the loss became nan at step {step}, {where}"
    assert record.diverged_at_step == step and record.scores is None
    assert [point.epoch for point in record.curve] == list(range(1, (step - 1) // 2 + 1))


@pytest.mark.parametrize(
    ("look", "text"),
    [
        (0, "after the last step, 2, these weights are not finite (NaN or infinity): decoder.head.weight"),
        (1, "the validation loss became nan after step 2, epoch 1 of 1"),
    ],
)
def test_weights_that_the_last_step_broke_are_not_scored(monkeypatch, tiny_with, look, text):
    def spoil(model):
        head = model.decoder.head.weight
        calls = []
        head.register_hook(lambda grad: calls.append(1) or (grad * math.nan if len(calls) == 2 else grad))

    record = run_with(monkeypatch, tiny_with({"train.validate_every": look}), spoil)
    assert (record.status, record.diverged_at_step, record.error) == ("diverged", 2, text)


def test_any_other_failure_is_recorded_with_its_traceback(monkeypatch, tiny):
    def fail(*arguments, **more):
        raise KeyError("surprise")

    monkeypatch.setattr(trial_module, "train", fail)
    record = run_trial(tiny)
    assert record.status == "error" and "Traceback" in record.error and "surprise" in record.error


def test_wrong_weights_fail_with_a_plain_sentence(tiny_with, tmp_path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "wrong.pt")
    record = run_trial(tiny_with({"model.encoder.weights": str(tmp_path / "wrong.pt")}))
    assert record.status == "error" and "Traceback" not in record.error
    assert "these are not the weights of this ViT" in record.error


def test_a_trial_on_rectangles(tiny_with):
    record = run_trial(tiny_with({"transform.size": [32, 48]}))
    assert record.status == "ok", record.error
    assert record.config["transform"]["size"] == [32, 48]


def test_the_protocol_decides_what_is_scored(tiny_with):
    record = run_trial(tiny_with({"protocol.name": "mirror"}))
    assert record.status == "ok" and tuple(record.scores) == OF_PROTOCOL["mirror"]
    assert tuple(record.image_scores)[2:] == OF_PROTOCOL["mirror"]
