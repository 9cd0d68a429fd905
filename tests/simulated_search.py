"""Searches on made-up records, in which everything is known."""

import importlib.util

import numpy as np
import pytest

from bench.config.axes import Axis
from bench.config.expand import Trial, expand
from bench.config.search import SearchConfig
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig
from bench.records.record import CurvePoint, Timing, TrialRecord
from bench.search import next_trials

NEEDS_OPTUNA = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="needs optuna (pip install -e '.[search]')"
)
OPTUNA = pytest.param("optuna", marks=NEEDS_OPTUNA)
BASE = TrialConfig.model_validate(
    {
        "model": {"name": "sam3_unet", "encoder": "sam3_vit_tiny", "decoder": {"width": 8}},
        "dataset": {"name": "procedural", "train": 8, "val": 2, "test": 3, "side": 32},
        "transform": {"size": 32},
        "train": {"epochs": 9, "batch_size": 4},
        "device": "cpu",
    }
)
IMAGES = 12


def sweep_of(ranks=4, rates=3, seeds=(0, 1), **search_fields) -> Sweep:
    """A space of ``ranks * rates`` points."""
    axes = (
        Axis.over("model.adapter.rank", {str(n + 1): n + 1 for n in range(ranks)}),
        Axis.over("train.lr", {f"{n + 1}e-05": (n + 1) * 1e-5 for n in range(rates)}),
    )
    return Sweep("made_up", "Why?", "default", BASE, axes, tuple(seeds), SearchConfig.model_validate(search_fields))


def record_of(trial: Trial, value: float = 0.5, status: str = "ok", seconds: float = 60.0) -> TrialRecord:
    ok = status == "ok"
    timing = {"train_seconds": None, "train_images_per_second": None, "inference_images_per_second": None}
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error="" if ok else "something",
        config=trial.config.model_dump(mode="json"),
        scores={"s_measure": value} if ok else None,
        val_scores={"s_measure": value} if ok else None,
        curve=[CurvePoint(epoch=1, train_loss=1.0, val_loss=1 - value, lr=0.1)],
        timing=Timing(**timing, total_seconds=seconds),
    )


def images_of(trial: Trial, value: float) -> dict[str, list]:
    """Scores of images around a value, with noise that belongs to the trial."""
    rng = np.random.default_rng(int(trial.trial_id, 16) % 2**32)
    return {"name": [str(i) for i in range(IMAGES)], "s_measure": list(value + 0.002 * rng.standard_normal(IMAGES))}


def play(sweep, value=lambda trial: 0.5, records=None, status=lambda trial: "ok", stop_after=None, at_once=2):
    """Runs a search on made-up trials; returns the last plan, the records and the order in which trials were run.

    stop_after: as if the driver was killed after so many trials.
    """
    records, order = dict(records or {}), []
    seeded = sweep.search.first_seeds is not None
    known = [t for t in expand(sweep) if t.trial_id in records and status(t) == "ok"] if seeded else []
    images = {trial.trial_id: images_of(trial, value(trial)) for trial in known}
    while True:
        plan = next_trials.plan(sweep, records, images, at_once=at_once)
        if not plan.next:
            return plan, records, order
        for trial in plan.next:
            if stop_after is not None and len(order) == stop_after:
                return plan, records, order
            assert trial.trial_id not in records, "run twice"
            order.append(trial)
            records[trial.trial_id] = record_of(trial, value(trial), status(trial))
            if status(trial) == "ok":
                images[trial.trial_id] = images_of(trial, value(trial))


def ids(trials):
    return [trial.trial_id for trial in trials]


def smooth(trial):
    """Best at rank 6 and the sixth rate, falling off around them."""
    rank, rate = trial.config.model.adapter.rank, round(trial.config.train.lr / 1e-5)
    return 0.9 - 0.01 * (rank - 6) ** 2 - 0.01 * (rate - 6) ** 2
