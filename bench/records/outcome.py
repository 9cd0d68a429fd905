"""The result of a trial while its steps still run."""

import dataclasses
from dataclasses import dataclass, field

from bench.config.trial import TrialConfig
from bench.records.energy import Energy
from bench.records.memory import Memory, MemoryConditions
from bench.records.record import CurvePoint, FeatureCache, MemoryAtFailure, Provenance, Status, Timing, TrialRecord


@dataclass
class Outcome:
    """The result of a trial, with the fields of ``TrialRecord``. Its steps fill it; what failed later stays empty."""

    status: Status = "error"
    error: str = ""
    scores: dict[str, float] | None = None
    test_sets: dict[str, dict[str, float]] = field(default_factory=dict)
    val_scores: dict[str, float] | None = None
    train_scores: dict[str, float] | None = None
    memory: dict[str, Memory] | None = None
    memory_conditions: MemoryConditions | None = None
    memory_at_failure: MemoryAtFailure | None = None
    timing: Timing | None = None
    energy: Energy | None = None
    parameters: dict[str, int] | None = None
    curve: list[CurvePoint] = field(default_factory=list)
    diverged_at_step: int | None = None
    resumed_from_epochs: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    feature_cache: FeatureCache | None = None
    provenance: Provenance | None = None
    checkpoint: bytes | None = None
    checkpoint_bytes: int | None = None
    snapshot: bytes | None = None
    image_scores: dict[str, list] | None = None
    memory_series: dict[str, list] | None = None
    samples: dict[str, list] | None = None

    def record(self, config: TrialConfig) -> TrialRecord:
        """Returns the record of the trial."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return TrialRecord(trial_id=config.trial_id, config=config.model_dump(mode="json"), **values)
