"""Latency of one image: what a pass takes, and neither loading nor warming up."""

import time

import pytest
import torch
from torch import nn

from bench.config.trial import DATASETS
from bench.memory import latency as module
from bench.memory.latency import latency
from bench.trial import run_trial


class Slow(nn.Module):
    """Takes as long as it is told, and longer for the first passes."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.shapes = seconds, []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        time.sleep(self.seconds * (5 if len(self.shapes) <= module.WARM_UP else 1))
        return (images[:, :1],)


def test_it_is_the_median_of_passes_over_one_image_after_warming_up(tiny):
    data = DATASETS.build(tiny.dataset, tiny.transform)
    model = Slow(0.01)
    found = latency(model, data.tests["test"], tiny.transform, torch.device("cpu"))
    assert 0.01 <= found < 0.045 and set(model.shapes) == {(1, 3, 32, 32)}
    assert len(model.shapes) == module.WARM_UP + module.PASSES and not model.training


def test_slow_models_are_not_measured_for_long(tiny, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.05)
    model = Slow(0.02)
    latency(model, DATASETS.build(tiny.dataset, tiny.transform).tests["test"], tiny.transform, torch.device("cpu"))
    assert len(model.shapes) == 2


def test_a_trial_records_it(tiny):
    timing = run_trial(tiny).timing
    assert timing.latency_seconds == pytest.approx(timing.latency_seconds) and 0 < timing.latency_seconds < 5
