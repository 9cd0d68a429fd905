"""What a report is made from: a sweep, its trials, and everything that their folders hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.config import Sweep
from bench.external import ExternalRecord
from bench.record import TrialRecord
from bench.report.leaderboard import Leaderboard, summarise
from bench.sweep import Trial
from models._registry import Missing


@dataclass(frozen=True)
class Results:
    """Records of a sweep and where their files lie. Tables, figures and the page are all made from this."""

    sweep: Sweep
    trials: Sequence[Trial]  # in the sweep's order; also those without a record
    records: Mapping[str, TrialRecord]  # by trial id
    images: Mapping[str, Mapping[str, Sequence]]  # per-image scores on the first test set, by trial id
    folders: Mapping[str, Path]  # by trial id: where the record's other files lie
    absent: Mapping[str, Sequence[Missing]] = field(default_factory=dict)  # what keeps a trial from running here
    external: Sequence[ExternalRecord] = ()

    def board(self) -> Leaderboard:
        return summarise(self.sweep, self.trials, self.records, self.absent, self.images, self.external)
