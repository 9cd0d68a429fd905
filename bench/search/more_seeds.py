"""Which configurations need another seed: the best ones that the results so far do not distinguish."""

from collections.abc import Mapping, Sequence

from bench.config.expand import Trial
from bench.config.sweep import Sweep
from bench.leaderboard.ranking import best_row, not_distinguishable
from bench.leaderboard.results import Results, summarise
from bench.records.record import TrialRecord
from bench.scoring.metrics import main_metric
from bench.search.methods import Labels

Images = Mapping[str, Mapping[str, Sequence]]
"""Scores of each test image by metric, by trial id."""


def undecided(
    sweep: Sweep,
    trials: Sequence[Trial],
    seeds: Mapping[Labels, int],
    records: Mapping[str, TrialRecord],
    images: Images,
) -> list[Labels]:
    """Selects the points that need another seed.

    They are the best row of a table and those that its main metric does not distinguish from it; of these the points
    with the fewest seeds. None are selected when all seeds are used, or when the best row stands alone.
    """
    known = {trial.trial_id: images[trial.trial_id] for trial in trials if trial.trial_id in images}
    if not known:
        return []
    metric = main_metric(next(iter(known.values())))
    only = {trial_id: {"name": scores["name"], metric: scores[metric]} for trial_id, scores in known.items()}
    found: dict[Labels, None] = {}
    for table in summarise(Results(sweep, trials, records, only)).tables:
        tied = not_distinguishable(table, metric)
        if not tied:
            continue
        contested = [table.rows[i].labels for i in sorted(tied | {best_row(table, metric)})]
        fewest = min(seeds[point] for point in contested)
        for point in contested:
            if seeds[point] == fewest < len(sweep.seeds):
                found[point] = None
    return list(found)
