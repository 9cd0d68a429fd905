"""One trial's outcome as it lies on disk: ``<trial_id>.json``, and beside it its per-image scores as Parquet and what
it has learnt as safetensors."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow
import pyarrow.parquet
from pydantic import Field, ValidationError

from bench.memory import Memory, MemoryConditions
from models._registry import Config

Status = Literal["ok", "oom", "over budget", "error"]


class Timing(Config):
    """Durations of the phases, and how many images went through a second. ``None`` where nothing was trained."""

    train_seconds: float | None
    train_images_per_second: float | None
    inference_images_per_second: float
    """Loading, forward pass and resizing to the mask's size, without scoring."""
    total_seconds: float


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


class MemoryAtFailure(Config):
    """What is known about a trial that asked for more memory than there is, in bytes."""

    torch_reserved_bytes: int | None
    """What torch's allocator held when the request failed; unknown on a CPU and where the trial was not run."""
    predicted_allocated_bytes: int | None
    """Predicted peak of a training step on a GPU (``bench.predicted_memory``); unknown where that failed."""
    budget_bytes: int | None


class TrialRecord(Config):
    """``oom`` and ``over budget`` are results and are kept; ``error`` is run again next time."""

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
    """Without ``training`` where nothing was trained: a model without trainable parameters."""
    memory_conditions: MemoryConditions | None = None
    memory_at_failure: MemoryAtFailure | None = None
    """Only where memory ran out or was predicted to."""
    timing: Timing | None = None
    parameters: dict[str, int] | None = None
    curve: list[CurvePoint] = []
    provenance: Provenance | None = None
    checkpoint_bytes: int | None = None
    """Size of ``<trial_id>.safetensors``, what was learnt; ``None`` where it was not kept."""
    checkpoint: bytes | None = Field(default=None, exclude=True)
    """The content of that file. Kept there, not in the JSON."""
    image_scores: dict[str, list] | None = Field(default=None, exclude=True)
    """Per image of the test sets: name, set and metrics. Kept in the Parquet file, not in the JSON."""
    memory_series: dict[str, list] | None = Field(default=None, exclude=True)
    """Readings over time, by phase, at most 500 each. Kept in a Parquet file of their own."""

    def save(self, folder: Path) -> None:
        """Writes the files whole or not at all; the JSON comes last, so its presence means that the trial is done."""
        if self.checkpoint is not None:
            write_whole(folder / f"{self.trial_id}.safetensors", lambda f: f.write(self.checkpoint))
        if self.image_scores is not None:
            write_table(self.image_scores, folder / f"{self.trial_id}.images.parquet")
        if self.memory_series is not None:
            write_table(self.memory_series, folder / f"{self.trial_id}.memory.parquet")
        text = self.model_dump_json(indent=1)
        write_whole(folder / f"{self.trial_id}.json", lambda f: f.write(text.encode()))


def write_table(columns: dict[str, list], path: Path) -> None:
    """Writes columns as Parquet, whole or not at all."""
    table = pyarrow.table(columns)
    write_whole(path, lambda f: pyarrow.parquet.write_table(table, f))


def write_whole(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def load(path: Path) -> TrialRecord:
    """Raises ``ValidationError`` for a file that is no record."""
    return TrialRecord.model_validate_json(path.read_bytes())


def adopt(trial_ids: Iterable[str], folder: Path) -> list[Path]:
    """Copies records of these trials that other sweeps beside ``folder`` have finished; returns where they were.

    The same configuration is the same trial in every sweep, so it need not be trained again.
    """
    sources = []
    for trial_id in trial_ids:
        for path in sorted(folder.parent.glob(f"*/{trial_id}.json")):
            if (folder / path.name).exists() or path.parent == folder or _status(path) in (None, "error"):
                continue
            for suffix in (".safetensors", ".images.parquet", ".memory.parquet", ".json"):
                beside = path.with_name(trial_id + suffix)
                if beside.exists():
                    content = beside.read_bytes()
                    write_whole(folder / beside.name, lambda file: file.write(content))
            sources.append(path)
    return sources


def _status(path: Path) -> str | None:
    try:
        return load(path).status
    except (ValidationError, OSError):
        return None


def load_images(folder: Path, trial_ids: Iterable[str]) -> dict[str, dict[str, list]]:
    """Per-image scores (name and metrics, in order) on the first test set, by the ids of trials that have them."""
    paths = {trial_id: folder / f"{trial_id}.images.parquet" for trial_id in trial_ids}
    return {trial_id: _first_set(path) for trial_id, path in paths.items() if path.exists()}


def _first_set(path: Path) -> dict[str, list]:
    columns = pyarrow.parquet.read_table(path).to_pydict()
    sets = columns.pop("set", None)  # predictions that were scored from files belong to one
    if sets is None:
        return columns
    return {name: [v for v, of in zip(values, sets) if of == sets[0]] for name, values in columns.items()}


def load_all(folder: Path) -> tuple[dict[str, TrialRecord], list[str]]:
    """All records of a folder by trial id, and a line for each file that is no record (it will be run again)."""
    records, broken = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            record = load(path)
        except (ValidationError, OSError) as error:
            reason = f"{len(error.errors())} fields are wrong" if isinstance(error, ValidationError) else error
            broken.append(f"{path}: not a readable record ({reason})")
            continue
        if record.trial_id != path.stem:
            broken.append(f"{path}: not a readable record (it says that it is of trial {record.trial_id!r})")
            continue
        records[record.trial_id] = record
    return records, broken
