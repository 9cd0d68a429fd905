"""One trial, run for real at the smallest size: what it records, and what becomes of everything that goes wrong."""

import math
import weakref
from contextlib import contextmanager

import numpy as np
import pyarrow.parquet
import pytest
import torch
from fake_cuda import CardInMemory, FakeCuda

from bench import trial as trial_module
from bench.memory.card_generations import GENERATIONS
from bench.memory.predicted_peak import predict_peak
from bench.scoring.metrics import OF_PROTOCOL
from bench.trial import run_trial


def test_a_record_says_everything(tiny):
    epochs = []
    record = run_trial(tiny, on_epoch=epochs.append)
    assert (record.status, record.error, record.trial_id) == ("ok", "", tiny.trial_id)
    assert type(tiny).model_validate(record.config) == tiny
    assert set(record.scores) == set(record.val_scores) == set(OF_PROTOCOL["sod"])
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


def test_without_validation_images_nothing_is_validated(tiny_with):
    record = run_trial(tiny_with({"dataset.val": 0}))
    assert record.val_scores is None and record.curve[0].val_loss is None


def test_validation_changes_no_score(tiny_with):
    """Looking at the validation split must not disturb training: no random number, no statistic may depend on it."""
    base = {"train.epochs": 2}
    seldom = run_trial(tiny_with({**base, "train.validate_every": 0}))
    often = run_trial(tiny_with({**base, "train.validate_every": 1}))
    assert seldom.scores == often.scores and often.curve[1].val_loss is not None


def run_with(monkeypatch, tiny, change):
    """Runs the trial with ``change(model)`` applied right after it is built."""
    build = trial_module.MODELS.build

    def changed(*arguments):
        model = build(*arguments)
        change(model)
        return model

    monkeypatch.setattr(trial_module.MODELS, "build", changed)
    return run_trial(tiny)


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


ON_CARD = {"device": "cuda", "memory.foreign_process": "note"}  # on the machine of a test there is no NVML


def test_a_whole_trial_on_a_simulated_card(monkeypatch, tiny_with):
    """Every call that is given the device gets one with an index: torch's own checks are at work."""
    cuda = FakeCuda(monkeypatch)
    config = tiny_with(ON_CARD | {"memory.budget_gib": 2})
    with CardInMemory():
        record = run_trial(config)
    assert record.status == "ok", record.error
    assert cuda.fractions == [0.25, 1.0] and cuda.calls.count(("reset_peak", 0)) == 2
    training = record.memory["training"]
    assert (training.torch_allocated_bytes, training.torch_reserved_bytes) == (300 * 2**20, 400 * 2**20)
    assert training.rss_bytes is None and training.foreign_processes is None and "processes" in training.denied
    assert record.provenance.device == "simulated card" and record.provenance.gpu_share == 1.0
    assert record.timing.latency_seconds > 0
    assert run_trial(tiny_with({"memory.budget_gib": 2})).scores.keys() == record.scores.keys()


@pytest.mark.parametrize(
    ("tf32", "capability", "products"), [(True, (9, 0), True), (False, (9, 0), False), (True, (7, 5), False)]
)
def test_tf32_is_set_in_training_and_in_evaluation_and_recorded(monkeypatch, tiny_with, tf32, capability, products):
    FakeCuda(monkeypatch, capability=capability)
    seen = set()

    def look(model):
        model.register_forward_pre_hook(lambda module, inputs: seen.add((module.training, *flags())))

    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = flags()
    with CardInMemory():
        record = run_with(monkeypatch, tiny_with(ON_CARD | {"train.tf32": tf32}), look)
    assert record.status == "ok", record.error
    assert seen == {(True, products, True), (False, products, True)}
    assert flags() == before == (False, True), "what comes next in this process is not touched"
    known = record.memory_conditions
    assert (known.tf32_matmul, known.tf32_cudnn, record.config["train"]["tf32"]) == (products, True, tf32)


def test_on_a_cpu_there_is_no_tf32(tiny_with):
    records = [run_trial(tiny_with({"train.tf32": tf32})) for tf32 in (True, False)]
    assert records[0].scores == records[1].scores and records[0].trial_id == records[1].trial_id
    known = records[0].memory_conditions
    assert (known.tf32_matmul, known.tf32_cudnn) == (False, None)


def test_an_out_of_memory_is_predicted_for_the_card_that_is_here(monkeypatch, tiny_with):
    FakeCuda(monkeypatch, capability=(9, 0))

    def fail(*arguments, **more):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trial_module, "train", fail)
    config = tiny_with(ON_CARD)
    with CardInMemory():
        at_failure = run_trial(config).memory_at_failure
    assert at_failure.predicted_allocated_bytes == predict_peak(config, GENERATIONS["hopper"]).allocated
    assert at_failure.predicted_allocated_bytes > predict_peak(config).allocated


PARTS_OF_A_TRIAL = (
    "_torch_settings",
    "device_of",
    "float32_products",
    "provenance",
    "conditions",
    "predict_peak",
    "_limit",
    "MemoryMonitor",
    "parameter_counts",
    "train",
    "predict",
    "latency",
)


@pytest.mark.parametrize("name", [*PARTS_OF_A_TRIAL, "_clean"])
def test_whatever_raises_there_is_a_record(monkeypatch, tiny_with, name):
    def fail(*arguments, **more):
        raise RuntimeError(f"{name} failed")

    monkeypatch.setattr(trial_module, name, fail)
    config = tiny_with({"memory.budget_gib": 50.0})
    record = run_trial(config)
    assert (record.trial_id, record.config) == (config.trial_id, config.model_dump(mode="json"))
    if name == "predict_peak":  # a figure beside the record
        assert record.status == "ok" and not record.notes
    elif name == "_clean":  # it comes after the trial
        assert record.status == "ok" and record.notes == [
            "the card could not be cleaned up after the trial: _clean failed"
        ]
        assert record.scores == run_trial(tiny_with({})).scores
    else:
        assert record.status == "error" and f"{name} failed" in record.error and record.timing.total_seconds >= 0


def test_a_card_that_does_not_answer_any_more_does_not_cost_the_record(monkeypatch, tiny_with):
    FakeCuda(monkeypatch)

    def fail(*arguments, **more):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def dead(*arguments):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(trial_module, "train", fail)
    for name in ("_cuda_memoryStats", "_cuda_emptyCache"):
        monkeypatch.setattr(torch._C, name, dead, raising=False)
    monkeypatch.setattr(trial_module, "MemoryMonitor", Monitor)
    with CardInMemory():
        record = run_trial(tiny_with(ON_CARD))
    assert record.status == "oom" and record.memory_at_failure.torch_reserved_bytes is None
    assert record.notes == ["the card could not be cleaned up after the trial: CUDA error: unspecified launch failure"]


class Monitor:
    """One that measures nothing."""

    def __init__(self, *arguments):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        pass

    @contextmanager
    def phase(self, name):
        yield []


def test_a_budget_limits_the_allocator_and_an_oom_leaves_the_device_clean(monkeypatch, tiny_with):
    cuda = FakeCuda(monkeypatch, count=2, current=1)
    alive = []

    def run(*arguments):
        def use():
            held = torch.zeros(10)
            alive.append(weakref.ref(held))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        monkeypatch.setattr(trial_module.DATASETS, "build", lambda *arguments: use())
        return plain(*arguments)

    plain = trial_module._run
    monkeypatch.setattr(trial_module, "_run", run)
    cuda.reserved_bytes = 3 * 2**30
    record = run_trial(tiny_with(ON_CARD | {"memory.budget_gib": 2}))
    assert record.status == "oom"
    assert record.memory_at_failure.torch_reserved_bytes == 3 * 2**30
    assert record.memory_at_failure.budget_bytes == 2 * 2**30
    assert cuda.calls == [("fraction", 0.25, 1), ("fraction", 1.0, 1), "empty_cache"]
    assert alive[0]() is None


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


ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")


@pytest.mark.gpu
@ON_A_GPU
def test_a_budget_on_a_gpu_ends_as_out_of_memory_and_leaves_no_limit(tiny_with):
    """The prediction is made to say nothing, so that the allocator has to enforce the budget."""
    config = tiny_with({"device": "cuda", "train.batch_size": 8, "transform.size": 224, "memory.budget_gib": 0.02})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_module, "_predicted", lambda config, share: None)
        record = run_trial(config)
    assert record.status == "oom", record.error
    assert record.memory_at_failure.torch_reserved_bytes <= 0.02 * 2**30
    assert run_trial(tiny_with({"device": "cuda", "memory.budget_gib": 4})).status == "ok"
    device = torch.device("cuda", torch.cuda.current_device())
    assert torch.zeros(2**28, device=device).shape == (2**28,), "1 GiB: the limit is gone"


@pytest.mark.gpu
@ON_A_GPU
def test_tf32_on_a_gpu_changes_products_as_the_setting_says(monkeypatch, tiny_with):
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this card has no TF32")
    errors = {}

    def multiply(model):
        a, b = torch.randn(2, 256, 256, device="cuda", dtype=torch.float64).unbind()
        exact = a @ b
        errors[torch.backends.cuda.matmul.allow_tf32] = ((a.float() @ b.float()) - exact).abs().max().item()

    records = [
        run_with(monkeypatch, tiny_with({"device": "cuda", "train.tf32": tf32}), multiply) for tf32 in (True, False)
    ]
    assert [record.status for record in records] == ["ok", "ok"], [record.error for record in records]
    assert [record.memory_conditions.tf32_matmul for record in records] == [True, False]
    assert records[0].trial_id != records[1].trial_id
    assert errors[True] > 20 * errors[False] > 0


@pytest.mark.gpu
@ON_A_GPU
def test_a_trial_on_a_gpu_measures_what_a_cpu_cannot(tiny_with):
    record = run_trial(tiny_with({"device": "cuda"}))
    assert record.status == "ok", record.error
    training = record.memory["training"]
    assert training.torch_reserved_bytes >= training.torch_allocated_bytes > 0
    assert training.nvml_device_bytes is None or training.nvml_device_bytes >= training.torch_reserved_bytes


def test_a_trial_on_rectangles(tiny_with):
    record = run_trial(tiny_with({"transform.size": [32, 48]}))
    assert record.status == "ok", record.error
    assert record.config["transform"]["size"] == [32, 48]


def test_the_protocol_decides_what_is_scored(tiny_with):
    record = run_trial(tiny_with({"protocol.name": "mirror"}))
    assert record.status == "ok" and tuple(record.scores) == OF_PROTOCOL["mirror"]
    assert tuple(record.image_scores)[2:] == OF_PROTOCOL["mirror"]
