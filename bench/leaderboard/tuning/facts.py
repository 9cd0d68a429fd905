"""What a reader must know of tuned values: each row's value and its caveats, how it was chosen, and the cost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.config import paths
from bench.config.axes import NOT_THERE, label
from bench.config.expand import Candidates, Trial, row_key
from bench.leaderboard.tuning.choice import choose, validation_score, waiting
from bench.records.device_hours import device_hours
from bench.records.record import TrialRecord
from bench.scoring.metrics import METRICS, main_metric

Records = Mapping[str, TrialRecord]


@dataclass(frozen=True)
class Tuned:
    """The tuned values of a row."""

    state: Literal["tuned", "waiting", "failed"]
    values: tuple[tuple[str, str], ...] = ()  # field and text of the chosen value; empty while nothing is chosen
    notes: tuple[str, ...] = ()  # caveats of the choice
    errors: tuple[str, ...] = ()  # the reason why nothing can be chosen
    to_run: str = ""  # how many trials of the choice have no record, as "1 of 4"; empty after the choice

    @property
    def text(self) -> str:
        """The cell of the row in tables."""
        if self.state == "tuned":
            return f"{', '.join(f'{field} {value}' for field, value in self.values)} (tuned)"
        if self.state == "waiting":
            return f"not chosen: no record of {self.to_run} trials"
        return "none: all failed"


@dataclass(frozen=True)
class Candidate:
    """One trial of the choice."""

    labels: tuple[str, ...]  # of its row on each axis
    values: tuple[tuple[str, str], ...]
    seed: int
    status: str
    metric: str | None  # main metric on the validation split, and the score; None if the trial failed
    score: float | None
    chosen: bool
    seconds: float | None
    trial_id: str


@dataclass(frozen=True)
class Tuning:
    """The choice of all tuned values of a leaderboard."""

    candidates: tuple[Candidate, ...] = ()
    sentences: tuple[str, ...] = ()  # how values were chosen, and what that cost

    def __bool__(self) -> bool:
        return bool(self.candidates)


def tuned_of(candidates: Candidates, records: Records, left_out: Collection[str] = ()) -> Tuned:
    """Returns the tuned values of a row."""
    trials = candidates.trials
    states = {trial.trial_id: _status(trial, records, left_out) for trial in trials}
    if waiting(trials, records, left_out) or set(states.values()) == {"missing"}:
        without = sum(trial.trial_id not in records for trial in trials)
        return Tuned("waiting", to_run=f"{without} of {len(trials)}")
    failed = [t for t in trials if validation_score(records.get(t.trial_id)) is None]
    losers = ", ".join(f"{_words(candidates, trial)} ({states[trial.trial_id]})" for trial in failed)
    chosen = choose(trials, records, left_out)
    if chosen is None:
        fields = " and ".join(candidates.fields)
        reason = f"no value of {fields} can be chosen, because all {len(trials)} trials of the choice failed"
        return Tuned("failed", errors=(f"{reason}: {losers}",))
    borders = [_at_border(candidates, chosen, field) for field in candidates.fields]
    notes = [note for note in borders if note]
    if failed:
        notes.append(f"trials of the choice that failed, and so lost: {losers}")
    return Tuned("tuned", tuple(_values(candidates, chosen)), tuple(notes))


def _at_border(candidates: Candidates, chosen: Trial, field: str) -> str:
    """Returns a note if the chosen value is the largest or smallest number that was tried."""
    tried = [_value(trial, field) for trial in candidates.trials]
    if not all(type(value) in (int, float) for value in tried) or len(set(tried)) < 2:
        return ""
    value = _value(chosen, field)
    if value not in (min(tried), max(tried)):
        return ""
    end, other = ("largest", "larger") if value == max(tried) else ("smallest", "smaller")
    return f"the chosen {field} {value:g} is the {end} that was tried: a {other} one may be better"


def tuning_of(
    tuned: Sequence[Candidates], records: Records, left_out: Collection[str] = (), rows: Collection[str] = ()
) -> Tuning:
    """Returns the facts of the choice of all tuned values. rows: ids of the trials that are in rows."""
    lines = []
    for group in tuned:
        chosen = choose(group.trials, records, left_out)
        key = row_key(chosen) if chosen else None
        lines += [_candidate(group, trial, records, left_out, row_key(trial) == key) for trial in group.trials]
    return Tuning(tuple(lines), tuple(_sentences(tuned, records, rows)))


def _candidate(group: Candidates, trial: Trial, records: Records, left_out: Collection[str], chosen: bool) -> Candidate:
    record = records.get(trial.trial_id)
    score = validation_score(record)
    return Candidate(
        labels=trial.point,
        values=tuple(_values(group, trial)),
        seed=trial.seed,
        status=_status(trial, records, left_out),
        metric=main_metric(record.val_scores) if score is not None else None,
        score=score,
        chosen=chosen,
        seconds=record.timing.total_seconds if record and record.timing else None,
        trial_id=trial.trial_id,
    )


def _sentences(tuned: Sequence[Candidates], records: Records, rows: Collection[str]) -> list[str]:
    if not tuned:
        return []
    kinds: dict[tuple[str, str], None] = {}
    for group in tuned:
        texts = [" with ".join(text for _, text in _values(group, trial)) for trial in group.trials]
        tried = ", ".join(dict.fromkeys(texts))
        kinds[" with ".join(group.fields), tried] = None
    chosen = "; ".join(f"{fields} from {values}" for fields, values in kinds)
    trials = list({trial.trial_id: trial for group in tuned for trial in group.trials}.values())
    numbers = list(dict.fromkeys(trial.seed for trial in trials))
    seeds = f"seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    means = "the mean " if len(numbers) > 1 else ""
    there = "those seeds" if len(numbers) > 1 else "that seed"
    done = [trial for trial in trials if trial.trial_id in records]
    extra = [trial for trial in done if trial.trial_id not in rows]
    untimed = sum(records[trial.trial_id].timing is None for trial in extra)
    hours = f"{device_hours(extra, records):.2g} device hours"
    if untimed:
        known = f" ({untimed} of them failed without a known time)"
        hours = f"at least {hours}{known}" if untimed < len(extra) else f"an unknown time{known}"
    return [
        f"Tuned rows: {chosen}, chosen for each row by {means}{_metric(done, records)} on the validation split"
        f"{_images(done, records)}, one trial for each value at {seeds}. The test split had no part in the choice. A trial "
        f"of the chosen value is the row's trial at {there}, and the row's other seeds run with that value.",
        f"Cost of the choice: {len(done)} of {len(trials)} trials have run; {len(extra)} of them are in no row and took "
        f"{hours}. All validation scores: tuning.csv.",
    ]


def _metric(done: Sequence[Trial], records: Records) -> str:
    scores = (records[trial.trial_id].val_scores for trial in done)
    names = {main_metric(found) for found in scores if found} - {None}
    return " or ".join(sorted(METRICS[name].label for name in names)) or "the main metric"


def _images(done: Sequence[Trial], records: Records) -> str:
    sources = (records[trial.trial_id].provenance for trial in done)
    counts = sorted({source.images["val"] for source in sources if source and "val" in source.images})
    return f" ({' or '.join(map(str, counts))} images)" if counts else ""


def _status(trial: Trial, records: Records, left_out: Collection[str]) -> str:
    if trial.trial_id in records:
        return records[trial.trial_id].status
    return "missing" if trial.trial_id in left_out else "pending"


def _words(candidates: Candidates, trial: Trial) -> str:
    return ", ".join(f"{field} {text}" for field, text in _values(candidates, trial))


def _values(candidates: Candidates, trial: Trial) -> list[tuple[str, str]]:
    """Returns each tuned field and the text of its value. Parts of one name are told apart by the fields that differ."""
    config = trial.config.model_dump(mode="json")
    configs = [one.config.model_dump(mode="json") for one in candidates.trials]
    texts = []
    for field in candidates.fields:
        value = paths.get(config, field)
        found = [other for other in (paths.get(one, field) for one in configs) if isinstance(other, Mapping)]
        if not isinstance(value, Mapping):
            texts.append((field, label(config, field)))
            continue
        named = isinstance(value.get("name"), str)
        same = [other for other in found if other.get("name") == value.get("name")]
        inner = ", ".join(
            f"{path} {label(value, path)}" for path in paths.varied(same) if label(value, path) != NOT_THERE
        )
        text = f"{label(config, field)} ({inner})" if named and inner else inner or label(config, field)
        texts.append((field, text))
    return texts


def _value(trial: Trial, field: str) -> Any:
    return paths.get(trial.config.model_dump(mode="json"), field)
