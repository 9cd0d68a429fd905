"""The question that a sweep plans: what is tested first, and answered in words. Settings ``ask`` and ``margin``."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from bench.config.axes import MOST_POINTS, Axis
from bench.config.errors import shortened
from bench.config.search import labels
from bench.config.settings import ALL_IMAGES
from models.core.registry import Config, did_you_mean

LEAST_MARGIN, LARGEST_MARGIN = 1e-6, 1.0
MARGIN = 0.01
"""Default margin, in the units of the score: smaller differences between rows do not matter."""
FEWEST_VALUES = 3
"""Values of an axis that has a trend."""
TRAIN_IMAGES = "dataset.train_images"
"""Axis whose value ``all`` has the place of the number that it stands for."""
MOST_NAMED = 12
"""Rows that an error lists."""


class AskConfig(Config):
    """The planned question of a sweep.

    ``trend``: slope of the score over the values of the only axis. ``reference``: each row against one of them.
    ``best``: all pairs of rows.
    """

    name: Literal["trend", "reference", "best"] = "best"
    reference: Annotated[str, Field(min_length=1)] | None = None
    """Label of the row that the others are compared with; with several axes, its labels joined by ``, ``."""
    margin: Annotated[float, Field(ge=LEAST_MARGIN, le=LARGEST_MARGIN)] = MARGIN
    """Rows whose difference certainly is smaller are called equivalent."""

    @model_validator(mode="after")
    def _has_a_reference(self) -> "AskConfig":
        if (self.name == "reference") != (self.reference is not None):
            raise ValueError("reference is the label of a row, for the question reference only")
        return self


class Scale(NamedTuple):
    """Places of an axis's values, for a slope."""

    unit: Literal["doubling", "step"]
    """``doubling``: places are log2 of positive numbers. ``step``: places are 0, 1, 2, ... in the order of the file."""
    places: Mapping[str, float]
    """By label; empty for a range."""

    def place(self, label: str) -> float:
        """Returns the place of a label; a value that was drawn from a range is its own label."""
        return self.places[label] if label in self.places else math.log2(float(label))


def parse_ask(ask: Any, margin: Any, axes: Sequence[Axis], errors: list[str]) -> AskConfig:
    """Makes the question from the settings ``ask`` (``None``: the default) and ``margin``; appends to ``errors``."""
    if type(margin) not in (int, float) or not LEAST_MARGIN <= margin <= LARGEST_MARGIN:
        allowed = f"from {LEAST_MARGIN:g} to {LARGEST_MARGIN:g}"
        errors.append(f"margin: a number {allowed} is needed, as in {MARGIN} (got {shortened(margin)})")
        margin = MARGIN
    if ask is None:
        return default_ask(axes, margin)
    if isinstance(ask, Mapping) and list(ask) == ["reference"]:
        (label,) = labels([ask["reference"]])
        errors += _reference_errors(axes, label)
        return AskConfig(name="reference", reference=label, margin=margin)
    if ask == "trend":
        errors += _trend_errors(axes)
        return AskConfig(name="trend", margin=margin)
    if ask != "best":
        hint = did_you_mean(ask, ["trend", "best", "reference"]) if isinstance(ask, str) else "."
        if ask == "reference":
            hint = " without the label of a row."
        elif isinstance(ask, Mapping) and "margin" in ask:
            hint = ". margin is a setting of its own, beside ask."
        allowed = "Allowed: trend, best, {reference: LABEL}"
        errors.append(f"ask: {shortened(ask)} is no question{hint} {allowed}")
    return AskConfig(margin=margin)


def default_ask(axes: Sequence[Axis], margin: float = MARGIN) -> AskConfig:
    """Returns the question of a sweep that names none: a trend over the only axis if it lists three or more positive
    numbers, and else the best row."""
    if len(axes) == 1 and axes[0].between is None and len(axes[0].points) >= FEWEST_VALUES:
        found = scale(axes[0])
        if found is not None and found.unit == "doubling":
            return AskConfig(name="trend", margin=margin)
    return AskConfig(margin=margin)


def scale(axis: Axis) -> Scale | None:
    """Returns the places of an axis's values; ``None`` if they have no order.

    Positive numbers have one, in any order of the file. Other numbers have to rise or fall in the file. Texts
    such as ``last:2`` and ``last:4`` are taken in the order of the file. ``all`` training images have the place NaN
    until their number is known (``with_whole_size``).
    """
    if axis.between is not None:
        return Scale("doubling", {}) if axis.between.low > 0 else None
    names = [label for label, _ in axis.points]
    values = [changes.get(axis.name) for _, changes in axis.points]
    if axis.name == TRAIN_IMAGES:
        values = [math.nan if value in (None, ALL_IMAGES) else value for value in values]
    known = [value for value in values if value == value]  # NaN is not equal to itself
    if not known:
        return None
    if all(type(value) in (int, float) for value in values):
        if min(known) > 0:
            return Scale("doubling", {name: math.log2(value) for name, value in zip(names, values)})
        steps = [after - before for before, after in zip(values, values[1:])]
        if not (all(step > 0 for step in steps) or all(step < 0 for step in steps)):
            return None
    elif not all(isinstance(value, str) for value in values):
        return None
    return Scale("step", {name: float(place) for place, name in enumerate(names)})


def with_whole_size(axis: Axis, count: int | None) -> Axis:
    """Puts the number of images in the place of ``all`` on an axis of ``dataset.train_images``; ``None`` is unknown."""
    if axis.name != TRAIN_IMAGES or count is None:
        return axis
    points = []
    for label, changes in axis.points:
        whole = axis.name in changes and changes[axis.name] in (None, ALL_IMAGES)
        points.append((label, {**changes, axis.name: count} if whole else changes))
    return axis._replace(points=tuple(points))


def _trend_errors(axes: Sequence[Axis]) -> Iterator[str]:
    """Yields the reason why the axes have no trend."""
    other = "Allowed besides: ask: best, or ask: {reference: LABEL}"
    if len(axes) != 1:
        names = ", ".join(axis.name for axis in axes)
        yield f"ask: a trend needs exactly one axis (got {len(axes)}: {names}). {other}"
        return
    (axis,) = axes
    if not axis.points:
        return  # its own error is reported
    if axis.between is None and len(axis.points) < FEWEST_VALUES:
        yield f"ask: a trend needs at least {FEWEST_VALUES} values ({axis.name} has {len(axis.points)}). {other}"
    elif scale(axis) is None:
        shown = shortened([label for label, _ in axis.points])
        needed = "positive numbers, or values that are listed in their order"
        yield f"ask: a trend needs an axis of {needed} ({axis.name} has {shown}). {other}"


def _reference_errors(axes: Sequence[Axis], label: str) -> Iterator[str]:
    """Yields the reason why no row has this label."""
    ranges = [axis.name for axis in axes if axis.between is not None]
    if ranges:
        reason = f"{ranges[0]} is a range, so rows are not known before the run"
        yield f"ask.reference: {reason}. Allowed: ask: trend, ask: best"
        return
    rows = [""]
    for axis in axes:
        if len(rows) * len(axis.points) > MOST_POINTS:
            return  # its own error is reported
        rows = [", ".join(filter(None, [row, name])) for row in rows for name, _ in axis.points]
    if rows and label not in rows:
        shown = ", ".join(rows[:MOST_NAMED]) + (", ..." if len(rows) > MOST_NAMED else "")
        yield f"ask.reference: no row {shortened(label)}{did_you_mean(label, rows)} Rows: {shown}"
