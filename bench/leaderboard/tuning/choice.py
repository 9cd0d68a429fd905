"""The choice of a row's tuned values: those with the best main metric on the validation split, the mean over seeds.

It is a function of the records alone, so that the search, a resumed run and a report from a folder come to the same
values. The test split plays no part in it.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

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
    """Returns the first trial of the values with the best mean validation score over seeds, the first of equal ones.

    Values with a trial that failed lose. Returns ``None`` while a candidate is waiting, and if all values have failed.
    """
    if waiting(trials, records, left_out):
        return None
    of_values: dict[str, list[Trial]] = {}
    for trial in trials:
        of_values.setdefault(row_key(trial), []).append(trial)
    best, highest = None, -math.inf
    for same in of_values.values():
        scores = [validation_score(records.get(trial.trial_id)) for trial in same]
        known = [score for score in scores if score is not None]
        if len(known) == len(scores) and fmean(known) > highest:
            best, highest = same[0], fmean(known)
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
    """Selects the trials that are in rows: at a point that is tuned, those with the configuration that is shown.

    While a candidate is waiting, the row has only trials without a record. The value that is shown may lose, and then its
    scores are not those of the row.
    """
    keys: dict[tuple[str, ...], set[str]] = {}
    open_keys = set()
    for candidates in tuned:
        one = shown(candidates, records, left_out)
        keys.setdefault(one.point, set()).add(row_key(one))
        if waiting(candidates.trials, records, left_out):
            open_keys.add(row_key(one))
    found = []
    for trial in trials:
        key = row_key(trial)
        if trial.point not in keys or key in keys[trial.point]:
            if key not in open_keys or trial.trial_id not in records:
                found.append(trial)
    return found


def by_row(
    tuned: Sequence[Candidates], records: Mapping[str, TrialRecord], left_out: Collection[str] = ()
) -> dict[str, Candidates]:
    """Returns the candidates of each row that is tuned, by its key (``bench.config.expand.row_key``)."""
    found: dict[str, Candidates] = {}
    for candidates in tuned:
        found.setdefault(row_key(shown(candidates, records, left_out)), candidates)
    return found
