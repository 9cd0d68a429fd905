"""Predictions of all trials of a sweep: one for each model, and none that a trial lacks is left out."""

from types import SimpleNamespace

from bench.config.expand import Trial
from bench.memory import sweep_predictions
from bench.records.sweep_json import Predicted


def test_trials_of_one_model_get_the_predictions_that_each_of_them_lacks(tiny_with, monkeypatch):
    peak = SimpleNamespace(allocated=10, device=20)
    monkeypatch.setattr(sweep_predictions, "predict_peak", lambda config, generation: peak)
    monkeypatch.setattr(sweep_predictions, "predict_tensors", lambda config: 30)
    old, new = (Trial(tiny_with({}).model_copy(update={"seed": seed}), ("a",)) for seed in (0, 1))
    known = {old.trial_id: Predicted(allocated_bytes=1, device_bytes=2, generation="hopper")}
    found = sweep_predictions.predictions([old, new], known, print)
    kept, made = found[old.trial_id], found[new.trial_id]
    assert (kept.allocated_bytes, kept.device_bytes, kept.tensor_bytes) == (1, 2, 30)
    assert (made.allocated_bytes, made.device_bytes, made.tensor_bytes) == (10, 20, 30)
