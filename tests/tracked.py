"""A sweep of two trials, and made-up records of them, for the tests of trackers."""

from bench.config.axes import Axis
from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig
from bench.records.memory import Memory
from bench.records.record import CurvePoint, Timing, TrialRecord


def two_ranks(tiny: TrialConfig) -> Sweep:
    """A sweep over two ranks of the adapter."""
    axis = Axis.over("model.adapter.rank", {"2": 2, "4": 4})
    return Sweep("mine", "How?", "embedded", tiny, (axis,), (0,))


def record(trial: Trial, status: str = "ok") -> TrialRecord:
    """A record with a number of every kind."""
    ok = status == "ok"
    return TrialRecord(
        trial_id=trial.trial_id,
        status=status,
        error="" if ok else "died",
        config={},
        scores={"s_measure": 0.7} if ok else None,
        val_scores={"s_measure": 0.6} if ok else None,
        memory={"training": Memory(rss_bytes=2**20)} if ok else None,
        timing=Timing(
            train_seconds=None, train_images_per_second=None, inference_images_per_second=5.0, total_seconds=2.0
        )
        if ok
        else None,
        curve=[CurvePoint(epoch=1, train_loss=0.9, val_loss=None, lr=0.1)] if ok else [],
    )
