"""Reads a sweep file into a typed ``Sweep``, and reports all of its mistakes at once, before any work."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, NonNegativeInt, ValidationError

from bench.config import paths
from bench.config.ask import MARGIN, AskConfig, parse_ask
from bench.config.axes import MOST_POINTS, Axis, is_label, not_a_label, parse_axis, path_error
from bench.config.errors import MOST_ERRORS, ConfigError, explain, shortened
from bench.config.overrides import apply_overrides
from bench.config.search import SearchConfig
from bench.config.trial import TrialConfig, with_value
from bench.config.tune import parse_tune, seeds_of_choice
from bench.config.yaml_file import BadYaml, read
from models.core.registry import Config, Registry, did_you_mean

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
"""Names of sweeps and profiles; they become folders below the results."""
LARGEST_SEED = 2**63 - 1
TRACKERS = Registry("bench.watching.trackers", "tracker")
"""Trackers that ``track`` of a sweep may name."""


class Sweep(NamedTuple):
    """One profile of a sweep file, validated: each axis names fields of ``base`` and has values that they allow."""

    name: str
    question: str
    profile: str
    base: TrialConfig
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    search: SearchConfig = SearchConfig()
    track: tuple[str, ...] = ()
    """Names of the trackers that log the trials."""
    ask: AskConfig = AskConfig()
    tune: tuple[Axis, ...] = ()
    """Fields whose values are chosen for each row on the validation split, each with the values that are tried."""
    tune_seeds: int = 1
    """Number of first seeds at which each of these values is tried."""


class _Profile(Config):
    base: dict[str, Any]
    axes: dict[str, Any] = {}
    variants: dict[str, dict[str, Any]] = {}
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)]
    search: dict[str, Any] | str = {}
    track: list[str] = []
    ask: Any = None
    margin: Any = MARGIN
    tune: Any = None


class _SweepFile(Config):
    name: Annotated[str, Field(pattern=NAME)]
    question: Annotated[str, Field(min_length=1)]
    profiles: Annotated[dict[Annotated[str, Field(pattern=NAME)], _Profile], Field(min_length=1)]


def load_sweep(
    path: Path,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    preferred: str | None = None,
    answers: bool = True,
) -> Sweep:
    """Reads one profile of a sweep file and changes it by ``key=value`` overrides.

    profile: its name; ``None`` is ``preferred`` if the file has a profile of that name, and else the file's first.
    answers: whether the planned question is needed. If not, it need not fit the axes, and is the default one.
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
        raise ConfigError(f"{path}: no profile {shortened(profile)}{hint} Profiles: {', '.join(names)}")

    chosen = profile or (preferred if preferred in file.profiles else next(iter(file.profiles)))
    errors: list[str] = []
    sweeps: dict[str, Sweep] = {}
    for name, content in file.profiles.items():
        where = "" if plain else f"profiles.{name}."
        settings = {"name": file.name, **deepcopy(content.model_dump())}
        if name == chosen:
            errors += apply_overrides(settings, overrides)
        if not answers:
            settings["ask"] = None
        try:
            sweeps[name] = _validate(settings, file.question, name)
        except ConfigError as error:
            errors += [f"  {where}{line}" for line in error.lines]
    if errors:
        shown = errors[:MOST_ERRORS]
        if len(errors) > MOST_ERRORS:
            shown.append(f"  and {len(errors) - MOST_ERRORS} more")
        raise ConfigError(f"{path}:", *shown)
    return sweeps[chosen]


def _validate(settings: Mapping[str, Any], question: str, profile: str) -> Sweep:
    """Makes a sweep from the settings of a profile. Raises ``ConfigError`` with every mistake."""
    try:
        base = TrialConfig.model_validate(settings["base"])
    except ValidationError as error:
        raise ConfigError(*(f"base.{line}" for line in explain(error, TrialConfig, settings["base"]))) from None
    name, seeds = settings["name"], settings["seeds"]
    errors: list[str] = []
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        errors.append(f"name: letters, digits, '_', '.' and '-' are allowed, as in my_sweep (got {shortened(name)})")
    if "seed" in settings["base"]:
        errors.append("base.seed: seeds are listed under 'seeds', as in seeds=[0,1]")
    axes = _axes(settings, errors)
    tune = parse_tune(settings["tune"], errors)
    points = sum(len(axis.points) for axis in axes.values()) + (len(seeds) if isinstance(seeds, list) else 0)
    if points > MOST_POINTS:
        raise ConfigError(f"axes: {points:,} values and seeds are too many. At most {MOST_POINTS:,}")
    varied = axes | {f"tune.{axis.name}": axis for axis in tune}
    for where in varied:
        errors += _axis_errors(base, varied, where)
    ask = parse_ask(settings["ask"], settings["margin"], list(axes.values()), errors)
    errors += _seed_errors(seeds)
    tune_seeds = seeds_of_choice(settings["tune"], len(seeds), errors) if isinstance(seeds, list) else 1
    search = _search(settings["search"], errors)
    errors += _track_errors(settings["track"])
    if errors:
        raise ConfigError(*errors)
    track = tuple(settings["track"])
    varied = tuple(axes.values())
    sweep = Sweep(name, question, profile, base, varied, tuple(seeds), search, track, ask, tune, tune_seeds)
    errors = _search_errors(sweep)
    if errors:
        raise ConfigError(*errors)
    return sweep


def _axes(settings: Mapping[str, Any], errors: list[str]) -> dict[str, Axis]:
    """Makes the axes of a profile, by their places in the file; appends to ``errors``."""
    axes = {f"axes.{path}": parse_axis(path, values, errors) for path, values in settings["axes"].items()}
    for label in settings["variants"]:
        if not is_label(label):
            errors.append(f"variants: {not_a_label(label)}")
    if settings["variants"]:
        axes["variants"] = Axis("variant", tuple(settings["variants"].items()))
    if not axes:
        errors.append("axes: there are none. Give at least one, as in axes: {model.adapter.rank: [8, 32]}")
    return axes


def _axis_errors(base: TrialConfig, axes: Mapping[str, Axis], where: str) -> Iterator[str]:
    """Yields the errors of one axis: unknown fields, fields of another axis, and values that are not allowed."""
    axis = axes[where]
    unknown = set()
    for path in sorted(axis.paths()):
        reason = path_error(base, path)
        if reason:
            unknown.add(path)
            yield f"{where}: {reason}" if path == axis.name else f"{where}: {path}: {reason}"
    for place, other in axes.items():
        if other is axis or place.startswith("tune."):  # a tuned field reports the conflict
            continue
        if paths.overlap(axis.paths(), other.paths()):
            by = f"axis {other.name!r}" if other.name in other.paths() else "variants"
            yield f"{where}: the same field is set by {by}"
    for label, changes in axis.points:
        if unknown & changes.keys():
            continue
        lost = list(_lost(changes))
        yield from (f"{where} = {label}: {line}" for line in lost)
        if lost:
            continue
        try:
            with_value(base, changes)
        except ConfigError as error:
            for line in error.lines:
                yield f"{where} = {label}: {line}"


def _lost(changes: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each field of a point beside a value of the whole part, which has no place for the field or
    replaces it. Fields after a mapping change the mapping."""
    given = list(changes)
    for path in given:
        for above in paths.prefixes(path):
            if above not in changes:
                continue
            if not isinstance(changes[above], Mapping) or given.index(above) > given.index(path):
                field = path.removeprefix(f"{above}.").split(".")[0]
                remedy = f"Give one mapping, as in {above}: {{name: ..., {field}: ...}}"
                yield f"{above}: {shortened(changes[above])} and {path} set the same field. {remedy}"


def _seed_errors(seeds: Any) -> Iterator[str]:
    """Yields the error of a list of seeds."""
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        yield f"seeds: a list of whole numbers from 0 is needed, as in [0, 1, 2] (got {shortened(seeds)})"
    elif max(seeds) > LARGEST_SEED:
        yield f"seeds: {max(seeds)} is beyond what torch takes. Allowed: 0 to {LARGEST_SEED}"
    elif len(set(seeds)) < len(seeds):
        yield f"seeds: {shortened(seeds)} names one twice"


def _search(settings: Any, errors: list[str]) -> SearchConfig:
    """Parses the settings of the search; appends to ``errors``."""
    raw = {"name": settings} if isinstance(settings, str) else settings
    if not isinstance(raw, dict):
        errors.append(f"search: needs a name, or a mapping as in {{name: random, points: 20}} (got {shortened(raw)})")
        return SearchConfig()
    try:
        return SearchConfig.model_validate(raw)
    except ValidationError as error:
        found = zip(error.errors(include_url=False), explain(error, SearchConfig, raw))
        errors += [f"search.{line}" if problem["loc"] else f"search: {line}" for problem, line in found]
        return SearchConfig()


def _search_errors(sweep: Sweep) -> list[str]:
    """Returns the reasons why the search does not fit the axes and seeds."""
    search, wrong = sweep.search, []
    ranges = [axis.name for axis in sweep.axes if axis.between]
    if ranges and search.is_exhaustive:
        wrong.append(f"axes.{ranges[0]}: a grid has no ranges. List values, or search by search: {{name: random, ...}}")
    elif ranges and (search.points, search.trials) == (None, None):
        wrong.append(f"search: axes.{ranges[0]} is a range and never used up. Give points or trials, as in points: 20")
    if search.first_seeds is not None and search.first_seeds >= len(sweep.seeds):
        count = len(sweep.seeds)
        few = f"search.first_seeds: {search.first_seeds}, but seeds lists {count}"
        wrong.append(f"{few}. Allowed: 2 to {count - 1}" if count > 2 else f"{few}. List at least 3 seeds")
    first = search.first_seeds or len(sweep.seeds)
    values = math.prod(len(axis.points) for axis in sweep.tune)
    if (
        not search.is_exhaustive
        and search.trials is not None
        and search.trials < first + (values - 1) * sweep.tune_seeds
    ):
        at = f"{first} seeds" if values == 1 else f"{first} seeds and {values} tuned values"
        wrong.append(f"search.trials: {search.trials} is too few for one configuration at {at}")
    if sweep.tune and search.early_stopping:
        wrong.append("tune: early stopping would end trials before they are compared. Leave out search.early_stopping")
    return wrong


def _track_errors(names: Any) -> list[str]:
    """Returns the errors in the names of trackers."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return [f"track: a list of trackers is needed, as in [tensorboard] (got {names!r})"]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        return [f"track: names {', '.join(twice)} twice"]
    known = TRACKERS.names()
    problems = []
    for name in names:
        if name not in known:
            problems.append(f"track: no tracker '{name}'{did_you_mean(name, known)} Known: {', '.join(known)}")
    return problems


def folder_name(sweep: Sweep) -> str:
    """Returns the name of the results folder: the sweep's, with the profile unless that is ``embedded``."""
    return sweep.name if sweep.profile in ("embedded", "default") else f"{sweep.name}-{sweep.profile}"
