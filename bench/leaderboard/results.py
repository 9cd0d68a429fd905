"""What a report is made from: a sweep, its trials, and everything that their folders hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.leaderboard.leaderboard import Leaderboard, summarise
from bench.records import schema, sweep_json
from bench.records.external_scores import ExternalRecord, load_external
from bench.records.record import TrialRecord
from bench.records.store import load_all
from bench.records.sweep_json import Predicted
from bench.records.tables import read_images, read_series
from bench.scoring.sample_predictions import read_samples
from models.core.registry import Missing

NEWER = Missing("version", "", "its record was written by a newer version of the suite", "update the suite")
"""What keeps a trial's record from being shown."""


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
    predicted: Mapping[str, Predicted] = field(default_factory=dict)  # by trial id
    running: frozenset[str] = frozenset()  # ids of trials that run at this moment
    remarks: Sequence[str] = ()  # about the whole, for every reader: what was merged, left out or selected

    def board(self) -> Leaderboard:
        """Made once: its comparisons take seconds for hundreds of trials."""
        return self._board

    @cached_property
    def _board(self) -> Leaderboard:
        return summarise(
            self.sweep,
            self.trials,
            self.records,
            self.absent,
            self.images,
            self.external,
            predicted=self.predicted,
            remarks=self.remarks,
            running=self.running,
        )


def load(folder: Path) -> tuple[Results, list[str]]:
    """The results that lie in a sweep's folder, and a line for everything in it that cannot be used.

    The same content gives the same results, wherever the folder is. Raises ``ConfigError`` when nothing can be shown.
    """
    if not folder.is_dir():
        near = sorted(path.name for path in folder.parent.glob("*") if path.is_dir()) if folder.parent.is_dir() else []
        beside = f" Folders beside it: {', '.join(near[:8])}" if near else ""
        raise ConfigError(f"{folder}: no such folder.{beside}")
    records, notes = load_all(folder)
    found, problem = sweep_json.load(folder)
    notes += [problem] * bool(problem)
    if found is None and not records:
        raise ConfigError(
            f"{folder}: holds no records and no {sweep_json.MANIFEST}. Give a sweep's results folder", *notes
        )
    if found is None:
        sweep, trials, unread = sweep_json.reconstruct(folder.resolve().name, records)
        remarks = ["There is no sweep.json: the axes are the fields in which the recorded configurations differ."]
    else:
        sweep, trials, unread = sweep_json.understand(found, records)
        remarks = list(found.remarks)
    remarks = list(dict.fromkeys([*remarks, *unread]))
    ids = {trial.trial_id for trial in trials}
    if other := len(records.keys() - ids) - len(unread) * (found is None):
        notes.append(f"{folder}: {other} records belong to other settings of the sweep and are left out")
    external, unreadable = load_external(folder)
    absent = {i: [Missing(**m.model_dump()) for m in items] for i, items in (found.absent if found else {}).items()}
    kept = {trial_id: record for trial_id, record in records.items() if trial_id in ids}
    absent |= {trial_id: [NEWER] for trial_id in ids - kept.keys() if schema.newer(folder / f"{trial_id}.json")}
    images, unusable = read_images(folder, kept)
    for trial_id in kept:
        unusable += [line for _, line in (read_series(folder, trial_id), read_samples(folder, trial_id)) if line]
    results = Results(
        sweep=sweep,
        trials=trials,
        records=kept,
        images=images,
        folders={trial_id: folder for trial_id in kept},
        absent={i: items for i, items in absent.items() if i in ids and i not in kept},
        external=external,
        predicted=dict(found.predicted) if found else {},
        remarks=remarks,
    )
    return results, [*notes, *(f"{line}; left out" for line in [*unusable, *unreadable])]
