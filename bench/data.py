"""Benchmark sets by name: ``python -m bench.data list``, ``check ROOT``, ``fetch NAME`` and ``recipe TASK``."""

from bench.system import command

if __name__ == "__main__":
    command.begin()  # the imports below take seconds

import argparse
import json
import sys

import yaml
from rich.markup import escape
from rich.table import Table

from bench.datasets import DataError
from bench.datasets.core.catalogue import BenchmarkSet, catalogue
from bench.datasets.core.check import SetReport, as_json, check
from bench.datasets.core.download import DownloadError, download
from bench.datasets.masks.reading import add_options, reading_of
from bench.system.console import ArgumentParser, Console, complain, console_of_command
from bench.system.files import TargetError, check_targets, write_whole
from bench.watching.display import loading
from models.core.paths import expanded
from models.core.registry import did_you_mean

SHOWN = 20
"""Problems or notes of a set that are printed at most."""


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 no problems, 1 the data have problems or a person must act, 2 the input is wrong."""
    options = _parser().parse_args(arguments)
    console = console_of_command()
    try:
        return options.run(options, console)
    except (UsageError, TargetError) as error:
        complain(error)
        return 2


class UsageError(ValueError):
    """A mistake in the command line, in one line."""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench.data", description="Benchmark sets by name.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="the sets and tasks that are known by name")
    command.set_defaults(run=_list)
    command = commands.add_parser("check", help="find the sets below a folder and check every file")
    command.add_argument("root", type=expanded)
    command.add_argument("--exif", choices=("auto", "shown", "stored"), default="auto", help="default: auto")
    add_options(command)
    command.add_argument("--json", type=expanded, metavar="FILE", help="write the report there too")
    command.set_defaults(run=_check)
    command = commands.add_parser("fetch", help="print the sources of a set; with --to, download its files")
    command.add_argument("name", help="a set, e.g. DUTS-TR")
    command.add_argument("--to", type=expanded, metavar="DIR", help="download into this folder")
    command.set_defaults(run=_fetch)
    command = commands.add_parser("recipe", help="print a sweep file of a task's benchmark")
    command.add_argument("task", help="e.g. salient")
    command.add_argument("--root", default="data", help="folder that holds the sets (default: data)")
    command.set_defaults(run=_recipe)
    return parser


def _list(options: argparse.Namespace, console: Console) -> int:
    """Prints the known sets and tasks."""
    known = catalogue()
    table = Table("set", "task", "role", "pairs", "download", "terms", title="Benchmark sets")
    for name, entry in known.sets.items():
        pairs = "unknown" if entry.pairs is None else f"{entry.pairs:,}"
        table.add_row(name, entry.task, entry.role, pairs, _access(entry), entry.terms)
    console.print(table, soft_wrap=False)
    table = Table("task", "train", "test", "protocol", "metrics", "recipe", title="Tasks")
    for name, task in known.tasks.items():
        settings: dict[str, float] = {}
        for part in task.recipe.values():
            settings |= part
        recipe = ", ".join(f"{key} {value:g}" for key, value in settings.items())
        for position, variant in enumerate((task, *task.variants)):
            first = (name, ", ".join(variant.train), ", ".join(variant.test))
            rest = ("", "", "") if position else (task.protocol, ", ".join(task.metrics), recipe)
            table.add_row(*first, *rest)
    console.print(table, soft_wrap=False)
    return 0


def _access(entry: BenchmarkSet) -> str:
    """Describes how a set can be obtained."""
    if any(source.files for source in entry.sources):
        return "direct"
    return "by hand" if any(source.access == "open" for source in entry.sources) else "ask for access"


def _check(options: argparse.Namespace, console: Console) -> int:
    """Prints a report on the sets below a folder. Raises ``UsageError`` and ``TargetError``."""
    if not options.root.is_dir():
        what = "is no folder" if options.root.exists() else "does not exist"
        raise UsageError(f"{options.root} {what}. Give the folder that holds the sets")
    if options.json:
        check_targets([options.json], options.root.rglob("*"))
    try:
        reading = reading_of(options)._replace(exif=options.exif)
        reports = check(options.root, reading, loading(console))
    except DataError as error:
        raise UsageError("\n".join(error.errors)) from None
    except OSError as error:
        raise UsageError(f"{options.root}: cannot be searched ({error})") from None
    if not reports:
        usual = ", ".join("/".join(names) for names in catalogue().conventions.values())
        raise UsageError(f"{options.root}: holds no image folder with a mask folder beside it. Known are {usual}")
    table = Table("set", "role", "pairs", "expected", "problems", "notes", "fingerprint", "images")
    for report in reports:
        expected = "unknown" if report.expected is None else f"{report.expected:,}"
        counts = (f"{report.pairs:,}", expected, str(len(report.problems)), str(len(report.notes)))
        name = report.name if report.known else "no known set"
        table.add_row(name, report.role or "", *counts, report.fingerprint[:12], escape(report.images))
    console.print(table, soft_wrap=False)
    for report in reports:
        _print_report(report, console)
    if options.json:
        try:
            text = json.dumps(as_json(reports), indent=1, ensure_ascii=False)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            write_whole(options.json, lambda file: file.write(text.encode()))
        except OSError as error:
            raise UsageError(f"{options.json}: cannot be written ({error})") from None
    return 1 if any(report.problems for report in reports) else 0


def _print_report(report: SetReport, console: Console) -> None:
    """Prints the details of one set."""
    console.print(f"\n{report.name} (layout {report.pack}: {report.images}, {report.masks})", markup=False)
    console.print(f"  fingerprint {report.fingerprint}", markup=False)
    if not report.known:
        use = f"dataset.images={report.images} dataset.masks={report.masks}"
        console.print(f"  no known set by its folders' names. To use it as it is: {use}", markup=False)
    kinds = "; ".join(f"{count:,} x {kind}" for kind, count in report.mask_kinds.items())
    console.print(f"  masks: {kinds or 'none could be read'}", markup=False)
    for word, lines in (("problem", report.problems), ("note", report.notes)):
        for line in lines[:SHOWN]:
            console.print(f"  {word}: {line}", markup=False)
        if len(lines) > SHOWN:
            console.print(f"  and {len(lines) - SHOWN} more of this kind (all of them with --json FILE)", markup=False)


def _fetch(options: argparse.Namespace, console: Console) -> int:
    """Prints the sources of a set and, with ``--to``, downloads its files. Raises ``UsageError``."""
    known = catalogue().sets
    name = {key.lower(): key for key in known}.get(options.name.lower())
    if name is None:
        hint = did_you_mean(options.name.upper(), list(known))
        raise UsageError(f"no set '{options.name}'{hint} Known: {', '.join(known)}")
    entry = known[name]
    console.print(f"{name}: {entry.paper}\n  terms: {entry.terms}", markup=False)
    for source in entry.sources:
        by_hand = "" if source.files else " (by hand)"
        access = "a person must ask for access" if source.access == "ask" else f"open{by_hand}"
        console.print(f"  from: {source.page}, {access}{'; ' if source.how else ''}{source.how}", markup=False)
        for file in source.files:
            console.print(f"    {file.url} ({file.digest or 'no checksum published'})", markup=False)
    if options.to is None:
        return 0
    files = next((source.files for source in entry.sources if source.files), [])
    if not files:
        complain(f"{name}: none of its sources can be downloaded from here; a person has to follow one")
        return 1
    failed = 0
    for file in files:
        try:
            with console.status("") as status:

                def watch(done: int, total: int | None, url: str = file.url) -> None:
                    """Shows how much of the file has arrived."""
                    of = f" of {total / 2**20:,.0f}" if total else ""
                    status.update(f"{url}: {done / 2**20:,.0f}{of} MiB")

                path, checked = download(file, options.to, watch)
            console.print(f"  {path}: {checked}", markup=False)
        except DownloadError as error:
            complain(error)
            failed += 1
    if failed:
        pages = " or ".join(source.page for source in entry.sources)
        complain(f"{name}: if an address is gone, look at {pages}")
    else:
        console.print(f"  unpack into {options.to}, then: python -m bench.data check {options.to}", markup=False)
    return 1 if failed else 0


def _recipe(options: argparse.Namespace, console: Console) -> int:
    """Prints a sweep file that reproduces the benchmark of a task. Raises ``UsageError``."""
    tasks = catalogue().tasks
    task = tasks.get(options.task)
    if task is None:
        raise UsageError(f"no task '{options.task}'{did_you_mean(options.task, list(tasks))} Known: {', '.join(tasks)}")
    sweep = {
        "name": f"{options.task}_benchmark",
        "question": f"How does the model score on the {options.task} benchmark?",
        "base": {
            "model": {"name": "sam3_unet"},
            "dataset": {"name": "benchmark", "task": options.task, "root": options.root},
            **task.recipe,
            "protocol": {"name": task.protocol},
        },
        "axes": {"model": {"SAM3-UNet": {"name": "sam3_unet"}}},
        "seeds": [0, 1, 2],
    }
    print(f"# Recipe: {task.recipe_source}")
    print(f"# Metrics of the papers' table: {', '.join(task.metrics)} (protocol {task.protocol})")
    for variant in task.variants:
        print(f"# Also: dataset.train=[{','.join(variant.train)}] dataset.test=[{','.join(variant.test)}]")
    print(yaml.safe_dump(sweep, sort_keys=False, default_flow_style=None, width=120), end="", flush=True)
    return 1 if getattr(sys.stdout, "lost", False) else 0  # the output is all that there is


if __name__ == "__main__":
    sys.exit(command.run(main))
