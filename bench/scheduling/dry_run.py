"""The table of ``bench.run --dry-run``: the trials, their sizes and states, and what is missing to run them."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.config.axes import label
from bench.config.expand import Trial, sizes
from bench.config.sweep import Sweep
from bench.records.record import TrialRecord
from bench.records.store import RecordStore
from bench.scheduling.preflight import absent_of, missing_lines
from bench.search import next_trials
from bench.watching.display import counting
from models.core.registry import Missing


def show(console: Console, sweep: Sweep, counts: Mapping[str, Mapping[str, int]], store: RecordStore) -> None:
    """Prints the trials that the search has chosen so far; counts: parameters by trial id."""
    settled = next_trials.settled(sweep, store.records)
    plan = next_trials.plan(sweep, settled)
    trials, to_run = plan.trials, plan.next
    absent, chosen = absent_of(to_run), {trial.trial_id for trial in to_run}
    further = [trial for trial in trials if trial.trial_id not in counts]
    counts = {**counts, **sizes(further, counting(console))}
    fields = [axis.name for axis in (*sweep.axes, *sweep.tune)]
    table = Table("trial", *map(escape, fields), "seed", "parameters", "trainable", "state")
    for trial in trials:
        size = counts[trial.trial_id]
        numbers = (f"{size['total']:,}", f"{size['trainable']:,}") if size else ("–", "–")
        if trial.trial_id in settled:
            state = settled[trial.trial_id].status
        else:
            state = _state(trial, trial.trial_id in chosen, absent.get(trial.trial_id, ()), store.records)
        config = trial.config.model_dump(mode="json") if sweep.tune else {}
        texts = [*trial.point, *(label(config, axis.name) for axis in sweep.tune)]
        table.add_row(trial.trial_id, *map(escape, texts), str(trial.seed), *numbers, state)
    console.print(f"{sweep.name} ({sweep.profile}): {sweep.question}", markup=False)
    console.print(table)
    console.print(
        f"{len(to_run) - len(absent)} of {len(trials)} trials to run; records in {store.folder}", markup=False
    )
    for line in tuning_lines(sweep, plan):
        console.print(line, markup=False)
    if not sweep.search.is_exhaustive or sweep.search.first_seeds:
        console.print("what else is run depends on the results of these", markup=False)
    for line in missing_lines(absent_of(trials)):
        console.print(line, markup=False)


def tuning_lines(sweep: Sweep, plan: next_trials.Plan) -> list[str]:
    """Words the cost of tuned values: trials for the choice, and trials for the table."""
    if not sweep.tune:
        return []
    rows, candidates = len(plan.candidates), sum(len(of_row.trials) for of_row in plan.candidates)
    fewest = max(0, (sweep.search.first_seeds or len(sweep.seeds)) - sweep.tune_seeds)
    at = ", ".join(map(str, sweep.seeds[: sweep.tune_seeds]))
    seeds = "seed" if sweep.tune_seeds == 1 else "seeds"
    fields = " and ".join(axis.name for axis in sweep.tune)
    first = f"tune: {candidates} trials at {seeds} {at} choose {fields} for {rows} rows"
    if sweep.search.first_seeds or not sweep.search.is_exhaustive:
        return [f"{first}; each row then runs at least {fewest} more seed{'' if fewest == 1 else 's'} with its value"]
    more = rows * fewest
    return [f"{first}; then {more} trials run the rows' other seeds: {candidates + more} trials in all"]


def _state(trial: Trial, chosen: bool, missing: Sequence[Missing], records: Mapping[str, TrialRecord]) -> str:
    """Describes a trial without a result."""
    if missing:
        return f"missing {', '.join(dict.fromkeys(item.kind for item in missing))}"
    if not chosen:
        return "later, if the budget allows"
    if trial.trial_id in records:
        return f"{records[trial.trial_id].status}, to run again"
    return "to run"
