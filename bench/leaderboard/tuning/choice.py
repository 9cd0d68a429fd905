"""The choice of a row's tuned values: the candidate with the best main metric on the validation split.

It is a function of the records alone, so that the search, a resumed run and a report from a folder come to the same
values. The test split plays no part in it.
"""

import math
from collections.abc import Collection, Mapping, Sequence

from bench.config.expand import Candidates, Trial, row_key
from bench.records.record import TrialRecord
from bench.scoring.metrics import main_metric


def validation_score(record: TrialRecord | None) -> float | None:
    """Returns the main metric on the validation split, higher is better; ``None`` for a trial that failed."""
    if record is None or record.status != "ok" or not record.val_scores:
        return None
    metric = main_metric(record.val_scores)
    score = record.val_scores[metric] if metric else math.nan
    return None if math.isnan(score) else score


def waiting(trials: Sequence[Trial], records: Mapping[str, TrialRecord], left_out: Collection[str] = ()) -> list[Trial]:
    """Returns the candidates that have yet to run. left_out: ids of trials that cannot run here, and so lose."""
    return [trial for trial in trials if trial.trial_id not in records and trial.trial_id not in left_out]


def choose(trials: Sequence[Trial], records: Mapping[str, TrialRecord], left_out: Collection[str] = ()) -> Trial | None:
    """Returns the candidate with the best validation score, the first of equal ones.

    A trial that failed loses. Returns ``None`` while a candidate is waiting, and if all have failed.
    """
    if waiting(trials, records, left_out):
        return None
    best, highest = None, -math.inf
    for trial in trials:
        score = validation_score(records.get(trial.trial_id))
        if score is not None and score > highest:
            best, highest = trial, score
    return best


def shown(candidates: Candidates, records: Mapping[str, TrialRecord], left_out: Collection[str] = ()) -> Trial:
    """Returns the candidate that is in the row: the chosen one, else the first that waits, else the first."""
    chosen = choose(candidates.trials, records, left_out)
    return chosen or next(iter(waiting(candidates.trials, records, left_out)), candidates.trials[0])


def in_rows(
    trials: Sequence[Trial],
    tuned: Sequence[Candidates],
    records: Mapping[str, TrialRecord],
    left_out: Collection[str] = (),
) -> list[Trial]:
    """Selects the trials that are in rows: at a point that is tuned, those with the configuration that is shown."""
    keys: dict[tuple[str, ...], set[str]] = {}
    for candidates in tuned:
        one = shown(candidates, records, left_out)
        keys.setdefault(one.point, set()).add(row_key(one))
    return [trial for trial in trials if trial.point not in keys or row_key(trial) in keys[trial.point]]


def by_row(
    tuned: Sequence[Candidates], records: Mapping[str, TrialRecord], left_out: Collection[str] = ()
) -> dict[str, Candidates]:
    """Returns the candidates of each row that is tuned, by its key (``bench.config.expand.row_key``)."""
    found: dict[str, Candidates] = {}
    for candidates in tuned:
        found.setdefault(row_key(shown(candidates, records, left_out)), candidates)
    return found
