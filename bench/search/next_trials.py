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
from bench.config.expand import Candidates, Trial, expand
from bench.config.search import METHODS, SearchConfig
from bench.config.sweep import Sweep
from bench.leaderboard.tuning.choice import choose
from bench.records.device_hours import device_hours
from bench.records.record import TrialRecord
from bench.scoring.metrics import main_metric
from bench.search.methods import Labels, Observation
from bench.search.more_seeds import Images, undecided


class Plan(NamedTuple):
    """The trials that a search has chosen so far."""

    trials: list[Trial]
    """Trials of the rows, whether they were run or not, and candidates for tuned values; the configurations in the
    order in which they were chosen."""
    next: list[Trial]
    """Trials that run now; none when the search is over."""
    spent: str = ""
    """The budget that ended the search before all of ``trials`` were run, in words."""
    candidates: list[Candidates] = []
    """The candidates of each row, if the sweep tunes values."""
    lost: frozenset[str] = frozenset()
    """Ids of candidates that lost to another one, and so are in no row."""


class _Point(NamedTuple):
    """A point of the space: for each combination of tuned values its trials, one for each seed."""

    options: list[tuple[Trial, ...]]

    @property
    def firsts(self) -> tuple[Trial, ...]:
        """The candidates: each combination at the first seed. One if nothing is tuned."""
        return tuple(trials[0] for trials in self.options)

    def row(self, records: Mapping[str, TrialRecord], left_out: Set[str] = frozenset()) -> Sequence[Trial]:
        """Returns the trials of the row at all seeds; none while its tuned values are not chosen."""
        if len(self.options) == 1:
            return self.options[0]
        chosen = choose(self.firsts, records, left_out)
        return () if chosen is None else self.options[self.firsts.index(chosen)]


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
    points: dict[Labels, _Point] = {}
    seeds: dict[Labels, int] = {}  # number of seeds at which a point is run
    while True:
        wanted: list[Trial] = []
        rows: list[Trial] = []
        for labels, point in points.items():
            row = point.row(records, left_out)[: seeds[labels]]
            wanted += _wanted(row, sweep, records) if len(point.options) == 1 else [*point.firsts, *row[1:]]
            rows += row
        done = [trial for trial in wanted if trial.trial_id in records]
        to_run = [trial for trial in wanted if trial.trial_id not in records and trial.trial_id not in left_out]
        hours_left = search.hours is None or device_hours(done, records) < search.hours
        if to_run:
            break
        proposed = _propose(sweep, points, records, len(done), left_out) if hours_left else []
        for labels in proposed:
            points[labels] = _point(sweep, labels)
            seeds[labels] = _first_seeds(sweep)
        if proposed:
            continue
        contested = undecided(sweep, rows, seeds, records, images) if search.first_seeds else []
        if not contested:
            break
        for labels in contested:
            seeds[labels] += 1
    upcoming = _within_budget(sweep, to_run, len(done), hours_left, at_once)
    found = Plan(wanted, upcoming)
    if sweep.tune:
        fields = tuple(axis.name for axis in sweep.tune)
        lost = {t.trial_id for point in points.values() if point.row(records, left_out) for t in point.firsts}
        lost -= {trial.trial_id for trial in rows}
        found = found._replace(candidates=[Candidates(fields, p.firsts) for p in points.values()], lost=frozenset(lost))
    if upcoming or not to_run:
        return found
    budget = f"{search.trials} trials" if hours_left else f"{search.hours:g} hours"
    spent = f"the budget of {budget} is spent: {len(to_run)} of {len(wanted)} trials are not run"
    return found._replace(spent=spent)


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


def _first_seeds(sweep: Sweep) -> int:
    """Number of seeds at which every configuration is run."""
    return sweep.search.first_seeds or len(sweep.seeds)


def _point(sweep: Sweep, labels: Labels) -> _Point:
    """Returns the point with these labels."""
    trials, seeds = expand(_at(sweep, labels)), len(sweep.seeds)
    return _Point([tuple(trials[start : start + seeds]) for start in range(0, len(trials), seeds)])


def _wanted(trials: Sequence[Trial], sweep: Sweep, records: Mapping[str, TrialRecord]) -> Sequence[Trial]:
    """Selects a point's trials. With early stopping the first seed decides whether the others run."""
    if sweep.search.early_stopping is None:
        return trials
    first = records.get(trials[0].trial_id)
    return trials[:1] if first is None or first.status == "stopped early" else trials


def _propose(
    sweep: Sweep, points: Mapping[Labels, _Point], records: Mapping[str, TrialRecord], done: int, left_out: Set[str]
) -> list[Labels]:
    """Lets the search method propose new points, as many as the search still takes."""
    search, method = sweep.search, METHODS.module(sweep.search.name)
    limits = [math.inf if search.points is None else search.points - len(points)]
    if search.trials is not None and not method.EXHAUSTIVE:
        tried = math.prod(len(axis.points) for axis in sweep.tune)
        limits.append((search.trials - done) // (_first_seeds(sweep) + tried - 1))
    if (method.LEARNS or search.hours is not None) and not method.EXHAUSTIVE:
        limits.append(search.batch)
    observations = []
    for labels, point in points.items():
        observations.append(_observation(labels, point.row(records, left_out), sweep, records))
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
