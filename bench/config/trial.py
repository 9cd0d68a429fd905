"""The configuration of one trial, and the identity that it gives the trial."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from pydantic import NonNegativeInt, ValidationError, model_validator

from bench.config import lacking, paths
from bench.config.errors import ConfigError, explain
from bench.config.settings import LOSSES, MemoryConfig, ProtocolConfig, TrainConfig, TransformConfig
from models import MODELS
from models.core import frozen
from models.core.registry import Config, Missing, Registry

DATASETS = Registry("bench.datasets", "dataset")
LARGEST = 1_000_000
"""Largest value of a whole number, seeds excepted. Memory or time would run out beyond it, after a long wait."""


class TrialConfig(Config):
    """All that decides the outcome of one trial."""

    model: MODELS.field()
    dataset: DATASETS.field()
    transform: TransformConfig = TransformConfig()
    train: TrainConfig = TrainConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    memory: MemoryConfig = MemoryConfig()
    device: Literal["cuda", "cpu"] = "cuda"
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _parts_agree(self) -> "TrialConfig":
        """Checks that model, masks, loss and resizing agree on the classes, and model and transform on the
        normalisation; and that each setting has an effect."""
        classes = self.num_classes
        wrong = []
        if self.model.num_classes != classes:
            wrong.append(
                f"model.num_classes: {self.model.num_classes}, but the masks of dataset {self.dataset.name} have "
                f"{classes}. Set model.num_classes={classes}"
            )
        if LOSSES.module(self.train.loss).FOR_CLASSES != (classes > 1):
            fitting = "cross_entropy" if classes > 1 else "structure_loss"
            wrong.append(f"train.loss: {self.train.loss} is not for {_classes(classes)}. Set train.loss={fitting}")
        if classes > 1 and self.transform.mask_resize != "nearest":
            mixing = f"{self.transform.mask_resize} would mix classes"
            wrong.append(f"transform.mask_resize: {mixing}. Set transform.mask_resize=nearest")
        if classes > 1 and self.protocol != ProtocolConfig():
            wrong.append("protocol: says how maps of an object are scored, and the masks have classes. Leave it out")
        expected = getattr(self.model, "input_normalisation", self.transform.normalisation)
        if expected != self.transform.normalisation:
            given = f"transform.normalisation is {self.transform.normalisation}"
            wrong.append(f"model.input_normalisation: {expected}, but {given}. Give them the same value")
        wrong += [
            f"{path}: {n:.3g} is beyond all use. At most {LARGEST:,}" for path, n in _numbers(self) if n > LARGEST
        ]
        encoder = getattr(self.model, "encoder", None)
        if getattr(encoder, "residual", "float32") != "float32" and self.train.precision == "float32":
            nothing = "the type of a sum under autocast, and train.precision=float32 has none: it would change nothing"
            remedy = "Set train.precision=bfloat16, or model.encoder.residual=float32"
            wrong.append(f"model.encoder.residual: {encoder.residual} is {nothing}. {remedy}")
        elif getattr(encoder, "residual", self.train.precision) == "bfloat16" and self.train.precision == "float16":
            why = "is not the type of train.precision=float16, whose range is too small for a residual stream"
            remedy = "Set train.precision=bfloat16, or model.encoder.residual=float32"
            wrong.append(f"model.encoder.residual: bfloat16 {why}. {remedy}")
        wrong += self._not_compilable()
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _not_compilable(self) -> Iterator[str]:
        """Yields the reasons why ``train.compile`` is impossible with this model."""
        if not self.train.compile:
            return
        model = self.model
        if not (hasattr(model, "encoder") and hasattr(model, "decoder")):
            yield f"train.compile: {model.name} has no encoder blocks to compile. Set train.compile=false"
            return
        adapter = getattr(model, "adapter", None)
        if not getattr(adapter, "compilable", True):
            why = f"impossible with model.adapter.name={adapter.name}, which registers hooks in each forward pass"
            yield f"train.compile: {why}. Set train.compile=false, or choose another adapter"
        if getattr(model, "frozen_weights", "") in frozen.PACKED:
            packed = f"model.frozen_weights={model.frozen_weights}, which is unpacked outside of compiled code"
            yield f"train.compile: impossible with {packed}. Set train.compile=false, or model.frozen_weights=bfloat16"
        if self.train.compile != "step":
            return
        if self.device == "cpu":
            yield "train.compile: step is a CUDA graph, and device=cpu has none. Set train.compile=blocks"
        if getattr(model, "checkpoint_decoder", False) and getattr(model.decoder, "dropout", 0):
            drawn = f"model.decoder.dropout={model.decoder.dropout}, which model.checkpoint_decoder would have to draw again"
            yield f"train.compile: step is impossible with {drawn}. Set train.compile=blocks, or model.decoder.dropout=0"

    @property
    def num_classes(self) -> int:
        """Classes of the masks; 1 is object against background."""
        return getattr(self.dataset, "num_classes", 1)  # a dataset that does not say has objects

    @property
    def drawn_dataset(self) -> Config:
        """The dataset with the split of this trial: ``split: by_seed`` draws it with the seed of the trial."""
        return self.dataset.drawn(self.seed)

    @cached_property
    def trial_id(self) -> str:
        """12 hex digits of a hash over the validated configuration: equal settings are the same trial in every sweep.

        A field of ``LATER`` is part of the hash only where it changes the trial.
        """
        raw = self.model_dump(mode="json")
        for field in LATER:
            part = paths.parent(raw, field.path)
            if field.name in part and (field.idle(self) or part[field.name] == field.before):
                del part[field.name]
        text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def missing(self) -> Iterator[Missing]:
        yield from super().missing()
        if self.device == "cuda" and not torch.cuda.is_available():
            what = f"torch {torch.__version__} sees no NVIDIA GPU here"
            yield Missing("device", "device", what, "run where there is one, or set device=cpu (slow at full size)")
            return
        yield from lacking.tensor_cores(self.device, self.train.precision)
        if self.train.compile:
            yield from lacking.compiler(self.device)


class Later(NamedTuple):
    """A field that is younger than the first records. Trials of these records keep their ids."""

    path: str
    before: Any
    """Value of the field, as in JSON, in trials that are older than the field."""
    idle: Callable[[TrialConfig], bool] = lambda config: False
    """Whether no value of the field changes anything in a trial of this configuration."""

    @property
    def name(self) -> str:
        return self.path.rsplit(".", 1)[-1]


LATER = (
    Later("train.tf32", before=False, idle=lambda config: config.device == "cpu"),
    Later("dataset.foreground", before="auto"),
    Later("dataset.ignore", before=[]),
    Later("dataset.mask_suffix", before=""),
    Later("dataset.recursive", before=False),
    Later("dataset.classes", before={}),
    Later("train.accumulate", before=1),
    Later("train.compile", before=False),
    Later("dataset.train_images", before=None),
    Later("dataset.split", before="fixed"),
)
"""Fields that were added after the first records were made. Add each new field here."""


def recorded(text: str) -> TrialConfig:
    """Parses a configuration (JSON) from a record, a ``sweep.json`` or a file of trained weights.

    Fields of ``LATER`` that it lacks get their values ``before``. Raises ``ValidationError``.
    """
    config, raw = TrialConfig.model_validate_json(text), json.loads(text)
    for field in LATER:
        is_new = paths.get(raw, field.path) is paths.ABSENT
        exists = paths.get(config.model_dump(), field.path) is not paths.ABSENT
        if is_new and exists and not field.idle(config):
            config = with_value(config, {field.path: field.before})
    return config


def _numbers(config: Config, above: str = "") -> Iterator[tuple[str, int]]:
    """Yields the whole numbers of a configuration and of its parts with their dotted paths, except seeds."""
    for name in type(config).model_fields:
        value, path = getattr(config, name), f"{above}{name}"
        if isinstance(value, Config):
            yield from _numbers(value, f"{path}.")
        elif not name.endswith("seed"):
            for number in value if isinstance(value, tuple) else (value,):
                if type(number) is int:
                    yield path, number


def _classes(count: int) -> str:
    return f"{count} classes" if count > 1 else "object against background"


def with_value(base: TrialConfig, changes: Mapping[str, Any]) -> TrialConfig:
    """Returns ``base`` with other values at some dotted paths, validated. Raises ``ConfigError``.

    Another ``name`` exchanges an entry of a registry: of the former one's fields only those stay that ``base`` gives
    itself, and the others get the defaults of the new entry.
    """
    raw = base.model_dump()
    for path, value in changes.items():
        try:
            _forget_defaults(base, raw, path, value, changes)
            paths.put(raw, path, value)
        except (AttributeError, TypeError):
            raise ConfigError(f"{path}: no such field, because a part of its path has no fields") from None
    try:
        return TrialConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(*explain(error, TrialConfig, raw)) from None


def _forget_defaults(base: TrialConfig, raw: dict[str, Any], path: str, name: Any, changes: Mapping[str, Any]) -> None:
    """Removes from ``raw`` the defaults of an entry, if ``name`` at ``path`` is that of another one."""
    above, _, last = path.rpartition(".")
    entry: Any = base
    for part in above.split(".") if above else ():
        entry = getattr(entry, part, None)
    if last != "name" or not isinstance(entry, Config) or getattr(entry, "name", name) == name:
        return
    fields = paths.parent(raw, path)
    for field in list(fields):
        given = field in entry.model_fields_set or any(paths.within(each, f"{above}.{field}") for each in changes)
        if not given:
            del fields[field]
