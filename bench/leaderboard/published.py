"""Numbers from papers (``published.yaml``): typed, checked, and found by the test set that they were made on."""

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
"""Fields of an encoder that do not make it another model: where its checkpoint lies, and how it saves memory."""


class TestSet(Config):
    task: str
    images: PositiveInt
    dataset: str | None = None
    """The entry of bench/datasets whose test split this is, if it is complete."""


class Source(Config):
    text: str
    verified: Literal["source", "second"]
    """``source``: read in the named source itself; ``second``: quoted elsewhere."""
    how: str


class Result(Config):
    """What one source says of one method on one test set."""

    method: str
    test_set: str
    protocol: Literal["sod", "mirror", "unstated"]
    source: str
    scores: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]


class Published(Config):
    test_sets: dict[str, TestSet]
    models: dict[str, str]
    """The entry of models/ that builds a method, by the method's name in the papers."""
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
        """Results on a test set that may stand beside numbers of this protocol, in the file's order."""
        return [r for r in self.results if r.test_set == test_set and r.protocol in (protocol, "unstated")]

    def method_of(self, config: TrialConfig) -> str | None:
        """The published method whose model, at its defaults, this configuration builds; ``None`` for a variation."""
        entry = config.model.name
        method = next((m for m, name in self.models.items() if name == entry), None)
        if method is None:
            return None
        same = _without(config.model.model_dump()) == _without(MODELS.parse(entry).model_dump())
        return method if same else None


@cache
def load(path: Path = FILE) -> Published:
    """Raises pydantic's ``ValidationError`` for a file that says what it may not."""
    return Published.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_set_of(config: TrialConfig, images: Iterable[int]) -> str | None:
    """Name of the known benchmark that a trial was scored on; ``None`` if it is none, e.g. painted or one's own data.

    images: sizes of the test splits that were really scored; all have to be the benchmark's.
    """
    sizes = set(images)
    known = load().test_sets.items()
    return next((n for n, s in known if s.dataset == config.dataset.name and sizes == {s.images}), None)


def _without(model: dict) -> dict:
    encoder = {k: v for k, v in (model.get("encoder") or {}).items() if k not in NOT_SCORED}
    return {**model, "encoder": encoder}
