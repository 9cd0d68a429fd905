"""Rebuilds a report from records alone: ``python -m bench.report results/adapter_rank [more folders] --out DIR``."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from bench import report
from bench.config import ConfigError
from bench.report import results
from bench.run import LOG_WIDTH
from bench.sweep import check_writable


def main(arguments: list[str]) -> int:
    """Exit code: 0, or 2 when the input is wrong."""
    options = _parser().parse_args(arguments)
    width = None if sys.stdout.isatty() else LOG_WIDTH
    console = Console(file=sys.stdout, quiet=options.quiet, width=width, soft_wrap=True, highlight=False)
    try:
        out = options.out or options.results[0]
        found, notes = results.load(options.results[0])
        check_writable(out)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for line in notes:
        console.print(f"note: {line}", markup=False)
    paths = report.write(found, out)
    console.print(f"wrote {', '.join(map(str, paths))}", markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.report", description="Rebuild a leaderboard from records.")
    parser.add_argument("results", nargs="+", type=Path, help="a sweep's results folder, e.g. results/adapter_rank")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default: the folder itself)")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
