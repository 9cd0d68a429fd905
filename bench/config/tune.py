"""Fields whose values a sweep chooses for each row, on the validation split. Setting ``tune``."""

import math
from collections.abc import Mapping
from typing import Any

from bench.config import paths
from bench.config.axes import Axis, parse_axis
from bench.config.errors import shortened

MOST_VALUES = 32
"""Combinations of values that are tried for each row."""
EXAMPLE = "tune: {train.lr: [1e-3, 5e-3, 2e-2]}"
NOT_TUNED = {
    "dataset": "the score on the validation split would have another meaning for each value",
    "protocol": "the score on the validation split would have another meaning for each value",
    "device": "it does not change the score",
    "memory": "it does not change the score",
}
"""Parts of a trial's configuration that cannot be tuned, and the reasons."""


SEEDS = "seeds"
"""Key of ``tune`` that is no field: the number of seeds at which each value is tried."""


def seeds_of_choice(settings: Any, seeds: int, errors: list[str]) -> int:
    """Returns the number of first seeds at which each value is tried, 1 by default; appends to ``errors``.

    seeds: number of seeds of the sweep.
    """
    count = settings.get(SEEDS, 1) if isinstance(settings, Mapping) else 1
    if type(count) is not int or not 1 <= count <= seeds:
        errors.append(
            f"tune.{SEEDS}: the number of seeds that choose, 1 to {seeds}, is needed (got {shortened(count)})"
        )
        return 1
    return count


def parse_tune(settings: Any, errors: list[str]) -> tuple[Axis, ...]:
    """Makes the tuned fields from the setting ``tune``, each with its values in their order; appends to ``errors``.

    Whether the fields exist and allow the values is checked together with the axes (``bench.config.sweep``).
    """
    if settings is None:
        return ()
    if not isinstance(settings, Mapping):
        errors.append(
            f"tune: a mapping of fields to lists of values is needed, as in {EXAMPLE} (got {shortened(settings)})"
        )
        return ()
    tuned = []
    for field, values in settings.items():
        if field == SEEDS:
            continue
        path, before = str(field), len(errors)
        axis = parse_axis(path, values, errors, above="tune")
        for part in sorted({one.partition(".")[0] for one in (path, *axis.paths())} & NOT_TUNED.keys()):
            errors.append(f"tune.{path}: {part} cannot be tuned: {NOT_TUNED[part]}. Make it an axis")
        if len(errors) > before:
            continue
        if axis.between is not None:
            errors.append(f"tune.{path}: a range cannot be tuned. List values, as in {EXAMPLE}")
        elif len(axis.points) < 2:
            errors.append(f"tune.{path}: one value leaves no choice. List several, or set it under base")
        else:
            tuned.append(axis)
    count = math.prod(len(axis.points) for axis in tuned)
    if count > MOST_VALUES:
        errors.append(f"tune: the lists multiply to {count:,} combinations for each row. At most {MOST_VALUES}")
    for number, axis in enumerate(tuned):
        for other in tuned[:number]:
            if paths.overlap(axis.paths(), other.paths()):
                errors.append(f"tune: {other.name} and {axis.name} set the same field. Tune one of them")
    return tuple(tuned)
