"""From a sweep file to typed configuration; everything that is wrong with it is said at once, before any work."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from bench.config.protocol import ProtocolConfig
from bench.config.search import Range, SearchConfig, labels
from bench.config.yaml_file import BadYaml, parse, read
from bench.datasets import DATASETS
from bench.datasets.core.transforms import TransformConfig
from bench.memory.measure import MemoryConfig, nvml_missing
from bench.memory.sampler import nvml_problem
from bench.training.loop import TrainConfig
from bench.training.losses import CLASS_LOSSES
from models import MODELS
from models.core.registry import Config, Missing, Registry, did_you_mean

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
"""Of a sweep and of a profile: they become a folder below the results."""
MOST_POINTS = 10_000
"""On all axes of a profile together, and in their product with the seeds."""
MOST_ERRORS = 50
"""That are said one by one."""
LARGEST_SEED = 2**63 - 1
LARGEST = 1_000_000
"""Of a whole number that is no seed: beyond it memory or time run out, after a long wait."""
TRACKERS = ("tensorboard", "wandb", "mlflow")
"""What ``track`` of a sweep may name."""


class ConfigError(ValueError):
    """The user's mistake, one line each. Printed without a traceback; exit code 2."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


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
        """Model, masks, loss and resizing mean the same by a class, model and transform the same by a colour; and no
        setting is without effect beside the others."""
        classes = self.num_classes
        wrong = []
        if self.model.num_classes != classes:
            wrong.append(
                f"model.num_classes: {self.model.num_classes}, but the masks of dataset {self.dataset.name} have "
                f"{classes}. Set model.num_classes={classes}"
            )
        if (self.train.loss in CLASS_LOSSES) != (classes > 1):
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
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def num_classes(self) -> int:
        """Classes of the masks; 1 is object against background."""
        return getattr(self.dataset, "num_classes", 1)  # a dataset that does not say has objects

    @cached_property
    def trial_id(self) -> str:
        """12 hex digits over the validated configuration: equal settings are the same trial, in every sweep.

        A field of ``LATER`` enters it only where the trial does something else than before there was the field.
        """
        raw = self.model_dump(mode="json")
        for field in LATER:
            part = field.part_of(raw)
            if field.name in part and (field.idle(self) or part[field.name] == field.before):
                del part[field.name]
        text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def missing(self) -> Iterator[Missing]:
        yield from super().missing()
        if self.device == "cuda" and not torch.cuda.is_available():
            what = f"torch {torch.__version__} sees no NVIDIA GPU here"
            yield Missing("device", "device", what, "run where there is one, or set device=cpu (slow at full size)")
        elif self.device == "cuda" and self.memory.foreign_process != "note" and (problem := nvml_problem()):
            what, remedy = nvml_missing(problem).rsplit(". ", 1)
            yield Missing("NVML", "memory.foreign_process", what, remedy)


class Later(NamedTuple):
    """A field that was added when there were records without it, whose trials keep their ids."""

    path: str
    before: Any
    """The value, as JSON has it, with which a trial does what it did before there was the field. A record without the
    field has this value."""
    idle: Callable[[TrialConfig], bool] = lambda config: False
    """Whether the field changes nothing in a trial, whatever its value."""

    @property
    def name(self) -> str:
        return self.path.rsplit(".", 1)[-1]

    def part_of(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The part of a configuration that the field belongs to; empty where it has no such part."""
        for parent in self.path.split(".")[:-1]:
            raw = raw.get(parent)
            if not isinstance(raw, dict):
                return {}
        return raw


LATER = (
    Later("train.tf32", before=False, idle=lambda config: config.device == "cpu"),
    Later("dataset.foreground", before="auto"),
    Later("dataset.ignore", before=[]),
    Later("dataset.mask_suffix", before=""),
    Later("dataset.recursive", before=False),
    Later("dataset.classes", before={}),
)
"""All fields that were added since the first records were made. Whoever adds a field adds it here."""


def recorded(text: str) -> TrialConfig:
    """A configuration, as JSON, out of a record, a manifest or a file of trained weights, which may lack the fields of
    ``LATER``: its trial did without them.

    Raises ``ValidationError`` where it is not of this version.
    """
    config, raw = TrialConfig.model_validate_json(text), json.loads(text)
    for field in LATER:
        known = field.name in field.part_of(raw)
        if not known and not field.idle(config) and field.name in field.part_of(config.model_dump()):
            config = with_value(config, {field.path: field.before})
    return config


def _numbers(config: Config, above: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers of a configuration and of its parts, but seeds, with their dotted paths."""
    for name in type(config).model_fields:
        value, path = getattr(config, name), f"{above}{name}"
        if isinstance(value, Config):
            yield from _numbers(value, f"{path}.")
        elif not name.endswith("seed"):
            yield from ((path, n) for n in (value if isinstance(value, tuple) else (value,)) if type(n) is int)


def _classes(count: int) -> str:
    return f"{count} classes" if count > 1 else "object against background"


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


class Sweep(NamedTuple):
    """One profile of a sweep file, validated: every axis exists in ``base`` and takes values that it may take."""

    name: str
    question: str
    profile: str
    base: TrialConfig
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    search: SearchConfig = SearchConfig()
    track: tuple[str, ...] = ()
    """Trackers that are told about the trials."""


class _Profile(Config):
    base: dict[str, Any]
    axes: dict[str, Any] = {}
    variants: dict[str, dict[str, Any]] = {}
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    search: dict[str, Any] | str = {}
    track: list[str] = []


class _SweepFile(Config):
    name: Annotated[str, Field(pattern=NAME)]
    question: Annotated[str, Field(min_length=1)]
    profiles: Annotated[dict[Annotated[str, Field(pattern=NAME)], _Profile], Field(min_length=1)]


def load_sweep(
    path: Path, profile: str | None = None, overrides: Sequence[str] = (), preferred: str | None = None
) -> Sweep:
    """Reads one profile of a sweep file and changes it by ``key=value`` overrides.

    profile: its name; ``None`` is ``preferred`` if the file has a profile of that name, and else the file's first.
    Raises ``ConfigError`` with every mistake of all profiles and of the overrides.
    """
    try:
        raw = read(path)
    except BadYaml as error:
        raise ConfigError(str(error)) from None
    plain = "profiles" not in raw
    if plain and "base" in raw:  # a sweep of one's own needs no profiles
        raw = {"profiles": {"default": {k: raw.pop(k) for k in _Profile.model_fields if k in raw}}, **raw}
    try:
        file = _SweepFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}:", *explain(error, _SweepFile, raw)) from None
    if profile is not None and profile not in file.profiles:
        names = list(file.profiles)
        hint = did_you_mean(profile, names)
        raise ConfigError(f"{path}: no profile {_short(profile)}{hint} Profiles: {', '.join(names)}")

    chosen = profile or (preferred if preferred in file.profiles else next(iter(file.profiles)))
    errors: list[str] = []
    sweeps: dict[str, Sweep] = {}
    for name, content in file.profiles.items():
        where = "" if plain else f"profiles.{name}."
        settings = {"name": file.name, **deepcopy(content.model_dump())}
        if name == chosen:
            errors += _override(settings, overrides)
        try:
            sweeps[name] = _validate(settings, file.question, name)
        except ConfigError as error:
            errors += [f"  {where}{line}" for line in error.lines]
    if errors:
        more = [f"  and {len(errors) - MOST_ERRORS} more"] if len(errors) > MOST_ERRORS else []
        raise ConfigError(f"{path}:", *errors[:MOST_ERRORS], *more)
    return sweeps[chosen]


def _validate(settings: Mapping[str, Any], question: str, profile: str) -> Sweep:
    try:
        base = TrialConfig.model_validate(settings["base"])
    except ValidationError as error:
        raise ConfigError(*(f"base.{line}" for line in explain(error, TrialConfig, settings["base"]))) from None
    errors: list[str] = []
    if not isinstance(settings["name"], str) or not re.fullmatch(NAME, settings["name"]):
        errors.append(
            f"name: letters, digits, '_', '.' and '-' are allowed, as in my_sweep (got {_short(settings['name'])})"
        )
    if "seed" in settings["base"]:
        errors.append("base.seed: seeds are listed under 'seeds', as in seeds=[0,1]")
    axes = {f"axes.{path}": _axis(path, values, errors) for path, values in settings["axes"].items()}
    errors += [f"variants: {problem}" for label in settings["variants"] if (problem := _label_problem(label))]
    if settings["variants"]:
        axes["variants"] = Axis("variant", tuple(settings["variants"].items()))
    if not axes:
        errors.append("axes: there are none. Give at least one, as in axes: {model.adapter.rank: [8, 32]}")
    seeds = settings["seeds"]
    points = sum(len(axis.points) for axis in axes.values()) + (len(seeds) if isinstance(seeds, list) else 0)
    if points > MOST_POINTS:
        raise ConfigError(f"axes: {points:,} values and seeds are more than anybody can run. At most {MOST_POINTS:,}")
    for where, axis in axes.items():
        problems = {path: problem for path in sorted(axis.paths()) if (problem := _path_problem(base, path))}
        errors += [f"{where}: {f'{path}: ' * (path != axis.name)}{problem}" for path, problem in problems.items()]
        errors += [
            f"{where}: the same field is set by {f'axis {other.name!r}' if other.name in other.paths() else 'variants'}"
            for other in axes.values()
            if other is not axis and _overlap(axis.paths(), other.paths())
        ]
        for label, changes in axis.points:
            if problems.keys() & changes.keys():
                continue
            try:
                with_value(base, changes)
            except ConfigError as error:
                errors += [f"{where} = {label}: {line}" for line in error.lines]
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        errors.append(f"seeds: a list of whole numbers from 0 is needed, as in [0, 1, 2] (got {_short(seeds)})")
    elif max(seeds) > LARGEST_SEED:
        errors.append(f"seeds: {max(seeds)} is beyond what torch takes. Allowed: 0 to {LARGEST_SEED}")
    elif len(set(seeds)) < len(seeds):
        errors.append(f"seeds: {_short(seeds)} names one twice")
    search = _search(settings["search"], errors)
    errors += _track_problems(settings["track"])
    if errors:
        raise ConfigError(*errors)
    sweep = Sweep(
        settings["name"], question, profile, base, tuple(axes.values()), tuple(seeds), search, tuple(settings["track"])
    )
    if wrong := _search_problems(sweep):
        raise ConfigError(*wrong)
    return sweep


def _search(settings: Any, errors: list[str]) -> SearchConfig:
    """The search; what is wrong with it is added to ``errors``."""
    raw = {"name": settings} if isinstance(settings, str) else settings
    if not isinstance(raw, dict):
        errors.append(f"search: needs a name, or a mapping as in {{name: random, points: 20}} (got {_short(raw)})")
        return SearchConfig()
    try:
        return SearchConfig.model_validate(raw)
    except ValidationError as error:
        found = zip(error.errors(include_url=False), explain(error, SearchConfig, raw))
        errors += [f"search.{line}" if problem["loc"] else f"search: {line}" for problem, line in found]
        return SearchConfig()


def _search_problems(sweep: Sweep) -> list[str]:
    """Why the search does not fit the axes and seeds."""
    search, wrong = sweep.search, []
    ranges = [axis.name for axis in sweep.axes if axis.between]
    if ranges and search.name == "grid":
        wrong.append(f"axes.{ranges[0]}: a grid has no ranges. List values, or search by search: {{name: random, ...}}")
    elif ranges and (search.points, search.trials) == (None, None):
        wrong.append(f"search: axes.{ranges[0]} is a range and never used up. Give points or trials, as in points: 20")
    if search.first_seeds is not None and search.first_seeds >= len(sweep.seeds):
        count = len(sweep.seeds)
        few = f"search.first_seeds: {search.first_seeds}, but seeds lists {count}"
        wrong.append(f"{few}. Allowed: 2 to {count - 1}" if count > 2 else f"{few}. List at least 3 seeds")
    first = search.first_seeds or len(sweep.seeds)
    if search.name != "grid" and search.trials is not None and search.trials < first:
        wrong.append(f"search.trials: {search.trials} is too few for one configuration at {first} seeds")
    return wrong


def _track_problems(names: Any) -> list[str]:
    """What is wrong with the names of trackers."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return [f"track: a list of trackers is needed, as in [tensorboard] (got {names!r})"]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        return [f"track: names {', '.join(twice)} twice"]
    known = f"Known: {', '.join(TRACKERS)}"
    return [f"track: no tracker '{n}'{did_you_mean(n, TRACKERS)} {known}" for n in names if n not in TRACKERS]


def _overlap(paths: set[str], others: set[str]) -> bool:
    """Whether a path of the one set lies within, or equals, one of the other."""
    return any(f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.") for a in paths for b in others)


def with_value(base: TrialConfig, changes: Mapping[str, Any]) -> TrialConfig:
    """``base`` with the values at some dotted paths replaced, validated anew. Raises ``ConfigError``."""
    raw = base.model_dump()
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = raw
        for parent in parents:
            node = node[parent]
        node[last] = value
    try:
        return TrialConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(*explain(error, TrialConfig, raw)) from None


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


# --- overrides --------------------------------------------------------------------------------------------------------


def _override(settings: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Applies ``key=value`` texts to a profile in place; returns what was wrong with them.

    A key is a path below ``base``, or ``seeds``, or ``name``, or ``search`` and paths below it. The path of an axis
    replaces the axis's values. Their order does not matter: two that set the same field are an error.
    """
    errors, changes, texts = [], {}, {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
            errors.append(
                f"  {_short(text)} is no override. They look like train.epochs=5 or model.adapter.rank=[8,32]"
            )
            continue
        try:
            parsed = parse(value)
        except BadYaml as error:
            errors.append(f"  {key}: {_short(value)} is no YAML value ({error})")
            continue
        if key in ("search", "search.early_stopping") and isinstance(parsed, str):
            key += ".name"
        texts.setdefault(key, []).append(text)
        changes[key] = parsed
    if unclear := list(_unclear(texts, settings["axes"])):
        return [*errors, *unclear]
    if {"dataset.images", "dataset.masks"} & changes.keys():  # paths alone are enough to ask for a folder of pairs
        changes = {"dataset.name": "folder", **changes}
    for key, value in sorted(changes.items(), key=lambda item: _place(item[0])):
        if key in ("seeds", "name", "track"):
            single = (key == "seeds" and type(value) is int) or (key == "track" and isinstance(value, str))
            settings[key] = [value] if single else value
        elif key.partition(".")[0] == "search":
            _set_search(settings, key.split("."), value)
        elif key in settings["axes"]:
            settings["axes"][key] = value if isinstance(value, list | dict) else [value]
        else:
            errors += _set(settings["base"], key.split("."), value)
    return errors


def _unclear(texts: Mapping[str, Sequence[str]], axes: Mapping[str, Any]) -> Iterator[str]:
    """A line for each two overrides, by key, of which the later one would win.

    They have one key, or one sets a mapping that the other's field lies in. An axis's values lie in no mapping.
    """
    for key, of_key in texts.items():
        for text in of_key[1:]:
            yield f"  {_short(of_key[0])} and {_short(text)} set the same field. Give one of them"
        for above in itertools.accumulate(key.split(".")[:-1], "{}.{}".format):
            if above in texts and not {key, above} & axes.keys():
                remedy = "Give one mapping, or single fields, as in model.name=unet model.width=8"
                yield f"  {_short(of_key[0])} and {_short(texts[above][0])} set the same field. {remedy}"


def _place(key: str) -> tuple[bool, int]:
    """In which order overrides are applied: names first, as they start their mapping afresh, and outer ones before."""
    path = key.split(".")
    return path[-1] != "name", len(path)


def _set_search(settings: dict[str, Any], path: list[str], value: Any) -> None:
    """Sets a value of the search. Unlike elsewhere, a new name leaves budgets and early stopping as they are."""
    if path == ["search"] and isinstance(value, str):
        path = ["search", "name"]
    *parents, last = path
    node = settings
    for parent in parents:
        if isinstance(node.get(parent), str):
            node[parent] = {"name": node[parent]}
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    node[last] = value


def _set(node: dict[str, Any], path: list[str], value: Any) -> list[str]:
    """Sets a value in nested mappings; returns why it could not. A new ``name`` starts its mapping afresh: the old
    entry's settings are gone."""
    *parents, last = path
    for depth, parent in enumerate(parents, start=1):
        if isinstance(node.get(parent), str):
            node[parent] = {"name": node[parent]}
        if node.get(parent) is None:
            node[parent] = {}
        if not isinstance(node[parent], dict):
            return [f"  {'.'.join(path)}: {'.'.join(path[:depth])} is {_short(node[parent])}, which has no fields"]
        node = node[parent]
    if last == "name" and node.get("name") != value:
        node.clear()
    node[last] = value
    return []


# --- explaining -------------------------------------------------------------------------------------------------------


def explain(error: ValidationError, cls: type[Config], raw: Any) -> list[str]:
    """pydantic's findings as one line each: where, what came, what is allowed, the nearest remedy."""
    return [_line(found, cls, raw) for found in error.errors(include_url=False)]


def _line(found: Any, cls: type[Config], raw: Any) -> str:
    location, kind, context = found["loc"], found["type"], found.get("ctx", {})
    where = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        fields = _fields_at(cls, raw, location[:-1])
        return f"{where}: unknown key{did_you_mean(str(location[-1]), fields)} Allowed: {', '.join(fields)}"
    if kind == "missing":
        return f"{where}: is missing"
    text = found["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if kind == "multiple_of" and isinstance(found["input"], int):
        step = int(context["multiple_of"])
        low = found["input"] // step * step
        text += f", e.g. {', '.join(str(n) for n in (low, low + step) if n > 0)}"
    if isinstance(found["input"], dict | Config):
        return f"{where}: {text}" if where else text
    return f"{where}: {text} (got {_short(found['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(cls: type[Config], raw: Any, location: Sequence[str | int]) -> list[str]:
    """Names of the fields of the configuration at ``location``, as far as ``raw`` says which entries are meant."""
    for part in location:
        field = cls.model_fields.get(str(part))
        raw = raw.get(part) if isinstance(raw, Mapping) else None
        if field is None:  # a key of a plain mapping, such as a profile's name
            continue
        registry = next((m for m in field.metadata if isinstance(m, Registry)), None)
        if registry is None:
            inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
            cls = next((a for a in inner if issubclass(a, Config)), cls)
        elif isinstance(raw, Mapping) and "name" in raw or isinstance(raw, str):
            cls = registry.module(raw if isinstance(raw, str) else raw["name"]).Config
        elif isinstance(field.default, Config):
            cls = type(field.default)
    return list(cls.model_fields)
