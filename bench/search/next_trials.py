"""Which trials of a sweep to run next: the whole grid, some of its points, more seeds where they decide something.

``plan`` is a function of the sweep and of the records so far, and nothing else: a search that was interrupted comes to
the same trials again, finds most of them done, and goes on. It neither runs anything nor knows who does.
"""

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from operator import attrgetter
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bench.config.axes import Axis
from bench.config.errors import ConfigError
from bench.config.expand import Trial, expand
from bench.config.search import SearchConfig
from bench.config.sweep import Sweep
from bench.leaderboard.ranking import best_row, not_distinguishable
from bench.leaderboard.results import Results, summarise
from bench.records.record import TrialRecord
from bench.scoring.metrics import main_metric

Labels = tuple[str, ...]  # of a point, one on each axis
Images = Mapping[str, Mapping[str, Sequence]]
PATIENCE = 1000  # points drawn in vain before a space with ranges counts as used up


class Plan(NamedTuple):
    """What a search has come to."""

    trials: list[Trial]
    """Rows of the table, whether they were run or not; the configurations in the order in which they were chosen."""
    next: list[Trial]
    """To be run now. None: the search is over."""
    spent: str = ""
    """The budget that ended it before all of ``trials`` were run, in words."""


def settled(sweep: Sweep, records: Mapping[str, TrialRecord]) -> dict[str, TrialRecord]:
    """The records that are results: not errors, and not what another rule has stopped early. Those are run again."""
    rule = sweep.search.early_stopping

    def is_result(record: TrialRecord) -> bool:
        stopped_here = rule is not None and record.stopped_by == rule
        return record.status != "error" and (record.status != "stopped early" or stopped_here)

    return {trial_id: record for trial_id, record in records.items() if is_result(record)}


def plan(
    sweep: Sweep,
    records: Mapping[str, TrialRecord],
    images: Images = MappingProxyType({}),
    *,
    at_once: int = 1,
    left_out: Set[str] = frozenset(),
) -> Plan:
    """The trials so far and the next ones.

    records: of the trials that are not to be run (again), whatever became of them; images: per-image scores by trial
    id, for ``first_seeds``; at_once: how many trials run side by side; left_out: ids of trials that cannot run here.
    """
    search, first = sweep.search, _first_seeds(sweep)
    points: dict[Labels, list[Trial]] = {}  # with the trials of all seeds
    if search.name == "grid":
        for trial in expand(sweep):
            points.setdefault(trial.point, []).append(trial)
    seeds = dict.fromkeys(points, first)  # how many of them, by point
    while True:
        wanted = [
            trial for point, trials in points.items() for trial in _wanted(trials[: seeds[point]], sweep, records)
        ]
        done = [trial for trial in wanted if trial.trial_id in records]
        to_run = [trial for trial in wanted if trial.trial_id not in records and trial.trial_id not in left_out]
        hours_left = search.hours is None or device_hours(done, records) < search.hours
        if to_run:
            break
        if hours_left and (fresh := _propose(sweep, points, records, len(done))):
            points |= {point: expand(_at(sweep, point)) for point in fresh}
            seeds |= dict.fromkeys(fresh, first)
        elif search.first_seeds and (undecided := _undecided(sweep, wanted, seeds, records, images)):
            seeds |= {point: seeds[point] + 1 for point in undecided}
        else:
            break
    if search != SearchConfig():
        place = {seed: number for number, seed in enumerate(sweep.seeds)}
        to_run.sort(key=lambda trial: place[trial.seed])  # a budget cuts seeds before configurations
    upcoming = to_run
    if search.hours is not None:
        upcoming = to_run[:at_once] if hours_left else []
    if search.trials is not None:
        if search.early_stopping:  # which other seeds there are is known when the first ones are in: none takes a place
            first_ones = [trial for trial in upcoming if trial.seed == sweep.seeds[0]]
            upcoming = first_ones or upcoming
        upcoming = upcoming[: max(0, search.trials - len(done))]
    if upcoming or not to_run:
        return Plan(wanted, upcoming)
    budget = f"{search.trials} trials" if hours_left else f"{search.hours:g} hours"
    return Plan(wanted, [], f"the budget of {budget} is spent: {len(to_run)} of {len(wanted)} trials are not run")


def device_hours(trials: Sequence[Trial], records: Mapping[str, TrialRecord]) -> float:
    """Hours that these trials took together, times their devices; a process that was killed left no time to count."""
    found = [records[trial.trial_id] for trial in trials]
    known = [r.provenance.devices * r.provenance.gpu_share for r in found if r.provenance]
    usual = max(known, default=1)  # of a trial that was stopped early nobody has said it
    devices = [r.provenance.devices * r.provenance.gpu_share if r.provenance else usual for r in found]
    return sum(r.timing.total_seconds * count for r, count in zip(found, devices) if r.timing) / 3600


def check(sweep: Sweep, trials: Sequence[Trial]) -> None:
    """Raises ``ConfigError`` for a search that these trials, or this machine, do not allow."""
    search, stopping, wrong = sweep.search, sweep.search.early_stopping, []
    if search.name == "optuna" and importlib.util.find_spec("optuna") is None:
        wrong.append("search.name: optuna is not installed. pip install 'sam3-bench[search]', or take random")
    same = {"dataset": "the score on the validation split"} if search.name == "optuna" else {}
    if stopping:
        fields = ("dataset", "transform", "train.epochs", "train.loss", "train.validate_every")
        same |= dict.fromkeys(fields, "the validation loss")
        if any(trial.config.train.validate_every == 0 for trial in trials):
            wrong.append("search.early_stopping: looks at the validation loss. Set train.validate_every=1")
        shortest = min(trial.config.train.epochs for trial in trials)
        if shortest <= stopping.grace_epochs:
            grace = f"search.early_stopping.grace_epochs: {stopping.grace_epochs} of {shortest} epochs"
            wrong.append(f"{grace} stops nothing. Allowed: less than train.epochs")
    for field, what in same.items():
        if len({repr(attrgetter(field)(trial.config)) for trial in trials}) > 1:
            wrong.append(f"search: {what} is compared, and {field} changes what it means. Make a sweep of each")
    if wrong:
        raise ConfigError(f"{sweep.name}:", *(f"  {line}" for line in wrong))


def needs_validation(sweep: Sweep) -> str | None:
    """What looks at the validation split, as ``prepare_data`` tells a user whose data have none."""
    if sweep.search.early_stopping:
        return "search.early_stopping"
    return "search.name: optuna" if sweep.search.name == "optuna" else None


def _first_seeds(sweep: Sweep) -> int:
    return sweep.search.first_seeds or len(sweep.seeds)


def _wanted(trials: Sequence[Trial], sweep: Sweep, records: Mapping[str, TrialRecord]) -> Sequence[Trial]:
    """A point's trials. With early stopping the first seed comes first, and decides whether there are others."""
    if sweep.search.early_stopping is None:
        return trials
    first = records.get(trials[0].trial_id)
    return trials[:1] if first is None or first.status == "stopped early" else trials


# --- choosing points --------------------------------------------------------------------------------------------------


def _propose(
    sweep: Sweep, points: Mapping[Labels, list[Trial]], records: Mapping[str, TrialRecord], done: int
) -> list[Labels]:
    """New points, as many as the search still takes; none from a grid, which has all of its own."""
    search = sweep.search
    if search.name == "grid":
        return []
    limits = [math.inf if search.points is None else search.points - len(points)]
    if search.trials is not None:
        limits.append((search.trials - done) // _first_seeds(sweep))
    if search.name == "optuna" or search.hours is not None:
        limits.append(search.batch)
    count = max(0, min(limits))
    proposed: list[Labels] = []
    if search.name == "optuna" and count:
        from bench.search.optuna_sampler import propose  # an optional package

        told = [_told(point, trials, sweep, records) for point, trials in points.items()]
        proposed = propose(sweep.axes, told, count, search.seed)
    for point in _at_random(sweep.axes, search.seed):
        if len(proposed) >= count:
            break
        if point not in points and point not in proposed:
            proposed.append(point)
    return proposed


def _at_random(axes: Sequence[Axis], seed: int) -> Iterator[Labels]:
    """Distinct points of the space in random order, all of them where there are no ranges."""
    rng = np.random.default_rng(seed)
    if not any(axis.between for axis in axes):
        shape = tuple(len(axis.points) for axis in axes)
        for number in rng.permutation(math.prod(shape)):
            places = np.unravel_index(number, shape)
            yield tuple(axis.chosen(int(place))[0] for axis, place in zip(axes, places))
        return
    seen: set[Labels] = set()
    in_vain = 0
    while in_vain < PATIENCE:
        choice = [rng.random() if axis.between else int(rng.integers(len(axis.points))) for axis in axes]
        point = tuple(axis.chosen(c)[0] for axis, c in zip(axes, choice))
        in_vain = in_vain + 1 if point in seen else 0
        if point not in seen:
            seen.add(point)
            yield point


def _at(sweep: Sweep, point: Labels) -> Sweep:
    """The sweep with nothing but one point."""
    chosen = [Axis(axis.name, (axis.chosen(axis.choice(label)),)) for axis, label in zip(sweep.axes, point)]
    return sweep._replace(axes=tuple(chosen))


def _told(point: Labels, trials: Sequence[Trial], sweep: Sweep, records: Mapping[str, TrialRecord]) -> Any:
    """What Optuna is told of a point: the mean over seeds of its main metric on the validation split."""
    from bench.search.optuna_sampler import Told

    found = [records[t.trial_id] for t in trials[: _first_seeds(sweep)] if t.trial_id in records]
    scores = [record.val_scores for record in found if record.status == "ok" and record.val_scores]
    if scores:
        metric = main_metric(scores[0])
        return Told(point, fmean(of_seed[metric] for of_seed in scores))
    losses = [
        (p.epoch, p.val_loss) for r in found if r.status == "stopped early" for p in r.curve if p.val_loss is not None
    ]
    return Told(point, None, losses[-1] if losses else None)


# --- more seeds -------------------------------------------------------------------------------------------------------


def _undecided(
    sweep: Sweep,
    trials: Sequence[Trial],
    seeds: Mapping[Labels, int],
    records: Mapping[str, TrialRecord],
    images: Images,
) -> list[Labels]:
    """The points that need another seed: the best ones of the table's main metric that it cannot tell apart, as far as
    they have the fewest seeds among them; none when all seeds are used or the best one stands alone."""
    known = {trial.trial_id: images[trial.trial_id] for trial in trials if trial.trial_id in images}
    metric = main_metric(next(iter(known.values()), ()))
    only = {trial_id: {"name": of_trial["name"], metric: of_trial[metric]} for trial_id, of_trial in known.items()}
    found = []
    for table in summarise(Results(sweep, trials, records, only)).tables if only else ():
        tied = not_distinguishable(table, metric)
        contested = [table.rows[i].labels for i in sorted(tied | {best_row(table, metric)})] if tied else []
        fewest = min((seeds[point] for point in contested), default=len(sweep.seeds))
        found += [point for point in contested if seeds[point] == fewest < len(sweep.seeds)]
    return list(dict.fromkeys(found))
