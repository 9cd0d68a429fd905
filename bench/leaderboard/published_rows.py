"""External methods and published numbers: shown beside the rows of a leaderboard, never ranked with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.config.expand import Trial
from bench.leaderboard import published
from bench.leaderboard.published import Result, Source
from bench.records.external_scores import ExternalRecord
from bench.records.record import TrialRecord


@dataclass(frozen=True)
class External:
    """A method that was scored from its prediction files."""

    record: ExternalRecord
    differs: str  # why its scores must not be compared with the trials'; empty if they may

    @property
    def origin(self) -> str:
        """The source of its scores, in words."""
        return f"{self.record.predictions} ({self.record.protocol}, {self.record.scored[:10]})"


@dataclass(frozen=True)
class PublishedRow:
    """Published scores, and their distance to the row that builds the same model."""

    result: Result
    source: Source
    point: tuple[str, ...] | None  # labels of the row that builds the published model; None if no row does
    gaps: Mapping[str, float]  # measured minus published, by metric; empty without such a row

    @property
    def origin(self) -> str:
        """The source of its numbers and how it was checked, in words."""
        checked = "read in the source" if self.source.verified == "source" else f"second hand: {self.source.how}"
        protocol = "; protocol not stated" if self.result.protocol == "unstated" else ""
        return f"{self.source.text}; {checked}{protocol}"


@dataclass(frozen=True)
class Beside:
    """External methods, and published numbers on the benchmark that the trials were scored on."""

    external: tuple[External, ...] = ()
    test_set: str | None = None  # name of the benchmark; None for other data
    published: tuple[PublishedRow, ...] = ()


def beside(
    trials: Sequence[Trial],
    records: Mapping[str, TrialRecord],
    images: Mapping[str, Mapping[str, Sequence]],
    external: Sequence[ExternalRecord],
    embedded: bool,
) -> Beside:
    """Returns external methods and published numbers.

    Published numbers are returned for real models on a whole benchmark only, because beside stand-ins they mislead.
    """
    names = next((images[t.trial_id]["name"] for t in trials if t.trial_id in images), None)
    rows = tuple(External(record, _difference(record, trials, names)) for record in external)
    sizes = {_test_images(records.get(trial.trial_id)) for trial in trials} - {None}
    test_sets = {published.test_set_of(trial.config, sizes) for trial in trials}
    if embedded or len(test_sets) != 1 or None in test_sets:
        return Beside(rows)
    (test_set,) = test_sets
    known = published.load()
    protocols = {trial.config.protocol.name for trial in trials}
    results = known.of(test_set, next(iter(protocols))) if len(protocols) == 1 else []
    found = [PublishedRow(r, known.sources[r.source], *_reproduction(r, trials, records)) for r in results]
    return Beside(rows, test_set, tuple(found))


def _reproduction(
    result: Result, trials: Sequence[Trial], records: Mapping[str, TrialRecord]
) -> tuple[tuple[str, ...] | None, dict[str, float]]:
    """Returns the labels of the row that builds the method as published, and its distance on each metric."""
    if result.protocol == "unstated":
        return None, {}
    points: dict[tuple[str, ...], list[TrialRecord]] = {}
    for trial in trials:
        record = records.get(trial.trial_id)
        if record is None or record.status != "ok" or not record.scores:
            continue
        as_published = trial.config.protocol == type(trial.config.protocol)(name=result.protocol)
        if as_published and published.load().method_of(trial.config) == result.method:
            points.setdefault(trial.point, []).append(record)
    if len(points) != 1:  # rows that build the paper's model and differ in training are ambiguous
        return None, {}
    ((point, found),) = points.items()
    gaps = {}
    for metric, value in result.scores.items():
        if all(metric in record.scores for record in found):
            gaps[metric] = fmean(record.scores[metric] for record in found) - value
    return point, gaps


def _difference(record: ExternalRecord, trials: Sequence[Trial], names: Sequence[str] | None) -> str:
    protocols = {(trial.config.protocol.name, trial.config.protocol.minmax) for trial in trials}
    if protocols != {(record.protocol, record.minmax)}:
        return "another protocol than the trials'"
    if names is None or record.image_scores is None:
        return "unknown whether the images are the trials'"
    return "" if sorted(names) == sorted(record.image_scores["name"]) else "other images than the trials'"


def _test_images(record: TrialRecord | None) -> int | None:
    return record.provenance.images.get("test") if record and record.provenance else None
