"""Which trials of a sweep run next: the whole grid, some of its points, and more seeds where they decide something.

``plan`` is a function of the sweep and of the records so far, and of nothing else. So a search that was interrupted
comes to the same trials again, finds most of them done, and continues. It neither runs trials nor depends on the code
that does.
"""

import math
from collections.abc import Mapping, Sequence, Set
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

from bench.config.axes import Axis
from bench.config.expand import Trial, expand
from bench.config.search import METHODS, SearchConfig
from bench.config.sweep import Sweep
from bench.records.record import TrialRecord
from bench.scoring.metrics import main_metric
from bench.search.methods import Labels, Observation
from bench.search.more_seeds import Images, undecided


class Plan(NamedTuple):
    """The trials that a search has chosen so far."""

    trials: list[Trial]
    """Rows of the table, whether they were run or not; the configurations in the order in which they were chosen."""
    next: list[Trial]
    """Trials that run now; none when the search is over."""
    spent: str = ""
    """The budget that ended the search before all of ``trials`` were run, in words."""


def settled(sweep: Sweep, records: Mapping[str, TrialRecord]) -> dict[str, TrialRecord]:
    """Selects the records that are results. Errors, and trials that another rule stopped early, are run again."""
    rule = sweep.search.early_stopping
    results = {}
    for trial_id, record in records.items():
        stopped_by_another_rule = record.status == "stopped early" and (rule is None or record.stopped_by != rule)
        if record.status != "error" and not stopped_by_another_rule:
            results[trial_id] = record
    return results


def plan(
    sweep: Sweep,
    records: Mapping[str, TrialRecord],
    images: Images = MappingProxyType({}),
    *,
    at_once: int = 1,
    left_out: Set[str] = frozenset(),
) -> Plan:
    """Chooses the trials so far and the next ones.

    records: of the trials that are not run (again), with any status; images: per-image scores by trial id, for
    ``first_seeds``; at_once: number of trials that run at the same time; left_out: ids of trials that cannot run here.
    """
    search = sweep.search
    points: dict[Labels, list[Trial]] = {}  # with the trials of all seeds
    seeds: dict[Labels, int] = {}  # number of seeds at which a point is run
    while True:
        wanted: list[Trial] = []
        for point, trials in points.items():
            wanted += _wanted(trials[: seeds[point]], sweep, records)
        done = [trial for trial in wanted if trial.trial_id in records]
        to_run = [trial for trial in wanted if trial.trial_id not in records and trial.trial_id not in left_out]
        hours_left = search.hours is None or device_hours(done, records) < search.hours
        if to_run:
            break
        if hours_left and (proposed := _propose(sweep, points, records, len(done))):
            points |= {point: expand(_at(sweep, point)) for point in proposed}
            seeds |= dict.fromkeys(proposed, _first_seeds(sweep))
        elif search.first_seeds and (contested := undecided(sweep, wanted, seeds, records, images)):
            seeds |= {point: seeds[point] + 1 for point in contested}
        else:
            break
    upcoming = _within_budget(sweep, to_run, len(done), hours_left, at_once)
    if upcoming or not to_run:
        return Plan(wanted, upcoming)
    budget = f"{search.trials} trials" if hours_left else f"{search.hours:g} hours"
    return Plan(wanted, [], f"the budget of {budget} is spent: {len(to_run)} of {len(wanted)} trials are not run")


def _within_budget(sweep: Sweep, to_run: list[Trial], done: int, hours_left: bool, at_once: int) -> list[Trial]:
    """Selects the trials that the budget allows now. Sorts ``to_run``: a budget cuts seeds before configurations."""
    search = sweep.search
    if search != SearchConfig():
        place = {seed: number for number, seed in enumerate(sweep.seeds)}
        to_run.sort(key=lambda trial: place[trial.seed])
    upcoming = to_run
    if search.hours is not None:
        upcoming = to_run[:at_once] if hours_left else []
    if search.trials is not None:
        if search.early_stopping:  # results of the first seed decide which trials of other seeds count in the budget
            first_ones = [trial for trial in upcoming if trial.seed == sweep.seeds[0]]
            upcoming = first_ones or upcoming
        upcoming = upcoming[: max(0, search.trials - done)]
    return upcoming


def device_hours(trials: Sequence[Trial], records: Mapping[str, TrialRecord]) -> float:
    """Sums up the hours of these trials, times their devices. A process that was killed has left no time to count."""
    found = [records[trial.trial_id] for trial in trials]
    known = [record.provenance.devices * record.provenance.gpu_share for record in found if record.provenance]
    usual = max(known, default=1)  # for trials that were stopped early, whose records do not have it
    seconds = 0.0
    for record in found:
        devices = usual
        if record.provenance:
            devices = record.provenance.devices * record.provenance.gpu_share
        if record.timing:
            seconds += record.timing.total_seconds * devices
    return seconds / 3600


def _first_seeds(sweep: Sweep) -> int:
    """Number of seeds at which every configuration is run."""
    return sweep.search.first_seeds or len(sweep.seeds)


def _wanted(trials: Sequence[Trial], sweep: Sweep, records: Mapping[str, TrialRecord]) -> Sequence[Trial]:
    """Selects a point's trials. With early stopping the first seed decides whether the others run."""
    if sweep.search.early_stopping is None:
        return trials
    first = records.get(trials[0].trial_id)
    return trials[:1] if first is None or first.status == "stopped early" else trials


def _propose(
    sweep: Sweep, points: Mapping[Labels, list[Trial]], records: Mapping[str, TrialRecord], done: int
) -> list[Labels]:
    """Lets the search method propose new points, as many as the search still takes."""
    search, method = sweep.search, METHODS.module(sweep.search.name)
    limits = [math.inf if search.points is None else search.points - len(points)]
    if search.trials is not None and not method.EXHAUSTIVE:
        limits.append((search.trials - done) // _first_seeds(sweep))
    if (method.LEARNS or search.hours is not None) and not method.EXHAUSTIVE:
        limits.append(search.batch)
    observations = [_observation(point, trials, sweep, records) for point, trials in points.items()]
    return method.propose(sweep.axes, observations, max(0, min(limits)), search.seed)


def _at(sweep: Sweep, point: Labels) -> Sweep:
    """The sweep with a single point."""
    chosen = [Axis(axis.name, (axis.chosen(axis.choice(label)),)) for axis, label in zip(sweep.axes, point)]
    return sweep._replace(axes=tuple(chosen))


def _observation(
    point: Labels, trials: Sequence[Trial], sweep: Sweep, records: Mapping[str, TrialRecord]
) -> Observation:
    """The result of a point: the mean over seeds of its main metric on the validation split."""
    found = [records[t.trial_id] for t in trials[: _first_seeds(sweep)] if t.trial_id in records]
    scores = [record.val_scores for record in found if record.status == "ok" and record.val_scores]
    if scores:
        metric = main_metric(scores[0])
        return Observation(point, fmean(of_seed[metric] for of_seed in scores))
    stopped = None
    for record in found:
        if record.status == "stopped early":
            for entry in record.curve:
                if entry.val_loss is not None:
                    stopped = entry.epoch, entry.val_loss
    return Observation(point, None, stopped)
