"""What a sweep varies: axes and variants, and what they may set."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from bench.config.errors import _short, explain
from bench.config.search import Range, labels
from bench.config.trial import TrialConfig
from models.core.registry import Config, did_you_mean

MOST_POINTS = 10_000
"""On all axes of a profile together, and in their product with the seeds."""


class Axis(NamedTuple):
    """What a sweep varies: labelled points, each of which sets some dotted paths of the configuration.

    An entry of ``axes`` sets the one path that names it; ``variants`` are an axis whose points set what they like.
    """

    name: str
    points: tuple[tuple[str, Mapping[str, Any]], ...]
    between: Range | None = None
    """The values lie between two bounds, which ``points`` are."""

    @classmethod
    def over(cls, path: str, values: Mapping[str, Any]) -> "Axis":
        """One path and its values by label."""
        return cls(path, tuple((label, {path: value}) for label, value in values.items()))

    @classmethod
    def within(cls, path: str, between: Range) -> "Axis":
        """One path and the range of its values."""
        bounds = [between.at(0), between.at(1)]
        return cls.over(path, dict(zip(labels(bounds), bounds)))._replace(between=between)

    def chosen(self, choice: int | float) -> tuple[str, Mapping[str, Any]]:
        """Label and changes of the point of this number or, in a range, at this share of it."""
        if self.between is None:
            return self.points[int(choice)]
        value = self.between.at(choice)
        return labels([value])[0], {self.name: value}

    def choice(self, label: str) -> int | float:
        """What ``chosen`` needs in order to give this label."""
        if self.between is None:
            return [known for known, _ in self.points].index(label)
        return self.between.share(json.loads(label))

    def paths(self) -> set[str]:
        """The dotted paths that any of the points sets."""
        return {path for _, changes in self.points for path in changes}


def _overlap(paths: set[str], others: set[str]) -> bool:
    """Whether a path of the one set lies within, or equals, one of the other."""
    return any(f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.") for a in paths for b in others)


def _axis(path: str, values: Any, errors: list[str]) -> Axis:
    """Points of an axis: a list of values, a mapping of labels to values, or a range."""
    if Range.is_meant(values):
        if type(values.get("log")) is not bool:
            what = "low and high are the ends of a range, which needs log: true or log: false"
            remedy = "Add it, as in {low: 1e-5, high: 1e-3, log: true}, or give two labelled values other labels"
            errors.append(f"axes.{path}: {what}. {remedy}")
            return Axis(path, ())
        try:
            return Axis.within(path, Range.model_validate(values))
        except ValidationError as error:
            errors += [f"axes.{path}: {line.removeprefix(': ')}" for line in explain(error, Range, values)]
            return Axis(path, ())
    if isinstance(values, dict):
        labelled = [(str(label), value) for label, value in values.items()]
    elif isinstance(values, list):
        labelled = list(zip(labels(values), values))
    else:
        errors.append(f"axes.{path}: needs a list of values, or a mapping of labels to values (got {_short(values)})")
        return Axis(path, ())
    if not labelled:
        errors.append(f"axes.{path}: has no values. Give at least one, as in [8, 32]")
    errors += [f"axes.{path}: {problem}" for label, _ in labelled if (problem := _label_problem(label))]
    if len(dict(labelled)) < len(labelled):
        errors.append(f"axes.{path}: has a value twice ({_short([label for label, _ in labelled])})")
    return Axis.over(path, dict(labelled))


def _label_problem(label: str) -> str | None:
    """Why tables and lines cannot show a label; ``None`` if they can."""
    if len(label.splitlines()) > 1 or "\t" in label:
        return f"the label {_short(label)} is no line of text. Give one, as in {{short: VALUE}}"
    return None


def _path_problem(base: TrialConfig, path: str) -> str | None:
    """Why a dotted path names no field of this configuration; ``None`` if it does."""
    if path == "seed":
        return "seeds are listed under 'seeds', beside 'axes'"
    node: Any = base
    for depth, part in enumerate(path.split(".")):
        fields = list(type(node).model_fields) if isinstance(node, Config) else []
        if part not in fields:
            above = ".".join(path.split(".")[:depth])
            if not fields:
                return f"'{above}' has no fields of its own"
            return f"no field '{part}'{did_you_mean(part, fields)} Fields here: {', '.join(fields)}"
        node = getattr(node, part)
    return None
