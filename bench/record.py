"""One trial's outcome as it lies on disk: ``<trial_id>.json``, and its per-image scores beside it as Parquet."""

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
    """Durations of the phases, and how many images went through a second."""

    train_seconds: float
    train_images_per_second: float
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
    images: dict[str, int] = {}
    """Number of pairs in train, val and test."""


class MemoryAtFailure(Config):
    """What is known about a trial that asked for more memory than there is, in bytes."""

    torch_reserved_bytes: int | None
    """What torch's allocator held when the request failed; unknown on a CPU and where the trial was not run."""
    predicted_allocated_bytes: int | None
    """Predicted peak of a training step on a GPU (``bench.predict``); unknown where that failed."""
    budget_bytes: int | None


class TrialRecord(Config):
    """``oom`` and ``over budget`` are results and are kept; ``error`` is run again next time."""

    schema_version: Literal[1] = 1
    trial_id: str
    status: Status
    error: str = ""
    config: dict[str, Any]
    scores: dict[str, float] | None = None
    """On the test split, which was used once, after the last epoch."""
    val_scores: dict[str, float] | None = None
    """On the validation split: what to look at when choosing a configuration."""
    memory: dict[Literal["training", "evaluation"], Memory] | None = None
    memory_conditions: MemoryConditions | None = None
    memory_at_failure: MemoryAtFailure | None = None
    """Only where memory ran out or was predicted to."""
    timing: Timing | None = None
    parameters: dict[str, int] | None = None
    curve: list[CurvePoint] = []
    provenance: Provenance | None = None
    image_scores: dict[str, list] | None = Field(default=None, exclude=True)
    """Per image of the test split: name and metrics. Kept in the Parquet file, not in the JSON."""

    memory_series: dict[str, list] | None = Field(default=None, exclude=True)
    """Readings over time, by phase, at most 500 each. Kept in a Parquet file of their own."""

    def save(self, folder: Path) -> None:
        """Writes the files whole or not at all; the JSON comes last, so its presence means that the trial is done."""
        if self.image_scores is not None:
            table = pyarrow.table(self.image_scores)
            _write(folder / f"{self.trial_id}.images.parquet", lambda f: pyarrow.parquet.write_table(table, f))
        if self.memory_series is not None:
            series = pyarrow.table(self.memory_series)
            _write(folder / f"{self.trial_id}.memory.parquet", lambda f: pyarrow.parquet.write_table(series, f))
        text = self.model_dump_json(indent=1)
        _write(folder / f"{self.trial_id}.json", lambda f: f.write(text.encode()))


def _write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
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
            if (folder / path.name).exists() or path.parent == folder or _status(path) not in ("ok", "oom", "over budget"):
                continue
            for suffix in (".images.parquet", ".memory.parquet", ".json"):
                beside = path.with_name(trial_id + suffix)
                if beside.exists():
                    content = beside.read_bytes()
                    _write(folder / beside.name, lambda file: file.write(content))
            sources.append(path)
    return sources


def _status(path: Path) -> str | None:
    try:
        return load(path).status
    except (ValidationError, OSError):
        return None


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
        records[record.trial_id] = record
    return records, broken
