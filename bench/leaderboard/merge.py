"""Several sweeps as one: their axes united, a trial that is in two of them once, rows of one table kept apart.

A row has on an axis that its own sweep did not vary the value that its configuration has there, or ``–`` where it has
no such field. What the sweeps' bases differ in (epochs, data, resolution) becomes an axis too, so that no two settings
ever share a row.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bench.config.axes import Axis
from bench.config.expand import Trial
from bench.config.search import SearchConfig
from bench.config.sweep import Sweep
from bench.leaderboard.results import Results
from bench.records.sweep_json import NOT_THERE, RecordedTrial, axis_over, label, value_at, varied


def merge(parts: Sequence[Results]) -> tuple[Results, list[str]]:
    """One result set of all parts, rows in the order of the parts, and a line for every trial with two records.

    Of two records of a trial the first that is ok is kept, else the first.
    """
    if len(parts) == 1:
        return parts[0], []
    notes, trials, records, images, folders, absent = [], {}, {}, {}, {}, {}
    for part in parts:
        for trial in part.trials:
            trials.setdefault(trial.trial_id, trial)
        absent |= {i: items for i, items in part.absent.items() if i not in absent}
        for trial_id, record in part.records.items():
            known = records.get(trial_id)
            if known is not None and known != record:
                notes.append(f"trial {trial_id} was run twice: one record is shown, the first that is ok")
            if known is None or known.status != "ok" and record.status == "ok":
                records[trial_id], folders[trial_id] = record, part.folders[trial_id]
                if trial_id in part.images:
                    images[trial_id] = part.images[trial_id]
    axes, found = _united(parts, list(trials.values()))
    sweeps = [part.sweep for part in parts]
    sweep = Sweep(
        name=" + ".join(dict.fromkeys(s.name for s in sweeps)),
        question=" / ".join(dict.fromkeys(s.question for s in sweeps)),
        profile=" + ".join(dict.fromkeys(s.profile for s in sweeps)),
        base=sweeps[0].base,
        axes=axes,
        seeds=tuple(sorted({seed for s in sweeps for seed in s.seeds})),
        search=sweeps[0].search if all(s.search == sweeps[0].search for s in sweeps) else SearchConfig(),
    )
    searched = [s.name for s in sweeps if s.search != sweep.search]
    external = {json.dumps(e.model_dump(mode="json"), sort_keys=True): e for part in parts for e in part.external}
    merged = (
        f"Merged from {len(parts)} sweeps. A row has on an axis that its sweep did not vary its configuration's value."
    )
    remarks = [merged, *dict.fromkeys(remark for part in parts for remark in part.remarks), *dict.fromkeys(notes)]
    if searched:
        remarks.append(
            f"Results decided which configurations or how many seeds were run in {', '.join(searched)}: the p values "
            "of a merged table are not corrected for that."
        )
    merged_results = Results(
        sweep=sweep,
        trials=found,
        records=records,
        images=images,
        folders=folders,
        absent={i: items for i, items in absent.items() if i not in records},
        external=list(external.values()),
        predicted={i: p for part in parts for i, p in part.predicted.items()},
        remarks=remarks,
    )
    return merged_results, notes


def _united(parts: Sequence[Results], trials: Sequence[Trial]) -> tuple[tuple[Axis, ...], list[Trial]]:
    """The axes of all parts and the trials with a label on each."""
    configs = {trial.trial_id: _unseeded(trial) for trial in trials}
    axes: dict[str, dict[str, Mapping[str, Any]]] = {}  # points by label, by the axis' name
    named: dict[tuple[str, str], str] = {}  # label by the axis' name and the setting
    values: dict[tuple[str, str], str] = {}  # label by path and value
    for part in parts:
        for number, axis in enumerate(part.sweep.axes):
            axes.setdefault(axis.name, {}).update({text: dict(changes) for text, changes in axis.points})
            for trial in part.trials:
                if trial.point[number] != NOT_THERE:
                    named.setdefault((axis.name, _key(configs[trial.trial_id])), trial.point[number])
                    value = json.dumps(value_at(configs[trial.trial_id], axis.name), sort_keys=True)
                    values.setdefault((axis.name, value), trial.point[number])
    for path in varied([part.sweep.base.model_dump(mode="json", exclude={"seed"}) for part in parts]):
        if not any(f"{path}.".startswith(f"{axis}.") for axis in axes):
            axes[path] = dict(axis_over(path, list(configs.values())).points)

    def point(config: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...]:
        key = _key(config)
        found = []
        for name in names:
            known, value = value_at(config, name)
            usual = values.get((name, json.dumps((known, value), sort_keys=True))) if known else None
            found.append(named.get((name, key)) or usual or label(config, name))
        return tuple(found)

    names = list(axes)
    points = {trial.trial_id: point(configs[trial.trial_id], names) for trial in trials}
    settings: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for trial in trials:
        settings.setdefault(points[trial.trial_id], {})[_key(configs[trial.trial_id])] = configs[trial.trial_id]
    clashing = [list(found.values()) for found in settings.values() if len(found) > 1]
    further = dict.fromkeys(path for found in clashing for path in varied(found) if path not in axes)
    for path in further:
        axes[path] = dict(axis_over(path, list(configs.values())).points)
    names = list(axes)
    found = [RecordedTrial(t.config, point(configs[t.trial_id], names), t.trial_id) for t in trials]
    return tuple(Axis(name, tuple(points.items())) for name, points in axes.items()), found


def _unseeded(trial: Trial) -> dict[str, Any]:
    return trial.config.model_dump(mode="json", exclude={"seed"})


def _key(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)
