"""Rebuilds a report from records alone: ``python -m bench.report results/adapter_rank [more folders] --out DIR``.

Results are given as folders or as bundles. The same records give the same files, byte for byte.
"""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import report
from bench.config.errors import ConfigError
from bench.leaderboard import results
from bench.leaderboard.against import against
from bench.leaderboard.merge import merge
from bench.leaderboard.results import Results
from bench.leaderboard.select import select
from bench.memory.sweep_predictions import keep_predictions, predictions
from bench.records.store import check_writable
from bench.report import bundle, terminal
from bench.system.console import ArgumentParser, Console, complain, console_of_command
from bench.system.files import TargetError, check_targets, remove_unfinished
from models.core.paths import expanded


def main(arguments: list[str]) -> int:
    """Runs the command. Exit code: 0; 1 if ``--against`` finds something worse; 2 for wrong input or no comparison."""
    options = _parser().parse_args(_joined(arguments))
    console = console_of_command(options.quiet)

    def say(text: str) -> None:
        console.print(text, markup=False)

    with ExitStack() as stack:
        try:
            out = _out(options)
            _check_targets(options, out)
            if options.predict:
                for folder in filter(Path.is_dir, options.results):
                    keep_predictions(folder, results.load(folder)[0].trials, say)
            found = merge_all(options.results, stack, say)
            if options.predict:  # those of bundles, which are not written to
                found = replace(found, predicted=predictions(found.trials, found.predicted, say))
            found = select(found, options.where, options.sort)
            if out is not None:
                check_writable(out)
                remove_unfinished(out)
            if options.bundle:
                check_writable(options.bundle.parent)
            other = merge_all([options.against], stack, say) if options.against else None
            if other is not None:  # a condition selects on both sides, or what it leaves out would be missing
                other = select(other, options.where)
            if out is not None:
                paths = report.write(found, out, say)
            if options.bundle:
                count = bundle.pack(found, options.bundle, options.with_weights)
        except (ConfigError, TargetError) as error:
            complain(error)
            return 2
        if other is None:
            terminal.show(found.board(), console)
        if out is not None:
            say(report.wrote(paths, out))
        if options.bundle:
            say(f"packed {count} files into {options.bundle}")
        return _gate(found, other, console) if other is not None else 0


def merge_all(paths: list[Path], stack: ExitStack, say: Callable[[str], None]) -> Results:
    """Returns the results of all folders and bundles as one; bundles stay unpacked until the stack closes."""
    parts = []
    for path in paths:
        part, notes = results.load(stack.enter_context(bundle.opened(path)))
        for line in notes:
            say(f"note: {line}")
        parts.append(part)
    merged, notes = merge(parts)
    for line in notes:
        say(f"note: {line}")
    return merged


def _out(options: argparse.Namespace) -> Path | None:
    """Returns the folder of the report; ``None`` if the options ask for no report."""
    if options.out is not None:
        return options.out
    if options.against or options.bundle:
        return None
    if len(options.results) > 1 or options.results[0].is_file():
        raise ConfigError(
            "give a folder for the report, as in --out DIR: several results, or a bundle, have no folder of their own"
        )
    if options.where or options.sort:
        raise ConfigError(
            "give a folder for the report, as in --out DIR: a selection does not replace the sweep's own report"
        )
    return options.results[0]


def _check_targets(options: argparse.Namespace, out: Path | None) -> None:
    """Raises ``TargetError`` if a file of the report would replace an input, or something that is no file."""
    targets = [] if out is None else report.targets(out)
    if options.bundle:
        targets.append(options.bundle)
    given = filter(None, [*options.results, options.against])
    check_targets(targets, itertools.chain.from_iterable(_read_from(path) for path in given))


def _read_from(path: Path) -> Iterator[Path]:
    """Yields the files behind a report of ``path``: the bundle, or all files of the folder except its report."""
    if path.is_file():
        yield path
    else:
        reports = {*report.targets(path), *(path / report.FIGURES).glob("*")}
        yield from (file for file in path.rglob("*") if file not in reports)


def _gate(new: Results, old: Results, console: Console) -> int:
    verdicts = against(new, old)
    terminal.show_verdicts(verdicts, console)
    if not verdicts.compared:
        complain("nothing could be compared: no configuration has comparable records in both")
        return 2
    for finding in verdicts.worse:
        complain(f"WORSE: {finding.row}: {finding.quantity}: {finding.old} -> {finding.new}")
    return 1 if verdicts.worse else 0


def _joined(arguments: list[str]) -> list[str]:
    """Joins ``--sort -key`` to ``--sort=-key``, because argparse takes ``-key`` for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--sort":
            joined[-1] = f"--sort={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.report", description="Rebuild a leaderboard from records.")
    parser.add_argument(
        "results", nargs="+", type=expanded, help="results folders or bundles, e.g. results/adapter_rank"
    )
    parser.add_argument(
        "--out", type=expanded, metavar="DIR", help="folder of the report (default: the results folder)"
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="COND", help="e.g. 'model.adapter.rank == 8 and test.mae < 0.1'"
    )
    parser.add_argument(
        "--sort", default="", metavar="KEY", help="e.g. test.s_measure, best first; -KEY is the reverse"
    )
    parser.add_argument("--predict", action="store_true", help="also predict GPU memory (seconds for every model)")
    parser.add_argument("--bundle", type=expanded, metavar="ZIP", help="pack results, tables and figures into one file")
    parser.add_argument("--with-weights", action="store_true", help="put the trained weights into the bundle, too")
    parser.add_argument(
        "--against", type=expanded, metavar="OLD", help="exit with 1 if these results are worse than OLD's"
    )
    parser.add_argument("--quiet", action="store_true", help="print errors only")
    return parser


if __name__ == "__main__":
    sys.exit(command.run(main))
