"""Trials on a card, real or simulated: memory, budgets, TF32, and what happens when the card fails."""

import weakref
from contextlib import contextmanager

import pytest
import torch
from changed_model import run_with
from conftest import REPOSITORY
from fake_cuda import CardInMemory, FakeCuda

from bench import trial as trial_module
from bench.leaderboard.rows import _failure
from bench.memory.card_generations import GENERATIONS
from bench.memory.predicted_peak import predict_peak
from bench.trial import run_trial

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
    "torch_settings",
    "device_of",
    "float32_products",
    "provenance",
    "conditions",
    "limit_allocator",
    "MemoryMonitor",
    "parameter_counts",
    "train",
    "predict",
    "latency",
)


@pytest.mark.parametrize("name", [*PARTS_OF_A_TRIAL, "bench.memory.budget.predict_peak", "clean_card"])
def test_whatever_raises_there_is_a_record(monkeypatch, tiny_with, name):
    def fail(*arguments, **more):
        raise RuntimeError(f"{name} failed")

    monkeypatch.setattr(name if "." in name else f"bench.trial.{name}", fail)
    config = tiny_with({"memory.budget_gib": 50.0})
    record = run_trial(config)
    assert (record.trial_id, record.config) == (config.trial_id, config.model_dump(mode="json"))
    if name == "bench.memory.budget.predict_peak":  # a figure beside the record
        assert record.status == "ok" and not record.notes
    elif name == "clean_card":  # it comes after the trial
        assert record.status == "ok" and record.notes == [
            "the card could not be cleaned up after the trial: clean_card failed"
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

    def counters(self):
        pass


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

    plain = trial_module._Trial._run
    monkeypatch.setattr(trial_module._Trial, "_run", run)
    cuda.reserved_bytes = 3 * 2**30
    record = run_trial(tiny_with(ON_CARD | {"memory.budget_gib": 2}))
    assert record.status == "oom"
    assert record.memory_at_failure.torch_reserved_bytes == 3 * 2**30
    assert record.memory_at_failure.budget_bytes == 2 * 2**30
    assert cuda.calls == [("fraction", 0.25, 1), ("fraction", 1.0, 1), "empty_cache"]
    assert alive[0]() is None


ON_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU")


@pytest.mark.gpu
@ON_A_GPU
def test_a_budget_on_a_gpu_ends_as_out_of_memory_and_leaves_no_limit(tiny_with):
    """The prediction is made to say nothing, so that the allocator has to enforce the budget."""
    config = tiny_with({"device": "cuda", "train.batch_size": 8, "transform.size": 224, "memory.budget_gib": 0.02})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial_module, "predicted_bytes", lambda config, share: None)
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


def test_a_full_card_leaves_a_snapshot_and_names_its_largest_holders(monkeypatch, tiny_with, tmp_path):
    FakeCuda(monkeypatch)
    frames = [{"filename": str(REPOSITORY / "models/decoders/unet.py"), "line": 7, "name": "forward"}]
    block = {"state": "active_allocated", "size": 2**30, "requested_size": 2**30, "frames": frames}
    recorded = []
    record_history = lambda *arguments, **more: recorded.append((arguments, more))  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", record_history)
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: {"segments": [{"address": 0, "blocks": [block]}]})

    def fail(*arguments, **more):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trial_module, "train", fail)
    monkeypatch.setattr(trial_module, "MemoryMonitor", Monitor)
    with CardInMemory():
        record = run_trial(tiny_with(ON_CARD))
    assert record.status == "oom" and not recorded  # without a budget, recording costs nothing
    assert record.memory_at_failure.largest_holders == ["1.00 GiB in 1: models/decoders/unet.py:7 forward"]
    record.save(tmp_path)
    assert (tmp_path / f"{record.trial_id}.snapshot.pickle").read_bytes() == record.snapshot
    assert "snapshot" not in (tmp_path / f"{record.trial_id}.json").read_text()
    assert "largest holders: 1.00 GiB in 1: models/decoders/unet.py:7 forward" in _failure(record)


def test_a_full_cpu_has_no_holders(monkeypatch, tiny_with):
    def fail(*arguments, **more):
        raise MemoryError

    monkeypatch.setattr(trial_module, "train", fail)
    record = run_trial(tiny_with({}))
    assert record.status == "oom" and record.snapshot is None and record.memory_at_failure.largest_holders is None
