"""Settings of a search: how points are chosen, the budget, and early stopping."""

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
"""Significant digits of a value from a range, so that a table can show it and a user can type it."""


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class EarlyStoppingConfig(Config):
    """Successive halving on the validation loss (``bench.search.early_stopping``)."""

    name: Literal["asha"] = "asha"
    grace_epochs: PositiveInt = 1
    """Number of epochs before the first comparison. No trial is stopped earlier."""
    factor: Annotated[int, Field(ge=2)] = 3
    """About one trial in ``factor`` continues after a comparison, for ``factor`` times as many epochs."""


class SearchConfig(Config):
    """The choice of configurations and seeds, and the budget. The default is the whole grid."""

    name: METHODS.name_field() = "grid"
    points: PositiveInt | None = None
    """Maximum number of configurations that ``random`` and ``optuna`` choose."""
    trials: PositiveInt | None = None
    """Budget: maximum number of trials, including trials that were finished before."""
    hours: PositiveFloat | None = None
    """Budget: no trial starts after the trials have used this many device hours together."""
    seed: Annotated[NonNegativeInt, Field(le=LARGEST_SEARCH_SEED)] = 0
    """Seed of the choice of points; it does not affect the seeds of trials."""
    batch: PositiveInt = 4
    """Number of configurations that ``optuna`` proposes before it learns from their results."""
    first_seeds: Annotated[int, Field(ge=2)] | None = None
    """Number of seeds at which each configuration runs first. Further seeds run while a configuration is not resolved."""
    early_stopping: Annotated[EarlyStoppingConfig | None, BeforeValidator(_by_name)] = None

    def looks(self, seeds: int) -> int:
        """Returns the number of interim analyses of a sweep with ``seeds`` seeds, the final one included."""
        return 1 if self.first_seeds is None else seeds - self.first_seeds + 1

    @property
    def is_exhaustive(self) -> bool:
        """Whether the method runs the whole grid."""
        return METHODS.module(self.name).EXHAUSTIVE

    @model_validator(mode="after")
    def _ends_somewhere(self) -> "SearchConfig":
        if self.is_exhaustive and self.points is not None:
            raise ValueError(
                "points is for random and optuna, a grid has its own. Leave it out, or choose another name"
            )
        if not self.is_exhaustive and (self.points, self.trials, self.hours) == (None, None, None):
            raise ValueError(
                f"{self.name} needs an end. Give at least one of points, trials and hours, as in points: 20"
            )
        return self


class Range(Config):
    """Values of an axis between two bounds, both included; whole numbers if both bounds are whole."""

    low: int | float
    high: int | float
    log: bool
    """Whether equal ratios, instead of equal differences, have equal probability."""

    @model_validator(mode="after")
    def _has_values(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low must be less than high (got {self.low:g} and {self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"with log: true, low must be above 0 (got {self.low:g})")
        return self

    @classmethod
    def is_meant(cls, values: Any) -> bool:
        """Whether a mapping is a range: it has ``low`` and ``high``, and no other key but ``log``."""
        return isinstance(values, Mapping) and {"low", "high"} <= values.keys() <= cls.model_fields.keys()

    def at(self, share: float) -> int | float:
        """Returns the value at a share of the range, from 0 (``low``) to 1 (``high``)."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = low + share * (high - low)
        value = math.exp(value) if self.log else value
        if isinstance(self.low, int) and isinstance(self.high, int):
            return min(max(round(value), self.low), self.high)
        return min(max(float(f"{value:.{DIGITS}g}"), float(self.low)), float(self.high))

    def share(self, value: int | float) -> float:
        """Returns the share at which ``at`` gives ``value``, up to rounding."""
        low, high, value = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (value - low) / (high - low)


def labels(values: Sequence[Any]) -> list[str]:
    """Returns the labels of values in tables."""
    return [v if isinstance(v, str) else json.dumps(v) for v in values]
