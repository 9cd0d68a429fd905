"""The result of ``bench.tools.compare_memory``: a record with provenance, and tables of one or several cards."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas
from pydantic import ValidationError

from bench.config.errors import ConfigError, explain
from bench.config.trial import TrialConfig, with_value
from bench.memory.card_generations import DEFAULT, GENERATIONS
from bench.memory.predicted_peak import PredictedPeak, Unpredictable, predict_peak
from bench.records.memory import GIB, Memory
from bench.records.record import Provenance
from bench.system.files import write_whole
from models.core.registry import Config, InvalidModel

FILE = "comparison.json"
PREDICTED = ("allocated", "reserved", "device")
"""Measures that are predicted and measured."""
FULL = {"model": {"name": "sam3_unet", "encoder": {"weights": "random"}}, "dataset": "procedural"}
"""Configuration to which the changes of a row apply."""


class Origin(Provenance):
    """Provenance of a comparison. A result of another program knows less of its machine."""

    host_cpu: str | None = None
    threads: int | None = None
    trials_at_once: int | None = None
    deterministic: bool | None = None
    entered_from: str = ""
    """File and program of a result that was not measured by ``compare_memory`` itself, with the date of its entry."""


class Measured(Config):
    """One row of the comparison, in bytes; ``None`` is unknown."""

    label: str
    changes: dict[str, Any] = {}
    """Dotted paths over ``FULL``."""
    code: Literal["suite", "upstream"] = "suite"
    setting: str = ""
    """Setting outside of the configuration, such as ``tf32`` or ``fused, channels_last``."""
    predicted_allocated_bytes: int | None = None
    predicted_reserved_bytes: int | None = None
    predicted_device_bytes: int | None = None
    memory: Memory | None = None
    step_seconds_median: float | None = None
    step_seconds_min: float | None = None
    steps: int = 0
    """Number of timed steps."""
    joules_per_image: float | None = None
    """Energy of the card for an image of the timed steps (``bench.memory.energy``)."""
    error: str = ""

    @property
    def off(self) -> float | None:
        """Relative error of the peak allocated: (predicted - measured) / measured."""
        return self.error_of("allocated")

    def error_of(self, measure: Literal["allocated", "reserved", "device"]) -> float | None:
        """Returns (predicted - measured) / measured."""
        predicted, measured = getattr(self, f"predicted_{measure}_bytes"), self.measured(measure)
        return predicted / measured - 1 if predicted is not None and measured else None

    def measured(self, measure: Literal["allocated", "reserved", "device"]) -> int | None:
        """Returns the measured bytes of a measure that is also predicted."""
        field = "nvml_device_bytes" if measure == "device" else f"torch_{measure}_bytes"
        return getattr(self.memory, field) if self.memory else None

    def predicted_again(self, generation: str) -> "Measured":
        """Returns the row with the predictions of this version of the suite; upstream's code has none, and neither has
        a configuration that this version does not know or cannot execute."""
        if self.code == "upstream":
            return self
        try:
            return self.with_prediction(predict_peak(self.config(), GENERATIONS.get(generation, DEFAULT)))
        except (ConfigError, InvalidModel, Unpredictable):
            return self.model_copy(update={f"predicted_{name}_bytes": None for name in PREDICTED})

    def with_prediction(self, prediction: PredictedPeak) -> "Measured":
        """Returns the row with another prediction. A compiled step has none: predictions are of uncompiled ones."""
        if "train.compile" in self.changes:
            return self
        values = {name: getattr(prediction, name) for name in PREDICTED}
        return self.model_copy(update={f"predicted_{name}_bytes": value for name, value in values.items()})

    def config(self) -> TrialConfig:
        """Raises ``ConfigError`` for changes that this version of the suite does not know."""
        return with_value(TrialConfig.model_validate(FULL), self.changes)

    @property
    def images_per_second(self) -> float | None:
        """Speed of the median step; ``None`` if it was not timed, or the configuration is unknown to this version."""
        seconds = self.step_seconds_median
        try:
            return self.config().train.batch_size / seconds if seconds else None
        except ConfigError:
            return None


class Comparison(Config):
    """The rows of one card."""

    schema_version: Literal[1] = 1
    generation: str
    """Generation of the card, with which memory is predicted."""
    provenance: Origin
    rows: list[Measured] = []

    def save(self, folder: Path) -> None:
        """Writes ``comparison.json`` whole, over an older one."""
        text = self.model_dump_json(indent=1) + "\n"
        write_whole(folder / FILE, lambda file: file.write(text.encode()))


def load(folder: Path) -> Comparison:
    """Reads the record of a folder, or a record's file. Raises ``ConfigError`` if it is none."""
    path = folder / FILE if folder.is_dir() else folder
    try:
        comparison = Comparison.model_validate_json(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}. Give a folder with the {FILE} of a comparison") from None
    except ValueError as error:  # among them pydantic's ``ValidationError``
        reason = explain(error, Comparison, {})[0] if isinstance(error, ValidationError) else error
        raise ConfigError(f"{path}: is no result of compare_memory ({reason})") from None
    if comparison.generation not in GENERATIONS:
        raise ConfigError(f"{path}: generation {comparison.generation!r} is not one of {', '.join(GENERATIONS)}")
    return comparison


def side_by_side(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns a Markdown table: a line for each configuration, three columns for each card."""
    names = [f"{c.provenance.device} (torch {c.provenance.versions.get('torch', '?')})" for c in comparisons]
    head = [f"{as_cell(name)}: {what}" for name in names for what in ("predicted GiB", "measured GiB", "images/s")]
    lines = [f"| configuration | {' | '.join(head)} |", "| :-- |" + " --: |" * len(head)]
    found = [{_key(row): row for row in comparison.rows} for comparison in comparisons]
    firsts: dict[str, Measured] = {}
    for keys in found:
        firsts = {**keys, **firsts}
    for key, first in firsts.items():
        cells = []
        for keys in found:
            row = keys.get(key)
            cells += ["–"] * 3 if row is None else _cells(row)
        named = ", ".join(filter(None, (first.label, first.setting)))
        lines.append(f"| {' | '.join(map(as_cell, [named, *cells]))} |")
    return lines


def as_cell(text: str) -> str:
    """Returns a text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _key(row: Measured) -> str:
    return json.dumps([row.code, row.changes, row.setting], sort_keys=True)


def _cells(row: Measured) -> list[str]:
    measured, speed = row.measured("allocated"), row.images_per_second
    predicted = row.predicted_allocated_bytes
    return [
        "–" if predicted is None else f"{predicted / GIB:.3f}",
        row.error or "–" if measured is None else f"{measured / GIB:.3f}",
        "–" if speed is None else f"{speed:.1f}",
    ]


def accuracy(rows: Sequence[Measured]) -> list[str]:
    """Returns one line for each measure: median and worst error of the predictions."""
    lines = []
    for measure in PREDICTED:
        errors = [error for error in (row.error_of(measure) for row in rows) if error is not None]
        if errors:
            middle, worst = median(map(abs, errors)), max(errors, key=abs)
            lines.append(f"{measure}: median {middle:.2%}, worst {worst:+.2%}, of {len(errors)} rows")
    return lines


def as_frame(rows: Sequence[Measured]) -> pandas.DataFrame:
    """Returns one line for each row, in bytes."""
    lines = []
    for row in rows:
        line = {"configuration": row.label, **row.model_dump(exclude={"label", "memory", "error", "changes"})}
        measured = row.memory.model_dump(exclude={"foreign_processes"}) if row.memory else {}
        line |= {f"measured_{name}": value for name, value in measured.items()}
        lines.append({**line, "off": row.off, "error": row.error})
    return pandas.DataFrame(lines)
