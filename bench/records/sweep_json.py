"""What a sweep asked, as it lies beside its records: ``sweep.json``. With it the tables need no sweep file.

Written whole when a run starts and again when it ends. Folders without one (older runs, records from elsewhere) are
understood from their records: the fields in which the configurations differ are the axes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, model_validator

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

NO_QUESTION = "(unknown: no sweep.json)"
NOT_THERE = "–"
"""Label on an axis of a configuration that has no such field."""


class Point(Config):
    """A labelled point of an axis and the dotted paths that it sets."""

    label: str
    changes: dict[str, Any]


class AxisEntry(Config):
    name: str
    points: list[Point]


class TrialEntry(Config):
    """A trial of the sweep: its label on each axis, and in which fields it differs from the base."""

    trial_id: str
    point: list[str]
    seed: int
    changes: dict[str, Any]


class MissingEntry(Config):
    """``models.core.registry.Missing`` as it is written."""

    kind: str
    field: str
    what: str
    remedy: str


class Predicted(Config):
    """Predicted peaks of a training step on a GPU, in bytes (``bench.memory.predicted_peak``); never measurements."""

    allocated_bytes: int
    device_bytes: int
    generation: str | None = None
    """Of the card (``bench.memory.card_generations``); ``None`` in older manifests, which assumed a card before Hopper."""


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
    """What kept a trial from running, by trial id."""
    predicted: dict[str, Predicted] = {}
    """By trial id; a trial that nobody predicted is not in it."""
    remarks: list[str] = []
    """What a reader of merged or selected results has to know."""

    @model_validator(mode="after")
    def _numbers_can_be(self) -> "Manifest":
        if is_beyond(self):
            raise ValueError("holds a number beyond all that can be shown")
        return self

    def save(self, folder: Path) -> Path:
        """Writes ``sweep.json`` whole or not at all."""
        text = self.model_dump_json(indent=1)
        write_whole(folder / MANIFEST, lambda file: file.write(text.encode()))
        return folder / MANIFEST


@dataclass(frozen=True)
class RecordedTrial(Trial):
    """A trial under the id that it was recorded with: a later version may hash its configuration differently."""

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
    """The manifest of a sweep and its final list of trials."""
    base = sweep.base.model_dump(mode="json")
    ids = {trial.trial_id for trial in trials}
    return Manifest(
        name=sweep.name,
        question=sweep.question,
        profile=sweep.profile,
        base=base,
        axes=[
            AxisEntry(name=axis.name, points=[Point(label=a, changes=_plain(b)) for a, b in axis.points])
            for axis in sweep.axes
        ],
        seeds=list(sweep.seeds),
        search=sweep.search,
        ask=sweep.ask,
        trials=[
            TrialEntry(
                trial_id=t.trial_id, point=list(t.point), seed=t.seed, changes=changes(base, _unseeded(t.config))
            )
            for t in trials
        ],
        absent={i: [MissingEntry(**item._asdict()) for item in found] for i, found in sorted(absent.items())},
        predicted={i: p for i, p in sorted(predicted.items()) if i in ids},
        remarks=list(remarks),
    )


def load(folder: Path) -> tuple[Manifest | None, str]:
    """The folder's manifest, or ``None`` and a line that says why there is none (empty where it has no file)."""
    path = folder / MANIFEST
    if not path.exists():
        return None, ""
    try:
        return Manifest.model_validate_json(schema.read(path)), ""
    except schema.NewerVersion as error:
        return None, f"{path}: cannot be read ({error.reason}); its records are shown without it"
    except ValidationError as error:
        return None, f"{path}: cannot be read ({explain(error, Manifest, None)[0]}); its records are shown without it"
    except OSError as error:
        return None, f"{path}: cannot be read ({error}); its records are shown without it"


def check_owner(folder: Path, sweep: Sweep) -> None:
    """Raises ``ConfigError`` where the results of another sweep lie in the folder: sweep ``a`` with profile ``b`` and
    sweep ``a-b`` have one name for it. The same sweep with other settings shares its folder on purpose."""
    known, _ = load(folder)
    if known is not None and known.name != sweep.name:
        names = [f"sweep '{of.name}', profile {of.profile}" for of in (known, sweep)]
        raise ConfigError(
            f"{folder}: holds the results of {names[0]}, and this is {names[1]}. Give name=NAME or --results DIR"
        )


def understand(manifest: Manifest, records: Mapping[str, TrialRecord]) -> tuple[Sweep, list[Trial], list[str]]:
    """The sweep and trials that a manifest describes, and a line for each trial that this version cannot read.

    A trial's own record is believed before the manifest. Raises ``ConfigError`` when no trial can be read.
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
    except ValidationError:  # written by another version; only what all trials share is ever shown of it
        base = trials[0].config
    axes = tuple(Axis(axis.name, tuple((p.label, p.changes) for p in axis.points)) for axis in manifest.axes)
    seeds = tuple(manifest.seeds)
    ask = manifest.ask or default_ask(axes)
    sweep = Sweep(manifest.name, manifest.question, manifest.profile, base, axes, seeds, manifest.search, ask=ask)
    return sweep, trials, notes


def reconstruct(name: str, records: Mapping[str, TrialRecord]) -> tuple[Sweep, list[Trial], list[str]]:
    """A sweep from records alone. Its axes are the fields in which their configurations differ, its rows are sorted.

    Raises ``ConfigError`` when no record can be read.
    """
    trials, notes = [], []
    for trial_id, record in sorted(records.items()):
        _add(trials, notes, trial_id, (), record.config)
    if not trials:
        raise ConfigError(f"{name}: there are no records that can be shown", *notes)
    configs = [_unseeded(trial.config) for trial in trials]
    paths = list(varied(configs)) or ["model"]  # a single configuration is a row of some table too
    order = sorted(range(len(trials)), key=lambda i: ([_sortable(configs[i], p) for p in paths], trials[i].seed))
    found = [
        RecordedTrial(trials[i].config, tuple(label(configs[i], path) for path in paths), trials[i].trial_id)
        for i in order
    ]
    axes = tuple(axis_over(path, [configs[i] for i in order]) for path in paths)
    seeds = tuple(sorted({trial.seed for trial in trials}))
    return Sweep(name, NO_QUESTION, "unknown", found[0].config, axes, seeds, ask=default_ask(axes)), found, notes


def parse(raw: Mapping[str, Any]) -> TrialConfig:
    """A configuration as it lies in a record. Raises ``ValidationError`` where it is not of this version."""
    return recorded(json.dumps(raw))


def changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted paths at which ``other`` has another value than ``base``; a part with another name changes whole."""
    found: dict[str, Any] = {}
    for key, value in other.items():
        before = base.get(key)
        if value == before and key in base:
            continue
        if (
            _is_part(value)
            and _is_part(before)
            and value.get("name") == before.get("name")
            and value.keys() == before.keys()
        ):
            found |= {f"{key}.{path}": inner for path, inner in changes(before, value).items()}
        else:
            found[key] = value
    return found


def varied(configs: Sequence[Mapping[str, Any]], within: str = "") -> Iterator[str]:
    """Dotted paths at which the configurations differ, in their order. Parts of different kinds differ as a whole,
    by name, and besides in the fields that differ among those of one kind."""
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config[key] for config in configs if key in config]
        if len(values) == len(configs) and all(value == values[0] for value in values):
            continue
        parts = [value for value in values if _is_part(value)]
        if len(parts) < len(values) or len({part.get("name") for part in parts}) > 1:
            yield f"{within}{key}"
        kinds: dict[Any, list[dict]] = {}
        for part in parts:
            kinds.setdefault(part.get("name"), []).append(part)
        inner = [path for same in kinds.values() for path in varied(same, f"{within}{key}.")]
        yield from dict.fromkeys(inner)


def value_at(config: Mapping[str, Any], path: str) -> tuple[bool, Any]:
    """Whether a configuration has a field at a dotted path, and its value."""
    node: Any = config
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False, None
        node = node[part]
    return True, node


def label(config: Mapping[str, Any], path: str) -> str:
    """What a table says of the field at a path: its value, of a part its name, ``–`` where there is no such field."""
    known, value = value_at(config, path)
    if not known:
        return NOT_THERE
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return value["name"]
    return value if isinstance(value, str) else json.dumps(value)


def axis_over(path: str, configs: Sequence[Mapping[str, Any]]) -> Axis:
    """The axis of one path, with the values that the configurations take on it."""
    points = {label(config, path): {path: value_at(config, path)[1]} for config in configs}
    return Axis(path, tuple(points.items()))


def _is_part(value: Any) -> bool:
    """Has fields that dotted paths can name; a mapping of file names, say, has none."""
    return isinstance(value, dict) and not any("." in key for key in value)


def _add(trials: list[Trial], notes: list[str], trial_id: str, point: tuple[str, ...], raw: dict[str, Any]) -> None:
    try:
        trials.append(RecordedTrial(parse(raw), point, trial_id))
    except ValidationError as error:
        reason = explain(error, TrialConfig, raw)[0]
        notes.append(f"trial {trial_id} is left out: this version cannot read its configuration ({reason})")


def _changed(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    raw = json.loads(json.dumps(base))
    for path, value in values.items():
        *parents, last = path.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return raw


def _unseeded(config: TrialConfig) -> dict[str, Any]:
    raw = config.model_dump(mode="json")
    del raw["seed"]
    return raw


def _sortable(config: Mapping[str, Any], path: str) -> tuple[int, float, str]:
    known, value = value_at(config, path)
    if not known:
        return 2, 0, ""
    number = isinstance(value, int | float)
    return (0, value, "") if number else (1, 0, label(config, path))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a sweep file as JSON has them."""
    return json.loads(json.dumps(dict(values), default=_dumped))


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Config) else str(value)
