"""The whole benchmark, from a sweep file to a leaderboard: ``python -m bench.run ablations/adapter_rank.yaml``."""

import argparse
import os
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import report, schedule
from bench.config import ConfigError, Sweep, load_sweep
from bench.external import load_external
from bench.progress import Display, loading
from bench.record import TrialRecord, adopt, load_all, load_images
from bench.report.leaderboard import summarise
from bench.sweep import Trial, check_writable, expand, missing, pending, prepare_data, prepare_weights, sizes
from models._registry import Missing

INTERRUPTED = 130
LOG_WIDTH = 160


def main(arguments: list[str]) -> int:
    """Exit code: 0 every trial that can run here is ok or oom, 1 some trial failed, 2 the input is wrong or nothing can
    run, 130 interrupted.

    Trials that lack weights, data or a device stay out, are said loudly, and are rows ``missing`` of the table.
    """
    options = _parser().parse_intermixed_args(arguments)
    width = None if sys.stdout.isatty() else LOG_WIDTH
    console = Console(file=sys.stdout, quiet=options.quiet, width=width, soft_wrap=True, highlight=False)
    try:
        sweep = load_sweep(options.sweep, options.profile, options.overrides)
        trials = expand(sweep)
        counts = sizes(trials)
        gpus, threads = _resources(options, sweep)
        folder = options.results / folder_name(sweep)
        records, broken = load_all(folder)
        for line in broken:
            console.print(f"note: {line}; it is run again", markup=False)
        to_run = pending(trials, records)
        if options.dry_run:
            _show_plan(console, sweep, trials, counts, records, folder)
            return 0
        if to_run and len(_absent(to_run)) == len(trials):
            raise ConfigError(f"{sweep.name}, profile {sweep.profile}: cannot run here", *_missing_lines(to_run))
        check_writable(folder)
        for path in adopt([trial.trial_id for trial in to_run], folder):
            console.print(f"note: {path} is the same trial, taken over", markup=False)
        unfinished = pending(trials, load_all(folder)[0])
        absent = _absent(unfinished)
        skipped = [trial for trial in unfinished if trial.trial_id in absent]
        to_run = [trial for trial in unfinished if trial.trial_id not in absent]
        prepare_weights(to_run)
        for note in prepare_data(to_run, loading(console)):
            console.print(f"note: {note}", markup=False)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2

    console.print(
        f"{sweep.name} ({sweep.profile}): {len(to_run)} of {len(trials)} trials to run, "
        f"{len(trials) - len(unfinished)} done before; records in {folder}",
        markup=False,
    )
    if skipped:
        print(_skipping(skipped, trials), *_missing_lines(skipped), sep="\n", file=sys.stderr)
    try:
        if to_run:
            schedule.forget_errors(to_run, folder)
            with Display(to_run, console) as display:
                if options.executor == "ray":
                    from bench.schedule_ray import run_on_ray  # the rest must work where Ray is not installed

                    run_on_ray(to_run, folder, display, threads=threads, gpus=gpus)
                else:
                    schedule.run_serially(to_run, folder, display, threads=threads)
    except KeyboardInterrupt:
        console.print("interrupted: what was finished is kept, the same command goes on from there")
        return INTERRUPTED

    records, _ = load_all(folder)
    external, unreadable = load_external(folder)
    for line in unreadable:
        console.print(f"note: {line}; left out", markup=False)
    board = summarise(sweep, trials, records, absent, load_images(folder, records), external)
    paths = report.write(board, folder)
    console.print(f"wrote {', '.join(str(path) for path in paths)}", markup=False)
    if skipped:
        print(_skipping(skipped, trials), file=sys.stderr)
    expected = [trial for trial in trials if trial.trial_id in records or trial.trial_id not in absent]
    failed = [t for t in expected if t.trial_id not in records or records[t.trial_id].status == "error"]
    return 1 if failed else 0


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
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


def folder_name(sweep: Sweep) -> str:
    """Results of the embedded profile lie under the sweep's name, others beside it."""
    return sweep.name if sweep.profile in ("embedded", "default") else f"{sweep.name}-{sweep.profile}"


def _resources(options: argparse.Namespace, sweep: Sweep) -> tuple[int, int]:
    """Number of GPUs and of cores per trial. Raises ``ConfigError`` for numbers that this machine cannot give."""
    cores, visible = os.cpu_count() or 1, torch.cuda.device_count()
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


def _absent(trials: list[Trial]) -> dict[str, list[Missing]]:
    """What keeps a trial from running on this machine, by the ids of the trials that cannot run."""
    found = {trial.trial_id: list(trial.config.missing()) for trial in trials}
    return {trial_id: items for trial_id, items in found.items() if items}


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
    trials: list[Trial],
    counts: dict[str, dict[str, int]],
    records: dict[str, TrialRecord],
    folder: Path,
) -> None:
    """The trials with their sizes and states, and what is missing to run them."""
    to_run = pending(trials, records)
    absent = _absent(to_run)
    table = Table("trial", *(escape(axis.name) for axis in sweep.axes), "seed", "parameters", "trainable", "state")
    for trial in trials:
        size = counts[trial.trial_id]
        record = records.get(trial.trial_id)
        state = "to run" if record is None else "error, to run again" if record.status == "error" else record.status
        if trial.trial_id in absent:
            state = f"missing {', '.join(dict.fromkeys(item.kind for item in absent[trial.trial_id]))}"
        numbers = (f"{size['total']:,}", f"{size['trainable']:,}") if size else ("–", "–")
        table.add_row(trial.trial_id, *map(escape, trial.point), str(trial.seed), *numbers, state)
    console.print(f"{sweep.name} ({sweep.profile}): {sweep.question}", markup=False)
    console.print(table)
    console.print(f"{len(to_run) - len(absent)} of {len(trials)} trials to run; records in {folder}", markup=False)
    for line in _missing_lines(trials):
        console.print(line, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
