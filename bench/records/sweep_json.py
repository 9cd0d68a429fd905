"""The file ``sweep.json`` of a results folder: the sweep, its trials, and facts that the records do not hold.

A run writes it when it starts and again when it ends. Reports need it, and do not need the sweep file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from bench.config import paths
from bench.config.ask import AskConfig, default_ask
from bench.config.axes import Axis
from bench.config.errors import ConfigError, explain
from bench.config.expand import Candidates, Trial
from bench.config.search import SearchConfig
from bench.config.sweep import Sweep
from bench.config.trial import TrialConfig, recorded
from bench.records import schema
from bench.records.record import MANIFEST, TrialRecord, is_beyond
from bench.system.files import write_whole
from models.core.registry import Config, Missing


class Point(Config):
    """A labelled point of an axis and the dotted paths that it sets."""

    label: str
    changes: dict[str, Any]


class AxisEntry(Config):
    """An axis and its points."""

    name: str
    points: list[Point]


class TrialEntry(Config):
    """A trial of the sweep: its label on each axis, and the fields in which it differs from the base."""

    trial_id: str
    point: list[str]
    seed: int
    changes: dict[str, Any]


class MissingEntry(Config):
    """A ``models.core.registry.Missing`` in the file."""

    kind: str
    field: str
    what: str
    remedy: str


class CandidatesEntry(Config):
    """The trials among which the tuned values of a row are chosen, by their validation scores."""

    fields: list[str]
    """Dotted paths of the tuned fields."""
    trials: list[TrialEntry]


class Predicted(Config):
    """Predicted peaks of a training step, in bytes (``bench.memory.predicted_peak``); never measurements."""

    allocated_bytes: int | None = None
    """On a GPU."""
    device_bytes: int | None = None
    """On a GPU."""
    tensor_bytes: int | None = None
    """On a CPU."""
    generation: str | None = None
    """Generation of the card (``bench.memory.card_generations``); ``None`` in older files, for cards before Hopper."""


class Manifest(Config):
    """A sweep and the list of its trials."""

    schema_version: Literal[1] = 1
    name: str
    question: str
    profile: str
    base: dict[str, Any]
    axes: list[AxisEntry]
    seeds: list[int]
    search: SearchConfig = SearchConfig()
    ask: AskConfig | None = None
    """The planned question; ``None`` in older manifests, whose axes tell it."""
    tune: list[AxisEntry] = []
    """Fields whose values are chosen for each row, with the values that are tried."""
    trials: list[TrialEntry]
    """Trials of the rows; while the sweep runs, also candidates that are in no row."""
    candidates: list[CandidatesEntry] = []
    """The trials that choose the tuned values, for each row."""
    absent: dict[str, list[MissingEntry]] = {}
    """Items that trials lack, by trial id."""
    predicted: dict[str, Predicted] = {}
    """Predictions by trial id; trials without a prediction are left out."""
    remarks: list[str] = []
    """Sentences for readers about merged or selected results."""

    @model_validator(mode="after")
    def _numbers_can_be(self) -> "Manifest":
        if is_beyond(self):
            raise ValueError("holds a number beyond all that can be shown")
        return self

    @model_validator(mode="after")
    def _labels_fit_the_axes(self) -> "Manifest":
        for trial in [*self.trials, *(trial for entry in self.candidates for trial in entry.trials)]:
            if len(trial.point) != len(self.axes):
                count = f"{len(self.axes)} axes, but trial {trial.trial_id} has {len(trial.point)} labels"
                raise ValueError(f"there are {count}")
        return self

    @property
    def trial_ids(self) -> set[str]:
        """Ids of the trials of the rows and of all candidates, also of those that this version cannot read."""
        return {trial.trial_id for trial in [*self.trials, *(t for entry in self.candidates for t in entry.trials)]}

    def save(self, folder: Path) -> Path:
        """Writes ``sweep.json`` as a whole."""
        text = self.model_dump_json(indent=1)
        write_whole(folder / MANIFEST, lambda file: file.write(text.encode()))
        return folder / MANIFEST


@dataclass(frozen=True)
class RecordedTrial(Trial):
    """A trial with the id of its record. A later version may give its configuration another id."""

    recorded_id: str

    @property
    def trial_id(self) -> str:
        return self.recorded_id


def of(
    sweep: Sweep,
    trials: Sequence[Trial],
    absent: Mapping[str, Sequence[Missing]] = {},
    predicted: Mapping[str, Predicted] = {},
    remarks: Sequence[str] = (),
    candidates: Sequence[Candidates] = (),
) -> Manifest:
    """Makes the manifest of a sweep and its trials."""
    base = sweep.base.model_dump(mode="json")
    tried = []
    for of_row in candidates:
        entries = [_trial_entry(base, trial) for trial in of_row.trials]
        tried.append(CandidatesEntry(fields=list(of_row.fields), trials=entries))
    missing = {}
    for trial_id, items in sorted(absent.items()):
        missing[trial_id] = [MissingEntry(**item._asdict()) for item in items]
    ids = {trial.trial_id for trial in trials}
    ids |= {trial.trial_id for of_row in candidates for trial in of_row.trials}
    return Manifest(
        name=sweep.name,
        question=sweep.question,
        profile=sweep.profile,
        base=base,
        axes=list(map(_axis_entry, sweep.axes)),
        seeds=list(sweep.seeds),
        search=sweep.search,
        ask=sweep.ask,
        tune=list(map(_axis_entry, sweep.tune)),
        trials=[_trial_entry(base, trial) for trial in trials],
        candidates=tried,
        absent=missing,
        predicted={trial_id: peak for trial_id, peak in sorted(predicted.items()) if trial_id in ids},
        remarks=list(remarks),
    )


def _axis_entry(axis: Axis) -> AxisEntry:
    points = [Point(label=label, changes=_plain(changes)) for label, changes in axis.points]
    return AxisEntry(name=axis.name, points=points)


def _trial_entry(base: Mapping[str, Any], trial: Trial) -> TrialEntry:
    changes = paths.changes(base, _unseeded(trial.config))
    return TrialEntry(trial_id=trial.trial_id, point=list(trial.point), seed=trial.seed, changes=changes)


def load(folder: Path) -> tuple[Manifest | None, str]:
    """Returns the folder's manifest, or ``None`` and the reason why it cannot be read (empty if there is no file)."""
    path = folder / MANIFEST
    if not path.exists():
        return None, ""
    try:
        return Manifest.model_validate_json(schema.read(path)), ""
    except schema.NewerVersion as error:
        return None, str(error)
    except ValidationError as error:
        reason = schema.unreadable(error, Manifest)
    except OSError as error:
        reason = str(error)
    again = "Run the sweep again with the same command: it keeps the records and writes the file anew"
    return None, f"{path}: cannot be read ({reason}). {again}"


def check_owner(folder: Path, sweep: Sweep) -> None:
    """Raises ``ConfigError`` if the folder holds the results of another sweep.

    Sweep ``a`` with profile ``b`` and sweep ``a-b`` have the same folder name. The same sweep with other settings may
    share its folder.
    """
    known, _ = load(folder)
    if known is not None and known.name != sweep.name:
        names = [f"sweep '{of.name}', profile {of.profile}" for of in (known, sweep)]
        raise ConfigError(
            f"{folder}: holds the results of {names[0]}, and this is {names[1]}. Give name=NAME or --results DIR"
        )


def understand(manifest: Manifest, records: Mapping[str, TrialRecord]) -> tuple[Sweep, list[Trial], list[str]]:
    """Returns the sweep and trials of a manifest, and a line for each trial that this version cannot read.

    The configuration in a record takes precedence. Raises ``ConfigError`` if no trial can be read.
    """
    trials, notes = _read(manifest, manifest.trials, records)
    if not trials:
        raise ConfigError(f"{manifest.name}: none of its {len(manifest.trials)} trials can be shown", *notes)
    try:
        base = parse(manifest.base)
    except ValidationError:  # of another version; reports show only fields that all trials share
        base = trials[0].config
    axes, tune = (tuple(map(_axis, entries)) for entries in (manifest.axes, manifest.tune))
    seeds = tuple(manifest.seeds)
    ask = manifest.ask or default_ask(axes)
    sweep = Sweep(manifest.name, manifest.question, manifest.profile, base, axes, seeds, manifest.search, ask=ask)
    return sweep._replace(tune=tune), trials, notes


def candidates_of(manifest: Manifest, records: Mapping[str, TrialRecord]) -> list[Candidates]:
    """Returns the trials among which each row's values are chosen; those that this version cannot read are left out."""
    found = []
    for entry in manifest.candidates:
        trials, _ = _read(manifest, entry.trials, records)
        if trials:
            found.append(Candidates(tuple(entry.fields), tuple(trials)))
    return found


def parse(raw: Mapping[str, Any]) -> TrialConfig:
    """Parses a configuration of a record. Raises ``ValidationError`` if this version cannot read it."""
    return recorded(json.dumps(raw))


def _read(
    manifest: Manifest, entries: Sequence[TrialEntry], records: Mapping[str, TrialRecord]
) -> tuple[list[Trial], list[str]]:
    """Returns the trials of entries, and a line for each that this version cannot read."""
    trials: list[Trial] = []
    notes = []
    for entry in entries:
        record = records.get(entry.trial_id)
        raw = record.config if record else _changed(manifest.base, {**entry.changes, "seed": entry.seed})
        try:
            trials.append(RecordedTrial(parse(raw), tuple(entry.point), entry.trial_id))
        except ValidationError as error:
            reason = explain(error, TrialConfig, raw)[0]
            notes.append(f"trial {entry.trial_id} is left out: this version cannot read its configuration ({reason})")
    return trials, notes


def _axis(entry: AxisEntry) -> Axis:
    return Axis(entry.name, tuple((point.label, point.changes) for point in entry.points))


def _changed(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    raw = json.loads(json.dumps(base))
    for path, value in values.items():
        paths.put(raw, path, value)
    return raw


def _unseeded(config: TrialConfig) -> dict[str, Any]:
    raw = config.model_dump(mode="json")
    del raw["seed"]
    return raw


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts the values of a sweep file to those of JSON."""
    return json.loads(json.dumps(dict(values), default=_dumped))


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Config) else str(value)
