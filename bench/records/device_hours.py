"""The cost of trials."""

from collections.abc import Mapping, Sequence

from bench.config.expand import Trial
from bench.records.record import TrialRecord


def device_hours(trials: Sequence[Trial], records: Mapping[str, TrialRecord]) -> float:
    """Sums up the hours of these trials, times their devices. A process that was killed has left no time to count."""
    found = [records[trial.trial_id] for trial in trials]
    known = [record.provenance.devices * record.provenance.gpu_share for record in found if record.provenance]
    usual = max(known, default=1)  # for trials that were stopped early, whose records do not have it
    seconds = 0.0
    for record in found:
        devices = usual
        if record.provenance:
            devices = record.provenance.devices * record.provenance.gpu_share
        if record.timing:
            seconds += record.timing.total_seconds * devices
    return seconds / 3600
