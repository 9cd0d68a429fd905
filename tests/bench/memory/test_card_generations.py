"""What a process takes of a card beside its tensors: by the card's generation, and as an H100 has shown it."""

import pytest
import torch
from fake_cuda import FakeCuda
from fake_nvml import FakeNvml

from bench.config.trial import TrialConfig, with_value
from bench.memory import nvml
from bench.memory.card_generations import DEFAULT, GENERATIONS, here, of_capability, of_device
from bench.memory.predicted_peak import fake_step_memory, predict_peak

FULL = {"model": {"name": "sam3_unet", "encoder": {"weights": "random"}}, "dataset": "procedural"}


def test_every_compute_capability_has_a_generation():
    known = {(7, 0): "turing", (7, 5): "turing", (8, 0): "ampere", (8, 6): "ampere", (8, 9): "ada", (9, 0): "hopper"}
    known |= {(10, 0): "blackwell", (12, 1): "blackwell", (13, 0): "blackwell"}
    assert {capability: of_capability(capability).name for capability in known} == known
    assert of_device(torch.device("cpu")) is DEFAULT


def test_what_was_not_measured_does_not_say_that_it_was():
    assert [name for name, each in GENERATIONS.items() if each.measured_on] == ["hopper"]


def test_of_this_process_its_card_counts(monkeypatch):
    FakeCuda(monkeypatch, capability=(9, 0))
    assert of_device(torch.device("cuda", 0)).name == "hopper"


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [
        ({"GPU-a": (8, 9)}, "ada"),
        ({"GPU-a": "GPU is lost", "GPU-b": (9, 0)}, "hopper"),
        ({"GPU-a": "no"}, None),
        ({}, None),
    ],
)
def test_of_this_machine_nvml_says_it_and_cuda_is_not_asked(monkeypatch, capabilities, name):
    def refuse(*arguments):
        raise AssertionError("CUDA was asked, which may put this process on the card")

    monkeypatch.setattr(torch.cuda, "_lazy_init", refuse)
    fake = FakeNvml({uuid: [0] for uuid in capabilities})

    def capability(handle):
        if isinstance(capabilities[handle], str):
            raise FakeNvml.NVMLError(capabilities[handle])
        return list(capabilities[handle])

    fake.nvmlDeviceGetCudaComputeCapability = capability
    monkeypatch.setattr(nvml, "pynvml", fake)
    found = here()
    assert (found and found.name) == name


MEASURED = {
    "paper's setting": ({}, 4_807_155_712, 5_484_052_480, 6_286_802_944),
    "no adapter: no encoder in the backward pass": (
        {"model.adapter.placement": "none"},
        3_841_169_408,
        4_527_751_168,
        5_263_392_768,
    ),
    "batch 4": ({"train.batch_size": 4}, 2_862_084_096, 3_162_505_216, 3_965_255_680),
}
"""Bytes allocated, reserved and of the whole card (H100 80GB HBM3, driver 580.159.04, torch 2.11.0+cu130, float32)."""


@pytest.mark.parametrize(("changes", "allocated", "reserved", "device"), MEASURED.values(), ids=MEASURED)
def test_predictions_for_an_h100_are_what_one_has_shown(changes, allocated, reserved, device):
    found = predict_peak(with_value(TrialConfig.model_validate(FULL), changes), GENERATIONS["hopper"])
    assert found.allocated == pytest.approx(allocated, rel=0.002)
    assert found.reserved == pytest.approx(reserved, rel=0.003)
    assert found.device == pytest.approx(device, rel=0.003)


def test_a_handle_for_each_pass_that_multiplies_matrices(tiny_with):
    assert fake_step_memory(tiny_with({}), cuda=True).handles == 2
    assert fake_step_memory(tiny_with({"model.adapter.placement": "none"}), cuda=True).handles == 1
    plain = tiny_with({"model": {"name": "unet", "width": 4}})
    assert fake_step_memory(plain, cuda=True).handles == 0
    for config, handles in ((tiny_with({}), 2), (plain, 0)):
        small, large = (predict_peak(config, GENERATIONS[name]) for name in ("ampere", "hopper"))
        assert large.allocated - small.allocated == handles * (32 * 2**20 - 8_519_680)
        assert small.device - small.reserved == 450 * 2**20
        assert large.device - large.reserved == 668_532_736 + handles * 64 * 2**20
        assert large.parts["temporaries"] - small.parts["temporaries"] == large.allocated - small.allocated
