"""Exchange between the driver and a cluster's nodes, without Ray: code and small files go there, records come back.

Paths of a trial are those that the user typed. They are relative to the driver's directory where a node has that
directory, and otherwise to the copy of code and small files that Ray has unpacked there.
"""

import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bench
import models
from bench.config.errors import ConfigError
from bench.config.expand import Trial, data_key
from bench.config.trial import DATASETS, TrialConfig
from bench.datasets import DataError
from bench.datasets.core.sources import Source, fetch
from bench.scheduling.preflight import absent_of, prepare_data, prepare_weights
from bench.system.files import write_whole
from models.core.registry import Missing

SMALL_BYTES = 16 * 2**20
"""Largest size of weight files that are sent with the code, if they are named by a relative path."""


@dataclass(frozen=True)
class NodeReport:
    """What one node lacks for the trials, before any of them starts."""

    code: str  # folder from which the suite was imported
    lacking: dict[str, list[Missing]] = field(default_factory=dict)  # by trial id
    problems: list[str] = field(default_factory=list)  # weights and data that exist but cannot be used
    notes: list[str] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)  # of each dataset's content, by its settings


@dataclass(frozen=True)
class Preflight:
    """The combined reports of all nodes."""

    absent: dict[str, list[Missing]]  # what the trials lack that run on no node, by trial id
    notes: list[str]


def stage(trials: Iterable[Trial], folder: Path) -> None:
    """Copies the suite's code into ``folder``, and the small weight files that the trials name by a relative path."""
    for package in (bench, models):
        source = Path(package.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    paths: set[Path] = set()
    for trial in trials:
        paths |= set(trial.config.model.weight_files())
    for path in paths:
        is_within = not path.is_absolute() and ".." not in path.parts and path.is_file()
        if is_within and path.stat().st_size <= SMALL_BYTES:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path)


def inspect_node(configs: list[str], sources: Sequence[Source] = (), validated_by: str | None = None) -> NodeReport:
    """Runs on a node: reports what the trials (as JSON) need that the node lacks or cannot use.

    Fetches, reads and caches weights and data, so that the node's trials need not.
    """
    problems = fetch(sources)
    code = str(Path(bench.__file__).parent)
    trials = [Trial(TrialConfig.model_validate_json(text), ()) for text in configs]
    lacking = absent_of(trials)
    able = [trial for trial in trials if trial.trial_id not in lacking]
    notes, fingerprints = [], {}
    try:
        notes = [*prepare_weights(able), *prepare_data(able, validated_by=validated_by)]
        for trial in able:
            key = data_key(trial.config)
            if key not in fingerprints:
                fingerprints[key] = DATASETS.build(trial.config.drawn_dataset, trial.config.transform).fingerprint
    except ConfigError as error:
        problems += [line.strip() for line in error.lines[1:]]  # the first is a title
    except DataError as error:
        problems += error.errors
    return NodeReport(code, lacking, problems, notes, fingerprints)


def preflight_of(reports: Mapping[str, NodeReport], trial_ids: Collection[str]) -> Preflight:
    """Combines the reports of the nodes. Trials that run on none of them are left out, as on a single machine.

    reports: by the node's name. Raises ``ConfigError`` with one line for each node that lacks what another node has, or
    whose weights or data cannot be used or differ from those of the other nodes; and where no trial runs at all.
    """
    lacking_everywhere = set.intersection(*(set(report.lacking) for report in reports.values()))
    if lacking_everywhere == set(trial_ids):
        lacking_everywhere = set()
    lines = []
    for node, report in reports.items():
        problems = []
        for trial_id, items in report.lacking.items():
            if trial_id not in lacking_everywhere:
                problems += [f"missing {item.kind}: {item.field}: {item.what} -> {item.remedy}" for item in items]
        problems = [*dict.fromkeys(problems), *report.problems]
        if problems:
            lines.append(f"  node {node}: {'; '.join(problems)}")
    if lines:
        raise ConfigError("not every node can run these trials:", *lines)
    _check_same_data(reports)
    first = next(iter(reports.values()))
    notes: dict[str, None] = {}
    for report in reports.values():
        notes |= dict.fromkeys(report.notes)
    return Preflight({i: items for i, items in first.lacking.items() if i in lacking_everywhere}, list(notes))


def _check_same_data(reports: Mapping[str, NodeReport]) -> None:
    first, expected = next(iter(reports.items()))
    others = [node for node, report in reports.items() if report.fingerprints != expected.fingerprints]
    if others:
        lines = [f"  node {node}: its data are not those of node {first}" for node in others]
        raise ConfigError("the nodes hold different data under the same names:", *lines)


def unpack(files: Mapping[str, bytes], trial_id: str, folder: Path) -> None:
    """Writes a record's files (``bench.system.files.contents``). Its JSON comes last: it marks the trial as done.

    Raises ``ValueError`` for a name that is not one of this trial's files.
    """
    wrong = [name for name in files if not re.fullmatch(rf"{re.escape(trial_id)}(\.[a-z]+)+", name)]
    if wrong:
        raise ValueError(f"no files of a record of trial {trial_id}: {wrong}")
    for name in sorted(files, key=lambda name: name == f"{trial_id}.json"):
        write_whole(folder / name, lambda file: file.write(files[name]))
