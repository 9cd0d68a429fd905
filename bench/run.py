"""The whole benchmark, from a sweep file to a leaderboard: ``python -m bench.run ablations/adapter_rank.yaml``."""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import report as reports
from bench.config.errors import ConfigError
from bench.config.expand import Trial, expand, sizes
from bench.config.sweep import Sweep, folder_name, load_sweep
from bench.datasets.core.sources import parse
from bench.leaderboard import results
from bench.leaderboard.results import Results
from bench.memory.sweep_predictions import keep_predictions
from bench.records import external_scores, schema, sweep_json
from bench.records.record import MANIFEST, TrialRecord
from bench.records.store import RecordStore, check_writable, pending, unsaved
from bench.report import terminal
from bench.scheduling import dry_run
from bench.scheduling.executor import Executor
from bench.scheduling.preflight import check_cache, missing_lines, skipped_line
from bench.scheduling.resources import resources_of
from bench.scheduling.rounds import Rounds
from bench.scheduling.run_options import Times, parser, times_of
from bench.search import next_trials, requirements
from bench.system.console import complain, console_of_command
from bench.system.files import TargetError, check_targets, remove_unfinished
from bench.system.interrupt import INTERRUPTED, Interrupts, Terminated
from bench.system.wording import first_lines
from bench.training import feature_cache, training_state
from bench.watching import tracking
from bench.watching.display import counting, loading
from bench.watching.live_page import LivePage

GOES_ON = "finished trials and training states are kept; run the same command to continue"


@dataclass
class Run:
    """A sweep and all that its trials need; ``load`` makes it, and the other steps use it."""

    sweep: Sweep
    candidates: list[Trial]  # each point of the sweep at each seed
    counts: dict[str, dict[str, int]]  # parameters by trial id
    times: Times
    store: RecordStore
    executor: Executor
    rounds: Rounds
    console: Console
    say: Callable[[str], None]  # prints a line

    @property
    def folder(self) -> Path:
        return self.store.folder


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 no trial failed or diverged, and everything was saved; 1 a trial failed, diverged or could
    not be saved, or Ray died; 2 the input is wrong or nothing can run; 130 interrupted.

    Trials that lack weights, data or a device are left out, are reported, and are rows ``missing`` of the table.
    """
    options = parser().parse_intermixed_args(arguments)
    console = console_of_command(options.quiet)
    try:
        with Interrupts(graceful=False) as interrupts:
            run = load(options, console)
            check(run, options)
            if options.dry_run:
                dry_run.show(console, run.sweep, run.counts, run.store)
                return 0
            with run.executor:
                prepare(run)
                run_trials(run, interrupts)
            return report(run, interrupts)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    except KeyboardInterrupt as interrupt:
        word = "terminated" if isinstance(interrupt, Terminated) else "interrupted"
        console.print(f"{word}: {GOES_ON}", markup=False)
        return INTERRUPTED


def load(options: argparse.Namespace, console: Console) -> Run:
    """Reads the sweep file and the options. Raises ``ConfigError``."""
    sweep = load_sweep(options.sweep, options.profile, options.overrides)
    candidates = expand(sweep)
    requirements.check(sweep, candidates)
    tracking.check_trackers(sweep.track)
    counts = sizes(candidates, counting(console))
    resources, sources, times = resources_of(options, sweep), parse(options.fetch), times_of(options)
    feature_cache.choose(options)
    store = RecordStore(options.results / folder_name(sweep))
    executor = Executor(
        resources, options.executor == "ray", counts, sources, requirements.setting_that_needs_validation(sweep)
    )

    def say(line: str) -> None:
        console.print(line, markup=False)

    rounds = Rounds(sweep, store, executor, say)
    return Run(sweep, candidates, counts, times, store, executor, rounds, console, say)


def check(run: Run, options: argparse.Namespace) -> None:
    """Checks that the results folder belongs to this sweep and may be written. Raises ``ConfigError``, ``TargetError``."""
    newer = schema.newer_in(run.folder, run.folder / external_scores.FOLDER)
    if newer:
        raise ConfigError(*newer)
    sweep_json.check_owner(run.folder, run.sweep)
    run.store.refresh()
    for line in first_lines(run.store.problems):
        run.say(f"note: {line}")
    if options.dry_run:
        return
    check_cache()
    if run.folder.is_dir():  # a new folder has no files to overwrite
        check_targets([run.folder / MANIFEST, *reports.targets(run.folder)], [options.sweep])


def prepare(run: Run) -> None:
    """Plans the first round, and reads, checks and caches weights and data. Raises ``ConfigError``."""
    rounds, executor = run.rounds, run.executor
    unfinished = pending(run.candidates, rounds.settled())
    absent = rounds.absent_of(unfinished)
    if absent and len(absent) == len(run.candidates):
        raise ConfigError(f"{run.sweep.name}, profile {run.sweep.profile}: cannot run here", *missing_lines(absent))
    check_writable(run.folder)
    for place in (run.folder, unsaved()):
        remove_unfinished(place)
    plan = rounds.next()  # may take over records of other sweeps
    unfinished = pending(run.candidates, rounds.settled()) if plan.next else []
    absent = rounds.absent_of(unfinished)
    runnable = [trial for trial in unfinished if trial.trial_id not in absent]
    for note in [*executor.prepare(runnable, loading(run.console)), *feature_cache.outlook(runnable)]:
        run.say(f"note: {note}")
    done = len(plan.trials) - len(pending(plan.trials, rounds.settled()))
    run.say(
        f"{run.sweep.name} ({run.sweep.profile}): {len(plan.next)} of {len(plan.trials)} trials to run, "
        f"{done} done before; records in {run.folder}"
    )
    for line in dry_run.tuning_lines(run.sweep, plan):
        run.say(line)
    skipped = skipped_line(plan.trials, rounds.absent)
    if skipped:
        complain(skipped, *missing_lines(rounds.absent))
    for line in _training_state_notes(run.folder, plan):
        run.say(f"note: {line}")


def run_trials(run: Run, interrupts: Interrupts) -> None:
    """Runs the rounds of trials until the search ends, Ctrl-C is pressed, or Ray dies.

    The executor starts a process for each trial, which calls ``bench.trial.run_trial``.
    """
    times = run.times
    with interrupts.graceful_stop(), LivePage(run.folder, times.page, run.say) as page:
        run.rounds.run(run.console, page, interrupts, times.limits, times.checkpoint)
    if run.rounds.died:
        complain(f"{run.rounds.died}: no trials can run; {GOES_ON}")


def report(run: Run, interrupts: Interrupts) -> int:
    """Writes the leaderboard, tables, figures and the page; returns the exit code."""
    rounds, folder = run.rounds, run.folder
    plan, records, problems = rounds.plan, run.store.refresh() | rounds.ended, rounds.problems
    try:
        rounds.write_manifest()
        keep_predictions(folder, plan.trials, run.say, cards=run.sweep.base.device == "cuda")
        found, notes = results.load(folder)  # from the files, like each later report
        for line in notes:
            run.say(f"note: {line}")
        paths = reports.write(found, folder, run.say)
        terminal.show(found.board(), run.console)
        without = _without_value(found)
        if without:
            complain(*without)
        run.say(reports.wrote(paths, folder))
    except (OSError, ConfigError) as error:
        problems.append(f"{folder}: the leaderboard cannot be written: {error}")
    if problems:
        complain(*problems, "free disk space, then run the same command; it uses the records that were kept elsewhere")
    skipped = skipped_line(plan.trials, rounds.absent)
    if skipped:
        complain(skipped)
    if plan.spent:
        complain(f"WARNING: {plan.spent}. The same command with a larger budget goes on from there")
    if interrupts.stop_requested and any(trial.trial_id not in records for trial in plan.next):
        run.say(f"interrupted: {GOES_ON}")
        return INTERRUPTED
    lost = rounds.tried - records.keys()
    return 1 if problems or rounds.died or lost or _any_failed(plan, records) else 0


def _any_failed(plan: next_trials.Plan, records: Mapping[str, TrialRecord]) -> bool:
    """Returns whether a trial ended in an error, or diverged.

    ``oom`` and ``over budget`` answer the question of a sweep, and so does a tuned value that diverged and lost.
    """
    for trial in plan.trials:
        status = records[trial.trial_id].status if trial.trial_id in records else None
        if status == "error" or (status == "diverged" and trial.trial_id not in plan.lost):
            return True
    return False


def _without_value(found: Results) -> list[str]:
    """Returns a warning for each row for which no tuned value can be chosen."""
    lines = []
    for table in found.board().tables:
        for row in table.rows:
            for error in row.tuned.errors if row.tuned else ():
                lines.append(f"WARNING: {', '.join(row.labels)}: {error}")
    return lines


def _training_state_notes(folder: Path, plan: next_trials.Plan) -> list[str]:
    """Returns lines about training states in the folder: of unfinished trials, and of trials that are not in this sweep.

    Removes those of finished trials, whose driver was killed before it could.
    """
    waiting = {trial.trial_id for trial in plan.next}
    for trial in plan.trials:
        if trial.trial_id not in waiting:
            training_state.remove(folder, trial.trial_id)
    sizes_bytes = training_state.sizes(folder)
    groups = {
        "unfinished trials go on from their checkpoints": sizes_bytes.keys() & waiting,
        "trials that are not of this sweep have checkpoints; delete what you do not need": sizes_bytes.keys() - waiting,
    }
    notes = []
    for text, ids in groups.items():
        if ids:
            size = sum(sizes_bytes[trial_id] for trial_id in ids) / 2**20
            notes.append(f"{len(ids)} {text} ({size:.1f} MiB in {folder / training_state.FOLDER})")
    return notes


if __name__ == "__main__":
    sys.exit(command.run(main))
