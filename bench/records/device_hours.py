"""The cost of trials in device hours, for budgets and for the choice of tuned values."""

from collections.abc import Mapping, Sequence

from bench.config.expand import Trial
from bench.records.record import TrialRecord


def device_hours(trials: Sequence[Trial], records: Mapping[str, TrialRecord]) -> float:
    """Sums up the hours of these trials, times their devices. A process that was killed has left no time to count."""
    found = [records[trial.trial_id] for trial in trials]
    devices = [record.provenance.devices * record.provenance.gpu_share for record in found if record.provenance]
    usual = max(devices, default=1)  # for trials that were stopped early, whose records do not have it
    seconds = 0.0
    for record in found:
        source = record.provenance
        if record.timing:
            seconds += record.timing.total_seconds * (source.devices * source.gpu_share if source else usual)
    return seconds / 3600
