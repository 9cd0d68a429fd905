"""One trial's outcome as it lies on disk: ``<trial_id>.json``, and beside it its per-image scores as Parquet and what
it has learnt as safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bench.config.search import EarlyStoppingConfig
from bench.records.memory import Memory, MemoryConditions
from bench.records.tables import write_table
from bench.system import parquet
from bench.system.files import write_whole
from models.core.registry import Config

MANIFEST = "sweep.json"
"""Lies beside the records and is none: what the sweep asked (``bench.records.sweep_json``)."""
SUFFIXES = (".safetensors", ".images.parquet", ".memory.parquet", ".samples.parquet", ".json")
"""Of a trial's files; the record comes last."""
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
