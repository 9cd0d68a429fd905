"""One trial's outcome as it lies on disk: ``<trial_id>.json``, and beside it its per-image scores as Parquet and what
it has learnt as safetensors."""

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from bench.config.errors import ConfigError
from bench.config.expand import Trial
from bench.config.search import EarlyStoppingConfig
from bench.datasets.core import cache
from bench.records import schema
from bench.records.memory import Memory, MemoryConditions
from bench.records.schema import NewerVersion
from bench.system import parquet
from bench.system.files import set_aside, write_whole
from models.core.registry import Config

MANIFEST = "sweep.json"
"""Lies beside the records and is none: what the sweep asked (``bench.records.sweep_json``)."""
SUFFIXES = (".safetensors", ".images.parquet", ".memory.parquet", ".samples.parquet", ".json")
"""Of a trial's files; the record comes last."""
NOT_ADOPTED = (None, "error", "stopped early")
"""What another sweep's trial may be without being its result here; ``None`` is a file that is no record, or none that
this version can read."""
Status = Literal["ok", "oom", "over budget", "diverged", "stopped early", "error"]


class Timing(Config):
    """Durations of the phases, and how many images went through a second. ``None`` where nothing was trained, and in
    old records for a trial that shared its card."""

    train_seconds: float | None
    train_images_per_second: float | None
    inference_images_per_second: float | None
    """Loading, forward pass and resizing to the mask's size, without scoring; ``None`` where it did not come to it."""
    total_seconds: float
    latency_seconds: float | None = None
    """Median of a forward pass of one image at batch 1 (``bench.memory.latency``)."""


class CurvePoint(Config):
    epoch: int
    train_loss: float
    val_loss: float | None
    lr: float


class Provenance(Config):
    """Where a record comes from. ``None`` is unknown or does not apply."""

    started: str
    commit: str | None
    dirty: bool | None
    host_cpu: str
    threads: int
    trials_at_once: int
    """How many trials shared the machine: speeds suffer from neighbours."""
    devices: int = 1
    """How many GPUs the trial trained on, data parallel."""
    gpu_share: float = 1.0
    """Below 1 in old records, of trials that shared a card: their memory and speed are not known. Trials no longer
    share one, so new records have 1."""
    node: str | None = None
    """Which node of a cluster ran it."""
    platform: str
    device: str
    driver: str | None
    cuda: str | None
    deterministic: bool
    versions: dict[str, str]
    weights: dict[str, str] = {}
    """SHA-256 of every checkpoint file that was loaded, by file name."""
    dataset_fingerprint: str | None = None
    set_fingerprints: dict[str, str] = {}
    """Of each set that the pairs come from; ``bench.data check`` prints the same ones."""
    images: dict[str, int] = {}
    """Number of pairs in train, val and each test set."""


class RankMemory(Config):
    """Peaks of training on several GPUs."""

    largest: int
    """The rank that needed most, which is the trial's memory in training."""
    training: list[Memory]
    """Of each rank."""


class FeatureCache(Config):
    """What became of the wish to read features of frozen blocks instead of computing them (``bench.training.feature_cache``)."""

    blocks: int | None = None
    """The encoder's first so many blocks were not run: memory and speed are not the model's. ``None``: refused."""
    refused: str = ""
    bytes: int | None = None
    """What lies on disk for this trial, shared with others."""
    seconds: float | None = None
    """Spent on opening it, and on computing what was not there yet."""
    remade: list[str] = []
    """Entries that were damaged, and why."""


class MemoryAtFailure(Config):
    """What is known about a trial that asked for more memory than there is, in bytes."""

    torch_reserved_bytes: int | None
    """What torch's allocator held when the request failed; unknown on a CPU and where the trial was not run."""
    predicted_allocated_bytes: int | None
    """Predicted peak of a training step on a GPU (``bench.memory.predicted_peak``); unknown where that failed."""
    budget_bytes: int | None


class TrialRecord(Config):
    """``oom``, ``over budget`` and ``diverged`` are results and are kept; ``error`` is run again next time.

    ``stopped early`` is a result where trials are stopped by the same rule, and no more than a start anywhere else.
    """

    schema_version: Literal[1] = 1
    trial_id: str
    status: Status
    error: str = ""
    config: dict[str, Any]
    scores: dict[str, float] | None = None
    """On the test split, which was used once, after the last epoch; on the first of several test sets."""
    test_sets: dict[str, dict[str, float]] = {}
    """On each test set by its name; ``test`` where there is but one without a name."""
    val_scores: dict[str, float] | None = None
    """On the validation split: what to look at when choosing a configuration."""
    memory: dict[Literal["training", "evaluation"], Memory] | None = None
    """Without ``training`` where nothing was trained: a model without trainable parameters. ``None`` in old records for
    a trial that shared its card."""
    ranks: RankMemory | None = None
    """Only where a trial trained on several GPUs."""
    memory_conditions: MemoryConditions | None = None
    memory_at_failure: MemoryAtFailure | None = None
    """Only where memory ran out or was predicted to."""
    timing: Timing | None = None
    parameters: dict[str, int] | None = None
    curve: list[CurvePoint] = []
    diverged_at_step: int | None = None
    """The first step, counted from 1 over all epochs, at which the loss was no number."""
    resumed_from_epochs: list[int] = []
    """After which the trial was cut short and went on in a new process. Seconds are the sum of all parts; memory is
    the peak of the last one."""
    notes: list[str] = []
    """What a reader should know about how the trial ran, e.g. a checkpoint that could not be used."""
    stopped_by: EarlyStoppingConfig | None = None
    """The rule that stopped the trial early."""
    feature_cache: FeatureCache | None = None
    """``None`` where none was asked for."""
    provenance: Provenance | None = None
    checkpoint_bytes: int | None = None
    """Size of ``<trial_id>.safetensors``, what was learnt; ``None`` where it was not kept."""
    checkpoint: bytes | None = Field(default=None, exclude=True)
    """The content of that file. Kept there, not in the JSON."""
    image_scores: dict[str, list] | None = Field(default=None, exclude=True)
    """Per image of the test sets: name, set and metrics. Kept in the Parquet file, not in the JSON."""
    memory_series: dict[str, list] | None = Field(default=None, exclude=True)
    """Readings over time, by phase, at most 500 each. Kept in a Parquet file of their own."""
    samples: dict[str, list] | None = Field(default=None, exclude=True)
    """A few test images with mask and prediction (``bench.scoring.sample_predictions``). Kept in a Parquet file of their own."""

    @model_validator(mode="after")
    def _numbers_can_be(self) -> "TrialRecord":
        if is_beyond(self):
            raise ValueError("holds a number beyond all that can be measured")
        return self

    def save(self, folder: Path) -> None:
        """Writes the files whole or not at all; the JSON comes last, so its presence means that the trial is done."""
        if self.checkpoint is not None:
            write_whole(folder / f"{self.trial_id}.safetensors", lambda f: f.write(self.checkpoint))
        if self.image_scores is not None:
            write_table(self.image_scores, folder / f"{self.trial_id}.images.parquet")
        if self.memory_series is not None:
            write_table(self.memory_series, folder / f"{self.trial_id}.memory.parquet")
        if self.samples is not None:
            write_table(self.samples, folder / f"{self.trial_id}.samples.parquet")
        text = self.model_dump_json(indent=1)
        write_whole(folder / f"{self.trial_id}.json", lambda f: f.write(text.encode()))


def is_beyond(value: Any) -> bool:
    """Whether a number within a record, its files excepted, is larger than anything that can be measured or shown."""
    if isinstance(value, Config):
        parts = (getattr(value, name) for name, field in type(value).model_fields.items() if not field.exclude)
        return any(map(is_beyond, parts))
    if isinstance(value, Mapping):
        return any(map(is_beyond, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_beyond, value))
    return isinstance(value, int | float) and abs(value) > parquet.LARGEST_NUMBER


def unsaved() -> Path:
    """Where records lie that their results folder could not take; ``adopt`` brings them back."""
    return cache.root() / "unsaved"


def save_or_keep(record: TrialRecord, folder: Path) -> None:
    """Saves a record in ``folder``, or in ``unsaved()`` where that refuses: a full disk costs no result.

    Raises the folder's ``OSError`` for an error record, which is worth no such trouble, and where neither can be
    written.
    """
    try:
        record.save(folder)
    except OSError:
        if record.status == "error":
            raise
        with suppress(OSError):
            unsaved().mkdir(parents=True, exist_ok=True)
            record.save(unsaved())
            return
        raise


def write_table(columns: dict[str, list], path: Path) -> None:
    """Writes columns as Parquet, whole or not at all."""
    table = pyarrow.table(columns)
    write_whole(path, lambda f: pyarrow.parquet.write_table(table, f, write_page_checksum=True))


def set_aside_damaged(trial_ids: Iterable[str], folder: Path) -> list[str]:
    """Sets aside what lies there of trials whose record, or a file beside it, does not hold what was written.

    Returns a line for each such trial: without a record it counts as not run. Raises ``NewerVersion`` before it touches
    the files of a trial whose record comes from the future.
    """
    lines = []
    for trial_id in trial_ids:
        paths = {suffix: folder / f"{trial_id}{suffix}" for suffix in SUFFIXES}
        found = _damaged(paths)
        if found is not None:
            path, reason = found
            aside = [set_aside(p) for p in dict.fromkeys((path, paths[".json"])) if p.exists()]
            lines.append(f"{path}: {reason}; set aside as {', '.join(p.name for p in aside)}")
    return lines


def _damaged(paths: Mapping[str, Path]) -> tuple[Path, str] | None:
    """The first of a trial's files that cannot be used, and why. One that was deleted is not missed."""
    if not paths[".json"].exists():
        return None
    try:
        record = load(paths[".json"])
    except (ValidationError, OSError):
        return paths[".json"], "not a readable record"
    odd = next((path for path in paths.values() if path.exists() and not path.is_file()), None)
    if odd is not None:  # to open a pipe may wait for ever
        return odd, "is no regular file"
    for suffix in (".images.parquet", ".memory.parquet", ".samples.parquet"):
        try:
            if record.status != "error" and paths[suffix].exists():
                pyarrow.parquet.read_table(paths[suffix], page_checksum_verification=True)
        except (pyarrow.ArrowException, OSError) as error:
            return paths[suffix], f"cannot be read ({str(error).splitlines()[0]})"
    weights = paths[".safetensors"]
    if record.checkpoint_bytes is not None and weights.exists():
        try:
            size = weights.stat().st_size
            safe_open(weights, "pt")
        except (SafetensorError, OSError) as error:
            return weights, f"cannot be read ({error})"
        if size != record.checkpoint_bytes:
            return weights, f"has {size} bytes, {record.checkpoint_bytes} were written"
    return None


def load(path: Path) -> TrialRecord:
    """Raises ``ValidationError`` for what is no record, ``NewerVersion`` for one from the future, ``OSError``."""
    return TrialRecord.model_validate_json(schema.read(path))


def adopt(trial_ids: Iterable[str], folder: Path) -> list[Path]:
    """Copies records of these trials that other sweeps beside ``folder`` have finished, or that this one could not
    save; returns where they were.

    The same configuration is the same trial in every sweep, so it need not be trained again.
    """
    sources = []
    for trial_id in trial_ids:
        for path in [*sorted(folder.parent.glob(f"*/{trial_id}.json")), unsaved() / f"{trial_id}.json"]:
            if (folder / path.name).exists() or path.parent == folder or _status(path) in NOT_ADOPTED:
                continue
            for suffix in SUFFIXES:
                beside = path.with_name(trial_id + suffix)
                if beside.exists():
                    content = beside.read_bytes()
                    write_whole(folder / beside.name, lambda file: file.write(content))
                    if path.parent == unsaved():
                        beside.unlink()
            sources.append(path)
    return sources


def _status(path: Path) -> str | None:
    try:
        return load(path).status
    except (ValidationError, OSError, NewerVersion):
        return None


def load_images(folder: Path, trial_ids: Iterable[str]) -> dict[str, dict[str, list]]:
    """Per-image scores (name and metrics, in order) on the first test set, by the ids of trials that have them."""
    return read_images(folder, trial_ids)[0]


def read_images(folder: Path, trial_ids: Iterable[str]) -> tuple[dict[str, dict[str, list]], list[str]]:
    """``load_images``, and a line for each file that cannot be used."""
    found, lines = {}, []
    for trial_id in trial_ids:
        path = folder / f"{trial_id}.images.parquet"
        columns, line = parquet.read(path, {"name": parquet.TEXT, "set": parquet.TEXT}, ("name",), parquet.NUMBER)
        if columns == {}:
            line = f"{path}: cannot be used (it has no rows)"
        elif columns is not None:
            found[trial_id] = _first_set(columns)
        lines += [line] * bool(line)
    return found, lines


def _first_set(columns: dict[str, list]) -> dict[str, list]:
    sets = columns.pop("set", None)  # predictions that were scored from files belong to one
    if sets is None:
        return columns
    return {name: [v for v, of in zip(values, sets) if of == sets[0]] for name, values in columns.items()}


def load_series(folder: Path, trial_id: str) -> dict[str, list] | None:
    """A trial's memory readings as columns (``memory_series``); ``None`` where there are none that can be used."""
    return read_series(folder, trial_id)[0]


def read_series(folder: Path, trial_id: str) -> tuple[dict[str, list] | None, str]:
    """``load_series``, and a line if the file cannot be used."""
    known = {"phase": parquet.TEXT, "seconds": parquet.NUMBER}
    columns, line = parquet.read(folder / f"{trial_id}.memory.parquet", known, tuple(known), parquet.READING)
    return columns or None, line


def load_all(folder: Path) -> tuple[dict[str, TrialRecord], list[str]]:
    """All records of a folder by trial id, and a line for each file that is no record (it will be run again) or that a
    newer version wrote (``bench.run`` then refuses the folder)."""
    records, broken = {}, []
    for path in sorted(folder.glob("*.json")):
        if path.name == MANIFEST:
            continue
        try:
            record = load(path)
        except (ValidationError, OSError) as error:
            reason = f"{len(error.errors())} fields are wrong" if isinstance(error, ValidationError) else error
            broken.append(f"{path}: not a readable record ({reason})")
            continue
        except NewerVersion as error:
            broken.append(str(error))
            continue
        if record.trial_id != path.stem:
            broken.append(f"{path}: not a readable record (it says that it is of trial {record.trial_id!r})")
            continue
        records[record.trial_id] = record
    return records, broken


def pending(trials: list[Trial], records: dict[str, TrialRecord]) -> list[Trial]:
    """Trials without a record, or whose record is an error."""
    done = {trial_id for trial_id, record in records.items() if record.status != "error"}
    return [trial for trial in trials if trial.trial_id not in done]


def check_writable(folder: Path) -> None:
    """Makes the results folder. Raises ``ConfigError`` when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write results there ({os.strerror(error.errno)}). Give --results DIR")
