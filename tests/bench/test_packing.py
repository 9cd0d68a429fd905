"""Trials that share a card: whether they fit, and what their records may say. The card is simulated."""

import pytest
import torch

from bench import packing, trial
from bench.config import ConfigError
from bench.packing import GIB, CardShare
from bench.predicted_memory import CONTEXT_BYTES, Unpredictable, predict
from bench.record import load
from bench.resources import Resources
from bench.sweep import Trial
from bench.trial import run_trial

HALVES = Resources(threads=1, gpus=1, gpus_per_trial=0.5)
QUARTERS = Resources(threads=1, gpus=1, gpus_per_trial=0.25)


class Predicted:
    def __init__(self, gib: float) -> None:
        self.device = round(gib * GIB)


@pytest.fixture
def trials(tiny_with, monkeypatch) -> list[Trial]:
    """Four trials, two of them seeds of one configuration, that are predicted to need 1, 1, 2 and 3 GiB."""
    asked = []

    def predicted(config):
        asked.append(config)
        return Predicted({1: 1, 2: 2, 3: 3}[config.train.epochs])

    monkeypatch.setattr(packing, "predict", predicted)
    points = [(1, 0), (1, 1), (2, 0), (3, 0)]
    made = [Trial(tiny_with({"train.epochs": e, "seed": seed}), (f"row {e}",)) for e, seed in points]
    yield made
    assert len(asked) == 3, "seeds of a configuration are predicted once"


def test_the_largest_that_can_meet_must_fit_the_card(trials):
    assert set(packing.shares(trials, HALVES, 5 * GIB)) == {trial.trial_id for trial in trials}
    with pytest.raises(ConfigError) as caught:
        packing.shares(trials, HALVES, 5 * GIB - 1)
    (line,) = caught.value.lines
    assert "--gpus-per-trial 0.5: 2 trials that would share a card are predicted to take 5.00 GiB of its 5.00" in line
    assert "row 3 3.00 GiB, row 2 2.00 GiB" in line and "Use a larger share, or 1" in line


@pytest.mark.parametrize(("resources", "card"), [(HALVES, 8 * GIB), (QUARTERS, 24 * GIB)])
def test_limits_leave_room_for_any_neighbours(trials, resources, card):
    shares = packing.shares(trials, resources, card)
    limits = sorted((share.limit_bytes for share in shares.values()), reverse=True)
    assert sum(limits[: resources.trials_per_card]) <= card
    assert all(shares[t.trial_id].limit_bytes >= t.config.train.epochs * GIB for t in trials)


def test_what_cannot_be_predicted_cannot_share(tiny, monkeypatch):
    def refuse(config):
        raise Unpredictable("nothing in it trains")

    monkeypatch.setattr(packing, "predict", refuse)
    with pytest.raises(ConfigError, match="Run them with --gpus-per-trial 1\n  zero: nothing in it trains"):
        packing.shares([Trial(tiny, ("zero",))], HALVES, 80 * GIB)


def test_a_real_prediction_counts_the_context_of_every_trial(tiny):
    alone = predict(tiny).device
    assert alone > CONTEXT_BYTES
    with pytest.raises(ConfigError):
        packing.shares([Trial(tiny, ("a",)), Trial(tiny.model_copy(update={"seed": 1}), ("b",))], HALVES, 2 * alone - 1)


def test_a_shared_card_has_scores_but_neither_memory_nor_speed(tiny, tmp_path):
    alone = run_trial(tiny)
    shared = run_trial(tiny, card=CardShare(0.5, 4 * GIB))
    assert shared.status == "ok" and shared.scores == alone.scores and shared.checkpoint == alone.checkpoint
    assert shared.memory is None and shared.memory_series is None
    timing = shared.timing
    speeds = (timing.train_seconds, timing.train_images_per_second, timing.inference_images_per_second)
    assert speeds == (None, None, None) and timing.total_seconds > 0
    assert (shared.provenance.gpu_share, alone.provenance.gpu_share) == (0.5, 1.0)
    shared.save(tmp_path)
    assert load(tmp_path / f"{tiny.trial_id}.json").provenance.gpu_share == 0.5
    assert not (tmp_path / f"{tiny.trial_id}.memory.parquet").exists()


def test_a_share_that_runs_out_is_no_result(tiny, monkeypatch):
    def out_of_memory(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trial, "train", out_of_memory)
    assert run_trial(tiny).status == "oom"
    shared = run_trial(tiny, card=CardShare(0.5, GIB))
    assert shared.status == "error" and "its share of the card, 0.5, was too small" in shared.error
    assert "--gpus-per-trial 1" in shared.error and shared.memory_at_failure is None


def test_the_allocator_is_kept_to_the_share(monkeypatch):
    class Card:
        total_memory = 10 * GIB

    set_to = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Card)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, device: set_to.append(part))
    device = torch.device("cuda", 0)
    with trial._limited(device, None, CardShare(0.5, 4 * GIB)):
        assert set_to[-1] == pytest.approx(0.4 - CONTEXT_BYTES / (10 * GIB))
    with trial._limited(device, 1.0, CardShare(0.5, 4 * GIB)):
        assert set_to[-1] == pytest.approx(0.1)
    assert set_to[-1] == 1.0
