"""What a sweep file may say about search: how points are chosen, how long, which trials are stopped early."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from models.core.registry import Config, Registry

METHODS = Registry("bench.search.methods", "search method")
"""Methods that ``search`` of a sweep may name."""
LARGEST_SEARCH_SEED = 2**32 - 1
DIGITS = 3
"""Significant digits of a value that is drawn from a range: few enough to be read in a table and typed again."""


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class EarlyStoppingConfig(Config):
    """Successive halving on the validation loss (``bench.search.early_stopping``)."""

    name: Literal["asha"] = "asha"
    grace_epochs: PositiveInt = 1
    """No trial is stopped before so many epochs; the first comparison is made there."""
    factor: Annotated[int, Field(ge=2)] = 3
    """At each comparison about one in ``factor`` goes on, and the next comes after ``factor`` times as many epochs."""


class SearchConfig(Config):
    """Which configurations of a sweep are run, at how many seeds, and when it ends. The default is the whole grid."""

    name: METHODS.name_field() = "grid"
    points: PositiveInt | None = None
    """How many configurations ``random`` and ``optuna`` choose at most."""
    trials: PositiveInt | None = None
    """Budget: at most so many trials, those that were finished before included."""
    hours: PositiveFloat | None = None
    """Budget: no trial starts once the trials took so many hours on their devices together."""
    seed: Annotated[NonNegativeInt, Field(le=LARGEST_SEARCH_SEED)] = 0
    """Of the choice of points; a trial's seed is something else."""
    batch: PositiveInt = 4
    """How many configurations ``optuna`` proposes at a time: it learns between batches."""
    first_seeds: Annotated[int, Field(ge=2)] | None = None
    """Every configuration is run at so many of the sweep's seeds first, and at more only while it is not resolved."""
    early_stopping: Annotated[EarlyStoppingConfig | None, BeforeValidator(_by_name)] = None

    def looks(self, seeds: int) -> int:
        """How often the results may decide whether a sweep of so many seeds goes on, with its end counted as one."""
        return 1 if self.first_seeds is None else seeds - self.first_seeds + 1

    @model_validator(mode="after")
    def _ends_somewhere(self) -> "SearchConfig":
        if self.name == "grid" and self.points is not None:
            raise ValueError(
                "points is for random and optuna, a grid has its own. Leave it out, or choose another name"
            )
        if self.name != "grid" and (self.points, self.trials, self.hours) == (None, None, None):
            raise ValueError(
                f"{self.name} needs an end. Give at least one of points, trials and hours, as in points: 20"
            )
        return self


class Range(Config):
    """Values of an axis between two bounds, both included; whole numbers where both bounds are."""

    low: int | float
    high: int | float
    log: bool
    """Equal ratios are equally likely instead of equal differences."""

    @model_validator(mode="after")
    def _has_values(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low must be less than high (got {self.low:g} and {self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"with log: true, low must be above 0 (got {self.low:g})")
        return self

    @classmethod
    def is_meant(cls, values: Any) -> bool:
        """``{low: 1e-5, high: 1e-3, log: true}``, and what else has ``low``, ``high`` and no label of another name."""
        return isinstance(values, Mapping) and {"low", "high"} <= values.keys() <= cls.model_fields.keys()

    def at(self, share: float) -> int | float:
        """The value at a share from 0 (``low``) to 1 (``high``) of the range."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + share * (high - low)
        value = math.exp(value) if self.log else value
        if isinstance(self.low, int) and isinstance(self.high, int):
            return min(max(round(value), self.low), self.high)
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    def share(self, value: int | float) -> float:
        """Where ``at`` gives ``value``, as far as rounding allows."""
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (value - low) / (high - low)


def labels(values: Sequence[Any]) -> list[str]:
    """Names of an axis's values as tables show them."""
    return [v if isinstance(v, str) else json.dumps(v) for v in values]
