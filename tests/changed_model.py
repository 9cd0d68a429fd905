"""A trial whose model is changed after it was built."""

from bench import trial as trial_module
from bench.trial import run_trial


def run_with(monkeypatch, tiny, change):
    """Runs the trial with ``change(model)`` applied right after it is built."""
    build = trial_module.MODELS.build

    def changed(*arguments):
        model = build(*arguments)
        change(model)
        return model

    monkeypatch.setattr(trial_module.MODELS, "build", changed)
    return run_trial(tiny)
