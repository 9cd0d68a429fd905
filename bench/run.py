"""The whole benchmark, from a sweep file to a leaderboard: ``python -m bench.run ablations/adapter_rank.yaml``."""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench import report, resume, schedule, search, watch
from bench.config import ConfigError, Sweep, load_sweep
from bench.interrupt import Interrupts, Terminated
from bench.live_page import LivePage
from bench.progress import Display, loading
from bench.record import TrialRecord, load_all, set_aside_damaged
from bench.report import results
from bench.rounds import Rounds
from bench.sweep import Trial, absent_of, check_writable, expand, missing, pending, prepare_data, prepare_weights, sizes
from bench.work import Limits, Work
from models._registry import Missing

INTERRUPTED = 130
GOES_ON = "what was finished is kept, the same command goes on from there"
FAILED = ("error", "diverged")
"""What lacks a number that was asked for. ``oom`` and ``over budget`` are answers."""
LOG_WIDTH = 160


def main(arguments: list[str]) -> int:
    """Exit code: 0 every trial that can run here is ok or oom, 1 some trial failed, diverged or could not be saved, 2
    the input is wrong or nothing can run, 130 interrupted.

    Trials that lack weights, data or a device stay out, are said loudly, and are rows ``missing`` of the table.
    """
    options = _parser().parse_intermixed_args(arguments)
    width = None if sys.stdout.isatty() else LOG_WIDTH
    console = Console(file=sys.stdout, quiet=options.quiet, width=width, soft_wrap=True, highlight=False)

    def say(line: str) -> None:
        console.print(line, markup=False)

    try:
        sweep = load_sweep(options.sweep, options.profile, options.overrides)
        candidates = expand(sweep)
        search.check(sweep, candidates)
        watch.check_trackers(sweep.track, options.executor)
        counts = sizes(candidates)
        gpus, threads = _resources(options, sweep)
        limits, checkpoint_seconds = _limits(options)
        page_seconds = _page_seconds(options)
        folder = options.results / folder_name(sweep)
        records, broken = load_all(folder)
        for line in broken:
            say(f"note: {line}")
        if options.dry_run:
            _show_plan(console, sweep, counts, records, folder)
            return 0
        unfinished = pending(candidates, search.settled(sweep, records))
        if unfinished and len(absent_of(unfinished)) == len(candidates):
            raise ConfigError(f"{sweep.name}, profile {sweep.profile}: cannot run here", *_missing_lines(unfinished))
        check_writable(folder)
        for line in set_aside_damaged([trial.trial_id for trial in candidates], folder):
            say(f"note: {line}; it is run again")
        at_once = 1 if options.executor == "serial" else gpus or _cores() // threads
        rounds = Rounds(sweep, folder, at_once, say)
        plan = rounds.next()
        unfinished = pending(candidates, rounds.settled()) if plan.next else []
        absent = absent_of(unfinished)
        able = [trial for trial in unfinished if trial.trial_id not in absent]
        prepare_weights(able)
        for note in prepare_data(able, loading(console), search.needs_validation(sweep)):
            say(f"note: {note}")

        skipped = [trial for trial in plan.trials if trial.trial_id in rounds.absent]
        done = len(plan.trials) - len(pending(plan.trials, rounds.settled()))
        say(
            f"{sweep.name} ({sweep.profile}): {len(plan.next)} of {len(plan.trials)} trials to run, "
            f"{done} done before; records in {folder}"
        )
        if skipped:
            print(_skipping(skipped, plan.trials), *_missing_lines(skipped), sep="\n", file=sys.stderr)
        for line in _checkpoint_notes(plan.trials, plan.next, folder):
            say(f"note: {line}")
        stopping = rounds.early_stopping(plan.trials)
        problems: list[str] = []
        with Interrupts() as interrupts, LivePage(folder, page_seconds, say) as page:
            while plan.next and not interrupts.asked:
                rounds.begin(plan)
                trackers = watch.trackers(sweep, plan.next, folder, say)
                with Display(plan.next, console) as display:
                    work = Work(
                        plan.next,
                        folder,
                        watch.Together(display, page.of(plan.next), *trackers),
                        say=say,
                        asked=lambda: interrupts.asked,
                        limits=limits,
                        checkpoint_seconds=checkpoint_seconds,
                        stopping=stopping,
                    )
                    try:
                        if options.executor == "ray":
                            _ray_executor()(work, interrupts, threads=threads, gpus=gpus)
                        else:
                            schedule.run_serially(work, threads=threads)
                    finally:
                        work.release()
                rounds.ended |= work.records
                problems += work.problems
                plan = rounds.next()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        say(f"{'terminated' if isinstance(interrupt, Terminated) else 'interrupted'}: {GOES_ON}")
        return INTERRUPTED

    records = load_all(folder)[0] | rounds.ended
    try:
        rounds.write_manifest(plan.trials)
        found, notes = results.load(folder)  # from the files, as every later rebuild
        for line in notes:
            say(f"note: {line}")
        paths = report.write(found, folder)
        say(f"wrote {', '.join(str(path) for path in paths)}")
    except OSError as error:
        problems.append(f"{folder}: the leaderboard cannot be written: {error}")
    if problems:
        print(*problems, "make room; the same command then takes over what was kept", sep="\n", file=sys.stderr)
    skipped = [trial for trial in plan.trials if trial.trial_id in rounds.absent]
    if skipped:
        print(_skipping(skipped, plan.trials), file=sys.stderr)
    if plan.spent:
        print(f"WARNING: {plan.spent}. The same command with a larger budget goes on from there", file=sys.stderr)
    if interrupts.asked and any(trial.trial_id not in records for trial in plan.next):
        say(f"interrupted: {GOES_ON}")
        return INTERRUPTED
    statuses = {records[trial.trial_id].status for trial in plan.trials if trial.trial_id in records}
    return 1 if problems or statuses & set(FAILED) or rounds.tried - records.keys() else 0


def _ray_executor() -> Callable[..., None]:
    try:
        from bench.schedule_ray import run_on_ray  # the rest must work where Ray is not installed
    except ImportError as error:
        raise ConfigError(
            f"Ray cannot be used here: {error}. --executor serial runs the same trials without it"
        ) from None
    return run_on_ray


def _checkpoint_notes(trials: list[Trial], to_run: list[Trial], folder: Path) -> list[str]:
    """What lies in wait to be gone on from, how large it is, and what nobody may need any more."""
    waiting = {trial.trial_id for trial in to_run}
    for trial_id in {trial.trial_id for trial in trials} - waiting:
        resume.remove(folder, trial_id)  # its driver was killed between the record and this
    sizes_bytes = resume.sizes(folder)
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
            notes.append(f"{len(ids)} {text} ({size:.1f} MiB in {folder / resume.FOLDER})")
    return notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description="Run a sweep and write its leaderboard.")
    parser.add_argument("sweep", type=Path, help="a sweep file, e.g. ablations/adapter_rank.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.epochs=5 dataset.task=mirror")
    parser.add_argument("--profile", help="a profile of the sweep file (default: its first, 'embedded')")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default: results")
    parser.add_argument(
        "--dry-run", action="store_true", help="show the trials, their sizes and what is done; run none"
    )
    parser.add_argument("--executor", choices=("ray", "serial"), default="ray", help="serial needs no Ray")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs to use, one trial on each (default: all)")
    parser.add_argument("--cpus-per-trial", type=int, metavar="N", help="cores for each trial (default: 1 on a CPU)")
    parser.add_argument(
        "--trial-time-limit", metavar="TIME", help="end a trial that takes longer in this run, e.g. 90s, 30m, 2h"
    )
    parser.add_argument(
        "--stall-limit", default="30m", metavar="TIME", help="end a trial without a sign of life; off: never (30m)"
    )
    parser.add_argument(
        "--checkpoint-every", default="60s", metavar="TIME", help="how often a trial keeps what it has trained (60s)"
    )
    parser.add_argument(
        "--page-every", default="60s", metavar="TIME", help="how often the page is rebuilt meanwhile; off: never (60s)"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


def folder_name(sweep: Sweep) -> str:
    """Results of the embedded profile lie under the sweep's name, others beside it."""
    return sweep.name if sweep.profile in ("embedded", "default") else f"{sweep.name}-{sweep.profile}"


def _cores() -> int:
    return os.cpu_count() or 1


def _resources(options: argparse.Namespace, sweep: Sweep) -> tuple[int, int]:
    """Number of GPUs and of cores per trial. Raises ``ConfigError`` for numbers that this machine cannot give."""
    cores, visible = _cores(), torch.cuda.device_count()
    on_gpu = sweep.base.device == "cuda"
    if options.gpus is not None:
        if not on_gpu and options.gpus != 0:
            raise ConfigError(f"--gpus {options.gpus}: this profile runs on the CPU. Add device=cuda to use GPUs")
        if on_gpu and not 1 <= options.gpus <= visible:
            allowed = f"Allowed: 1 to {visible}" if visible else "Leave it out, and see what is missing"
            raise ConfigError(f"--gpus {options.gpus}: torch sees {visible} GPUs here. {allowed}")
    gpus = (options.gpus or visible) if on_gpu else 0
    default = max(1, cores // gpus) if gpus else 1
    threads = default if options.cpus_per_trial is None else options.cpus_per_trial
    if not 1 <= threads <= cores:
        raise ConfigError(f"--cpus-per-trial {threads}: this machine has {cores} cores. Allowed: 1 to {cores}")
    return gpus, threads


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


def _skipping(skipped: list[Trial], trials: list[Trial]) -> str:
    rows = "; ".join(dict.fromkeys(", ".join(trial.point) for trial in skipped))
    return f"WARNING: {len(skipped)} of {len(trials)} trials cannot run here and are left out: {rows}"


def _missing_lines(trials: list[Trial]) -> list[str]:
    """What the trials need and this machine does not have, and what to do about it; no lines if it has all."""
    lines: list[str] = []
    by_remedy: dict[str, list[Missing]] = {}
    for item in missing(trials):
        by_remedy.setdefault(item.remedy, []).append(item)
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
    known = search.settled(sweep, records)
    trials, to_run, _ = search.plan(sweep, known)
    absent = absent_of(to_run)
    counts = counts | sizes([trial for trial in trials if trial.trial_id not in counts])
    table = Table("trial", *(axis.name for axis in sweep.axes), "seed", "parameters", "trainable", "state")
    for trial in trials:
        size = counts[trial.trial_id]
        record = records.get(trial.trial_id)
        if trial.trial_id in known:
            state = record.status
        elif trial not in to_run:
            state = "later, if the budget allows"
        else:
            state = "to run" if record is None else f"{record.status}, to run again"
        if trial.trial_id in absent:
            state = f"missing {', '.join(dict.fromkeys(item.kind for item in absent[trial.trial_id]))}"
        numbers = (f"{size['total']:,}", f"{size['trainable']:,}") if size else ("–", "–")
        table.add_row(trial.trial_id, *trial.point, str(trial.seed), *numbers, state)
    console.print(f"{sweep.name} ({sweep.profile}): {sweep.question}", markup=False)
    console.print(table)
    console.print(f"{len(to_run) - len(absent)} of {len(trials)} trials to run; records in {folder}", markup=False)
    if sweep.search.name != "grid" or sweep.search.first_seeds:
        console.print("what else is run depends on the results of these", markup=False)
    for line in _missing_lines(trials):
        console.print(line, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
