"""Axes and variants: the fields that a sweep varies, and their values."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from bench.config import paths
from bench.config.errors import explain, shortened
from bench.config.search import Range, labels
from bench.config.trial import TrialConfig
from models.core.registry import Config, did_you_mean

MOST_POINTS = 10_000
"""Maximum number of values on all axes of a profile, and of trials: the product of axes and seeds."""


class Axis(NamedTuple):
    """Labelled points, each of which sets some fields of the configuration by their dotted paths.

    An entry of ``axes`` sets the path that is the name of the axis, and the paths of its ``with``. ``variants`` are an
    axis whose points may set different paths.
    """

    name: str
    points: tuple[tuple[str, Mapping[str, Any]], ...]
    between: Range | None = None
    """Range of the values; ``points`` are then its two bounds."""

    @classmethod
    def over(cls, path: str, values: Mapping[str, Any]) -> "Axis":
        """Makes the axis of one path from its values by label."""
        return cls(path, tuple((label, {path: value}) for label, value in values.items()))

    @classmethod
    def within(cls, path: str, between: Range) -> "Axis":
        """Makes the axis of one path whose values lie in a range."""
        bounds = [between.at(0), between.at(1)]
        return cls.over(path, dict(zip(labels(bounds), bounds)))._replace(between=between)

    def chosen(self, choice: int | float) -> tuple[str, Mapping[str, Any]]:
        """Returns label and changes of the point with this index or, in a range, at this share of it (0 to 1)."""
        if self.between is None:
            return self.points[int(choice)]
        value = self.between.at(choice)
        return labels([value])[0], {self.name: value}

    def choice(self, label: str) -> int | float:
        """Inverts ``chosen``: returns the index or the share that has this label."""
        if self.between is None:
            return [point[0] for point in self.points].index(label)
        return self.between.share(json.loads(label))

    def paths(self) -> set[str]:
        """Returns the dotted paths that the points set."""
        return {path for _, changes in self.points for path in changes}


def is_coupled(values: Any) -> bool:
    """Returns whether the values of an axis come with those of other fields: ``{values: ..., with: {path: [...]}}``."""
    return isinstance(values, Mapping) and values.keys() == {"values", "with"}


def parse_axis(path: str, values: Any, errors: list[str], above: str = "axes") -> Axis:
    """Makes an axis from its entry in the setting ``above``; appends to ``errors``.

    values: a list, a mapping of labels to values, a range, or values that are coupled with those of other fields.
    """
    if is_coupled(values):
        before = len(errors)
        axis = parse_axis(path, values["values"], errors, above)
        if len(errors) > before:  # the coupled lists belong to values that are yet to be mended
            return axis
        problems = list(_coupling_errors(axis, values["with"]))
        errors += [f"{above}.{path}.with: {problem}" for problem in problems]
        if problems or not axis.points:
            return axis
        points = []
        for number, (label, changes) in enumerate(axis.points):
            points.append((label, {**changes, **{other: given[number] for other, given in values["with"].items()}}))
        return axis._replace(points=tuple(points))
    if Range.is_meant(values):
        if type(values.get("log")) is not bool:
            what = "low and high are the ends of a range, which needs log: true or log: false"
            remedy = "Add it, as in {low: 1e-5, high: 1e-3, log: true}, or give two labelled values other labels"
            errors.append(f"{above}.{path}: {what}. {remedy}")
            return Axis(path, ())
        try:
            return Axis.within(path, Range.model_validate(values))
        except ValidationError as error:
            errors += [f"{above}.{path}: {line.removeprefix(': ')}" for line in explain(error, Range, values)]
            return Axis(path, ())
    if isinstance(values, Mapping) and (isinstance(values.get("values"), list) or "with" in values):
        needed = "the values of an axis and those of other fields are {values: [A, B], with: {FIELD: [C, D]}}"
        keys = f"these two keys are needed, and no others (got {shortened(list(values))})"
        errors.append(f"{above}.{path}: {needed}: {keys}")
        return Axis(path, ())
    if isinstance(values, dict):
        labelled = [(str(label), value) for label, value in values.items()]
    elif isinstance(values, list):
        labelled = list(zip(labels(values), values))
    else:
        errors.append(
            f"{above}.{path}: needs a list of values, or a mapping of labels to values (got {shortened(values)})"
        )
        return Axis(path, ())
    if not labelled:
        errors.append(f"{above}.{path}: has no values. Give at least one, as in [8, 32]")
    for label, _ in labelled:
        if not is_label(label):
            errors.append(f"{above}.{path}: {not_a_label(label)}")
    if len(dict(labelled)) < len(labelled):
        errors.append(f"{above}.{path}: has a value twice ({shortened([label for label, _ in labelled])})")
    return Axis.over(path, dict(labelled))


def _coupling_errors(axis: Axis, others: Any) -> Iterator[str]:
    """Yields the reasons why other fields cannot be coupled with an axis."""
    if not isinstance(others, Mapping) or not others:
        yield f"needs a mapping of fields to lists, as in {{train.epochs: [8, 4]}} (got {shortened(others)})"
        return
    if axis.between is not None:
        yield "a range has no list of values to which those of other fields belong. List the values"
        return
    for number, (other, given) in enumerate(others.items()):
        if not isinstance(other, str):
            yield f"{shortened(other)} is no field. Give a dotted path, as in train.epochs"
            continue
        same = [path for path in (*sorted(axis.paths()), *list(others)[:number]) if paths.overlap([other], [str(path)])]
        if other == axis.name:
            yield f"{other} is the axis itself"
        elif same:
            yield f"{other} and {same[0]} set the same field. Give one of them"
        elif not isinstance(given, list):
            yield f"{other}: needs a list with a value for each value of the axis (got {shortened(given)})"
        elif axis.points and len(given) != len(axis.points):
            yield f"{other}: needs {len(axis.points)} values, one for each of the axis (got {len(given)})"


def is_label(text: str) -> bool:
    """Whether tables can show a label: it is one line without tabs."""
    return len(text.splitlines()) <= 1 and "\t" not in text


def not_a_label(text: str) -> str:
    """Explains the error of a label that is not one line of text."""
    return f"the label {shortened(text)} is no line of text. Give one, as in {{short: VALUE}}"


def path_error(base: TrialConfig, path: str) -> str | None:
    """Explains why a dotted path names no field of this configuration; ``None`` if it names one."""
    if path == "seed":
        return "seeds are listed under 'seeds', beside 'axes'"
    node: Any = base
    above = ""
    for key in path.split("."):
        fields = list(type(node).model_fields) if isinstance(node, Config) else []
        if not fields:
            return f"'{above}' has no fields of its own"
        if key not in fields:
            return f"no field '{key}'{did_you_mean(key, fields)} Fields here: {', '.join(fields)}"
        node = getattr(node, key)
        above = f"{above}.{key}" if above else key
    return None


NOT_THERE = "–"
"""Label of a configuration without the field of an axis."""


def label(config: Mapping[str, Any], path: str) -> str:
    """Returns the text of a field in a table: its value; the name of a part; ``–`` without such a field."""
    value = paths.get(config, path)
    if value is paths.ABSENT:
        return NOT_THERE
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return value["name"]
    return value if isinstance(value, str) else json.dumps(value)


def axis_over(path: str, configs: Sequence[Mapping[str, Any]]) -> Axis:
    """Makes the axis of one path from the values in configurations; a configuration without the field has ``None``."""
    points = {}
    for config in configs:
        value = paths.get(config, path)
        points[label(config, path)] = {path: None if value is paths.ABSENT else value}
    return Axis(path, tuple(points.items()))
