"""What travels between the driver and a cluster's nodes: code and small files there, records back. Needs no Ray.

Paths of a trial are those that the user typed: relative to the driver's directory where a node has that directory, and
else to the copy of code and small files that Ray unpacked there.
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
"""Weight files up to this size, named by a relative path, travel with the code."""


@dataclass(frozen=True)
class Look:
    """What one node says about the trials before any of them starts."""

    code: str  # folder that the suite was loaded from
    lacking: dict[str, list[Missing]] = field(default_factory=dict)  # by trial id
    problems: list[str] = field(default_factory=list)  # weights and data that are there, yet cannot be used
    notes: list[str] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)  # of each dataset's content, by its settings


@dataclass(frozen=True)
class Readiness:
    """What all nodes together say."""

    absent: dict[str, list[Missing]]  # what keeps trials from running on any node, by trial id
    notes: list[str]


def stage(trials: Iterable[Trial], folder: Path) -> None:
    """Copies the suite's code into ``folder``, and the small weight files that the trials name by a relative path."""
    for package in (bench, models):
        source = Path(package.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in {path for trial in trials for path in trial.config.model.weight_files()}:
        travels = not path.is_absolute() and ".." not in path.parts and path.is_file()
        if travels and path.stat().st_size <= SMALL_BYTES:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path)


def look(configs: list[str], sources: Sequence[Source] = (), validated_by: str | None = None) -> Look:
    """Runs on a node: what the trials (as JSON) need and it has not, or has and cannot use.

    Fetches, reads and caches what is there to be had, so that the node's trials need not.
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
                fingerprints[key] = DATASETS.build(trial.config.dataset, trial.config.transform).fingerprint
    except ConfigError as error:
        problems += [line.strip() for line in error.lines[1:]]  # the first is a title
    except DataError as error:
        problems += error.errors
    return Look(code, lacking, problems, notes, fingerprints)


def readiness(looks: Mapping[str, Look], trial_ids: Collection[str]) -> Readiness:
    """What the nodes can run. Trials that cannot run on any of them are left out, as on a single machine.

    looks: by the node's name. Raises ``ConfigError`` with one line for each node that lacks what another node has, or
    whose weights or data cannot be used or are not those of the other nodes; and where no trial can run at all.
    """
    everywhere = set.intersection(*(set(seen.lacking) for seen in looks.values()))
    if everywhere == set(trial_ids):
        everywhere = set()
    lines = []
    for node, seen in looks.items():
        items = [item for trial_id, of in seen.lacking.items() if trial_id not in everywhere for item in of]
        wrong = [f"missing {item.kind}: {item.field}: {item.what} -> {item.remedy}" for item in items]
        if wrong := [*dict.fromkeys(wrong), *seen.problems]:
            lines.append(f"  node {node}: {'; '.join(wrong)}")
    if lines:
        raise ConfigError("not every node can run these trials:", *lines)
    _check_same_data(looks)
    first = next(iter(looks.values()))
    return Readiness(
        absent={trial_id: items for trial_id, items in first.lacking.items() if trial_id in everywhere},
        notes=list(dict.fromkeys(note for seen in looks.values() for note in seen.notes)),
    )


def _check_same_data(looks: Mapping[str, Look]) -> None:
    first, expected = next(iter(looks.items()))
    others = [node for node, seen in looks.items() if seen.fingerprints != expected.fingerprints]
    if others:
        lines = [f"  node {node}: its data are not those of node {first}" for node in others]
        raise ConfigError("the nodes hold different data under the same names:", *lines)


def unpack(files: Mapping[str, bytes], trial_id: str, folder: Path) -> None:
    """Writes a record's files (``bench.system.files.contents``); its JSON comes last, so its presence means that the trial is done.

    Raises ``ValueError`` for a name that is not one of this trial's files.
    """
    wrong = [name for name in files if not re.fullmatch(rf"{re.escape(trial_id)}(\.[a-z]+)+", name)]
    if wrong:
        raise ValueError(f"no files of a record of trial {trial_id}: {wrong}")
    for name in sorted(files, key=lambda name: name == f"{trial_id}.json"):
        write_whole(folder / name, lambda file: file.write(files[name]))
