"""From the trials of one configuration to a row of the leaderboard, and which rows may share a table."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from bench.config import paths
from bench.config.ask import TRAIN_IMAGES
from bench.config.expand import Trial
from bench.leaderboard.leaderboard import Cell, Row
from bench.records.failures import in_a_line
from bench.records.memory import GIB
from bench.records.record import TrialRecord
from bench.records.sweep_json import Predicted
from models.core.registry import Missing

Environment = tuple[tuple[str, str], ...]
"""Pairs of name and value that must agree for two records to be comparable."""


@dataclass(frozen=True)
class TrialState:
    """A trial and everything that is known of it."""

    trial: Trial
    record: TrialRecord | None = None
    predicted: Predicted | None = None
    missing: Sequence[Missing] = ()  # requirements that this machine does not meet
    running: bool = False  # whether it runs at this moment

    @property
    def status(self) -> str:
        """The status of the record; without a record missing, running or pending."""
        if self.record is not None:
            return self.record.status
        if self.missing:
            return "missing"
        return "running" if self.running else "pending"


def row_of(point: tuple[str, ...], states: Sequence[TrialState]) -> Row:
    """Returns the row of a configuration from the states of its trials, one for each seed."""
    records = [state.record for state in states if state.record is not None]
    stopped = [record.curve for record in records if record.status == "stopped early" and record.curve]
    notes = [note for record in records for note in memory_notes(record)]
    return Row(
        labels=point,
        statuses=tuple(state.status for state in states),
        errors=tuple(dict.fromkeys(_errors(states))),
        trial_ids=tuple(state.trial.trial_id for state in states),
        seeds=tuple(state.trial.seed for state in states),
        notes=tuple(dict.fromkeys(notes)),
        shared_card=any(_shared_card(record) for record in records),
        cells=_cells(states),
        stopped_at=stopped[0][-1].epoch if stopped else None,
    )


def _cells(states: Sequence[TrialState]) -> dict[str, Cell]:
    values: dict[str, list[float]] = defaultdict(list)
    for state in states:
        if state.record is not None:
            for name, value in quantities(state.record).items():
                values[name].append(value)
    for state in states:
        for name, value in _predicted(state).items():
            values[f"predicted.{name}"].append(value)
    cells = {}
    for name, found in values.items():
        cells[name] = Cell(fmean(found), stdev(found) if len(found) > 1 else None, len(found))
    return cells


def with_overlap(rows: Sequence[Row], overlap: float | None) -> list[Row]:
    """Returns the rows with this share of test images that two seeds have in common; ``None``: all seeds have the same
    images, and nothing changes."""
    if not overlap:
        return list(rows)
    found = []
    for row in rows:
        cells = dict(row.cells)
        for name, cell in cells.items():
            if name.startswith(("test.", "test[")):
                cells[name] = replace(cell, overlap=overlap)
        found.append(replace(row, cells=cells))
    return found


def records_of(row: Row, records: Mapping[str, TrialRecord]) -> list[TrialRecord]:
    """Returns the records of a row's trials, of those that have one, in the order of its seeds."""
    return [records[trial_id] for trial_id in row.trial_ids if trial_id in records]


def quantities(record: TrialRecord) -> dict[str, float]:
    """Returns all measured numbers of a record by dotted name.

    Of a trial that is not ok only the parameters are returned: its other numbers say nothing of its configuration.
    """
    if record.status != "ok":
        return {f"parameters.{name}": value for name, value in (record.parameters or {}).items()}
    sections: dict[str, Mapping[str, Any] | None] = {"test": record.scores}
    if len(record.test_sets) > 1:
        for name, scores in record.test_sets.items():
            sections[f"test[{name}]"] = scores
    sections |= {"val": record.val_scores, "train": record.train_scores, "parameters": record.parameters}
    if not behind_cache(record):
        sections["timing"] = record.timing.model_dump() if record.timing else None
        sections["energy"] = record.energy.model_dump() if record.energy else None
        for phase, memory in (record.memory or {}).items():
            sections[phase] = memory.model_dump()
    found = {}
    for section, values in sections.items():
        for name, value in (values or {}).items():
            if isinstance(value, int | float):
                found[f"{section}.{name}"] = value
    return found


def _predicted(state: TrialState) -> dict[str, int]:
    """Returns predicted memory by name: from ``sweep.json``, else from the record of a trial that lacked memory."""
    if state.predicted is not None:
        return state.predicted.model_dump(exclude={"generation"}, exclude_none=True)
    at_failure = state.record.memory_at_failure if state.record else None
    if at_failure is None or at_failure.predicted_allocated_bytes is None:
        return {}
    return {"allocated_bytes": at_failure.predicted_allocated_bytes}


def behind_cache(record: TrialRecord) -> bool:
    """Returns whether frozen blocks were read from a feature cache: memory and time are then not the model's."""
    return record.feature_cache is not None and record.feature_cache.blocks is not None


def _shared_card(record: TrialRecord) -> bool:
    return record.provenance is not None and record.provenance.gpu_share < 1


# --- errors and notes -------------------------------------------------------------------------------------------------


def _errors(states: Sequence[TrialState]) -> list[str]:
    errors = [_failure(state.record) for state in states if state.record is not None and state.record.error]
    for state in states:
        if state.record is None:
            errors += [f"missing {item.kind}: {item.what}; {item.remedy}" for item in state.missing]
    return errors


def _failure(record: TrialRecord) -> str:
    """Returns the error in one line; for an out-of-memory error with the memory known at that time."""
    text, known = in_a_line(record.error), record.memory_at_failure
    if record.status != "oom" or known is None:
        return text
    figures = {
        "reserved then": known.torch_reserved_bytes,
        "predicted peak allocated": known.predicted_allocated_bytes,
        "memory.budget_gib": known.budget_bytes,
    }
    parts = [f"{name} {value / GIB:.2f} GiB" for name, value in figures.items() if value is not None]
    if known.largest_holders:
        parts.append(f"largest holders: {', '.join(known.largest_holders)}")
    said = "; ".join(parts)
    return f"{text} ({said})" if said else text


def memory_notes(record: TrialRecord) -> Iterator[str]:
    """Yields warnings about the memory and speed of a record."""
    if behind_cache(record):
        yield (
            f"features of the first {record.feature_cache.blocks} blocks were read from a cache (--feature-cache): "
            "memory and speed are not this model's and are left out"
        )
    if record.resumed_from_epochs and record.memory:
        epochs = ", ".join(map(str, record.resumed_from_epochs))
        trained = "training" in record.memory
        measured = "is the peak of the last part" if trained else "in training is not known: none was left"
        yield f"the training was interrupted and resumed after epoch {epochs}: memory {measured}"
    if _shared_card(record):
        share = f"--gpus-per-trial {record.provenance.gpu_share:g}"
        yield f"the trial shared its GPU with others ({share}): memory and speed are not known"
    for phase, memory in (record.memory or {}).items():
        if memory.breach:
            yield f"memory in {phase} contradicts itself: {memory.breach}"
        if memory.foreign_processes:
            yield f"the trial was not alone on the card in {phase}: {', '.join(memory.foreign_processes)}"
        if "processes" in memory.denied:
            reason = f"NVML refused to list its processes: {memory.denied['processes']}"
            yield f"other processes on the GPU in {phase} are not known ({reason})"
        if "memory" in memory.denied:
            yield f"memory in use on the GPU in {phase} is not known (NVML refused to read it: {memory.denied['memory']})"


# --- environments -----------------------------------------------------------------------------------------------------


def environments(records: Sequence[TrialRecord]) -> dict[str, Environment]:
    """Returns the environment of each record by trial id. Records that failed before it was known are left out.

    If some trial used a part of the training images, or a split of its seed, the data of an environment are those that
    the splits were drawn from.
    """
    ambiguous = _ambiguous_weights(records)
    by_source = any(_uses_a_part(record) or _has_own_split(record) for record in records)
    unlike = {"train"} if any(map(_uses_a_part, records)) else set()
    found = {}
    for record in records:
        found[record.trial_id] = _environment(record, ambiguous, by_source, unlike)
    return {trial_id: environment for trial_id, environment in found.items() if environment is not None}


def _uses_a_part(record: TrialRecord) -> bool:
    return paths.get(record.config, TRAIN_IMAGES) not in (paths.ABSENT, None)


def _has_own_split(record: TrialRecord) -> bool:
    return paths.get(record.config, "dataset.split") == "by_seed"


def _ambiguous_weights(records: Sequence[TrialRecord]) -> set[str]:
    """Returns the names of weight files whose content differs between records."""
    digests: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, digest in (record.provenance.weights if record.provenance else {}).items():
            digests[name].add(digest)
    return {name for name, found in digests.items() if len(found) > 1}


def _environment(
    record: TrialRecord, ambiguous_weights: set[str], by_source: bool, unlike: set[str]
) -> Environment | None:
    """Returns the environment of a record; ``None`` if it failed before that was known.

    by_source: whether the data are named by what the splits were drawn from; unlike: splits whose sizes may differ.
    """
    source = record.provenance
    if source is None or source.dataset_fingerprint is None:
        return None
    device = source.device
    if device == "cpu":
        plural = "s" if source.threads > 1 else ""
        device += f" ({source.host_cpu}, {source.threads} thread{plural})"
    if source.devices > 1:  # each processes a part of every batch
        device = f"{source.devices} x {device}"
    sizes = ", ".join(f"{count} {split}" for split, count in source.images.items() if split not in unlike)
    data = source.source_fingerprint if by_source and source.source_fingerprint else source.dataset_fingerprint
    found = [
        ("device", device),
        ("platform", source.platform),
        ("torch", source.versions.get("torch", "unknown")),
        ("cuda", source.cuda or "none"),
        ("pysodmetrics", source.versions.get("pysodmetrics", "unknown")),
        ("data", f"{data[:12]} ({sizes})"),
    ]
    weights = [f"{name} {digest[:12]}" for name, digest in sorted(source.weights.items()) if name in ambiguous_weights]
    if weights:
        found.append(("other weights of one name", ", ".join(weights)))
    return tuple(found)
