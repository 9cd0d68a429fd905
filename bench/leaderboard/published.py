"""Published numbers of ``published.yaml``: their schema, and the results on a test set."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, PositiveInt, model_validator

from bench.config.trial import TrialConfig
from bench.scoring.metrics import METRICS, OF_PROTOCOL
from models import MODELS
from models.core.registry import Config

FILE = Path(__file__).with_suffix(".yaml")
NOT_SCORED = ("weights", "checkpointing")
"""Fields of an encoder that do not change the model: the path of its weights, and activation checkpointing."""


class TestSet(Config):
    """A test set that papers report on."""

    task: str
    images: PositiveInt
    dataset: str | None = None
    """Name of the entry of bench/datasets whose whole test split this is."""


class Source(Config):
    """A paper or repository that reports numbers."""

    text: str
    verified: Literal["source", "second"]
    """``source``: the numbers were read in the source itself; ``second``: they are quoted by another source."""
    how: str
    """Where in the source the numbers are."""


class Result(Config):
    """Scores of one method on one test set, as one source reports them."""

    method: str
    test_set: str
    protocol: Literal["sod", "mirror", "unstated"]
    source: str
    scores: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]


class Published(Config):
    """The content of ``published.yaml``."""

    test_sets: dict[str, TestSet]
    models: dict[str, str]
    """Names of entries of models/, by the name of the method in the papers."""
    sources: dict[str, Source]
    results: list[Result]

    @model_validator(mode="after")
    def _names_are_known(self) -> "Published":
        seen = set()
        for result in self.results:
            where = f"{result.method} on {result.test_set}"
            allowed = OF_PROTOCOL.get(result.protocol, tuple(METRICS))
            unknown = [metric for metric in result.scores if metric not in allowed]
            if unknown:
                raise ValueError(f"{where}: protocol {result.protocol} has no metric {', '.join(unknown)}")
            if result.test_set not in self.test_sets or result.source not in self.sources:
                raise ValueError(f"{where}: test set and source must be listed above")
            if (key := (result.method, result.test_set, result.source)) in seen:
                raise ValueError(f"{where}: stands here twice from the same source")
            seen.add(key)
        return self

    def of(self, test_set: str, protocol: str) -> list[Result]:
        """Returns the results on a test set that may be shown beside scores of this protocol, in the file's order."""
        return [r for r in self.results if r.test_set == test_set and r.protocol in (protocol, "unstated")]

    def method_of(self, config: TrialConfig) -> str | None:
        """Returns the published method whose default model this configuration builds; ``None`` for a variation."""
        entry = config.model.name
        method = next((m for m, name in self.models.items() if name == entry), None)
        if method is None:
            return None
        same = _without(config.model.model_dump()) == _without(MODELS.parse(entry).model_dump())
        return method if same else None


@cache
def load(path: Path = FILE) -> Published:
    """Reads the published numbers. Raises pydantic's ``ValidationError`` for a file that breaks the schema."""
    return Published.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_set_of(config: TrialConfig, images: Iterable[int]) -> str | None:
    """Returns the name of the benchmark that a trial was scored on; ``None`` for other data, e.g. generated images.

    images: sizes of the test splits that were scored; all must be the size of the benchmark.
    """
    sizes = set(images)
    for name, test_set in load().test_sets.items():
        if test_set.dataset == config.dataset.name and sizes == {test_set.images}:
            return name
    return None


def _without(model: dict) -> dict:
    encoder = {k: v for k, v in (model.get("encoder") or {}).items() if k not in NOT_SCORED}
    return {**model, "encoder": encoder}
