"""The record of a trial on disk: ``<trial_id>.json``, its tables in Parquet files, its trained weights as safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.config.search import EarlyStoppingConfig
from bench.records.energy import Energy
from bench.records.memory import Memory, MemoryConditions
from bench.records.tables import write_table
from bench.system import parquet
from bench.system.files import write_whole
from models.core.registry import Config

MANIFEST = "sweep.json"
"""File that describes the sweep of a folder (``bench.records.sweep_json``); it is no record."""
SUFFIXES = (".safetensors", ".snapshot.pickle", ".images.parquet", ".memory.parquet", ".samples.parquet", ".json")
"""Ends of the names of a trial's files. The record is the last one that is written."""
Status = Literal["ok", "oom", "over budget", "diverged", "stopped early", "error"]


class Timing(Config):
    """Duration and speed of the phases. ``None`` where nothing was trained, and in old records of trials that shared
    a card."""

    train_seconds: float | None
    train_images_per_second: float | None
    inference_images_per_second: float | None
    """Speed of loading, forward pass and resizing to the size of the mask; scoring is excluded."""
    total_seconds: float
    latency_seconds: float | None = None
    """Median duration of a forward pass of one image at batch 1 (``bench.memory.latency``)."""
    compile_seconds: float | None = None
    """Duration of compilation, which is not part of ``train_seconds``; of the last part if training resumed. ``None``
    without ``train.compile``."""
    train_busy_share: float | None = None
    """Share of the training steps' time in which a kernel ran on the card, from 0 to 1, by NVML's utilisation; ``None``
    on a CPU, where NVML refuses it, where another process used the card, and in older records."""
    inference_busy_share: float | None = None
    """The same while test images are predicted and scored."""


class CurvePoint(Config):
    """One epoch of training (``bench.training.loop.Epoch``)."""

    epoch: int
    train_loss: float
    val_loss: float | None
    lr: float


class Provenance(Config):
    """Origin of a record: code, packages, machine and inputs. ``None`` is unknown or does not apply."""

    started: str
    commit: str | None
    dirty: bool | None
    host_cpu: str
    threads: int
    trials_at_once: int
    """Number of trials that shared the machine. Other trials reduce the measured speed."""
    devices: int = 1
    """Number of GPUs of data parallel training."""
    gpu_share: float = 1.0
    """Below 1 in old records of trials that shared a card, so that memory and speed are unknown. Trials do not share
    cards any more, and new records have 1."""
    node: str | None = None
    """Node of the cluster that ran the trial."""
    platform: str
    device: str
    driver: str | None
    cuda: str | None
    deterministic: bool
    versions: dict[str, str]
    weights: dict[str, str] = {}
    """SHA-256 of each file of pretrained weights, by file name."""
    dataset_fingerprint: str | None = None
    source_fingerprint: str | None = None
    """Hash of what the splits were drawn from; ``None`` in older records."""
    set_fingerprints: dict[str, str] = {}
    """Fingerprint of each dataset that the pairs come from, as ``bench.data check`` prints it."""
    images: dict[str, int] = {}
    """Number of pairs in the training, validation and each test split."""


class RankMemory(Config):
    """Peaks of training on several GPUs."""

    largest: int
    """Index of the process with the highest peak, which is the memory of the trial in training."""
    training: list[Memory]
    """Peaks of each process."""


class FeatureCache(Config):
    """Outcome of ``--feature-cache`` (``bench.training.feature_cache``)."""

    blocks: int | None = None
    """Number of leading blocks of the encoder whose features were read from the cache, so that memory and speed are
    not those of the model. ``None``: the cache was not used."""
    refused: str = ""
    """Reason why the cache was not used."""
    bytes: int | None = None
    """Size of the features of this trial on disk. Other trials share them."""
    seconds: float | None = None
    """Duration of opening the cache and of computing missing features."""
    remade: list[str] = []
    """Damaged entries that were computed again, with the reasons."""


class MemoryAtFailure(Config):
    """Memory of a trial that had too little of it, in bytes."""

    torch_reserved_bytes: int | None
    """Memory that torch's allocator held when a request failed; unknown on a CPU and if the trial did not run."""
    predicted_allocated_bytes: int | None
    """Predicted peak of a training step on a GPU (``bench.memory.predicted_peak``); unknown if it failed."""
    budget_bytes: int | None
    largest_holders: list[str] | None = None
    """The places that held the most memory, largest first; ``None`` on a CPU, in older records, and if the trial did not
    run. Places are known if ``memory.budget_gib`` is set (``bench.memory.snapshot``)."""


class TrialRecord(Config):
    """The result of a trial.

    ``oom``, ``over budget`` and ``diverged`` are results. A trial with status ``error`` runs again in the next run.
    ``stopped early`` is a result in a sweep with the same rule of early stopping, and unfinished in any other sweep.
    """

    schema_version: Literal[1] = 1
    trial_id: str
    status: Status
    error: str = ""
    config: dict[str, Any]
    scores: dict[str, float] | None = None
    """Scores on the first test set, which was used once, after the last epoch."""
    test_sets: dict[str, dict[str, float]] = {}
    """Scores on each test set by its name. A single test set without a name is ``test``."""
    val_scores: dict[str, float] | None = None
    """Scores on the validation split, by which configurations should be chosen."""
    train_scores: dict[str, float] | None = None
    """Scores on some training images, without flips: they show whether the trial could fit its data. ``None`` in older
    records, and for a model without trainable parameters."""
    memory: dict[Literal["training", "evaluation"], Memory] | None = None
    """Peaks of each phase; a model without trainable parameters has no ``training``. ``None`` in old records of trials
    that shared a card."""
    ranks: RankMemory | None = None
    """Memory of each process, if the trial trained on several GPUs."""
    memory_conditions: MemoryConditions | None = None
    memory_at_failure: MemoryAtFailure | None = None
    """Memory at the time of the failure, for the statuses ``oom`` and ``over budget``."""
    timing: Timing | None = None
    energy: Energy | None = None
    """Energy of the card; ``None`` on a CPU and in older records."""
    parameters: dict[str, int] | None = None
    curve: list[CurvePoint] = []
    diverged_at_step: int | None = None
    """First step with a loss that is NaN or infinite, counted from 1 over all epochs."""
    resumed_from_epochs: list[int] = []
    """Epochs after which the trial was interrupted and resumed in a new process. Durations are sums over all parts;
    memory is the peak of the last part."""
    notes: list[str] = []
    """Notes for readers, for example about a training state that could not be used."""
    stopped_by: EarlyStoppingConfig | None = None
    """Rule that stopped the trial early."""
    feature_cache: FeatureCache | None = None
    """``None`` without ``--feature-cache``."""
    provenance: Provenance | None = None
    checkpoint_bytes: int | None = None
    """Size of ``<trial_id>.safetensors``, the trained weights; ``None`` if they were not saved."""
    checkpoint: bytes | None = Field(default=None, exclude=True)
    """Content of that file; it is not part of the JSON."""
    snapshot: bytes | None = Field(default=None, exclude=True)
    """Content of ``<trial_id>.snapshot.pickle``: the card's memory when it was full, for pytorch.org/memory_viz."""
    image_scores: dict[str, list] | None = Field(default=None, exclude=True)
    """Name, test set and metrics of each image; saved as Parquet, not in the JSON."""
    memory_series: dict[str, list] | None = Field(default=None, exclude=True)
    """Memory over time, at most 500 readings in each phase; saved as Parquet, not in the JSON."""
    samples: dict[str, list] | None = Field(default=None, exclude=True)
    """Some test images with masks and predictions (``bench.scoring.sample_predictions``); saved as Parquet."""

    @model_validator(mode="after")
    def _numbers_can_be(self) -> "TrialRecord":
        if is_beyond(self):
            raise ValueError("holds a number beyond all that can be measured")
        return self

    def save(self, folder: Path) -> None:
        """Writes each file as a whole. The JSON comes last, so that its presence means that the trial is done."""
        if self.checkpoint is not None:
            write_whole(folder / f"{self.trial_id}.safetensors", lambda f: f.write(self.checkpoint))
        if self.snapshot is not None:
            write_whole(folder / f"{self.trial_id}.snapshot.pickle", lambda f: f.write(self.snapshot))
        if self.image_scores is not None:
            write_table(self.image_scores, folder / f"{self.trial_id}.images.parquet")
        if self.memory_series is not None:
            write_table(self.memory_series, folder / f"{self.trial_id}.memory.parquet")
        if self.samples is not None:
            write_table(self.samples, folder / f"{self.trial_id}.samples.parquet")
        text = self.model_dump_json(indent=1)
        write_whole(folder / f"{self.trial_id}.json", lambda f: f.write(text.encode()))


def is_beyond(value: Any) -> bool:
    """Whether a record holds a number that no measurement can have. Fields outside of the JSON are not checked."""
    if isinstance(value, Config):
        parts = (getattr(value, name) for name, field in type(value).model_fields.items() if not field.exclude)
        return any(map(is_beyond, parts))
    if isinstance(value, Mapping):
        return any(map(is_beyond, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_beyond, value))
    return isinstance(value, int | float) and abs(value) > parquet.LARGEST_NUMBER
