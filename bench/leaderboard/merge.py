"""Several sweeps as one: their axes are united, and a trial that is in two sweeps is shown once.

On an axis that its own sweep did not vary, a row has the value of its configuration, or ``–`` without such a field.
Fields in which the bases of the sweeps differ (epochs, data, resolution) become axes, so that two settings never share
a row.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.config import paths
from bench.config.ask import AskConfig
from bench.config.axes import NOT_THERE, Axis, axis_over, label
from bench.config.expand import Candidates, Trial, row_key
from bench.config.paths import varied
from bench.config.search import SearchConfig
from bench.config.sweep import Sweep
from bench.leaderboard.results import Results
from bench.leaderboard.tuning.choice import by_row
from bench.records.sweep_json import RecordedTrial


def merge(parts: Sequence[Results]) -> tuple[Results, list[str]]:
    """Returns the results of all parts as one, rows in the order of the parts, and a line for each duplicate record.

    Of two records of a trial the first that is ok is kept, else the first.
    """
    if len(parts) == 1:
        return parts[0], []
    settings = _settings(parts)
    axes = _united_axes(parts, settings)
    shown, notes = _shown_records(parts)
    sweep = _united_sweep(parts, axes)
    points = {setting.row: setting.point(axes) for setting in settings}
    results = Results(
        sweep=sweep,
        trials=[RecordedTrial(s.trial.config, s.point(axes), s.trial.trial_id) for s in settings],
        records={trial_id: part.records[trial_id] for trial_id, part in shown.items()},
        images={i: part.images[i] for i, part in shown.items() if i in part.images},
        folders={trial_id: part.folders[trial_id] for trial_id, part in shown.items()},
        absent=_absent(parts, shown),
        external=_external(parts),
        predicted={trial_id: predicted for part in parts for trial_id, predicted in part.predicted.items()},
        remarks=_remarks(parts, sweep, notes),
        tuned=_tuned(parts, points),
    )
    return results, notes


# --- axes and points --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Setting:
    """A trial of the merged sweep and its configuration without the seed."""

    trial: Trial
    row: str  # equal for trials that differ in their seed only
    config: Mapping[str, Any]

    def point(self, axes: Iterable["_UnitedAxis"]) -> tuple[str, ...]:
        """Returns the trial's label on each axis."""
        return tuple(axis.label_of(self) for axis in axes)


@dataclass
class _UnitedAxis:
    """An axis of the merged sweep and the labels that the parts give to rows and values on it."""

    name: str
    points: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # changes of the configuration, by label
    by_row: dict[str, str] = field(default_factory=dict)  # labels by row key
    by_value: list[tuple[Any, str]] = field(default_factory=list)  # values of the field, and their labels

    def add(self, setting: _Setting, text: str) -> None:
        """Keeps the label that a part gives to a trial; the first label of a row and of a value stays."""
        self.by_row.setdefault(setting.row, text)
        value = paths.get(setting.config, self.name)
        if value is not paths.ABSENT and self._usual(value) is None:
            self.by_value.append((value, text))

    def label_of(self, setting: _Setting) -> str:
        """Returns the label of a trial: that of its row, else that of its value, else the value itself."""
        usual = self._usual(paths.get(setting.config, self.name))
        return self.by_row.get(setting.row) or usual or label(setting.config, self.name)

    def _usual(self, value: Any) -> str | None:
        return next((text for known, text in self.by_value if known == value), None)


def _settings(parts: Sequence[Results]) -> list[_Setting]:
    """Returns all trials of the parts, each once."""
    trials: dict[str, Trial] = {}
    for part in parts:
        for trial in part.trials:
            trials.setdefault(trial.trial_id, trial)
    return [_Setting(t, row_key(t), t.config.model_dump(mode="json", exclude={"seed"})) for t in trials.values()]


def _united_axes(parts: Sequence[Results], settings: Sequence[_Setting]) -> list[_UnitedAxis]:
    """Returns the axes of all parts, then axes over the fields that would otherwise let two settings share a row."""
    axes = _axes_of_parts(parts, settings)
    configs = [setting.config for setting in settings]
    for path in varied([part.sweep.base.model_dump(mode="json", exclude={"seed"}) for part in parts]):
        if not any(f"{path}.".startswith(f"{axis.name}.") for axis in axes):
            axes.append(_UnitedAxis(path, dict(axis_over(path, configs).points)))
    for path in _fields_that_clash(settings, axes):
        if path not in [axis.name for axis in axes]:
            axes.append(_UnitedAxis(path, dict(axis_over(path, configs).points)))
    return axes


def _axes_of_parts(parts: Sequence[Results], settings: Sequence[_Setting]) -> list[_UnitedAxis]:
    by_trial = {setting.trial.trial_id: setting for setting in settings}
    axes: dict[str, _UnitedAxis] = {}
    for part in parts:
        for number, axis in enumerate(part.sweep.axes):
            united = axes.setdefault(axis.name, _UnitedAxis(axis.name))
            united.points.update((text, dict(changes)) for text, changes in axis.points)
            for trial in part.trials:
                if trial.point[number] != NOT_THERE:
                    united.add(by_trial[trial.trial_id], trial.point[number])
    return list(axes.values())


def _fields_that_clash(settings: Sequence[_Setting], axes: Sequence[_UnitedAxis]) -> list[str]:
    """Returns the fields in which configurations differ that have the same labels on all axes."""
    at_point: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for setting in settings:
        at_point[setting.point(axes)][setting.row] = setting.config
    paths: dict[str, None] = {}
    for configs in at_point.values():
        if len(configs) > 1:
            paths |= dict.fromkeys(varied(list(configs.values())))
    return list(paths)


def _united_sweep(parts: Sequence[Results], axes: Sequence[_UnitedAxis]) -> Sweep:
    sweeps = [part.sweep for part in parts]
    same_tune = all(sweep.tune == sweeps[0].tune for sweep in sweeps)
    same_search = all(sweep.search == sweeps[0].search for sweep in sweeps)
    return Sweep(
        name=" + ".join(dict.fromkeys(sweep.name for sweep in sweeps)),
        question=" / ".join(dict.fromkeys(sweep.question for sweep in sweeps)),
        profile=" + ".join(dict.fromkeys(sweep.profile for sweep in sweeps)),
        base=sweeps[0].base,
        axes=tuple(Axis(axis.name, tuple(axis.points.items())) for axis in axes),
        seeds=tuple(sorted({seed for sweep in sweeps for seed in sweep.seeds})),
        search=sweeps[0].search if same_search else SearchConfig(),
        ask=_united_ask(sweeps, [axis.name for axis in axes]),
        tune=sweeps[0].tune if same_tune else (),
    )


def _tuned(parts: Sequence[Results], points: Mapping[str, tuple[str, ...]]) -> list[Candidates]:
    """Returns the candidates of all tuned rows, at the points of their rows in the merged sweep."""
    found = []
    for part in parts:
        for key, group in by_row(part.tuned, part.records, part.absent.keys()).items():
            if key in points:
                trials = [RecordedTrial(trial.config, points[key], trial.trial_id) for trial in group.trials]
                found.append(Candidates(group.fields, tuple(trials)))
    return list(dict.fromkeys(found))


def _united_ask(sweeps: Sequence[Sweep], axes: Sequence[str]) -> AskConfig:
    """Returns the question that all sweeps plan about these axes; else all pairs are compared."""
    asks = {sweep.ask for sweep in sweeps}
    same_axes = all([axis.name for axis in sweep.axes] == axes for sweep in sweeps)
    return sweeps[0].ask if len(asks) == 1 and same_axes else AskConfig()


# --- records and remarks ----------------------------------------------------------------------------------------------


def _shown_records(parts: Sequence[Results]) -> tuple[dict[str, Results], list[str]]:
    """Returns the part whose record is shown, by trial id, and a line for each duplicate record."""
    shown: dict[str, Results] = {}
    notes = []
    for part in parts:
        for trial_id, record in part.records.items():
            if trial_id not in shown:
                shown[trial_id] = part
                continue
            known = shown[trial_id].records[trial_id]
            if known != record:
                notes.append(f"trial {trial_id} was run twice: one record is shown, the first that is ok")
            if known.status != "ok" and record.status == "ok":
                shown[trial_id] = part
    return shown, notes


def _absent(parts: Sequence[Results], shown: Mapping[str, Results]) -> dict[str, Sequence]:
    """Returns the unmet requirements of trials without a record; those of the first part that has some."""
    absent: dict[str, Sequence] = {}
    for part in parts:
        for trial_id, items in part.absent.items():
            if trial_id not in shown:
                absent.setdefault(trial_id, items)
    return absent


def _external(parts: Sequence[Results]) -> list:
    """Returns the external methods of all parts, equal ones once."""
    found = []
    for part in parts:
        for external in part.external:
            if external not in found:
                found.append(external)
    return found


def _remarks(parts: Sequence[Results], sweep: Sweep, notes: Sequence[str]) -> list[str]:
    remarks = [
        f"Merged from {len(parts)} sweeps. A row has on an axis that its sweep did not vary its configuration's value."
    ]
    remarks += dict.fromkeys(remark for part in parts for remark in part.remarks)
    remarks += dict.fromkeys(notes)
    searched = [part.sweep.name for part in parts if part.sweep.search != sweep.search]
    if searched:
        remarks.append(
            f"Results decided which configurations or how many seeds were run in {', '.join(searched)}: the p values "
            "of a merged table are not corrected for that."
        )
    return remarks
