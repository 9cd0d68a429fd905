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
from bench.config.expand import Trial
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
    trials: list[TrialEntry]
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
        for trial in self.trials:
            if len(trial.point) != len(self.axes):
                count = f"{len(self.axes)} axes, but trial {trial.trial_id} has {len(trial.point)} labels"
                raise ValueError(f"there are {count}")
        return self

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
) -> Manifest:
    """Makes the manifest of a sweep and its trials."""
    base = sweep.base.model_dump(mode="json")
    axes = []
    for axis in sweep.axes:
        points = [Point(label=label, changes=_plain(changes)) for label, changes in axis.points]
        axes.append(AxisEntry(name=axis.name, points=points))
    entries = []
    for trial in trials:
        changes = paths.changes(base, _unseeded(trial.config))
        entries.append(TrialEntry(trial_id=trial.trial_id, point=list(trial.point), seed=trial.seed, changes=changes))
    missing = {}
    for trial_id, items in sorted(absent.items()):
        missing[trial_id] = [MissingEntry(**item._asdict()) for item in items]
    ids = {trial.trial_id for trial in trials}
    return Manifest(
        name=sweep.name,
        question=sweep.question,
        profile=sweep.profile,
        base=base,
        axes=axes,
        seeds=list(sweep.seeds),
        search=sweep.search,
        ask=sweep.ask,
        trials=entries,
        absent=missing,
        predicted={trial_id: peak for trial_id, peak in sorted(predicted.items()) if trial_id in ids},
        remarks=list(remarks),
    )


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
    trials, notes = [], []
    for entry in manifest.trials:
        record = records.get(entry.trial_id)
        raw = record.config if record else _changed(manifest.base, {**entry.changes, "seed": entry.seed})
        _add(trials, notes, entry.trial_id, tuple(entry.point), raw)
    if not trials:
        raise ConfigError(f"{manifest.name}: none of its {len(manifest.trials)} trials can be shown", *notes)
    try:
        base = parse(manifest.base)
    except ValidationError:  # of another version; reports show only fields that all trials share
        base = trials[0].config
    axes = tuple(Axis(axis.name, tuple((p.label, p.changes) for p in axis.points)) for axis in manifest.axes)
    seeds = tuple(manifest.seeds)
    ask = manifest.ask or default_ask(axes)
    sweep = Sweep(manifest.name, manifest.question, manifest.profile, base, axes, seeds, manifest.search, ask=ask)
    return sweep, trials, notes


def parse(raw: Mapping[str, Any]) -> TrialConfig:
    """Parses a configuration of a record. Raises ``ValidationError`` if this version cannot read it."""
    return recorded(json.dumps(raw))


def _add(trials: list[Trial], notes: list[str], trial_id: str, point: tuple[str, ...], raw: dict[str, Any]) -> None:
    try:
        trials.append(RecordedTrial(parse(raw), point, trial_id))
    except ValidationError as error:
        reason = explain(error, TrialConfig, raw)[0]
        notes.append(f"trial {trial_id} is left out: this version cannot read its configuration ({reason})")


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
