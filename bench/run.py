"""The whole benchmark, from a sweep file to a leaderboard: ``python -m bench.run ablations/adapter_rank.yaml``."""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from bench import report
from bench.config.errors import ConfigError
from bench.config.expand import Trial, expand, sizes
from bench.config.sweep import Sweep, folder_name, load_sweep
from bench.datasets.core.sources import parse
from bench.leaderboard import results
from bench.leaderboard.predicted_memory import keep_predictions
from bench.records import external_scores, schema, sweep_json
from bench.records.record import MANIFEST, TrialRecord, check_writable, load_all, pending, set_aside_damaged, unsaved
from bench.report import terminal
from bench.scheduling.executor import Executor
from bench.scheduling.preflight import absent_of, check_cache
from bench.scheduling.resources import add_options, resources_of
from bench.scheduling.rounds import Rounds
from bench.scheduling.trial_queue import Limits
from bench.search import next_trials, requirements
from bench.system.console import ArgumentParser, Console, complain, console_of_command
from bench.system.files import TargetError, check_targets, remove_unfinished
from bench.system.interrupt import INTERRUPTED, Interrupts, Terminated
from bench.training import feature_cache, training_state
from bench.watching import tracking
from bench.watching.display import counting, loading
from bench.watching.live_page import LivePage
from models.core.paths import expanded
from models.core.registry import Missing

GOES_ON = "what was finished is kept, the same command goes on from there"
FAILED = ("error", "diverged")
"""What lacks a number that was asked for. ``oom`` and ``over budget`` are answers."""
"""Said in a log from so many distinct models on: they take seconds, thousands take minutes."""


def main(arguments: list[str]) -> int:
    """Exit code: 0 every trial that can run here is ok or oom, 1 some trial failed, diverged or could not be saved, or
    Ray died, 2 the input is wrong or nothing can run, 130 interrupted.

    Trials that lack weights, data or a device stay out, are said loudly, and are rows ``missing`` of the table.
    """
    options = _parser().parse_intermixed_args(arguments)
    console = console_of_command(options.quiet)

    def say(line: str) -> None:
        console.print(line, markup=False)

    try:
        with Interrupts(graceful=False) as interrupts:
            return _run(options, console, say, interrupts)
    except (ConfigError, TargetError) as error:
        complain(error)
        return 2
    except KeyboardInterrupt as interrupt:
        say(f"{'terminated' if isinstance(interrupt, Terminated) else 'interrupted'}: {GOES_ON}")
        return INTERRUPTED


def _run(options: argparse.Namespace, console: Console, say: Callable[[str], None], interrupts: Interrupts) -> int:
    """Returns the exit code. Raises ``ConfigError`` and ``TargetError``."""
    sweep = load_sweep(options.sweep, options.profile, options.overrides)
    candidates = expand(sweep)
    requirements.check(sweep, candidates)
    tracking.check_trackers(sweep.track)
    counts = sizes(candidates, counting(console))
    resources, sources = resources_of(options, sweep), parse(options.fetch)
    limits, checkpoint_seconds = _limits(options)
    feature_cache.choose(options)
    page_seconds = _page_seconds(options)
    folder = options.results / folder_name(sweep)
    if newer := schema.newer_in(folder, folder / external_scores.FOLDER):
        raise ConfigError(*newer)
    sweep_json.check_owner(folder, sweep)
    records, broken = load_all(folder)
    for line in broken:
        say(f"note: {line}")
    if options.dry_run:
        _show_plan(console, sweep, counts, records, folder)
        return 0
    check_cache()
    if folder.is_dir():  # else there is nothing to lose
        check_targets([folder / MANIFEST, *report.targets(folder)], [options.sweep])
    by_ray, need = options.executor == "ray", requirements.needs_validation(sweep)
    with Executor(resources, by_ray, counts, sources, need) as executor:
        unfinished = pending(candidates, next_trials.settled(sweep, records))
        if unfinished and len(absent := executor.absent(unfinished)) == len(candidates):
            where = f"{sweep.name}, profile {sweep.profile}"
            raise ConfigError(f"{where}: cannot run here", *_missing_lines(absent))
        check_writable(folder)
        for place in (folder, unsaved()):
            remove_unfinished(place)
        before, *_ = next_trials.plan(sweep, next_trials.settled(sweep, records))
        for line in set_aside_damaged(dict.fromkeys(trial.trial_id for trial in [*candidates, *before]), folder):
            say(f"note: {line}; it is run again")
        rounds = Rounds(sweep, folder, executor, say)
        plan = rounds.next()
        settled = rounds.settled()
        unfinished = pending(candidates, settled) if plan.next else []
        absent = executor.absent(unfinished)
        able = [trial for trial in unfinished if trial.trial_id not in absent]
        prepared = executor.prepare(able, loading(console))
        for note in [*prepared, *feature_cache.outlook(able)]:
            say(f"note: {note}")
        done = len(plan.trials) - len(pending(plan.trials, settled))
        say(
            f"{sweep.name} ({sweep.profile}): {len(plan.next)} of {len(plan.trials)} trials to run, "
            f"{done} done before; records in {folder}"
        )
        if skipped := _skipping(plan.trials, rounds.absent):
            complain(skipped, *_missing_lines(rounds.absent))
        for line in _checkpoint_notes(plan.trials, plan.next, folder):
            say(f"note: {line}")
        with interrupts.graceful_stop(), LivePage(folder, page_seconds, say) as page:
            plan = rounds.run(plan, console, page, interrupts, limits, checkpoint_seconds)
        if rounds.died:
            complain(f"{rounds.died}: no trials can run; {GOES_ON}")

    records, problems = load_all(folder)[0] | rounds.ended, rounds.problems
    try:
        rounds.write_manifest(plan.trials)
        if sweep.base.device == "cuda":  # beside what was measured; on a CPU it is seconds for what nobody asked
            keep_predictions(folder, plan.trials, say)
        found, notes = results.load(folder)  # from the files, as every later rebuild
        for line in notes:
            say(f"note: {line}")
        paths = report.write(found, folder, say)
        terminal.show(found.board(), console)
        say(report.wrote(paths, folder))
    except (OSError, ConfigError) as error:
        problems.append(f"{folder}: the leaderboard cannot be written: {error}")
    if problems:
        complain(*problems, "make room; the same command then takes over what was kept")
    if skipped := _skipping(plan.trials, rounds.absent):
        complain(skipped)
    if plan.spent:
        complain(f"WARNING: {plan.spent}. The same command with a larger budget goes on from there")
    if interrupts.stop_requested and any(trial.trial_id not in records for trial in plan.next):
        say(f"interrupted: {GOES_ON}")
        return INTERRUPTED
    statuses = {records[trial.trial_id].status for trial in plan.trials if trial.trial_id in records}
    failed = problems or rounds.died or statuses & set(FAILED) or rounds.tried - records.keys()
    return 1 if failed else 0


def _checkpoint_notes(trials: list[Trial], to_run: list[Trial], folder: Path) -> list[str]:
    """What lies in wait to be gone on from, how large it is, and what nobody may need any more."""
    waiting = {trial.trial_id for trial in to_run}
    for trial_id in {trial.trial_id for trial in trials} - waiting:
        training_state.remove(folder, trial_id)  # its driver was killed between the record and this
    sizes_bytes = training_state.sizes(folder)
    notes = []
    for ids, text in (
        (sizes_bytes.keys() & waiting, "unfinished trials go on from their checkpoints"),
        (
            sizes_bytes.keys() - waiting,
            "trials that are not of this sweep have checkpoints; delete what you do not need",
        ),
    ):
        if ids:
            size = sum(sizes_bytes[trial_id] for trial_id in ids) / 2**20
            notes.append(f"{len(ids)} {text} ({size:.1f} MiB in {folder / training_state.FOLDER})")
    return notes


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.run", description="Run a sweep and write its leaderboard.")
    parser.add_argument("sweep", type=expanded, help="a sweep file, e.g. ablations/adapter_rank.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.epochs=5 dataset.task=mirror")
    parser.add_argument("--profile", help="a profile of the sweep file (default: its first, 'embedded')")
    parser.add_argument("--results", type=expanded, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the trials, their sizes and what is done; run none"
    )
    add_options(parser)
    parser.add_argument(
        "--trial-time-limit", metavar="TIME", help="end a trial that takes longer in this run, e.g. 90s, 30m, 2h"
    )
    parser.add_argument(
        "--stall-limit", default="30m", metavar="TIME", help="end a trial without a sign of life; off: never (30m)"
    )
    parser.add_argument(
        "--checkpoint-every", default="60s", metavar="TIME", help="how often a trial keeps what it has trained (60s)"
    )
    feature_cache.add_options(parser)
    parser.add_argument(
        "--page-every", default="60s", metavar="TIME", help="how often the page is rebuilt meanwhile; off: never (60s)"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


def _limits(options: argparse.Namespace) -> tuple[Limits, float]:
    """How long trials may run and be silent, and the seconds between checkpoints. Raises ``ConfigError``."""
    trial, silence = options.trial_time_limit, options.stall_limit
    limits = Limits(
        None if trial is None else _seconds("--trial-time-limit", trial, 1),
        None if silence == "off" else _seconds("--stall-limit", silence, 10),
    )
    return limits, _seconds("--checkpoint-every", options.checkpoint_every, 0)


def _page_seconds(options: argparse.Namespace) -> float | None:
    """Seconds between two rebuilds of the page; ``None`` for none. Raises ``ConfigError``."""
    return None if options.page_every == "off" else _seconds("--page-every", options.page_every, 1)


def _seconds(option: str, text: str, least: float) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else None
    if seconds is None or not least <= seconds < math.inf:
        low = f", at least {least:g}s" if least else ""
        raise ConfigError(f"{option} {text}: a number with s, m, h or d is needed, as in 90s, 30m or 2h{low}")
    return seconds


def _skipping(trials: list[Trial], absent: Mapping[str, Sequence[Missing]]) -> str:
    """Which trials are left out, in a line; no text if none is."""
    skipped = [trial for trial in trials if trial.trial_id in absent]
    rows = "; ".join(dict.fromkeys(", ".join(trial.point) for trial in skipped))
    return f"WARNING: {len(skipped)} of {len(trials)} trials cannot run here and are left out: {rows}" if rows else ""


def _missing_lines(absent: Mapping[str, Sequence[Missing]]) -> list[str]:
    """What trials need and do not have, and what to do about it; no lines if they have all."""
    lines: list[str] = []
    by_remedy: dict[str, dict[Missing, None]] = {}
    for item in (item for items in absent.values() for item in items):
        by_remedy.setdefault(item.remedy, {})[item] = None
    for remedy, items in by_remedy.items():
        lines += [f"  missing {item.kind}: {item.field}: {item.what}" for item in items]
        lines.append(f"    -> {remedy}")
    return lines


def _show_plan(
    console: Console,
    sweep: Sweep,
    counts: dict[str, dict[str, int]],
    records: dict[str, TrialRecord],
    folder: Path,
) -> None:
    """The trials with their sizes and states, and what is missing to run them; of a search, the trials so far."""
    known = next_trials.settled(sweep, records)
    trials, to_run, _ = next_trials.plan(sweep, known)
    absent, chosen = absent_of(to_run), {trial.trial_id for trial in to_run}
    further = [trial for trial in trials if trial.trial_id not in counts]
    counts = counts | sizes(further, counting(console))
    table = Table("trial", *(escape(axis.name) for axis in sweep.axes), "seed", "parameters", "trainable", "state")
    for trial in trials:
        size = counts[trial.trial_id]
        record = records.get(trial.trial_id)
        if trial.trial_id in known:
            state = record.status
        elif trial.trial_id not in chosen:
            state = "later, if the budget allows"
        else:
            state = "to run" if record is None else f"{record.status}, to run again"
        if trial.trial_id in absent:
            state = f"missing {', '.join(dict.fromkeys(item.kind for item in absent[trial.trial_id]))}"
        numbers = (f"{size['total']:,}", f"{size['trainable']:,}") if size else ("–", "–")
        table.add_row(trial.trial_id, *map(escape, trial.point), str(trial.seed), *numbers, state)
    console.print(f"{sweep.name} ({sweep.profile}): {sweep.question}", markup=False)
    console.print(table)
    console.print(f"{len(to_run) - len(absent)} of {len(trials)} trials to run; records in {folder}", markup=False)
    if sweep.search.name != "grid" or sweep.search.first_seeds:
        console.print("what else is run depends on the results of these", markup=False)
    for line in _missing_lines(absent_of(trials)):
        console.print(line, markup=False)


if __name__ == "__main__":
    sys.exit(command.run(main))
